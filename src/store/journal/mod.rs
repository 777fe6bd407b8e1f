//! The journal: every entry that was ever committed, in order, checksummed, in append-only segments.
//!
//! What is acknowledged is here, and everything else can be made from it. [`Journal::append`] and [`Journal::follow`] are
//! what it is for; the rest opens and closes it, and says where it ends. Nothing above knows of segments and frames.

mod ahead;
mod checksum;
pub(super) mod command;
mod damage;
pub(super) mod follow;
mod frame;
pub(super) mod live;
mod rest;
mod segment;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::model::{LogId, Position};
use crate::store::directory::Directory;
use crate::store::directory::mark::{self, JournalEnd, Own};
use crate::store::directory::place::Place;
use crate::store::directory::segments::{SegmentHead, no_segments, to_u64, write_segment};
use crate::store::error::Error;
use ahead::Ahead;
use command::Entry;
use follow::{Follower, sound_segments};
use frame::encode_frame;
use live::{LiveSegment, SharedSegment, open_own, write_again};
use segment::{Next, SegmentReader};

/// A segment ends when it has grown to this: small enough to copy, and to read at each start, when the last one is.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Entries that may wait between the journal and who follows it; more, and appending waits.
const FOLLOW_ENTRIES: usize = 64;

/// The end of the journal that is written. One process writes it, under the directory's lock.
#[derive(Debug)]
pub struct Journal {
    /// The data directory, and the journal's own in it.
    data: Arc<Place>,
    place: Arc<Place>,
    log: LogId,
    path: PathBuf,
    file: File,
    /// The same file, shared with who writes zeros and who looks whether it is still what it was.
    live: Arc<SharedSegment>,
    ahead: Ahead,
    head: SegmentHead,
    /// Length of the present segment, without a torn tail and without the zeros ahead.
    bytes: u64,
    /// Bytes of a torn tail behind it.
    torn: u64,
    /// Length of the segments before it.
    bytes_before: u64,
    segments: u64,
    /// For other threads; current before an entry is given to who follows.
    size: Arc<Mutex<JournalSize>>,
    /// The offset of the next entry.
    next: u64,
    /// The offset of the first entry that is kept.
    first: u64,
    keys_ms_at_open: u64,
    follower: Option<SyncSender<(u64, Arc<Entry>)>>,
    sync_each: bool,
    /// Something was appended since the last sync.
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
    /// Opens the journal, and makes sure that what is read is on disk. A torn tail is still there until
    /// [`Self::cut_tail`]. `sync_each`: sync each entry before it counts as appended.
    pub fn open(of: &Directory, sync_each: bool) -> Result<Self, Error> {
        let (place, lineage) = (of.journal_place(), of.lineage());
        let directory = place.path();
        let segments = sound_segments(directory, &lineage)?;
        let (Some((_, path)), Ok(count)) = (segments.last(), u64::try_from(segments.len())) else {
            return Err(no_segments(directory));
        };
        let reader = SegmentReader::open(path)?.ok_or_else(|| no_segments(directory))?;
        let mut reader = reader.ending(of.tail());
        let (mut next, mut keys_ms) = (reader.head.first, None);
        let (good, torn) = loop {
            match reader.next()? {
                Next::Entry(offset, entry) => {
                    (next, keys_ms) = (offset + 1, Some(entry.keys_ms()));
                }
                Next::End { good, torn } => break (good, torn),
            }
        };
        let file = open_own(path)?;
        if !of.stopped_cleanly() {
            write_again(&file, good).map_err(Error::io("write again", path))?;
        }
        file.sync_all().map_err(Error::io("sync", path))?;
        place.sync()?;
        let earlier = segments.iter().rev().skip(1);
        let bytes_before = earlier
            .map(|(_, path)| fs::metadata(path).map(|data| data.len()))
            .sum::<Result<u64, _>>()
            .map_err(Error::io("read the sizes in", directory))?;
        let live = SharedSegment::new(LiveSegment::new(path, &file)?);
        let journal = Self {
            data: Arc::clone(of.place()),
            place: Arc::clone(place),
            log: lineage.log,
            path: path.clone(),
            file,
            ahead: Ahead::new(&live)?,
            live,
            head: reader.head,
            bytes: good,
            torn,
            bytes_before,
            segments: count,
            size: Arc::default(),
            next,
            first: segments.first().map_or(1, |(first, _)| *first),
            keys_ms_at_open: keys_ms.unwrap_or_else(|| keys_ms_before(directory, next)),
            follower: None,
            sync_each,
            unsynced: false,
            segment_bytes: SEGMENT_BYTES,
        };
        journal.note_size();
        Ok(journal)
    }

