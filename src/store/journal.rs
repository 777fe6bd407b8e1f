//! The journal: every entry that was ever committed, in order, checksummed, in append-only segments.
//!
//! What is acknowledged is here, and everything else can be made from it. Its boundary is three calls:
//! [`Journal::append`], [`Journal::follow`], [`Journal::identity`]; nothing above knows more of it.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tracing::warn;

use super::command::Entry;
use super::error::Error;
use super::segment::{Next, SegmentHead, SegmentReader, encode_frame, to_u64};
use crate::model::{Lineage, LogId, Position};

/// A segment ends when it has grown to this: small enough to copy and to read at each start.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Entries that may wait between the journal and who follows it; more, and appending waits.
const FOLLOW_ENTRIES: usize = 64;

/// The end of the journal that is written. One process writes it, under the directory's lock.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    log: LogId,
    path: PathBuf,
    file: File,
    head: SegmentHead,
    /// Length of the present segment.
    bytes: u64,
    /// Length of the segments before it.
    bytes_before: u64,
    segments: u64,
    /// The offset of the next entry.
    next: u64,
    first: u64,
    live: Option<SyncSender<(u64, Arc<Entry>)>>,
    sync_each: bool,
    unsynced: bool,
    segment_bytes: u64,
}

/// How large the journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalSize {
    /// Offset of the last entry.
    pub offset: u64,
    /// Files.
    pub segments: u64,
    /// Bytes in them.
    pub bytes: u64,
}

impl Journal {
    /// Makes the first segment of a new log.
    pub(super) fn create(directory: &Path, log: LogId) -> Result<(), Error> {
        fs::create_dir_all(directory).map_err(Error::io("make", directory))?;
        if let Some((_, path)) = segments(directory)?.first()
            && SegmentReader::open(path)?.is_some()
        {
            return Err(Error::Directory {
                path: directory.to_owned(),
                reason:
                    "it has a journal, but the file `format` beside it is missing; nothing was \
                         changed: put the file back, from a backup of this directory"
                        .into(),
            });
        }
        let head = SegmentHead {
            log,
            first: 1,
            previous: (0, 0),
            heads: Position::default(),
        };
        write_segment(directory, &head).map(drop)
    }

    /// Opens the journal, cuts a torn tail off, and makes sure that what is read is on disk.
    /// `sync_each`: sync each entry before it counts as appended.
    pub fn open(directory: &Path, lineage: &Lineage, sync_each: bool) -> Result<Self, Error> {
        let segments = sound_segments(directory, lineage)?;
        let (Some((_, path)), Ok(count)) = (segments.last(), u64::try_from(segments.len())) else {
            return Err(no_segments(directory));
        };
        let mut reader = SegmentReader::open(path)?.ok_or_else(|| no_segments(directory))?;
        let mut next = reader.head.first;
        let good = loop {
            match reader.next()? {
                Next::Entry(offset, _) => next = offset + 1,
                Next::End { good, torn } => {
                    if torn > 0 {
                        warn!(path = %path.display(), position = good, bytes = torn, last_entry = next - 1,
                            "cut off the torn end of the journal: an entry that was never acknowledged");
                    }
                    break good;
                }
            }
        };
        let mut file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(Error::io("open to write", path))?;
        file.set_len(good).map_err(Error::io("cut", path))?;
        file.sync_all().map_err(Error::io("sync", path))?;
        file.seek(SeekFrom::End(0))
            .map_err(Error::io("seek in", path))?;
        sync_directory(directory)?;
        let earlier = segments.iter().rev().skip(1);
        let bytes_before = earlier
            .map(|(_, path)| fs::metadata(path).map(|data| data.len()))
            .sum::<Result<u64, _>>()
            .map_err(Error::io("read the sizes in", directory))?;
        Ok(Self {
            directory: directory.to_owned(),
            log: lineage.log,
            path: path.clone(),
            file,
            head: reader.head,
            bytes: good,
            bytes_before,
            segments: count,
            next,
            first: segments.first().map_or(1, |(first, _)| *first),
            live: None,
            sync_each,
            unsynced: false,
            segment_bytes: SEGMENT_BYTES,
        })
    }

    /// Makes an entry durable and gives it the next offset. `heads` is asked only when a segment begins:
    /// the ids given up to the offset that it is called with. After an error nothing may be appended any
    /// more, for what is on disk is not known.
    pub fn append(
        &mut self,
        entry: Entry,
        heads: impl FnOnce(u64) -> Result<Position, Error>,
    ) -> Result<u64, Error> {
        // An empty segment of an older log is filled first.
        let other_log = self.head.log != self.log && self.next > self.head.first;
        if self.bytes >= self.segment_bytes || other_log {
            let heads = heads(self.next - 1)?;
            self.roll(heads)?;
        }
        let offset = self.next;
        let frame = encode_frame(offset, &entry)?;
        self.file
            .write_all(&frame)
            .map_err(Error::io("append to", &self.path))?;
        self.unsynced = true;
        if self.sync_each {
            self.sync()?;
        }
        self.bytes += to_u64(frame.len());
        self.next += 1;
        if let Some(live) = &self.live {
            // Who follows is gone only when it failed; then nobody waits for this entry.
            drop(live.send((offset, Arc::new(entry))));
        }
        Ok(offset)
    }

