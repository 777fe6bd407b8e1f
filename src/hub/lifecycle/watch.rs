//! Looks at the disks once a second, so that the log tells what is wrong though nobody asks.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::hub::Inner;
use crate::hub::disk::Disk;
use crate::hub::threads::Helper;
use crate::store::Error;

/// How often the thread looks.
const WATCHED_EVERY: Duration = Duration::from_secs(1);
/// How often it tells again what is still so.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Starts the thread.
pub(super) fn start(inner: &Arc<Inner>) -> Result<Helper, Error> {
    let inner = Arc::clone(inner);
    Helper::start("watch", "disk".as_ref(), move |stopped| {
        let mut told = None;
        while stopped.recv_timeout(WATCHED_EVERY) == Err(RecvTimeoutError::Timeout) {
            // It logs by itself.
            drop(inner.disk.in_place());
            tell_stall(&inner.disk, &mut told);
        }
    })
}

/// Says now and then that a write or sync takes long, and when it is over.
fn tell_stall(disk: &Disk, told: &mut Option<Instant>) {
    match (disk.answers(), *told) {
        (Err(e), last) if last.is_none_or(|told| told.elapsed() >= TOLD_EVERY) => {
            error!("{e}: pushes wait for it");
            *told = Some(Instant::now());
        }
        (Ok(()), Some(_)) => {
            info!("the disk answers again");
            *told = None;
        }
        _ => {}
    }
}