    /// Cuts a torn tail off: what was never synced. To be called once it is known that the view
    /// holds nothing of them, and before the first [`Self::append`].
    pub fn cut_tail(&mut self) -> Result<(), Error> {
        // Nobody knows whether the zeros of an earlier process are on disk: new ones are written.
        self.cut_zeros()?;
        if self.torn > 0 {
            warn!(path = %self.path.display(), position = self.bytes, bytes = self.torn, last_entry = self.next - 1,
                "cut off the torn end of the journal, which was never synced: with `--durability always` nothing of it was acknowledged");
            self.torn = 0;
        }
        Ok(())
    }

    /// Makes an entry durable and gives it the next offset. `heads` is asked only when a segment begins:
    /// the ids given up to the offset that it is called with. After an error nothing may be appended any
    /// more, for what is on disk is not known.
    pub fn append(
        &mut self,
        entry: Entry,
        heads: impl FnOnce(u64) -> Result<Position, Error>,
    ) -> Result<u64, Error> {
        assert!(
            self.torn == 0,
            "the torn tail is cut before anything is appended"
        );
        // An empty segment of an older log is filled first: the next one would have the same name.
        let other_log = self.head.log != self.log && self.next > self.head.first;
        if self.bytes >= self.segment_bytes || other_log {
            let heads = heads(self.next - 1)?;
            self.roll(heads)?;
        }
        let offset = self.next;
        let frame = encode_frame(offset, &entry)?;
        let end = self.bytes + to_u64(frame.len());
        self.ahead.wait_for(end)?.check_to_write()?;
        self.file
            .write_all_at(&frame, self.bytes)
            .map_err(Error::io("append to", &self.path))?;
        self.unsynced = true;
        if self.sync_each {
            self.sync()?;
        }
        self.bytes = end;
        self.live.segment().reaches(end);
        self.ahead.refill(end, self.segment_bytes);
        self.next += 1;
        self.note_size();
        if let Some(follower) = &self.follower {
            // Who follows has let go of this only when it failed; then nobody waits for the entry.
            drop(follower.send((offset, Arc::new(entry))));
        }
        Ok(offset)
    }

    /// Begins the next segment.
    fn roll(&mut self, heads: Position) -> Result<(), Error> {
        self.sync()?;
        assert!(self.is_synced(), "a segment is never synced again");
        let previous = (self.head.first, self.bytes);
        let head = SegmentHead {
            log: self.log,
            first: self.next,
            previous,
            heads,
        };
        self.place.check()?;
        self.cut_zeros()?;
        self.bytes_before += self.bytes;
        self.segments += 1;
        self.head = head;
        (self.path, self.file, self.bytes) = write_segment(&self.place, &self.head)?;
        *self.live.segment() = LiveSegment::new(&self.path, &self.file)?;
        // Before anything is in it that a restored one would lack.
        mark::note_segment(&self.data, &self.own_segment()?)
    }

    /// Makes durable what was appended without a sync of its own.
    pub fn sync(&mut self) -> Result<(), Error> {
        // Tried once: after a failure the system forgets what it could not write, and would say that all is well.
        if std::mem::take(&mut self.unsynced) {
            self.file
                .sync_data()
                .map_err(Error::io("sync", &self.path))?;
        }
        Ok(())
    }

    /// Whether all that was appended is on disk.
    pub fn is_synced(&self) -> bool {
        !self.unsynced
    }

    /// Syncs what was appended, and ends the last segment where its last entry ends.
    pub fn close(mut self) -> Result<(), Error> {
        self.sync()?;
        self.cut_zeros()
    }

    /// Ends the segment where its last entry ends.
    fn cut_zeros(&mut self) -> Result<(), Error> {
        let mut live = self.ahead.wait_for(u64::MAX)?;
        live.check_to_write()?;
        live.written = self.bytes;
        let longer = live.longest > self.bytes;
        // Who looks at the segment does not wait for the disk.
        drop(live);
        if longer {
            self.file
                .set_len(self.bytes)
                .and_then(|()| self.file.sync_all())
                .map_err(Error::io("cut", &self.path))?;
        }
        self.live.segment().longest = self.bytes;
        Ok(())
    }