    /// Makes durable what was appended without a sync of its own.
    pub fn sync(&mut self) -> Result<(), Error> {
        if self.unsynced {
            self.file
                .sync_data()
                .map_err(Error::io("sync", &self.path))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Whether all that was appended is on disk.
    pub fn is_synced(&self) -> bool {
        !self.unsynced
    }

    /// All entries after an offset, in order, without gaps: those on disk now, then those appended later.
    pub fn follow(&mut self, after: u64) -> Result<Follower, Error> {
        let (sender, receiver) = sync_channel(FOLLOW_ENTRIES);
        self.live = Some(sender);
        let mut follower = Follower::of_disk(&self.directory, after, self.next - 1)?;
        follower.live = Some(receiver);
        Ok(follower)
    }

    /// Writes under another log id from the next segment on.
    pub fn go_on_as(&mut self, log: LogId) {
        self.log = log;
    }

    /// Cuts a damaged journal off where the damage begins; what is behind it is put aside. Whether there was any.
    pub fn cut_damage(directory: &Path, lineage: &Lineage, now_ms: u64) -> Result<bool, Error> {
        let mut lost = false;
        loop {
            let damage = match Follower::read_only(directory, lineage).and_then(Follower::drain) {
                Ok(()) => return Ok(lost),
                Err(Error::Journal {
                    path,
                    position,
                    reason,
                }) => (path, position, reason),
                Err(e) => return Err(e),
            };
            let (path, position, reason) = damage;
            warn!(path = %path.display(), position, reason, "cutting the journal off here");
            let known = segments(directory)?;
            let Some(number) = known.iter().position(|(_, known)| *known == path) else {
                return Err(Error::Journal {
                    path,
                    position,
                    reason,
                });
            };
            for (_, behind) in known.iter().skip(number + usize::from(position > 0)) {
                put_aside(behind, now_ms)?;
            }
            if position > 0 {
                let copy = path.with_extension(format!("damaged-{now_ms}"));
                fs::copy(&path, &copy).map_err(Error::io("copy", &path))?;
                let file = OpenOptions::new().write(true).open(&path);
                let cut =
                    file.and_then(|file| file.set_len(position).and_then(|()| file.sync_all()));
                cut.map_err(Error::io("cut", &path))?;
            }
            sync_directory(directory)?;
            lost = true;
        }
    }

    /// The log that is written, and its first and last offset.
    pub fn identity(&self) -> (LogId, u64, u64) {
        (self.log, self.first, self.next - 1)
    }

    /// Its size.
    pub fn size(&self) -> JournalSize {
        JournalSize {
            offset: self.next - 1,
            segments: self.segments,
            bytes: self.bytes_before + self.bytes,
        }
    }

    fn roll(&mut self, heads: Position) -> Result<(), Error> {
        self.sync()?;
        let previous = (self.head.first, self.bytes);
        let head = SegmentHead {
            log: self.log,
            first: self.next,
            previous,
            heads,
        };
        self.bytes_before += self.bytes;
        self.segments += 1;
        self.head = head;
        (self.path, self.file, self.bytes) = write_segment(&self.directory, &self.head)?;
        Ok(())
    }
}

/// Reads entries in order, first from disk, then as they are appended.
#[derive(Debug)]
pub struct Follower {
    segments: std::vec::IntoIter<PathBuf>,
    reader: Option<SegmentReader>,
    /// The offset of the next entry.
    next: u64,
    /// The last entry on disk when following began.
    end: u64,
    live: Option<Receiver<(u64, Arc<Entry>)>>,
}

impl Follower {
    /// Follows what is on disk only, from after `after` up to `end`.
    fn of_disk(directory: &Path, after: u64, end: u64) -> Result<Self, Error> {
        let all = segments(directory)?;
        let first = all
            .iter()
            .rposition(|(first, _)| *first <= after + 1)
            .unwrap_or(0);
        let wanted: Vec<PathBuf> = all.into_iter().skip(first).map(|(_, path)| path).collect();
        Ok(Self {
            segments: wanted.into_iter(),
            reader: None,
            next: after + 1,
            end,
            live: None,
        })
    }

    /// All that is on disk and sound, without changing anything; a torn tail is passed over.
    pub fn read_only(directory: &Path, lineage: &Lineage) -> Result<Self, Error> {
        sound_segments(directory, lineage)?;
        Self::of_disk(directory, 0, u64::MAX)
    }

    fn drain(mut self) -> Result<(), Error> {
        while self.next_entry()?.is_some() {}
        Ok(())
    }

    /// The last entry that was on disk when following began.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether all that was on disk when following began has been given.
    pub fn caught_up(&self) -> bool {
        self.next > self.end
    }

    /// The next entry and its offset; waits for it. `None`: nothing more will come.
    pub fn next_entry(&mut self) -> Result<Option<(u64, Arc<Entry>)>, Error> {
        let found = if self.caught_up() {
            self.live_entry()
        } else {
            self.disk_entry()?
        };
        if let Some((offset, _)) = &found {
            assert!(
                *offset == self.next,
                "entry {offset} follows entry {}",
                self.next - 1
            );
            self.next += 1;
        }
        Ok(found)
    }

    fn live_entry(&mut self) -> Option<(u64, Arc<Entry>)> {
        self.live.as_ref()?.recv().ok()
    }

    fn disk_entry(&mut self) -> Result<Option<(u64, Arc<Entry>)>, Error> {
        loop {
            if self.reader.is_none() {
                let Some(path) = self.segments.next() else {
                    return Ok(None);
                };
                self.reader = SegmentReader::open(&path)?;
            }
            let Some(reader) = &mut self.reader else {
                continue;
            };
            match reader.next()? {
                Next::Entry(offset, _) if offset < self.next => {}
                Next::Entry(offset, entry) => return Ok(Some((offset, Arc::new(entry)))),
                Next::End { good, torn } if torn > 0 && self.segments.len() > 0 => {
                    return Err(reader.damage_at(good));
                }
                Next::End { .. } => self.reader = None,
            }
        }
    }
}

/// The first offset (from the name) and the path of each segment, in order.
fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = entry.map_err(Error::io("list", directory))?.path();
        let number = (path
            .extension()
            .is_some_and(|extension| extension == "journal"))
        .then(|| path.file_stem()?.to_str()?.parse().ok())
        .flatten();
        found.extend(number.map(|first| (first, path)));
    }
    found.sort_unstable();
    Ok(found)
}

