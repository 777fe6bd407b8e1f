//! Makes the view durable in a thread of its own, off the path of the acknowledgement. Not for safety, which
//! the journal gives, but so that sled always recovers and little is applied again at the next start.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::model::Message;
use crate::store::{Error, View};

/// Flush after this many messages: sled recovers if less than a segment of its log is unsynced.
const FLUSH_MESSAGES: usize = 256;
/// Flush after this many bytes of bodies.
const FLUSH_BYTES: usize = 2 << 20;
/// How many times as much may be written while a flush is under way, before the writer waits.
const AHEAD: usize = 4;

#[derive(Debug, Default)]
struct Written {
    messages: usize,
    bytes: usize,
    stop: bool,
    failed: bool,
}

impl Written {
    fn due(&self, times: usize) -> bool {
        self.messages >= FLUSH_MESSAGES * times || self.bytes >= FLUSH_BYTES * times
    }
}

/// Counts what was written and has it flushed.
#[derive(Debug, Default)]
pub(super) struct Flusher {
    written: Mutex<Written>,
    changed: Condvar,
}

impl Flusher {
    /// Starts the thread; it ends with [`Self::stop`].
    pub(super) fn start(view: &Arc<View>) -> Result<(Arc<Self>, JoinHandle<()>), Error> {
        let flusher = Arc::new(Self::default());
        let (own, view) = (Arc::clone(&flusher), Arc::clone(view));
        let thread = std::thread::Builder::new()
            .name("flush".into())
            .spawn(move || own.run(&view))
            .map_err(Error::io(
                "start a thread for",
                std::path::Path::new("sled"),
            ))?;
        Ok((flusher, thread))
    }

    /// Messages were written. Waits while too much is not flushed.
    pub(super) fn wrote(&self, messages: &[Arc<Message>]) -> Result<(), Error> {
        let mut written = self.lock();
        written.messages += messages.len();
        written.bytes += messages
            .iter()
            .map(|message| message.body.as_bytes().len())
            .sum::<usize>();
        if written.due(1) {
            self.changed.notify_all();
        }
        let behind = |written: &mut Written| written.due(AHEAD) && !written.failed;
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

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, view: &View) {
        loop {
            let idle = |written: &mut Written| !written.due(1) && !written.stop;
            let waited = self.changed.wait_while(self.lock(), idle);
            let mut written = waited.unwrap_or_else(PoisonError::into_inner);
            if written.stop {
                return;
            }
            let (messages, bytes) = (written.messages, written.bytes);
            drop(written);
            let done = view.flush();
            written = self.lock();
            match done {
                Ok(()) => {
                    written.messages -= messages;
                    written.bytes -= bytes;
                }
                Err(e) => {
                    tracing::error!(error = e.cause(), "the readable view cannot be flushed");
                    written.failed = true;
                }
            }
            drop(written);
            self.changed.notify_all();
            if self.lock().failed {
                return;
            }
        }
    }
}
