//! Makes the view durable in a thread of its own, off the path of the acknowledgement. Not for safety, which
//! the journal gives, but so that sled always recovers and little is applied again at the next start.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::disk::{Refused, UnderWay};
use crate::store::{Error, View, Written};

/// Flush after this many rows, of which a direct message has four: sled recovers if less than a segment of its
/// log is unsynced.
const FLUSH_ROWS: usize = 1024;
/// Flush after this many bytes of bodies.
const FLUSH_BYTES: usize = 2 << 20;
/// How many times as much may be written while a flush is under way, before the writer waits.
const AHEAD: usize = 4;

#[derive(Debug, Default)]
struct Unflushed {
    rows: usize,
    bytes: usize,
    stop: bool,
    failed: bool,
}

impl Unflushed {
    fn due(&self, times: usize) -> bool {
        self.rows >= FLUSH_ROWS * times || self.bytes >= FLUSH_BYTES * times
    }
}

/// Counts what was written and has it flushed.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    written: Mutex<Unflushed>,
    changed: Condvar,
    failure: Arc<Refused>,
    flushing: Arc<UnderWay>,
}

impl Flusher {
    /// Starts the thread; it ends with [`Self::stop`].
    pub(super) fn start(view: &Arc<View>) -> Result<(Arc<Self>, JoinHandle<()>), Error> {
        let flusher = Arc::new(Self::default());
        let (own, view) = (Arc::clone(&flusher), Arc::clone(view));
        let flush = move || view.flush();
        let thread = std::thread::Builder::new()
            .name("flush".into())
            .spawn(move || own.run(&flush))
            .map_err(Error::io(
                "start a thread for",
                std::path::Path::new("sled"),
            ))?;
        Ok((flusher, thread))
    }

    /// An entry was written. Waits while too much is not flushed.
    pub(super) fn wrote(&self, Written { rows, bytes }: Written) -> Result<(), Error> {
        let mut written = self.lock();
        written.rows += rows;
        written.bytes += bytes;
        if written.due(1) {
            self.changed.notify_all();
        }
        let behind = |written: &mut Unflushed| written.due(AHEAD) && !written.failed;
        let written = self
            .changed
            .wait_while(written, behind)
            .unwrap_or_else(PoisonError::into_inner);
        if written.failed {
            Err(Error::View("an earlier flush failed".into()))
        } else {
            Ok(())
        }
    }

    /// Is set when a flush fails: what sled holds on disk is not known then.
    pub(super) fn failure(&self) -> Arc<Refused> {
        Arc::clone(&self.failure)
    }

    /// The flush that is under way.
    pub(super) fn flushing(&self) -> Arc<UnderWay> {
        Arc::clone(&self.flushing)
    }

    /// A flush failed, and is not tried again.
    pub(super) fn fail(&self, cause: &Error) {
        self.failure.set(cause);
        self.lock().failed = true;
        self.changed.notify_all();
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Unflushed> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, flush: &dyn Fn() -> Result<(), Error>) {
        let _ending = Ending(self);
        loop {
            let idle = |written: &mut Unflushed| !written.due(1) && !written.stop;
            let waited = self.changed.wait_while(self.lock(), idle);
            let mut written = waited.unwrap_or_else(PoisonError::into_inner);
            if written.stop {
                return;
            }
            let (rows, bytes) = (written.rows, written.bytes);
            drop(written);
            if let Err(e) = self.flushing.during(flush) {
                tracing::error!(
                    error = e.cause(),
                    "the readable view cannot be flushed: writes are refused until a restart"
                );
                return self.fail(&e);
            }
            written = self.lock();
            written.rows -= rows;
            written.bytes -= bytes;
            drop(written);
            self.changed.notify_all();
        }
    }
}

/// Nobody may wait for a flush that will not come: sled may panic.
struct Ending<'a>(&'a Flusher);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&Error::View("a flush of it panicked".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: Written = Written {
        rows: FLUSH_ROWS,
        bytes: 0,
    };

    #[test]
    fn a_flush_that_panics_fails_those_that_wait_for_it() {
        let flusher = Arc::new(Flusher::default());
        let own = Arc::clone(&flusher);
        let thread = std::thread::spawn(move || own.run(&|| panic!("as sled does")));
        let mut tries = 0;
        while flusher.wrote(DUE).is_ok() {
            tries += 1;
            assert!(tries < 10);
        }
        assert!(thread.join().is_err());
    }

    #[test]
    fn what_is_due_is_flushed() {
        let flusher = Arc::new(Flusher::default());
        let own = Arc::clone(&flusher);
        let (flushed, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            own.run(&|| {
                flushed.send(()).unwrap();
                Ok(())
            });
        });
        flusher.wrote(DUE).unwrap();
        told.recv_timeout(std::time::Duration::from_secs(10))
            .unwrap();
        flusher.stop();
        thread.join().unwrap();
    }
}
