//! Load: eight writers and six readers that note all they send, get and read in one ledger.
//!
//! They go on over crashes: a writer sends again, with its keys, what was not acknowledged; a reader
//! goes on with its cursor and must neither miss nor repeat anything.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::ledger::{Change, Ledger};
use crate::random::Random;
use crate::reader::Reader;
use crate::support::Process;
use crate::writer::Writer;

/// Users whose memberships come and go.
pub(crate) const USERS: [&str; 8] = ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7"];
/// Users who are members of the group of the same number from its beginning.
pub(crate) const ANCHORS: [&str; 4] = ["a0", "a1", "a2", "a3"];
/// The groups; who joins the first may see all of its history.
pub(crate) const GROUPS: [&str; 4] = ["g0", "g1", "g2", "g3"];

/// All writers and readers, and what they know.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) ledger: Mutex<Ledger>,
    writers: Vec<Writer>,
    pub(crate) readers: Vec<Reader>,
}

/// What the test tells its writers and readers while they run.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicBool,
    down: AtomicBool,
}

/// Ends writers and readers also when the test fails while they run.
struct StopOnDrop<'a>(&'a Control);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Every name that direct messages go between.
pub(crate) fn everybody() -> Vec<&'static str> {
    USERS.into_iter().chain(ANCHORS).collect()
}

impl Control {
    /// From now on no answer is no surprise.
    pub(crate) fn going_down(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    /// Whether the server may be gone.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::SeqCst)
    }

    /// Whether to stop.
    pub(crate) fn is_over(&self) -> bool {
        self.is_down() || self.stop.load(Ordering::SeqCst)
    }
}

impl Load {
    /// Makes the groups and the readers' tokens.
    pub(crate) fn new(process: &Process, rng: &mut Random) -> Self {
        let mut client = process.admin();
        let mut ledger = Ledger::default();
        for (group, anchor) in GROUPS.into_iter().zip(ANCHORS) {
            let history = if group == "g0" { "all" } else { "member" };
            let made = client.put_group(group, &[anchor.to_owned()], history);
            made.unwrap().expect(201);
            ledger.changed(Change {
                group: group.to_owned(),
                user: anchor.to_owned(),
                joins: true,
                low: 0,
                high: 0,
            });
        }
        let readers = ANCHORS.into_iter().chain(["u0", "u1"]);
        Self {
            ledger: Mutex::new(ledger),
            writers: USERS.map(|user| Writer::new(user, rng.split())).into(),
            readers: readers
                .map(|user| Reader::new(user, client.token(user)))
                .collect(),
        }
    }

    /// Runs all writers and readers while `during` does something to the server.
    pub(crate) fn run<T>(
        &mut self,
        process: &mut Process,
        during: impl FnOnce(&mut Process, &Control, &Mutex<Ledger>) -> T,
    ) -> T {
        let control = Control::default();
        let Self {
            ledger,
            writers,
            readers,
        } = self;
        let (control, ledger) = (&control, &*ledger);
        thread::scope(|scope| {
            for writer in writers {
                let client = process.admin();
                scope.spawn(move || writer.run(client, control, ledger));
            }
            for reader in readers {
                let client = process.user(&reader.token);
                scope.spawn(move || reader.run(client, control, ledger));
            }
            let _stop = StopOnDrop(control);
            during(process, control, ledger)
        })
    }

    /// Sends again what was not answered, and checks that repeats are known as such.
    pub(crate) fn settle(&mut self, process: &Process) {
        let mut client = process.admin();
        for writer in &mut self.writers {
            writer.settle(&mut client, &self.ledger);
        }
    }
}
