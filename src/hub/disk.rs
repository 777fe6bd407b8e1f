//! Is what is written where it belongs, and does the disk take it? Looked at before writes, by those who ask, and
//! once a second by a thread, so that the log tells it though nobody asks.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::error::Error;
use crate::store::{self, Held, Room};

/// A write or sync that takes longer than this is told.
const STALLED_AFTER: Duration = Duration::from_secs(5);
/// Why nothing more is written until a restart: the first cause stays.
#[derive(Debug, Default)]
pub(super) struct Refused(OnceLock<String>);

impl Refused {
    /// From now on nothing is written.
    pub(super) fn set(&self, cause: &(dyn std::error::Error + 'static)) {
        self.0.get_or_init(|| chain(cause));
    }

    /// The cause, if nothing is written.
    pub(super) fn cause(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Whether something may be written.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.cause().map_or(Ok(()), |_| Err(Error::WritesRefused))
    }
}

/// An error and its causes.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// A write or sync that is under way, and since when.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Option<Instant>>);

impl UnderWay {
    /// Does work that is told when it takes long.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        *self.lock() = Some(Instant::now());
        let done = work();
        *self.lock() = None;
        done
    }

    /// Keeps writes and syncs from ending, as a disk does that is slow.
    #[cfg(test)]
    pub(super) fn hold(&self) -> MutexGuard<'_, Option<Instant>> {
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stalled(&self) -> Option<Duration> {
        let taken = self.lock().map(|since| since.elapsed());
        taken.filter(|taken| *taken >= STALLED_AFTER)
    }
}

/// The disks under the data directory.
#[derive(Debug)]
pub(super) struct Disk {
    held: Held,
    /// What was told of [`Self::in_place`].
    moved: Mutex<Option<String>>,
    pub(super) journal: Arc<UnderWay>,
    pub(super) view: Arc<UnderWay>,
    free_min_bytes: u64,
}

impl Disk {
    pub(super) fn new(held: Held, view: &Arc<UnderWay>, free_min_bytes: u64) -> Self {
        Self {
            held,
            moved: Mutex::new(None),
            journal: Arc::default(),
            view: Arc::clone(view),
            free_min_bytes,
        }
    }

    /// Whether the paths still name what was opened. A change is logged.
    pub(super) fn in_place(&self) -> Result<(), Error> {
        let now = match self.held.check() {
            Err(e @ store::Error::Moved { .. }) => Some(e.to_string()),
            // What cannot be looked at now may be there.
            Ok(()) | Err(_) => None,
        };
        let mut told = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != now {
            if let Some(what) = &now {
                error!(
                    what,
                    "the server no longer writes to its data directory: writes are refused. Put back what was moved \
                     and writes go on, or restart the server on what is there"
                );
            } else {
                info!("the data directory is in its place again: writes go on");
            }
            told.clone_from(&now);
        }
        now.map_or(Ok(()), |what| Err(Error::DataMoved { what }))
    }

    /// Whether it was told that they do not.
    pub(super) fn is_moved(&self) -> bool {
        let told = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        told.is_some()
    }

    /// Whether there is as much room as is kept free, on each disk.
    pub(super) fn roomy(&self) -> Result<(), Error> {
        match self.held.room() {
            Ok(Room { bytes, .. }) if bytes < self.free_min_bytes => Err(Error::DiskFull {
                free: bytes,
                needed: self.free_min_bytes,
            }),
            _ => Ok(()),
        }
    }

    /// The disk with the least room.
    pub(super) fn room(&self) -> Option<Room> {
        self.held.room().ok()
    }

    /// Whether a write or sync takes long.
    pub(super) fn answers(&self) -> Result<(), Error> {
        let stalled = self.journal.stalled().max(self.view.stalled());
        stalled.map_or(Ok(()), |taken| {
            Err(Error::DiskStalled {
                seconds: taken.as_secs(),
            })
        })
    }
}
