//! Opens a data directory, recovers what the last run left, starts the stages; and closes in order.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tracing::{info, warn};

use super::guard::{close_view, guarded, unshared};
use super::rebuild::upgrade;
use super::recover::{Recovered, recover};
use super::{check, watch};
use crate::error;
use crate::hub::disk::{Disk, chain};
use crate::hub::live::{Progress, Turns, Waiters, Watermark};
use crate::hub::proposal::Pending;
use crate::hub::read::conversations::LISTS_MAX;
use crate::hub::threads::{Running, joined, spawn};
use crate::hub::write::accept::QUEUE_PROPOSALS;
use crate::hub::write::apply::{Applier, ApplyStage};
use crate::hub::write::journal::JournalStage;
use crate::hub::write::times::Times;
use crate::hub::{Durability, Hub, Inner, Options};
use crate::store::{Directory, Error, Held, Journal, explain_full};

/// How long a stop goes on sealing windows; the next start applies again what is not sealed.
const SEAL_PATIENCE: Duration = Duration::from_secs(2);

/// How a hub was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The next start trusts the readable view as it is.
    Cleanly,
    /// The same, but the check that an earlier stop made necessary had not ended: the next start begins it again.
    Unchecked,
    /// The next start checks it, or rebuilds it; and why.
    Unmarked(String),
    /// It was closed before.
    Before,
}

impl Hub {
    /// Opens a data directory, or makes one, and starts the stages. Long work is logged as it goes on.
    pub fn open(options: Options) -> Result<Self, Error> {
        let data = options.data.clone();
        Self::open_directory(options).map_err(|e| explain_full(&data, e))
    }

    fn open_directory(options: Options) -> Result<Self, Error> {
        let mut directory = Directory::open(&options.data)?;
        upgrade(&mut directory, &options)?;
        let always = options.durability == Durability::Always;
        let mut journal = Journal::open(&directory, always)?;
        let end = journal.last_offset();
        directory.check_end(end)?;
        let trust = directory.trust(end)?;
        let fork = directory.must_fork();
        directory.must_have_room()?;
        directory.begin(!always, &journal.end()?)?;
        let mut recovered = recover(&directory, &mut journal, trust, fork, &options)?;
        journal.cut_tail()?;
        if fork {
            directory.fork(recovered.state.applied.heads, &journal.end()?)?;
            journal.go_on_as(directory.lineage().log);
            recovered.state.applied.log = directory.lineage().log;
        }
        directory.note_sled()?;
        start(options, directory, journal, recovered)
    }

    /// Refuses writes and new feeds, and tells those that wait; then everything accepted is committed. Blocks.
    /// Only the first call does it.
    pub fn close(&self) -> Closed {
        self.begin_close();
        self.0
            .queue
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let running = self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match running.map(|running| self.finish(running)) {
            Some(Ok(true)) => Closed::Cleanly,
            Some(Ok(false)) => {
                info!(
                    "the check of the readable view had not ended: the next start begins it again"
                );
                Closed::Unchecked
            }
            Some(Err(why)) => {
                warn!(
                    why,
                    "the stop left no mark: the next start checks the readable view"
                );
                Closed::Unmarked(why)
            }
            None => Closed::Before,
        }
    }

    /// Refuses writes and new feeds, and tells all feeds to end.
    pub fn begin_close(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.waiters.close();
    }

    /// Whether the view is marked as sound; `Err`: why nothing is known of it.
    fn finish(&self, running: Running) -> Result<bool, String> {
        let Running {
            directory,
            journal,
            apply,
            seal,
            sealer,
            check,
            watch,
        } = running;
        check.stop();
        watch.stop();
        let journal = joined("journal", journal);
        let offset = joined("apply", apply).flatten();
        sealer.tail.end(SEAL_PATIENCE);
        let sealed = joined("seal", seal);
        drop(sealer);
        let view = self
            .0
            .view
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let view = view.and_then(unshared);
        let view = view.ok_or("reads of the readable view are still under way")?;
        let threads = offset.filter(|_| journal.is_some() && sealed.is_some());
        let sound = self.may_be_marked(threads);
        let checked = self.0.checked.load(Ordering::Acquire);
        // sled writes while it is dropped too, and panics where it cannot.
        let closed = guarded(directory.path(), || {
            if let Ok(offset) = &sound {
                close_view(view, &directory, self.0.options.cache_bytes, *offset)?;
                // What nobody has looked at is not called sound.
                return if checked {
                    directory.close(*offset)
                } else {
                    Ok(())
                };
            }
            drop(view);
            Ok(())
        });
        sound.and_then(|_| closed.map_err(|e| chain(&e)).map(|()| checked))
    }

