//! What opens and closes a view with care: sled panics on damage, and readers may still hold it.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::store::{Directory, Error, SLED_OPEN_THREAD, View};

/// Does work with a view that may be damaged. A panic of sled is damage.
pub(super) fn guarded<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let tried = std::thread::scope(|scope| {
        let thread = Builder::new()
            .name(SLED_OPEN_THREAD.into())
            .spawn_scoped(scope, work);
        thread.map(std::thread::ScopedJoinHandle::join)
    });
    let tried = tried.map_err(Error::io("start a thread for", path))?;
    tried.unwrap_or_else(|panic| Err(Error::View(format!("it panicked: {}", panic_text(&*panic)))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

/// Flushes and closes sled. It writes its snapshot only while opening: opened once more here, the next start
/// is quick.
pub(super) fn close_view(
    view: View,
    directory: &Directory,
    cache_bytes: u64,
    offset: u64,
) -> Result<(), Error> {
    // Windows that were not sealed are in the journal alone: that it lost its end must be noticed also without the mark.
    view.note(offset)?;
    view.flush()?;
    drop(view);
    View::open(directory, cache_bytes).map(drop)
}

/// Waits for the last reader to let go of the view.
pub(super) fn unshared(mut view: Arc<View>) -> Option<View> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let began = Instant::now();
    loop {
        match Arc::try_unwrap(view) {
            Ok(view) => return Some(view),
            Err(shared) if began.elapsed() < PATIENCE => view = shared,
            Err(_) => return None,
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
