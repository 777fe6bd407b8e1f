//! Reads once, while the server runs, what a start has no time for: after a stop that was not clean all of the readable
//! view, and the full segments of the journal. Damage should be known before it is met, and while there are still backups
//! that mend it.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::guard::guarded;
use crate::hub::Inner;
use crate::hub::threads::Helper;
use crate::store::{Command, Error, Follower, View};

/// Read between two pauses. With them, at most about 100 MB a second: the disk is there for others.
const PIECE_BYTES: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(10);
/// How long a stop waits for the check of the view; then the next start does it again.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// What a row costs besides its bytes.
const ROW_BYTES: usize = 256;

/// Starts the thread; it ends by itself when all is read. `unchecked`: the view, if it is to be read.
pub(super) fn start(
    inner: &Arc<Inner>,
    unchecked: Option<Arc<View>>,
    full_segments: Follower,
) -> Result<Helper, Error> {
    let inner = Arc::clone(inner);
    Helper::start("check", "journal".as_ref(), move |stopped| {
        let mut pace = Pace::new(stopped);
        if let Some(view) = unchecked {
            check_view(&inner, &view, &mut pace);
        }
        report(&inner.journal_damage, read(full_segments, &mut pace));
    })
}

/// Leaves the disk and the processor to others, and ends at a stop.
struct Pace {
    stopped: Receiver<()>,
    bytes: usize,
    /// When the stop was seen.
    since: Option<Instant>,
}

impl Pace {
    fn new(stopped: Receiver<()>) -> Self {
        Self {
            stopped,
            bytes: 0,
            since: None,
        }
    }

    /// So many bytes were read. Whether to read on: at a stop, and no longer.
    fn goes_on(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        if self.bytes >= PIECE_BYTES {
            self.bytes = 0;
            self.pause();
        }
        self.since.is_none()
    }

    /// The same, without pauses and for a while longer at a stop.
    fn may_finish(&mut self, bytes: usize) -> bool {
        self.goes_on(bytes)
            || self
                .since
                .is_none_or(|since| since.elapsed() < STOP_PATIENCE)
    }

    fn pause(&mut self) {
        let stopped = self.since.is_some()
            || self.stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout);
        if stopped {
            self.since.get_or_insert_with(Instant::now);
        }
    }
}

/// Reads all of the view. A panic of sled is damage.
fn check_view(inner: &Inner, view: &View, pace: &mut Pace) {
    // What the last run has not sealed is sealed first: while nothing is written, the check sees more.
    while inner.tail.oldest().is_some() && inner.not_refused().is_ok() && pace.goes_on(PIECE_BYTES)
    {
    }
    let began = Instant::now();
    let checked = guarded(view.directory(), || {
        view.check_while_written(&mut |bytes| pace.may_finish(ROW_BYTES + bytes))
    });
    match checked {
        Ok(true) => {
            inner.checked.store(true, Ordering::Release);
            info!(
                ms = began.elapsed().as_millis(),
                "the readable view is sound"
            );
        }
        Ok(false) => {}
        Err(e) => drop(inner.read_failed(&e)),
    }
}

fn read(mut entries: Follower, pace: &mut Pace) -> Result<(), Error> {
    while let Some((_, entry)) = entries.next_entry()? {
        if !pace.goes_on(entry.commands.iter().map(Command::weight).sum()) {
            break;
        }
    }
    Ok(())
}

fn report(damage: &OnceLock<String>, found: Result<(), Error>) {
    if let Err(e) = found {
        let text = damage.get_or_init(|| e.to_string());
        error!(
            damage = text,
            "an old part of the journal cannot be read. The readable view (sled) has all of it and is served, but it \
             could not be rebuilt, nor could a copy of this directory be started: repair it now"
        );
    }
}
