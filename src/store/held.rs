//! What an open hub writes to, watched: the data directory, its journal and sled, and the last segment.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::Directory;
use super::directory::place::Place;
use super::error::Error;
use super::journal::Journal;
use super::journal::ahead::Live;

/// What sled may need to open: a segment of its log, and a snapshot.
const START_BYTES: u64 = 32 << 20;
/// What the mark of a start needs.
const BEGIN_BYTES: u64 = 64 << 10;
/// Files that a start may make.
const START_FILES: u64 = 8;

/// Directories and the last segment as they were opened.
#[derive(Debug)]
pub struct Held {
    data: Arc<Place>,
    journal: Arc<Place>,
    sled: Place,
    segment: Arc<Live>,
}

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

impl Held {
    /// Watches a directory whose view is open.
    pub fn new(directory: &Directory, journal: &Journal) -> Result<Self, Error> {
        Ok(Self {
            data: Arc::clone(directory.place()),
            journal: Arc::clone(directory.journal_place()),
            sled: Place::open(&directory.sled())?,
            segment: Arc::clone(journal.live()),
        })
    }

    /// Whether all of it is still what the paths name: [`Error::Moved`] says what is not.
    pub fn check(&self) -> Result<(), Error> {
        self.places().into_iter().try_for_each(Place::check)?;
        self.segment.segment().check()
    }

    /// The disk with the least room.
    pub fn room(&self) -> Result<Room, Error> {
        least_room(&self.places())
    }

    fn places(&self) -> [&Place; 3] {
        [&self.data, &self.journal, &self.sled]
    }
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
pub(super) fn least_room(places: &[&Place]) -> Result<Room, Error> {
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
