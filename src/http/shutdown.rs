//! Whether the server is to stop.

use tokio::sync::watch;

/// Tells everything that waits that the server is to stop.
#[derive(Clone, Debug)]
pub(super) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    pub(super) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the server is to stop.
    pub(super) async fn begun(&mut self) {
        // An error means that nobody is left who could say so: the server has stopped.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

impl From<watch::Receiver<bool>> for Shutdown {
    fn from(receiver: watch::Receiver<bool>) -> Self {
        Self(receiver)
    }
}
