//! The file `format`: the version of the layout, and which log the directory holds.

use std::fs::{self, Metadata};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::identity::identity;
use super::place::Place;
use crate::model::{Ancestor, LogId, log_text};
use crate::store::error::Error;

/// The version of everything in the data directory. Of the earlier ones, from 1 on, only the view is another: a
/// directory of theirs is upgraded by rebuilding it.
pub const FORMAT_VERSION: u32 = 2;

/// What the file `format` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Format {
    pub(super) version: u32,
    #[serde(with = "log_text")]
    pub(super) log: LogId,
    pub(super) ancestors: Vec<Ancestor>,
    /// What a copy of the directory cannot have: numbers and birth times of its inodes.
    pub(super) directory: String,
    /// Whether acknowledged entries may have been unsynced for a moment.
    pub(super) relaxed: bool,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

pub(super) const README: &str = "\
This is a data directory of Halley. Everything in it belongs together.

format        version of this directory, and its log id
journal/      every message ever accepted: never delete, rename or change a file in it
sled/         the same messages arranged for reading; rebuilt from the journal when it is missing
clean         left by a clean stop: sled/ can be trusted as it is
damaged       sled/ was found damaged: the next start rebuilds it
begun         left by a start until the clean stop: tells a backup that was copied over this directory
admin.key     the backend's key: keep it secret
token.secret  signs user tokens: keep it secret
LOCK          held by the running server
sled.damaged-*  a sled/ that was set aside: removed by a later start
sled.format-*  a sled/ of an earlier format: removed when the upgrade is complete
sled.ahead-*  a sled/ that was set aside, with messages that journal/ lacks: yours to delete

Backup: copy the whole directory (cp -a) to a new place, also while the server runs; then halley verify.
Restore, and what may be deleted: docs/backup.md of the project.
";

pub(super) fn read_format(path: &Path) -> Result<Format, Error> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let unreadable = |e: serde_json::Error| Error::Directory {
        path: path.to_owned(),
        reason: format!("it is not readable ({e}); put it back from a backup of this directory"),
    };
    // Alone first: of another version, the rest may have another shape, and would be called unreadable.
    let VersionOnly { version } = serde_json::from_slice(&text).map_err(unreadable)?;
    if !(1..=FORMAT_VERSION).contains(&version) {
        return Err(Error::Version {
            path: path.to_owned(),
            what: "the format version",
            found: version,
            supported: FORMAT_VERSION,
        });
    }
    serde_json::from_slice(&text).map_err(unreadable)
}

pub(super) fn new_log_id() -> LogId {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the operating system gives random bytes");
    LogId(id)
}

pub(super) fn write_format(
    place: &Place,
    journal: &Place,
    format: &mut Format,
) -> Result<(), Error> {
    // A new file: its inode is known before its content is written, and a stop leaves the old one whole.
    let mut file = place.create_new("format")?;
    let path = place.path().join("format");
    let inode = file
        .metadata()
        .map_err(Error::io("read the inode of", &path))?;
    format.directory = identity(place, journal, &inode)?;
    let text = serde_json::to_vec_pretty(format).expect("plain data encodes");
    file.write_all(&text).map_err(Error::io("write", &path))?;
    place.finish_new("format", &file)
}

pub(super) fn inode_of_format(place: &Place) -> Result<Metadata, Error> {
    let path = place.path().join("format");
    fs::metadata(&path).map_err(Error::io("read the inode of", &path))
}
