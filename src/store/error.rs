//! What broke in the data directory.

use std::io;
use std::path::{Path, PathBuf};

use super::command_line::line;

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
    /// The view's rows are of an older layout; it can be rebuilt from the journal.
    #[error("the readable view is of an older layout")]
    OlderView,
    /// The journal is damaged before its end, or lacks a part.
    #[error(
        "the journal is damaged: {path}, at byte {position}: {reason}. Journal and sled are left as they are. \
         A segment that another follows never changes: the same file from any backup of this directory, however old, \
         mends it. `{}` says up to where the journal is good; if there is no backup, \
         `{}` keeps what is before the damage and goes on under a new log id",
        line(data_of(.path), "verify"), line(data_of(.path), "rebuild --accept-loss")
    )]
    Journal {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// What was opened is not what its path names now.
    #[error("{path} {how}")]
    Moved {
        /// The directory or file.
        path: PathBuf,
        /// What became of it.
        how: &'static str,
    },
    /// The view holds more than the journal: acknowledged entries are missing from the journal.
    #[error(
        "the journal ends at entry {journal}, but entry {applied} had been applied: the readable view \
         (sled) is ahead of the journal, so acknowledged messages are missing from the journal; was a file of it \
         truncated or replaced, or was the disk full when this copy was made? Restore it from a backup, make the copy \
         again, or run `{}` to go on without them under a new log id",
        line(.data, "rebuild --accept-loss")
    )]
    JournalBehind {
        /// The journal's last entry.
        journal: u64,
        /// The view's last entry.
        applied: u64,
        /// The data directory.
        data: PathBuf,
    },
    /// There is no room to start.
    #[error(
        "the disk of {path} is full: {bytes} bytes and {files} files are free. To start, the server needs some space for \
         the readable view: free at least {needed} bytes and {files_needed} files there and start it again; nothing \
         acknowledged is lost"
    )]
    Full {
        /// What is on the disk.
        path: PathBuf,
        /// Bytes free.
        bytes: u64,
        /// Files that may still be made.
        files: u64,
        /// Bytes that a start needs.
        needed: u64,
        /// Files that a start makes.
        files_needed: u64,
        /// The system's answer, if it was one.
        source: Option<io::Error>,
    },
    /// There is no room to upgrade.
    #[error(
        "the data directory is of format {found}. To upgrade it to format {supported}, the readable view is rebuilt from \
         the journal{}: that takes about {needed} bytes on the disk of {path}, and {bytes} are free. Free as much and \
         start again{}; nothing was changed",
        if .old.is_some() { ", beside the old one" } else { "" },
        or_remove(.old.as_deref())
    )]
    UpgradeRoom {
        /// What is on the disk.
        path: PathBuf,
        /// The directory's version.
        found: u32,
        /// Ours.
        supported: u32,
        /// Bytes free.
        bytes: u64,
        /// Bytes that the upgrade needs.
        needed: u64,
        /// The view of the earlier format.
        old: Option<PathBuf>,
    },
    /// Made by a newer version.
    #[error(
        "{path} has {what} {found}, and this program reads those up to {supported}: it was written by a newer version of \
         Halley. Nothing is damaged, and nothing was changed; use that version"
    )]
    Version {
        /// Where it is said.
        path: PathBuf,
        /// What has a version.
        what: &'static str,
        /// The version that is there.
        found: u32,
        /// The latest that this program reads.
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

/// The data directory of a segment, or of the directory of all.
fn data_of(path: &Path) -> &Path {
    let journal = match path.extension() {
        Some(_) => path.parent().unwrap_or(path),
        None => path,
    };
    journal.parent().unwrap_or(journal)
}

fn or_remove(old: Option<&Path>) -> String {
    let remove = |old: &Path| {
        format!(
            ", or delete {} first: everything in it is in the journal too",
            old.display()
        )
    };
    old.map(remove).unwrap_or_default()
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
