//! Reads the full segments of the journal once while the server runs. A start reads the last one only, for a
//! journal may be large; but damage should be known while there are still backups that mend it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tracing::error;

use super::Inner;
use super::open::joined;
use crate::store::{Command, Error, Follower};

/// Read between two pauses. With them, at most about 100 MB a second: the disk is there for others.
const PIECE_BYTES: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The thread that reads.
#[derive(Debug)]
pub(super) struct Check {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Check {
    /// Starts it; it ends by itself when all is read.
    pub(super) fn start(inner: &Arc<Inner>, full_segments: Follower) -> Result<Self, Error> {
        let (stop, stopped) = sync_channel(0);
        let inner = Arc::clone(inner);
        let work = move || report(&inner.journal_damage, read(full_segments, &stopped));
        let thread = Builder::new()
            .name("check".into())
            .spawn(work)
            .map_err(Error::io("start a thread for", "journal".as_ref()))?;
        Ok(Self { stop, thread })
    }

    /// Ends it, within a pause.
    pub(super) fn stop(self) {
        drop(self.stop);
        joined("check", self.thread);
    }
}

fn read(mut entries: Follower, stopped: &Receiver<()>) -> Result<(), Error> {
    let mut bytes = 0;
    while let Some((_, entry)) = entries.next_entry()? {
        bytes += entry.commands.iter().map(Command::weight).sum::<usize>();
        if bytes >= PIECE_BYTES {
            bytes = 0;
            if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                break;
            }
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
