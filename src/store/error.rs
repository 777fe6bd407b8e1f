//! What broke in the data directory.

use std::io;
use std::path::{Path, PathBuf};

/// What broke, where, and what its operator can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The readable view is damaged; it can be rebuilt from the journal.
    #[error("the readable view is damaged: {0}")]
    View(String),
    /// The journal is damaged before its end, or lacks a part.
    #[error(
        "the journal is damaged: {path}, at byte {position}: {reason}. Journal and sled are left as they are. \
         A segment that another follows never changes: the same file from any backup of this directory, however old, \
         mends it. `halley verify` says up to where the journal is good; if there is no backup, \
         `halley rebuild --accept-loss` keeps what is before the damage and goes on under a new log id"
    )]
    Journal {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// The view holds more than the journal: acknowledged entries are missing from the journal.
    #[error(
        "the journal ends at entry {journal}, but entry {applied} had been applied: the readable view \
         (sled) is ahead of the journal, so acknowledged messages are missing from the journal; was a file of it \
         truncated or replaced? Restore it from a backup, or run `halley rebuild --accept-loss` to go \
         on without them under a new log id"
    )]
    JournalBehind {
        /// The journal's last entry.
        journal: u64,
        /// The view's last entry.
        applied: u64,
    },
    /// Made by another version.
    #[error("{path} has format version {found}; this program reads version {supported}")]
    Version {
        /// Where it is said.
        path: PathBuf,
        /// The directory's version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Another process uses the directory.
    #[error(
        "the data directory is in use by another process, which holds {path}: stop it first, or work on a copy of the directory"
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory is not one of ours, or lacks what makes it one.
    #[error("{path} is not a usable data directory: {reason}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// For the field of a log event, which then names its causes too.
    pub(crate) fn cause(&self) -> &(dyn std::error::Error + 'static) {
        self
    }

    /// For `map_err`: an I/O error with what was tried and where.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<sled::Error> for Error {
    /// An error of the disk stays one; what else sled meets, a file that ends too early too, is damage.
    fn from(error: sled::Error) -> Self {
        use io::ErrorKind::{
            FileTooLarge, Other, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        match error {
            sled::Error::Io(source)
                if matches!(
                    source.kind(),
                    StorageFull
                        | FileTooLarge
                        | QuotaExceeded
                        | ReadOnlyFilesystem
                        | PermissionDenied
                        | Other
                ) =>
            {
                Self::Io {
                    what: "read or write",
                    path: PathBuf::from("sled"),
                    source,
                }
            }
            other => Self::View(other.to_string()),
        }
    }
}
