//! The threads of a hub.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use tracing::warn;

use super::tail::Sealer;
use crate::store::{Directory, Error};

/// The threads of an open hub, and the directory that they work on.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) directory: Directory,
    pub(super) journal: JoinHandle<()>,
    pub(super) apply: JoinHandle<Option<u64>>,
    pub(super) seal: JoinHandle<()>,
    pub(super) sealer: Sealer,
    pub(super) check: Helper,
    pub(super) watch: Helper,
}

/// A thread that helps the others, until it is stopped or has done its work.
#[derive(Debug)]
pub(super) struct Helper {
    name: &'static str,
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Helper {
    /// Starts it. What it is given disconnects at its stop.
    pub(super) fn start(
        name: &'static str,
        path: &Path,
        work: impl FnOnce(Receiver<()>) + Send + 'static,
    ) -> Result<Self, Error> {
        let (stop, stopped) = sync_channel(0);
        let thread = spawn(name, path, move || work(stopped))?;
        Ok(Self { name, stop, thread })
    }

    /// Ends it, and waits for that.
    pub(super) fn stop(self) {
        drop(self.stop);
        joined(self.name, self.thread);
    }
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(Error::io("start a thread for", path))
}

pub(super) fn joined<T>(name: &str, thread: JoinHandle<T>) -> Option<T> {
    thread
        .join()
        .map_err(|_| warn!("the {name} thread panicked"))
        .ok()
}
