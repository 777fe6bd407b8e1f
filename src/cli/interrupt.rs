//! Long work that a signal may end at any time. As the first process of a container a program has no default for
//! signals: those that it does not take are lost.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

/// Why work is not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    /// A signal came first.
    #[error("ended by {0}: nothing is lost, run it again")]
    Signal(&'static str),
    /// It could not be begun, or panicked.
    #[error("cannot run it")]
    Failed(#[source] io::Error),
}

/// Does work in a thread of its own, until it is done or SIGTERM, SIGINT or SIGHUP comes. Then the process is
/// expected to end, and the work with it.
pub(super) fn until_signal<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Interrupted> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Interrupted::Failed)?;
    let done = runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).map_err(Interrupted::Failed)?;
        let mut int = signal(SignalKind::interrupt()).map_err(Interrupted::Failed)?;
        let mut hup = signal(SignalKind::hangup()).map_err(Interrupted::Failed)?;
        tokio::select! {
            done = spawn_blocking(work) => done.map_err(|e| Interrupted::Failed(e.into())),
            _ = term.recv() => Err(Interrupted::Signal("SIGTERM")),
            _ = int.recv() => Err(Interrupted::Signal("SIGINT")),
            _ = hup.recv() => Err(Interrupted::Signal("SIGHUP")),
        }
    });
    runtime.shutdown_background();
    done
}
