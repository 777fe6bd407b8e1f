//! Files and directories: written durably, listed, told from their copies and from what is not ours.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::io::Errno;

use super::owner::{LOST_FOUND, is_anothers};
use super::place::{Lock, Place};
use crate::store::error::Error;
use crate::store::journal::follow::segments;

/// Refuses a directory without `format` that holds what Halley did not make; before anything is made in it.
pub(in crate::store) fn must_be_ours(path: &Path) -> Result<(), Error> {
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
pub(in crate::store) fn is_there(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(Error::io("look for", path))
}

/// The journal is what everything else is made from: without it, nothing is whole.
pub(in crate::store) fn must_have_journal(path: &Path) -> Result<(), Error> {
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
pub(in crate::store) fn sync_names_above(path: &Path) -> Result<(), Error> {
    let path = path.canonicalize().map_err(Error::io("find", path))?;
    path.ancestors().skip(1).try_for_each(sync_readable)
}

/// Makes a file or directory durable, unless this process may not open it.
pub(in crate::store) fn sync_readable(path: &Path) -> Result<(), Error> {
    match sync_directory(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// What tells this directory from a copy of it: numbers and birth times of its inodes. Where the file system keeps no
/// birth times, a copy may well have the same numbers; then the time at which LOCK was made tells it, which nobody
/// can set.
pub(in crate::store) fn identity(
    data: &Place,
    journal: &Place,
    format: &Metadata,
) -> Result<String, Error> {
    let inodes = [&data.metadata()?, &journal.metadata()?, format];
    let mut parts: Vec<String> = inodes.map(inode).into();
    if inodes.iter().any(|data| born(data) == 0) {
        let lock = fs::symlink_metadata(data.path().join("LOCK"));
        parts.push(lock.map_or_else(|_| "0".into(), |lock| changed(&lock)));
    }
    Ok(parts.join(" "))
}

/// Number and birth time of an inode.
pub(in crate::store) fn inode(data: &Metadata) -> String {
    format!("{}-{}", data.ino(), born(data))
}

/// When the file system last changed anything of an inode.
pub(in crate::store) fn changed(data: &Metadata) -> String {
    format!("{}.{:09}", data.ctime(), data.ctime_nsec())
}

fn born(data: &Metadata) -> u128 {
    let born = data
        .created()
        .ok()
        .and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    born.map_or(0, |born| born.as_nanos())
}

/// Name, length and modification time (ns) of every file, in order of names.
pub(in crate::store) fn files_of(directory: &Path) -> Result<Vec<(String, u64, u64)>, Error> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).map_err(Error::io("list", &next))? {
            let entry = entry.map_err(Error::io("list", &next))?;
            let path = entry.path();
            let data = entry
                .metadata()
                .map_err(Error::io("read the size of", &path))?;
            if data.is_dir() {
                if entry.file_name() != LOST_FOUND {
                    waiting.push(path);
                }
                continue;
            }
            let since = data
                .modified()
                .ok()
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let time = since
                .and_then(|since| u64::try_from(since.as_nanos()).ok())
                .unwrap_or(0);
            let name = path
                .strip_prefix(directory)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            found.push((name, data.len(), time));
        }
    }
    found.sort();
    Ok(found)
}

/// sled takes a half-written snapshot for the newest one and then does not open.
pub(in crate::store) fn remove_half_written_snapshots(sled: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(sled) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", sled))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "generating")
        {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Takes a data directory for this process.
pub(in crate::store) fn lock(directory: &Place) -> Result<Lock, Error> {
    Lock::take(
        directory.open_or_make("LOCK")?,
        &directory.path().join("LOCK"),
    )
}

/// The same, also where nothing may be written. Whether that is so.
pub(in crate::store) fn lock_to_read(directory: &Place) -> Result<(Lock, bool), Error> {
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

/// Refuses links where copies of the directory would share what they point to: `cp -a` copies the link, and two
/// servers would write one journal.
pub(in crate::store) fn must_be_no_link(path: &Path, what: &str) -> Result<(), Error> {
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

/// Whether this process may not write in a directory.
pub(in crate::store) fn read_only(directory: &Path) -> bool {
    let asked = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK);
    matches!(asked, Err(Errno::ROFS | Errno::ACCESS | Errno::PERM))
}
