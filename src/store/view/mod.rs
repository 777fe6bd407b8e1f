//! The readable view: sled, made from the journal and trusted only where it was written.
//!
//! `write` has the order in which rows are inserted, `key` what they are.

mod aside;
mod block;
mod channel;
mod check;
mod cut;
mod forget;
mod grow;
mod key;
mod list;
mod mark;
mod members;
mod read;
mod recent;
mod record;
mod rows;
mod scan;
mod sequence;
mod varint;
mod write;
mod writes;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use crate::model::{Position, Sequence};
use crate::store::directory::Directory;
use crate::store::directory::files::make_directory;
use crate::store::error::Error;
use mark::{Heads, Mark};
use record::{decode, encode};
use sequence::Sequences;

pub use key::KeyHash;
pub use mark::Applied;
pub use record::{Channel, GroupState, KEYS_KEPT_MS, KeyUse, ListedMember, Membership};
pub use writes::{Addition, Change, Writes, Written};

/// sled writes values of pages beyond about 100 KiB in files of their own, which it never syncs, unless
/// its segments are this large. Fixed when the database is made.
const SLED_SEGMENT_BYTES: usize = 1 << 23;
/// sled collects garbage only while its flusher runs.
const SLED_FLUSH_MS: u64 = 100;
/// How long sled's own threads may take to let its file go after a close.
const SLED_LOCK_WAIT: Duration = Duration::from_secs(10);

/// The open view.
#[derive(Debug)]
pub struct View {
    pub(super) db: sled::Db,
    direct: sled::Tree,
    group: sled::Tree,
    pub(super) index: sled::Tree,
    sequences: Sequences,
    heads: Heads,
    file: File,
    path: PathBuf,
}

impl View {
    /// Opens or makes the view of a directory, finishes the changes of its mark, and takes back what is behind it. [`Error::OlderView`]: its rows are
    /// of an older layout, and it must be rebuilt. Damage that sled meets, also by a panic, is [`Error::View`].
    pub fn open(directory: &Directory, cache_bytes: u64) -> Result<(Self, Applied), Error> {
        let path = directory.sled();
        let (db, direct, group, index) = opened(&path, cache_bytes)?;
        let applied = match db.get(key::APPLIED)? {
            Some(bytes) => Mark::decode(&bytes)?.applied,
            None if index.is_empty() && direct.is_empty() && group.is_empty() => {
                let applied = Applied::nothing(directory.lineage().log);
                // Before its first row: a first write that is cut short leaves rows, too.
                db.insert(key::APPLIED, Mark { applied, rows: 0 }.encode())?;
                applied
            }
            None => return Err(Error::View("it has rows but no applied mark".into())),
        };
        let file = path.join("db");
        let file = File::open(&file).map_err(Error::io("open", &file))?;
        let sequences = Sequences::open(db.open_tree("__sled__default")?, applied.heads)?;
        let view = Self {
            db,
            direct,
            group,
            index,
            sequences,
            heads: Heads::new(applied.heads),
            file,
            path,
        };
        view.redo(applied.offset)?;
        view.take_back()?;
        Ok((view, applied))
    }

    /// The last entry that the view of a directory knows of. Of one of format 1, this is all that is read.
    pub fn last_seen(directory: &Directory, cache_bytes: u64) -> Result<u64, Error> {
        // Opening it would make one, where a look should leave nothing: `sled` may be a mount point that was emptied.
        if !directory.sled().join("db").exists() {
            return Ok(0);
        }
        if directory.earlier_format().is_none() {
            return Self::open(directory, cache_bytes)?.0.seen();
        }
        let (db, ..) = opened(&directory.sled(), cache_bytes)?;
        db.get(key::APPLIED)?
            .map_or(Ok(0), |mark| Mark::offset_in_format_1(&mark))
    }

    /// The data directory that it is in.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Grants the ids of a sequence up to one, durably. Returns the last that is granted, which may be a later one.
    pub fn grant(&self, sequence: Sequence, upto: u64) -> Result<u64, Error> {
        let granted = self.sequences.granted();
        if granted.of(sequence) < upto {
            let raised = self.sequences.raise(sequence, upto)?;
            self.flush()?;
            granted.raise_one(sequence, raised);
        }
        Ok(granted.of(sequence))
    }