/// The segments, after checking that none is missing, cut, or of another log. A last segment whose
/// header was never completed is left out and, being empty, written anew when its turn comes.
fn sound_segments(directory: &Path, lineage: &Lineage) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut all = segments(directory)?;
    if let Some((_, path)) = all.last()
        && all.len() > 1
        && SegmentReader::open(path)?.is_none()
    {
        all.pop();
    }
    let mut previous = (0, 0);
    for (first, path) in &all {
        let damage = |reason: String| Error::Journal {
            path: path.clone(),
            position: 0,
            reason,
        };
        let reader = SegmentReader::open(path)?.ok_or_else(|| damage("it has no header".into()))?;
        let head = reader.head;
        let known = head.log == lineage.log
            || lineage
                .ancestors
                .iter()
                .any(|ancestor| ancestor.log == head.log);
        if !known {
            return Err(damage(format!("it belongs to another log, {}", head.log)));
        }
        if head.first != *first {
            return Err(damage(format!(
                "its name says entry {first}, its header {}",
                head.first
            )));
        }
        if head.previous != previous {
            let (entry, bytes) = head.previous;
            let (found, long) = previous;
            return Err(damage(format!(
                "before it belongs a segment that begins with entry {entry} and has {bytes} bytes; \
                 there is one that begins with entry {found} and has {long} bytes (0: none)"
            )));
        }
        let length = fs::metadata(path)
            .map_err(Error::io("read the size of", path))?
            .len();
        previous = (head.first, length);
    }
    Ok(all)
}

fn no_segments(directory: &Path) -> Error {
    Error::Journal {
        path: directory.to_owned(),
        position: 0,
        reason: "it has no segment".into(),
    }
}

/// Gives a segment a name under which it is no longer read.
fn put_aside(path: &Path, now_ms: u64) -> Result<(), Error> {
    let aside = path.with_extension(format!("damaged-{now_ms}"));
    fs::rename(path, &aside).map_err(Error::io("put aside", path))
}

/// Writes a segment's header and syncs it and its name.
fn write_segment(directory: &Path, head: &SegmentHead) -> Result<(PathBuf, File, u64), Error> {
    let path = directory.join(format!("{:020}.journal", head.first));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .map_err(Error::io("make", &path))?;
    let header = head.encode();
    file.write_all(&header).map_err(Error::io("write", &path))?;
    file.sync_all().map_err(Error::io("sync", &path))?;
    sync_directory(directory)?;
    Ok((path, file, to_u64(header.len())))
}

/// Makes names made or removed in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync", directory))
}
