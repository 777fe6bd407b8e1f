//! What an open hub writes to, watched: the data directory, its journal and sled, and the last segment.

use std::sync::Arc;

use super::directory::Directory;
use super::directory::place::Place;
use super::directory::room::{Room, least_room};
use super::error::Error;
use super::journal::Journal;
use super::journal::live::SharedSegment;

/// Directories and the last segment as they were opened.
#[derive(Debug)]
pub struct Held {
    data: Arc<Place>,
    journal: Arc<Place>,
    sled: Place,
    segment: Arc<SharedSegment>,
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
        self.segment.check()
    }

    /// The disk with the least room.
    pub fn room(&self) -> Result<Room, Error> {
        least_room(&self.places())
    }

    fn places(&self) -> [&Place; 3] {
        [&self.data, &self.journal, &self.sled]
    }
}