    /// All entries after an offset, in order, without gaps: those on disk now, then those appended later.
    pub fn follow(&mut self, after: u64) -> Result<Follower, Error> {
        let (sender, receiver) = sync_channel(FOLLOW_ENTRIES);
        self.follower = Some(sender);
        let follower = Follower::of_disk(self.place.path(), after, self.next - 1)?;
        Ok(follower.then(receiver))
    }

    /// The entries of all segments but the last, which no longer change. The last one was read at open.
    pub fn full_segments(&self) -> Result<Follower, Error> {
        Follower::of_disk(self.place.path(), self.first - 1, self.head.first - 1)
    }

    /// Writes under another log id from the next segment on.
    pub fn go_on_as(&mut self, log: LogId) {
        self.log = log;
    }

    /// The offset of the last entry; 0 without one.
    pub fn last_offset(&self) -> u64 {
        self.next - 1
    }

    /// The time by which the last entry kept idempotency keys when the journal was opened; 0 without one.
    pub fn keys_ms_at_open(&self) -> u64 {
        self.keys_ms_at_open
    }

    /// The segment that is written, for those who look whether it is still what it was.
    pub(super) fn live(&self) -> &Arc<SharedSegment> {
        &self.live
    }

    /// Where it ends now, for the mark of a start.
    pub fn end(&self) -> Result<JournalEnd, Error> {
        Ok(JournalEnd {
            offset: self.next - 1,
            segment: self.own_segment()?,
        })
    }

    /// The segment that is written, for the next start to know again.
    fn own_segment(&self) -> Result<Own, Error> {
        Own::segment(&self.path, &self.file)
    }

    /// Its size, which is kept current. Who is given an entry finds it counted.
    pub fn size(&self) -> Arc<Mutex<JournalSize>> {
        Arc::clone(&self.size)
    }

    #[cfg(test)]
    fn ahead(&self) -> &Ahead {
        &self.ahead
    }

    /// Lets segments end when they have grown to this.
    #[cfg(test)]
    pub(crate) fn roll_at(&mut self, bytes: u64) {
        self.segment_bytes = bytes;
    }

    fn note_size(&self) {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner) = JournalSize {
            offset: self.next - 1,
            segments: self.segments,
            bytes: self.bytes_before + self.bytes,
        };
    }
}

