//! Who may use a data directory: one process at a time, told by a lock on the file LOCK and on the journal.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use rustix::io::Errno;

use super::owner::is_anothers;
use super::place::Place;
use crate::store::error::Error;

/// A lock that is held; given back when dropped, also where a process that is just being started has it open.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes a file or directory for this process.
    fn take(file: File, path: &Path) -> Result<Self, Error> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Locked {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it gives it back too, if this fails.
        drop(self.0.unlock());
    }
}

/// Takes a data directory for this process.
pub(super) fn lock(directory: &Place) -> Result<Lock, Error> {
    Lock::take(
        directory.open_or_make("LOCK")?,
        &directory.path().join("LOCK"),
    )
}

/// The same, also where nothing may be written. Whether that is so.
pub(super) fn lock_to_read(directory: &Place) -> Result<(Lock, bool), Error> {
    if !read_only(directory.path()) && !is_anothers(directory.path()) {
        match lock(directory) {
            // The system makes a disk that fails read-only, and says so only to who writes.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::ReadOnlyFilesystem => {}
            locked => return Ok((locked?, false)),
        }
    }
    let path = directory.path().join("LOCK");
    // Without the file no server has run there, and none can.
    let path = if path.exists() {
        &path
    } else {
        directory.path()
    };
    let file = File::open(path).map_err(Error::io("open", path))?;
    Ok((Lock::take(file, path)?, true))
}

/// Takes the journal's directory, which may be mounted into several data directories, for this process, on file systems
/// that can lock directories. Network file systems only lock files that are open to be written; LOCK in the data
/// directory is one.
pub(super) fn lock_journal(journal: &Place) -> Result<Option<Lock>, Error> {
    let path = journal.path();
    let file = File::open(path).map_err(Error::io("open", path))?;
    match Lock::take(file, path) {
        // LOCK still keeps out who uses the same data directory.
        Err(Error::Io { .. }) => Ok(None),
        taken => taken.map(Some),
    }
}

/// Whether this process may not write in a directory.
fn read_only(directory: &Path) -> bool {
    let asked = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK);
    matches!(asked, Err(Errno::ROFS | Errno::ACCESS | Errno::PERM))
}
