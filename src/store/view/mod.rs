//! The readable view: sled, made from the journal and trusted only where it was written.
//!
//! Plain inserts in an order that recovers: sled recovers a prefix of its log, so what stands before the
//! `applied` mark of an entry is there when the mark is. Rows that never change are written before it;
//! those that do are first written aside, and put in place once the mark is set.

mod channel;
mod check;
mod key;
mod read;
mod record;
mod rows;
mod sequence;
mod writes;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::{LogId, Position, Sequence};
use crate::store::directory::Directory;
use crate::store::directory::files::make_directory;
use crate::store::error::Error;
use record::{decode, decode_mark, encode, encode_mark, encode_message};
use rows::{Row, RowChange};
use sequence::Sequences;

pub use key::KeyHash;
pub use record::{GroupState, KeyUse, Membership};
pub use writes::{Addition, Change, OpenChannel, Writes, Written};

/// sled writes values of pages beyond about 100 KiB in files of their own, which it never syncs, unless
/// its segments are this large. Fixed when the database is made.
const SLED_SEGMENT_BYTES: usize = 1 << 23;
/// sled collects garbage only while its flusher runs.
const SLED_FLUSH_MS: u64 = 100;
/// How long sled's own threads may take to let its file go after a close.
const SLED_LOCK_WAIT: Duration = Duration::from_secs(10);
/// A row with changes stays well below what sled keeps in its log.
const REDO_BYTES: usize = 32 << 10;

/// The mark: everything up to here has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The log whose entries these are.
    pub log: LogId,
    /// The last applied entry.
    pub offset: u64,
    /// The last ids given.
    pub heads: Position,
    /// The position before the first message that is kept.
    pub floor: Position,
    /// The time of the last entry, Unix milliseconds.
    pub at_ms: u64,
    /// Numbers given to users.
    pub users: u32,
    /// Numbers given to groups.
    pub groups: u32,
    /// Rows of the index.
    pub rows: u64,
}

impl Applied {
    /// The mark of an empty view.
    pub fn nothing(log: LogId) -> Self {
        let (heads, floor) = (Position::default(), Position::default());
        Self {
            log,
            offset: 0,
            heads,
            floor,
            at_ms: 0,
            users: 0,
            groups: 0,
            rows: 0,
        }
    }
}

/// The open view.
#[derive(Debug)]
pub struct View {
    pub(super) db: sled::Db,
    direct: sled::Tree,
    group: sled::Tree,
    pub(super) index: sled::Tree,
    sequences: Sequences,
    file: File,
    path: PathBuf,
}

