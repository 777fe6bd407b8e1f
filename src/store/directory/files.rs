//! Files and directories: made durably, and refused where they are not ours or not whole.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::owner::LOST_FOUND;
use super::segments::segments;
use crate::store::error::Error;

/// Refuses a directory without `format` that holds what Halley did not make; before anything is made in it.
pub(super) fn must_be_ours(path: &Path) -> Result<(), Error> {
    // The keys may be given before the first start; the rest is what a first start that was cut short leaves.
    const OURS: [&str; 9] = [
        "LOCK",
        "README",
        "README.new",
        "README.md",
        "journal",
        "admin.key",
        "token.secret",
        "format.new",
        LOST_FOUND,
    ];
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        let name = entry.map_err(Error::io("list", path))?.file_name();
        let ours = OURS.iter().any(|ours| name == *ours);
        // Another process may be making it now.
        if !ours && !is_there(&path.join("format"))? {
            return Err(Error::Directory {
                path: path.to_owned(),
                reason: format!(
                    "it has no file `format`, and is not empty: it holds {}; nothing was changed: \
                     give an empty or a new directory, or put `format` back from a backup",
                    name.display()
                ),
            });
        }
    }
    Ok(())
}

/// Refuses what is no data directory.
pub fn must_exist(path: &Path) -> Result<(), Error> {
    let reason = if is_there(&path.join("format"))? {
        return Ok(());
    } else if is_there(path)? {
        "it has no file `format`"
    } else {
        "it does not exist"
    };
    Err(Error::Directory {
        path: path.to_owned(),
        reason: reason.into(),
    })
}

/// Not to be allowed to see it is another thing than its absence.
pub(super) fn is_there(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(Error::io("look for", path))
}

/// The journal is what everything else is made from: without it, nothing is whole.
pub(super) fn must_have_journal(path: &Path) -> Result<(), Error> {
    let journal = path.join("journal");
    if is_there(&journal)? && !segments(&journal)?.is_empty() {
        return Ok(());
    }
    Err(Error::Directory {
        path: path.to_owned(),
        reason: "its `journal`, which holds all messages, is missing or has no files; nothing was changed: \
                 put it back from a backup of this directory"
            .into(),
    })
}

/// Makes names made or removed in a directory durable.
pub(in crate::store) fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync", directory))
}

/// Makes a directory and those above it that are missing, for their owner only: messages are nobody else's.
pub(in crate::store) fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::io("make", path))
}

/// Makes the name of a directory durable, and the names of those above it, which may be new too. What this
/// process may not open it has not made.
pub(super) fn sync_names_above(path: &Path) -> Result<(), Error> {
    let path = path.canonicalize().map_err(Error::io("find", path))?;
    path.ancestors().skip(1).try_for_each(sync_readable)
}

/// Makes a file or directory durable, unless this process may not open it.
pub(super) fn sync_readable(path: &Path) -> Result<(), Error> {
    match sync_directory(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// Refuses links where copies of the directory would share what they point to: `cp -a` copies the link, and two
/// servers would write one journal.
pub(super) fn must_be_no_link(path: &Path, what: &str) -> Result<(), Error> {
    let name = path.join(what);
    if !name.is_symlink() {
        return Ok(());
    }
    Err(Error::Directory {
        path: path.to_owned(),
        reason: format!(
            "its `{what}` is a symbolic link, which every copy of this directory would share: move what it points \
             to back into the directory, or mount the other disk at {} (mount --bind); nothing was changed",
            name.display()
        ),
    })
}
