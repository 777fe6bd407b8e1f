//! Seals windows of the tail: writes them into the view and makes them durable, in a thread of its own, behind
//! everything that anybody waits for. Not for safety, which the journal gives, but so that memory has a bound and
//! little is applied again at the next start.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::error;

use super::apply::{IDS_GRANTED, grant};
use super::disk::{Refused, UnderWay};
use super::tail::{Tail, ToSeal};
use super::window::Window;
use crate::store::{Error, View, Written};

/// Flush after this many rows: sled recovers if less than a segment of its log is unsynced.
const FLUSH_ROWS: usize = 1024;
/// Flush after this many bytes of bodies.
const FLUSH_BYTES: usize = 2 << 20;

/// How often the view is told how far the journal is, so that a journal that lost its end is noticed.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// Writes the windows of a tail into a view.
#[derive(Clone, Debug)]
pub(super) struct Sealer {
    pub(super) view: Arc<View>,
    pub(super) tail: Arc<Tail>,
    /// Set when it fails: what sled holds on disk is not known then.
    pub(super) refused: Arc<Refused>,
    pub(super) under_way: Arc<UnderWay>,
}

impl Sealer {
    pub(super) fn new(view: Arc<View>, tail: Arc<Tail>) -> Self {
        Self {
            view,
            tail,
            refused: Arc::default(),
            under_way: Arc::default(),
        }
    }

    /// Writes the oldest window and lets the tail go of it.
    pub(super) fn seal(&self, window: &Arc<Window>) -> Result<(), Error> {
        let mut unflushed = Written::default();
        let mut step = |written: Written| {
            unflushed.rows += written.rows;
            unflushed.bytes += written.bytes;
            if unflushed.rows < FLUSH_ROWS && unflushed.bytes < FLUSH_BYTES {
                return Ok(());
            }
            unflushed = Written::default();
            self.flush()?;
            self.grant()
        };
        self.view
            .write(&window.writes, &window.applied, &mut step)?;
        self.flush()?;
        self.tail.sealed(window);
        Ok(())
    }

    /// Has ids granted ahead of need: who gives them would have to wait for the disk.
    fn grant(&self) -> Result<(), Error> {
        grant(&self.view, self.tail.heads(), IDS_GRANTED / 2)
    }

    fn flush(&self) -> Result<(), Error> {
        self.under_way.during(|| self.view.flush())
    }

    /// Starts the thread. It ends when the tail does.
    pub(super) fn start(self) -> Result<JoinHandle<()>, Error> {
        std::thread::Builder::new()
            .name("seal".into())
            .spawn(move || self.run())
            .map_err(Error::io("start a thread for", "sled".as_ref()))
    }

    fn run(&self) {
        let _ending = Ending(self);
        let mut noted = self.tail.applied_offset();
        loop {
            let next = self.tail.next_to_seal(NOTED_EVERY);
            let applied = self.tail.applied_offset();
            let done = self.grant().and_then(|()| match &next {
                ToSeal::Window(window) => self.seal(window),
                ToSeal::NotYet if applied > noted => self.view.note(applied),
                ToSeal::NotYet | ToSeal::End => Ok(()),
            });
            if matches!(next, ToSeal::End) {
                return;
            }
            noted = applied;
            if let Err(e) = done {
                error!(
                    error = e.cause(),
                    "the readable view cannot be written: writes are refused until a restart"
                );
                return self.fail(&e);
            }
        }
    }

    /// A write failed, and is not tried again.
    pub(super) fn fail(&self, cause: &Error) {
        self.refused.set(cause);
        self.tail.end();
    }
}

#[cfg(test)]
impl super::Hub {
    /// Waits until all that is visible is in the view.
    pub(super) fn seal_all(&self) {
        let tail = &self.0.tail;
        tail.close_window();
        let begun = std::time::Instant::now();
        while tail.read().base() != tail.heads() {
            assert!(begun.elapsed().as_secs() < 30, "nothing is sealed");
            std::thread::yield_now();
        }
    }
}

/// sled may panic.
struct Ending<'a>(&'a Sealer);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&Error::View("a write of it panicked".into()));
        }
    }
}