impl View {
    /// Opens or makes the view of a directory, and finishes the changes of the last applied entry.
    /// Damage that sled meets, also by a panic, is [`Error::View`].
    pub fn open(directory: &Directory, cache_bytes: u64) -> Result<(Self, Applied), Error> {
        let path = directory.sled();
        make_directory(&path)?;
        remove_half_written_snapshots(&path)?;
        let opening = path.clone();
        let opened = std::thread::Builder::new()
            .name(SLED_OPEN_THREAD.into())
            .spawn(move || open_sled(&opening, cache_bytes))
            .map_err(Error::io("start a thread to open", &path))?
            .join();
        let (db, direct, group, index) = match opened {
            Ok(opened) => opened?,
            Err(_) => return Err(Error::View("sled panicked while opening".into())),
        };
        let applied = match db.get(key::APPLIED)? {
            Some(bytes) => decode_mark(&bytes)?,
            None if index.is_empty() && direct.is_empty() && group.is_empty() => {
                Applied::nothing(directory.lineage().log)
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
            file,
            path,
        };
        view.redo(applied.offset)?;
        Ok((view, applied))
    }

    /// The data directory that it is in.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Takes the ids of an entry's messages from the sequences; returns the last of both.
    pub fn take_ids(&self, direct: u64, group: u64) -> Result<Position, Error> {
        Ok(Position {
            direct: self.sequences.take(Sequence::Direct, direct)?,
            group: self.sequences.take(Sequence::Group, group)?,
        })
    }

    /// Writes what an entry brings. Writing the same again changes nothing.
    pub fn write(&self, writes: &Writes, applied: &Applied) -> Result<Written, Error> {
        let (rows, changes) = (writes.rows(), writes.row_changes());
        let mut written = Written {
            rows: rows.len() + 2 * changes.len(),
            bytes: 0,
        };
        for (key, value) in &rows {
            self.index.insert(key, value.as_slice())?;
        }
        for message in writes.messages() {
            written.rows += 1;
            written.bytes += message.body.as_bytes().len();
            let row = encode_message(message);
            self.tree(message.sequence())
                .insert(message.id.to_be_bytes(), row)?;
        }
        self.settle(&rows, writes)?;
        let chunks = redo_rows(&changes);
        for (number, chunk) in (0..).zip(&chunks) {
            self.db
                .insert(key::redo(applied.offset, number), encode(chunk))?;
        }
        self.db.insert(key::APPLIED, encode_mark(applied))?;
        self.change(&changes)?;
        for (number, _) in (0..).zip(&chunks) {
            self.db.remove(key::redo(applied.offset, number))?;
        }
        Ok(written)
    }

    /// Makes durable what was written. sled's own flush does not sync.
    pub fn flush(&self) -> Result<(), Error> {
        self.db.flush()?;
        self.file
            .sync_data()
            .map_err(Error::io("sync the file db in", &self.path))
    }

    /// Reads what was just written. sled divides a page that has become too large when it next meets it, also
    /// while it reads; done here, readings need not write, and go on when writes fail.
    fn settle(&self, rows: &[Row], writes: &Writes) -> Result<(), Error> {
        for (key, _) in rows {
            self.index.contains_key(key)?;
        }
        for message in writes.messages() {
            self.tree(message.sequence())
                .contains_key(message.id.to_be_bytes())?;
        }
        Ok(())
    }

    /// The messages of one sequence.
    pub(super) fn tree(&self, sequence: Sequence) -> &sled::Tree {
        match sequence {
            Sequence::Direct => &self.direct,
            Sequence::Group => &self.group,
        }
    }

    fn change(&self, changes: &[RowChange]) -> Result<(), Error> {
        for change in changes {
            match &change.value {
                Some(value) => self.index.insert(&change.key, value.as_slice())?,
                None => self.index.remove(&change.key)?,
            };
        }
        Ok(())
    }

    /// Does what was written aside for the entry of the mark, and forgets what was for a later one.
    fn redo(&self, offset: u64) -> Result<(), Error> {
        let rows: Vec<_> = self.db.scan_prefix(b"r").collect::<Result<_, _>>()?;
        for (key, value) in rows {
            if key.starts_with(&key::redos(offset)) {
                self.change(&decode::<Vec<RowChange>>("a change", &value)?)?;
            }
            self.db.remove(key)?;
        }
        Ok(())
    }
}

/// The thread in which sled opens; a panic of it is an answer, not a fault of ours.
pub(crate) const SLED_OPEN_THREAD: &str = "sled-open";

type Opened = (sled::Db, sled::Tree, sled::Tree, sled::Tree);

fn open_sled(path: &Path, cache_bytes: u64) -> Result<Opened, Error> {
    await_lock(&path.join("db"))?;
    let db = sled::Config::new()
        .path(path)
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

fn redo_rows(changes: &[RowChange]) -> Vec<Vec<&RowChange>> {
    let mut chunks: Vec<Vec<&RowChange>> = Vec::new();
    let mut bytes = REDO_BYTES;
    for change in changes {
        let size = change.key.len() + change.value.as_ref().map_or(0, Vec::len) + 4;
        if bytes + size > REDO_BYTES {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        chunks
            .last_mut()
            .expect("one was pushed first")
            .push(change);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserName;
    use crate::store::{Addition, Change};

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

    fn opened(folder: &Path) -> (View, Applied) {
        View::open(&Directory::open(folder).unwrap(), 8 << 20).unwrap()
    }

    /// What stands before the mark is there when the mark is, and what stands behind it is not there earlier: an
    /// entry that is cut short is applied again, and must find what it found.
    #[test]
    fn new_rows_are_written_before_the_mark_and_changes_behind_it() {
        const ENTRIES: u64 = 3000;
        let folder = tempfile::tempdir().unwrap();
        let (view, mut applied) = opened(folder.path());
        let name = |n| UserName::parse(&format!("user-{n}")).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..=ENTRIES {
                    applied.offset = n;
                    let writes = Writes {
                        additions: vec![Addition::User {
                            name: name(n),
                            number: 1,
                        }],
                        changes: vec![Change::ChannelClosed {
                            user: 1,
                            last: n,
                            new: n == 1,
                        }],
                    };
                    let written = view.write(&writes, &applied).unwrap();
                    // One that is new, and two that are written aside and in place.
                    assert_eq!(written, Written { rows: 5, bytes: 0 });
                }
            });
            let mark = || {
                let mark = view.db.get(key::APPLIED).unwrap();
                mark.map_or(0, |mark| decode_mark(&mark).unwrap().offset)
            };
            while !writer.is_finished() {
                let changed = view.forgotten(1).unwrap().unwrap_or(0);
                let marked = mark();
                assert!(changed <= marked, "a change before the mark");
                let there = marked == 0 || view.user(&name(marked)).unwrap().is_some();
                assert!(there, "the mark before a row");
            }
        });
        let left = view.db.scan_prefix("r").count();
        assert_eq!(left, 0, "what was done is forgotten");
    }

    #[test]
    fn a_view_whose_rows_have_no_numbers_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (view, applied) = opened(folder.path());
        let mut mark = encode_mark(&applied);
        mark[0] = 1;
        view.db.insert(key::APPLIED, mark).unwrap();
        drop(view);
        let again = View::open(&Directory::open(folder.path()).unwrap(), 8 << 20);
        assert!(matches!(again, Err(Error::View(_))), "{again:?}");
    }

    #[test]
    fn an_open_finishes_the_changes_of_the_mark_and_forgets_those_of_a_later_entry() {
        let folder = tempfile::tempdir().unwrap();
        let (view, mut applied) = opened(folder.path());
        applied.offset = 7;
        for offset in [7, 8] {
            let change = RowChange {
                key: vec![b'0' + u8::try_from(offset).unwrap()],
                value: Some(vec![1]),
            };
            let row = key::redo(offset, 0);
            view.db.insert(row, encode(&vec![change])).unwrap();
        }
        view.db.insert(key::APPLIED, encode_mark(&applied)).unwrap();
        drop(view);
        let (view, again) = opened(folder.path());
        assert_eq!(again, applied);
        assert!(view.has(b"7", &[1]));
        assert!(!view.has(b"8", &[1]));
        assert_eq!(view.db.scan_prefix("r").count(), 0);
    }
}
