//! What tells a directory or a file from a copy of it, or from what it was.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::owner::LOST_FOUND;
use super::place::Place;
use crate::store::error::Error;

/// What tells this directory from a copy of it: numbers and birth times of its inodes. Where the file system keeps no
/// birth times, a copy may well have the same numbers; then the time at which LOCK was made tells it, which nobody
/// can set.
pub(super) fn identity(data: &Place, journal: &Place, format: &Metadata) -> Result<String, Error> {
    // Not the device: its number may be another after each boot.
    let inodes = [&data.metadata()?, &journal.metadata()?, format];
    let mut parts: Vec<String> = inodes.map(inode).into();
    if inodes.iter().any(|data| born(data) == 0) {
        let lock = fs::symlink_metadata(data.path().join("LOCK"));
        parts.push(lock.map_or_else(|_| "0".into(), |lock| changed(&lock)));
    }
    Ok(parts.join(" "))
}

/// Number and birth time of an inode.
pub(super) fn inode(data: &Metadata) -> String {
    // The number alone is given again when its file is deleted.
    format!("{}-{}", data.ino(), born(data))
}

/// When the file system last changed anything of an inode.
pub(super) fn changed(data: &Metadata) -> String {
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
pub(super) fn files_of(directory: &Path) -> Result<Vec<(String, u64, u64)>, Error> {
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
                // root's alone where sled has a disk of its own; listing it would fail.
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
