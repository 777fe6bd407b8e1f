//! What a start and a clean stop leave behind in the data directory, for the next start to tell what has happened
//! to it meanwhile.

use std::fs::{self, Metadata};
use std::io::Write;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::files::{changed, files_of, inode};
use super::place::Place;

const CLEAN: &str = "clean";
const BEGUN: &str = "begun";

/// The mark that a clean stop leaves: sled is just as it was then.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clean {
    /// The last applied entry.
    pub(super) offset: u64,
    /// Name, length and modification time of every file of sled.
    pub(super) files: Vec<(String, u64, u64)>,
    /// What a copy of the mark cannot have. Not in those of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
}

/// The mark that a start leaves until the clean stop.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The last entry of the journal.
    pub(super) offset: u64,
    /// When `format` was last changed: nobody can set that, also not who copies a backup over the directory.
    format: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) clean: Option<Clean>,
    pub(super) begun: Option<Begun>,
    /// A backup was copied over the directory.
    pub(super) restored: bool,
}

impl Marks {
    /// Reads both, given what the inode of `format` says. What is not readable is not there.
    pub(super) fn read(place: &Place, format: &Metadata) -> Self {
        let clean: Option<Clean> = read(place, CLEAN);
        let begun: Option<Begun> = read(place, BEGUN);
        let own = fs::metadata(place.path().join(CLEAN)).map(|data| inode(&data));
        let mark = clean.as_ref().and_then(|clean| clean.mark.as_ref());
        let other_clean = mark.is_some_and(|mark| own.is_ok_and(|own| *mark != own));
        let other_format = begun
            .as_ref()
            .is_some_and(|begun| begun.format != changed(format));
        Self {
            clean,
            begun,
            restored: other_clean || other_format,
        }
    }

    /// Leaves the mark of a start.
    pub(super) fn begin(
        &mut self,
        place: &Place,
        format: &Metadata,
        offset: u64,
    ) -> Result<(), Error> {
        let begun = Begun {
            offset,
            format: changed(format),
        };
        let text = serde_json::to_vec_pretty(&begun).expect("plain data encodes");
        place.write_durably(BEGUN, &text)?;
        self.begun = Some(begun);
        self.restored = false;
        Ok(())
    }

    /// Removes the mark of the last clean stop.
    pub(super) fn remove_clean(&mut self, place: &Place) -> Result<(), Error> {
        self.clean = None;
        if place.remove(CLEAN)? {
            place.sync()?;
        }
        Ok(())
    }
}

fn read<T: for<'a> Deserialize<'a>>(place: &Place, name: &str) -> Option<T> {
    let bytes = fs::read(place.path().join(name)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Leaves the mark of a clean stop, and removes that of the start. sled must be closed.
pub(super) fn close(place: &Place, sled: &Place, offset: u64) -> Result<(), Error> {
    let mut file = place.create_new(CLEAN)?;
    let path = place.path().join(CLEAN);
    let data = file
        .metadata()
        .map_err(Error::io("read the inode of", &path))?;
    let clean = Clean {
        offset,
        files: files_of(sled.path())?,
        mark: Some(inode(&data)),
    };
    let text = serde_json::to_vec_pretty(&clean).expect("plain data encodes");
    file.write_all(&text).map_err(Error::io("write", &path))?;
    place.finish_new(CLEAN, &file)?;
    place.remove(BEGUN).map(drop)
}