/// [`Journal::keys_ms_at_open`] where the last segment has no entry yet. An older one that cannot be read is no reason not
/// to start.
fn keys_ms_before(directory: &Path, next: u64) -> u64 {
    let last = Follower::of_disk(directory, next.saturating_sub(2), next - 1);
    let last = last.and_then(|mut last| last.next_entry());
    last.ok().flatten().map_or(0, |(_, entry)| entry.keys_ms())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::store::Command;
    use crate::store::directory::segments::{HEADER_BYTES, segments};

    fn entry(n: u64) -> Entry {
        let group = crate::model::GroupName::parse(&format!("group {n}")).unwrap();
        let commands = vec![Command::DeleteGroup { group }];
        Entry {
            proposer: 7,
            n,
            at_ms: n,
            keys_us: n * 1000,
            commands,
        }
    }

    /// All entries of a test are in one, and few zeros behind them.
    const ONE_SEGMENT: u64 = 8 << 10;

    /// A directory whose journal holds entries, in segments of at least this many bytes.
    fn written(entries: u64, segment_bytes: u64) -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&folder.path().join("data")).unwrap();
        let mut journal = Journal::open(&directory, true).unwrap();
        journal.roll_at(segment_bytes);
        for n in 1..=entries {
            let heads = |offset| {
                Ok(Position {
                    direct: offset,
                    group: 0,
                })
            };
            assert_eq!(journal.append(entry(n), heads).unwrap(), n);
        }
        journal.close().unwrap();
        (folder, directory)
    }

    /// What a reading gives, each checked against what was written.
    fn read(directory: &Directory) -> Result<u64, Error> {
        let mut follower = Follower::checked(directory)?;
        let mut last = 0;
        while let Some((offset, found)) = follower.next_entry()? {
            assert_eq!((offset, &*found), (last + 1, &entry(last + 1)));
            last = offset;
        }
        Ok(last)
    }

    fn files(directory: &Directory) -> Vec<PathBuf> {
        segments(&directory.journal())
            .unwrap()
            .into_iter()
            .map(|(_, path)| path)
            .collect()
    }

    #[test]
    fn a_flipped_byte_is_refused_or_takes_only_the_last_entry() {
        let (_folder, directory) = written(3, ONE_SEGMENT);
        let path = files(&directory).remove(0);
        let good = fs::read(&path).unwrap();
        let mut torn = 0;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            match read(&directory) {
                Err(Error::Journal { .. }) => {}
                Ok(2) => torn += 1,
                other => panic!("byte {at}: {other:?}"),
            }
        }
        let frame = encode_frame(3, &entry(3)).unwrap().len();
        assert_eq!(torn, frame, "every byte of the last entry, and no other");
    }

    #[test]
    fn a_cut_anywhere_leaves_whole_entries_and_goes_on_from_there() {
        let (_folder, directory) = written(3, ONE_SEGMENT);
        let path = files(&directory).remove(0);
        let good = fs::read(&path).unwrap();
        let ends: Vec<usize> = (0..=3)
            .map(|n| {
                HEADER_BYTES
                    + (1..=n)
                        .map(|n| encode_frame(n, &entry(n)).unwrap().len())
                        .sum::<usize>()
            })
            .collect();
        for length in HEADER_BYTES..=good.len() {
            fs::write(&path, &good[..length]).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count() - 1;
            let mut journal = Journal::open(&directory, true).unwrap();
            assert_eq!(
                fs::metadata(&path).unwrap().len(),
                to_u64(length),
                "not cut yet"
            );
            journal.roll_at(ONE_SEGMENT);
            journal.cut_tail().unwrap();
            let next = to_u64(whole) + 1;
            assert_eq!(
                journal.append(entry(next), |_| unreachable!()).unwrap(),
                next
            );
            assert_eq!(read(&directory).unwrap(), next);
        }
    }

    #[test]
    fn segments_follow_each_other_and_a_missing_one_is_noticed() {
        let (_folder, directory) = written(40, 300);
        let paths = files(&directory);
        assert!(paths.len() > 4, "{paths:?}");
        assert_eq!(read(&directory).unwrap(), 40);
        assert_eq!(Journal::open(&directory, true).unwrap().last_offset(), 40);
        for path in paths.iter().skip(1) {
            let SegmentHead { first, heads, .. } = SegmentReader::open(path).unwrap().unwrap().head;
            assert_eq!(
                (heads.direct, heads.group),
                (first - 1, 0),
                "the ids given before its first entry"
            );
        }
        for path in paths.iter().rev().skip(1) {
            let away = path.with_extension("away");
            fs::rename(path, &away).unwrap();
            assert!(
                matches!(read(&directory), Err(Error::Journal { .. })),
                "{path:?}"
            );
            assert!(matches!(
                Journal::open(&directory, true),
                Err(Error::Journal { .. })
            ));
            fs::rename(&away, path).unwrap();
        }
        for path in paths.iter().rev().skip(1) {
            let good = fs::read(path).unwrap();
            fs::write(path, &good[..good.len() - 1]).unwrap();
            assert!(
                matches!(read(&directory), Err(Error::Journal { .. })),
                "{path:?} is cut"
            );
            fs::write(path, &good).unwrap();
        }
    }

    /// Of a server whose directory was moved away and copied back, or of another one.
    #[test]
    fn a_new_segment_replaces_no_file_that_holds_entries() {
        let (_folder, directory) = written(1, ONE_SEGMENT);
        let mut journal = Journal::open(&directory, true).unwrap();
        journal.roll_at(1);
        let next = directory.journal().join(format!("{:020}.journal", 2));
        fs::write(&next, [7; 500]).unwrap();
        let heads = |_| Ok(Position::default());
        let refused = journal.append(entry(2), heads).unwrap_err();
        assert!(matches!(refused, Error::Journal { .. }), "{refused}");
        assert_eq!(fs::read(&next).unwrap(), [7; 500]);
        // What a stop may leave of a header is written again.
        fs::write(&next, [7; 50]).unwrap();
        let mut journal = Journal::open(&directory, true).unwrap();
        journal.roll_at(1);
        journal.append(entry(2), heads).unwrap();
        assert_eq!(read(&directory).unwrap(), 2);
    }

    #[test]
    fn nothing_is_appended_to_a_segment_that_was_cut_removed_or_written_by_others() {
        let changes: [fn(&Path); 3] = [
            |path| fs::write(path, "short").unwrap(),
            |path| fs::remove_file(path).unwrap(),
            |path| fs::write(path, [0; 5000]).unwrap(),
        ];
        for change in changes {
            let (_folder, directory) = written(3, ONE_SEGMENT);
            let mut journal = Journal::open(&directory, true).unwrap();
            change(&files(&directory).remove(0));
            let refused = journal.append(entry(4), |_| unreachable!()).unwrap_err();
            assert!(matches!(refused, Error::Moved { .. }), "{refused}");
        }
    }

    #[test]
    fn a_segment_is_synced_before_the_next_begins_also_where_entries_are_not() {
        let (_folder, directory) = written(0, ONE_SEGMENT);
        let mut journal = Journal::open(&directory, false).unwrap();
        journal.roll_at(300);
        for n in 1..=20 {
            journal
                .append(entry(n), |_| Ok(Position::default()))
                .unwrap();
            assert!(!journal.is_synced());
        }
        assert!(journal.segments > 2);
        journal.sync().unwrap();
        assert!(journal.is_synced());
        assert_eq!(read(&directory).unwrap(), 20);
    }

    #[test]
    fn the_time_of_keys_goes_on_where_the_last_entry_left_it() {
        let (_folder, directory) = written(0, ONE_SEGMENT);
        let mut journal = Journal::open(&directory, true).unwrap();
        assert_eq!(journal.keys_ms_at_open(), 0);
        for keys_ms in [7, 9] {
            let entry = Entry {
                keys_us: keys_ms * 1000,
                ..entry(1)
            };
            journal.append(entry, |_| unreachable!()).unwrap();
        }
        let mut journal = Journal::open(&directory, true).unwrap();
        assert_eq!(journal.keys_ms_at_open(), 9);
        journal.roll(Position::default()).unwrap();
        let journal = Journal::open(&directory, true).unwrap();
        assert_eq!(journal.keys_ms_at_open(), 9, "the last segment is empty");
    }

    #[test]
    fn a_segment_whose_header_was_never_finished_is_written_again() {
        let (_folder, directory) = written(40, 300);
        let (last, before) = {
            let mut paths = files(&directory);
            (paths.pop().unwrap(), paths.len())
        };
        let header = fs::read(&last).unwrap();
        for length in [0, 1, HEADER_BYTES - 1] {
            fs::write(&last, &header[..length]).unwrap();
            let end = read(&directory).unwrap();
            let mut journal = Journal::open(&directory, true).unwrap();
            journal.roll_at(300);
            assert_eq!(
                (journal.last_offset(), journal.segments),
                (end, to_u64(before))
            );
            let heads = |offset| {
                Ok(Position {
                    direct: offset,
                    group: 0,
                })
            };
            assert_eq!(journal.append(entry(end + 1), heads).unwrap(), end + 1);
            assert_eq!(read(&directory).unwrap(), end + 1);
        }
    }

    #[test]
    fn what_was_read_is_written_again_unless_the_stop_was_clean() {
        let (_folder, directory) = written(3, ONE_SEGMENT);
        let path = files(&directory).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend([7; 30]);
        fs::write(&path, &bytes).unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_secs(1);
        let is_written = |directory: &Directory| {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(long_ago).unwrap();
            drop(Journal::open(directory, true).unwrap());
            assert_eq!(fs::read(&path).unwrap(), bytes);
            fs::metadata(&path).unwrap().modified().unwrap() != long_ago
        };
        assert!(is_written(&directory));
        fs::create_dir(directory.sled()).unwrap();
        directory.close(3).unwrap();
        let of = directory.path().to_owned();
        drop(directory);
        assert!(!is_written(&Directory::open(&of).unwrap()));
    }

    #[test]
    fn a_damaged_journal_is_cut_only_where_its_loss_is_accepted() {
        let (_folder, mut directory) = written(40, 300);
        let paths = files(&directory);
        let mut bytes = fs::read(&paths[1]).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&paths[1], &bytes).unwrap();
        assert!(matches!(read(&directory), Err(Error::Journal { .. })));
        assert!(!directory.must_fork());
        assert!(Journal::cut_damage(&mut directory, 5).unwrap());
        assert!(directory.must_fork(), "until the log has another id");
        let end = read(&directory).unwrap();
        assert_eq!(Journal::open(&directory, true).unwrap().last_offset(), end);
        assert!(end > 0 && end < 40, "{end}");
        assert!(
            paths[1].with_extension("damaged-5").exists(),
            "what is cut is put aside"
        );
    }
}
