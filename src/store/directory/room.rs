//! Room on the disks of a data directory: how much there is, and how much a start needs.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Directory;
use super::format::FORMAT_VERSION;
use super::identity::files_of;
use super::place::Place;
use crate::store::error::Error;

/// What sled may need to open: a segment of its log, and a snapshot.
const START_BYTES: u64 = 32 << 20;
/// What the mark of a start needs.
const BEGIN_BYTES: u64 = 64 << 10;
/// Files that a start may make.
const START_FILES: u64 = 8;

/// Room on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What is on it.
    pub path: PathBuf,
    /// Bytes that may still be written.
    pub bytes: u64,
    /// Files that may still be made.
    pub files: u64,
}

impl Directory {
    /// Refuses a disk on which not even the mark of the start has room, before anything is changed.
    pub fn must_have_room(&self) -> Result<(), Error> {
        let room = least_room(&[self.place(), self.journal_place()])?;
        if room.bytes >= BEGIN_BYTES && room.files >= START_FILES {
            return Ok(());
        }
        Err(room.full(None))
    }
}

impl Directory {
    /// Refuses a disk on which the readable view has no room beside that of the earlier format.
    pub fn must_have_room_to_upgrade(&self, journal_bytes: u64) -> Result<(), Error> {
        let Some(found) = self.earlier_format() else {
            return Ok(());
        };
        let (sled, aside) = (self.sled(), self.earlier_aside()?);
        let there = bytes_in(&sled)?;
        // What an upgrade left that was cut short goes first.
        let (old, given_back) = match &aside {
            Some(aside) => (bytes_in(aside)?, there),
            None => (there, 0),
        };
        // The new one is no larger than the old one. Without that, nobody knows before: only that all messages are in it.
        let view = old.max(journal_bytes);
        // An empty one may be a mount point, and stays.
        let room = match Place::open(&sled) {
            Ok(place) if there == 0 => least_room(&[&place])?,
            _ => least_room(&[self.place()])?,
        };
        let (bytes, needed) = (room.bytes.saturating_add(given_back), START_BYTES + view);
        if bytes >= needed {
            return Ok(());
        }
        Err(Error::UpgradeRoom {
            path: room.path,
            found,
            supported: FORMAT_VERSION,
            bytes,
            needed,
            old: Some(aside.unwrap_or(sled)).filter(|_| old > 0),
        })
    }
}

/// Bytes of all files in a directory; 0 without it.
fn bytes_in(directory: &Path) -> Result<u64, Error> {
    if !directory.is_dir() {
        return Ok(0);
    }
    let files = files_of(directory)?;
    Ok(files.iter().map(|(_, bytes, _)| bytes).sum())
}

impl Room {
    fn full(self, source: Option<std::io::Error>) -> Error {
        Error::Full {
            path: self.path,
            bytes: self.bytes,
            files: self.files,
            needed: START_BYTES,
            files_needed: START_FILES,
            source,
        }
    }
}

/// An error of a start on a full disk says which one, and how much to free.
pub fn explain_full(data: &Path, error: Error) -> Error {
    match error {
        Error::Io { path, source, what }
            if matches!(
                source.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            ) =>
        {
            // sled says nothing of the path.
            let on = path.parent().filter(|on| !on.as_os_str().is_empty());
            let on = on.unwrap_or(data);
            match Place::open(on).and_then(|place| least_room(&[&place])) {
                Ok(room) => room.full(Some(source)),
                Err(_) => Error::Io { what, path, source },
            }
        }
        other => other,
    }
}

/// The one with the least room of those that these directories are on.
pub(in crate::store) fn least_room(places: &[&Place]) -> Result<Room, Error> {
    let mut least: Option<Room> = None;
    for place in places {
        let (bytes, files) = place.free()?;
        let path = place.path().to_owned();
        let room = Room { path, bytes, files };
        if least.as_ref().is_none_or(|least| bytes < least.bytes) {
            least = Some(room);
        }
    }
    Ok(least.expect("there is a directory"))
}