    /// The last applied entry, if the view holds all up to it, and is still the one in the directory.
    fn may_be_marked(&self, offset: Option<u64>) -> Result<u64, String> {
        if let Some(cause) = self.0.refused.cause() {
            return Err(cause.to_owned());
        }
        if self.0.damage.is_found() {
            return Err(error::Error::StoreDamaged.to_string());
        }
        // Whatever is there now is not ours to open and to mark.
        self.0.disk.in_place().map_err(|e| e.to_string())?;
        offset.ok_or_else(|| "a thread that writes panicked".into())
    }
}

fn start(
    options: Options,
    directory: Directory,
    journal: Journal,
    recovered: Recovered,
) -> Result<Hub, Error> {
    let Recovered {
        sealer,
        state,
        follower,
        memberships,
        channels,
        unchecked,
    } = recovered;
    let view = Arc::clone(&sealer.view);
    let (sender, queue) = sync_channel(QUEUE_PROPOSALS);
    let applied = *state.applied();
    let held = Held::new(&directory, &journal)?;
    let inner = Arc::new(Inner {
        lineage: directory.lineage(),
        floor: applied.floor,
        proposer: random(),
        queue: RwLock::new(Some(sender)),
        queued_bytes: Arc::new(AtomicUsize::new(0)),
        at_ms: AtomicU64::new(applied.at_ms),
        group_changes: Arc::default(),
        pending: Pending::default(),
        progress: Progress::default(),
        journal_size: journal.size(),
        journal_damage: OnceLock::new(),
        view: RwLock::new(Some(Arc::clone(&view))),
        memberships,
        channels,
        tail: Arc::clone(&sealer.tail),
        told: Watermark::default(),
        waiters: Waiters::new(),
        lists: Turns::new(LISTS_MAX),
        disk: Disk::new(held, &sealer.under_way, options.disk_free_min_bytes),
        refused: Arc::clone(&sealer.refused),
        damage: Arc::clone(&sealer.damage),
        checked: AtomicBool::new(!unchecked),
        closing: AtomicBool::new(false),
        running: Mutex::new(None),
        options,
    });
    inner.told.raise(applied.heads);
    inner.progress.applied(applied.offset, applied.heads);
    let full_segments = journal.full_segments()?;
    let times = Times::after(applied.at_ms, &view, &journal)?;
    let unchecked = unchecked.then(|| Arc::clone(&view));
    let applier = Applier::new(ApplyStage {
        inner: Arc::clone(&inner),
        view,
        state,
        follower: Some(follower),
    });
    let stage = JournalStage::new(&inner, journal, queue, times, &applier);
    let path = directory.path().to_owned();
    let running = Arc::clone(&applier);
    let apply = spawn("apply", &path, move || running.run())?;
    applier.runs_in(apply.thread());
    let journal = spawn("journal", &path, move || stage.run())?;
    let running = Running {
        directory,
        journal,
        apply,
        seal: sealer.clone().start()?,
        sealer,
        check: check::start(&inner, unchecked, full_segments)?,
        watch: watch::start(&inner)?,
    };
    *inner.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    Ok(Hub(inner))
}

fn random() -> u64 {
    getrandom::u64().expect("the operating system gives random bytes")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;

    fn open(data: &Path) -> Hub {
        Hub::open(Options::small(data)).unwrap()
    }

    #[test]
    fn after_a_failed_flush_writes_are_refused_at_once_and_a_stop_leaves_no_mark() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let mark = data.join("clean");
        for fails in [true, false] {
            let hub = open(data);
            assert!(hub.ready().is_ok());
            if fails {
                let running = hub.0.running.lock().unwrap();
                running
                    .as_ref()
                    .unwrap()
                    .sealer
                    .fail(&Error::View("as the disk fails".into()));
            }
            assert_eq!(hub.ready().is_err(), fails, "before any other write");
            hub.close();
            assert_eq!(mark.exists(), !fails);
        }
    }

    #[test]
    fn a_view_that_was_not_checked_to_the_end_is_not_marked_and_the_next_start_checks_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let mark = data.join("clean");
        open(data).close();
        std::fs::remove_file(&mark).unwrap();
        let hub = open(data);
        // Its end is held back: it notes it only then.
        let began = Instant::now();
        while !hub.0.checked.swap(false, Ordering::AcqRel) {
            assert!(began.elapsed().as_secs() < 30, "it is not checked");
            std::thread::yield_now();
        }
        assert_eq!(hub.close(), Closed::Unchecked);
        assert!(!mark.exists());
        let hub = open(data);
        // Small as it is, the stop has the time for it.
        assert_eq!(hub.close(), Closed::Cleanly);
        assert!(mark.exists());
        let hub = open(data);
        assert!(hub.0.checked.load(Ordering::Acquire), "it need not be");
        hub.close();
    }
}