    /// The last ids that are granted. What was granted and not given is given after the next start.
    pub fn granted(&self) -> Position {
        self.sequences.granted().get()
    }

    /// Notes how far the journal is, besides what is written: one that is found shorter has lost its end.
    pub fn note(&self, offset: u64) -> Result<(), Error> {
        self.db.insert(key::SEEN, encode(&offset))?;
        Ok(())
    }

    /// The last entry that this view knows of.
    pub fn seen(&self) -> Result<u64, Error> {
        let row = self.db.get(key::SEEN)?;
        let noted = row.map(|bytes| decode("what was seen", &bytes));
        let applied = self.mark()?.applied.offset;
        Ok(noted
            .transpose()?
            .max(self.cut_write()?)
            .unwrap_or(0)
            .max(applied))
    }

    /// The messages of one sequence.
    pub(super) fn tree(&self, sequence: Sequence) -> &sled::Tree {
        match sequence {
            Sequence::Direct => &self.direct,
            Sequence::Group => &self.group,
        }
    }
}

/// The thread in which sled opens; a panic of it is an answer, not a fault of ours.
pub(crate) const SLED_OPEN_THREAD: &str = "sled-open";

type Opened = (sled::Db, sled::Tree, sled::Tree, sled::Tree);

/// Opens or makes the sled in a directory.
fn opened(path: &Path, cache_bytes: u64) -> Result<Opened, Error> {
    make_directory(path)?;
    remove_half_written_snapshots(path)?;
    let opening = path.to_owned();
    let opened = std::thread::Builder::new()
        .name(SLED_OPEN_THREAD.into())
        .spawn(move || open_sled(&opening, cache_bytes))
        .map_err(Error::io("start a thread to open", path))?
        .join();
    opened.unwrap_or_else(|_| Err(Error::View("sled panicked while opening".into())))
}

fn open_sled(path: &Path, cache_bytes: u64) -> Result<Opened, Error> {
    await_lock(&path.join("db"))?;
    let db = sled::Config::new()
        .path(path)
        // sled counts what pages take in its log; in memory those of small rows take some three times as much. With less it
        // also forgets pages that it could not write, and reads of them fail once a disk is full.
        .cache_capacity(cache_bytes)
        .flush_every_ms(Some(SLED_FLUSH_MS))
        .segment_size(SLED_SEGMENT_BYTES)
        .open()?;
    let (direct, group) = (db.open_tree("direct")?, db.open_tree("group")?);
    let index = db.open_tree("index")?;
    Ok((db, direct, group, index))
}

/// sled takes a half-written snapshot for the newest one and then does not open.
fn remove_half_written_snapshots(sled: &Path) -> Result<(), Error> {
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

/// Waits until sled's file is free. Our own lock keeps other processes out, but a thread of a sled that this
/// process has just closed may hold the file a little longer, and sled itself does not wait.
fn await_lock(file: &Path) -> Result<(), Error> {
    let Ok(db) = File::open(file) else {
        return Ok(()); // there is none yet, or sled will say what is wrong with it
    };
    let begun = Instant::now();
    loop {
        match db.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < SLED_LOCK_WAIT => {
                park_timeout(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: file.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", file)(error)),
            // Dropping the file frees it for sled.
            Ok(()) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_waits_for_a_thread_that_still_holds_the_file() {
        let directory = tempfile::tempdir().unwrap();
        drop(open_sled(directory.path(), 1 << 20).unwrap());
        let held = File::open(directory.path().join("db")).unwrap();
        held.lock().unwrap();
        let late = std::thread::spawn(move || {
            park_timeout(Duration::from_millis(50));
            drop(held);
        });
        open_sled(directory.path(), 1 << 20).unwrap();
        late.join().unwrap();
    }

    pub(super) fn opened(folder: &Path) -> (View, Applied) {
        View::open(&Directory::open(folder).unwrap(), 8 << 20).unwrap()
    }
}
