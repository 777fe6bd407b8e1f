//! Zeros ahead of the journal's end. An append into blocks that are on disk already changes no size of a file, so its
//! sync writes data alone and does not wait for the file system's own journal.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tracing::warn;

use super::live::{LiveSegment, SharedSegment};
use crate::store::directory::segments::to_u64;
use crate::store::error::Error;

/// How long a piece is, at most.
const STEP_BYTES: u64 = 2 << 20;
/// More is written when less than this is left.
const LOW_BYTES: u64 = 1 << 20;
/// What one write takes.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// A piece of the segment to fill.
#[derive(Debug)]
struct Piece {
    /// Opened anew: each descriptor is told of a failed write once, and the one that appends must not miss it.
    file: File,
    from: u64,
    to: u64,
}

/// The thread that writes zeros, one piece at a time.
#[derive(Debug)]
pub(super) struct Ahead {
    live: Arc<SharedSegment>,
    pieces: Option<SyncSender<Piece>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Starts the thread.
    pub(super) fn new(live: &Arc<SharedSegment>) -> Result<Self, Error> {
        let (pieces, received) = sync_channel(1);
        let filling = Arc::clone(live);
        let thread = thread::Builder::new()
            .name("zeros".into())
            .spawn(move || fill_all(&filling, &received))
            .map_err(Error::io("start a thread for", live.segment().path()))?;
        Ok(Self {
            live: Arc::clone(live),
            pieces: Some(pieces),
            thread: Some(thread),
        })
    }

    /// Waits until nobody but the caller writes below `end`.
    pub(super) fn wait_for(&self, end: u64) -> Result<MutexGuard<'_, LiveSegment>, Error> {
        let waits = |live: &mut LiveSegment| live.filling && live.written < end;
        let mut live = self
            .live
            .filled
            .wait_while(self.live.segment(), waits)
            .unwrap_or_else(PoisonError::into_inner);
        match live.failed.take() {
            None => Ok(live),
            Some(source) => Err(Error::io("write zeros to", live.path())(source)),
        }
    }

    /// Has more zeros written, if few are left behind `end`; at most up to `limit`.
    pub(super) fn refill(&self, end: u64, limit: u64) {
        let mut live = self.live.segment();
        let from = live.written;
        let to = limit.min(from + STEP_BYTES);
        let enough = from >= end + LOW_BYTES || to <= from;
        if enough || live.filling || live.no_room {
            return;
        }
        // Without zeros, appending is slower and not wrong.
        let (Ok(file), Some(pieces)) = (live.open_again(), &self.pieces) else {
            live.no_room = true;
            return;
        };
        (live.filling, live.longest) = (true, to);
        drop(live);
        pieces
            .send(Piece { file, from, to })
            .expect("the thread runs as long as it can be sent to");
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn fill_all(live: &SharedSegment, pieces: &Receiver<Piece>) {
    for Piece { file, from, to } in pieces {
        let filled = fill(&file, from, to);
        let mut segment = live.segment();
        match filled {
            Ok(true) => segment.written = to,
            // What was written of it is overwritten by what is appended.
            Ok(false) => segment.no_room = true,
            Err(e) => segment.failed = Some(e),
        }
        segment.filling = false;
        drop(segment);
        live.filled.notify_all();
    }
}

/// Writes zeros and syncs them. `false`: there is no room.
fn fill(file: &File, from: u64, to: u64) -> io::Result<bool> {
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        match file.write_all_at(ZEROS.get(..length).unwrap_or(&ZEROS), at) {
            Ok(()) => at += to_u64(length),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
                ) =>
            {
                warn!(error = %e, "there is no room to write ahead in the journal");
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
    }
    file.sync_data()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::super::frame::encode_frame;
    use super::*;
    use crate::model::{GroupName, Position};
    use crate::store::directory::Tail;
    use crate::store::directory::segments::{HEADER_BYTES, segments};
    use crate::store::{Command, Directory, Entry, Follower, Journal};

    const LIMIT: u64 = 16 << 10;

    /// Its last bytes are zeros.
    fn entry(n: u64) -> Entry {
        let group = GroupName::parse(&format!("group {n}")).unwrap();
        Entry {
            proposer: 7,
            n,
            at_ms: n,
            keys_us: n * 1000,
            commands: vec![Command::SetGroup {
                group,
                members: Vec::new(),
                history: None,
            }],
        }
    }

    fn frame(n: u64) -> u64 {
        to_u64(encode_frame(n, &entry(n)).unwrap().len())
    }

    /// Where the entries up to this one end in the first segment.
    fn end(n: u64) -> u64 {
        to_u64(HEADER_BYTES) + (1..=n).map(frame).sum::<u64>()
    }

    fn append(journal: &mut Journal, entries: impl IntoIterator<Item = u64>) {
        for n in entries {
            let appended = journal.append(entry(n), |_| Ok(Position::default()));
            assert_eq!(appended.unwrap(), n);
        }
    }

    fn open(directory: &Directory) -> Journal {
        let mut journal = Journal::open(directory, true).unwrap();
        journal.roll_at(LIMIT);
        journal
    }

    /// A directory whose journal holds entries, and zeros behind them, as kill -9 leaves it.
    fn killed(entries: u64) -> (tempfile::TempDir, Directory, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(&folder.path().join("data")).unwrap();
        append(&mut open(&directory), 1..=entries);
        let (_, path) = segments(&directory.journal()).unwrap().pop().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), LIMIT);
        (folder, directory, path)
    }

    /// The last entry that a reading gives, each checked against what was written.
    fn read(directory: &Directory, tail: Tail) -> Result<u64, Error> {
        let mut follower = Follower::checked(directory)?.ending(tail);
        let mut last = 0;
        while let Some((offset, found)) = follower.next_entry()? {
            assert_eq!((offset, &*found), (last + 1, &entry(last + 1)));
            last = offset;
        }
        Ok(last)
    }

    fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    /// A copy of a directory, taken while it is written.
    fn copy(of: &Directory) -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("data");
        fs::create_dir_all(to.join("journal")).unwrap();
        fs::copy(of.path().join("format"), to.join("format")).unwrap();
        for (_, path) in segments(&of.journal()).unwrap() {
            let name = path.file_name().unwrap();
            fs::copy(&path, to.join("journal").join(name)).unwrap();
        }
        let directory = Directory::open(&to).unwrap();
        (folder, directory)
    }

    #[test]
    fn entries_go_into_zeros_that_are_there_and_a_stop_cuts_the_rest_off() {
        let (_folder, directory, path) = killed(3);
        assert_eq!(read(&directory, Tail::Synced).unwrap(), 3);
        let mut journal = open(&directory);
        journal.cut_tail().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), end(3));
        append(&mut journal, 4..=4);
        drop(journal.ahead().wait_for(u64::MAX).unwrap());
        append(&mut journal, 5..=40);
        assert_eq!(fs::metadata(&path).unwrap().len(), LIMIT);
        assert_eq!(read(&directory, Tail::Synced).unwrap(), 40);
        journal.close().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), end(40));
        assert_eq!(read(&directory, Tail::Synced).unwrap(), 40);
    }

    #[test]
    fn what_is_torn_ahead_of_the_end_is_cut_off_and_entries_behind_it_are_damage() {
        let (_folder, directory, path) = killed(40);
        let sound = fs::read(&path).unwrap();
        for at in (end(40)..LIMIT).step_by(997) {
            overwrite(&path, at, b"torn");
            assert_eq!(read(&directory, Tail::Synced).unwrap(), 40);
            let mut journal = open(&directory);
            journal.cut_tail().unwrap();
            append(&mut journal, 41..=41);
            drop(journal);
            assert_eq!(read(&directory, Tail::Synced).unwrap(), 41);
            fs::write(&path, &sound).unwrap();
        }
        for at in [end(0), end(20), end(39)] {
            for cut in 4..=frame(1) {
                let zeros = vec![0; usize::try_from(cut).unwrap()];
                overwrite(&path, at, &zeros);
                let found = read(&directory, Tail::Synced);
                match found {
                    Err(Error::Journal { position, .. }) => assert_eq!(position, at),
                    Ok(39) => assert_eq!(at, end(39)),
                    other => panic!("{cut} zeros at {at}: {other:?}"),
                }
                fs::write(&path, &sound).unwrap();
            }
        }
    }

    #[test]
    fn a_copier_may_find_zeros_before_what_was_written_later_and_damage_is_something_else() {
        let (_folder, directory, path) = killed(200);
        let sound = fs::read(&path).unwrap();
        // The copier read up to some block when there were so many entries, and the rest when all were there.
        for entries in 0..100 {
            for half in [0, frame(entries + 1) / 2] {
                let from = end(entries) + half;
                for block in [512, 4096] {
                    let zeros = from.next_multiple_of(block) - from;
                    overwrite(&path, from, &vec![0; usize::try_from(zeros).unwrap()]);
                    // The first bytes of a frame, which say its length, may be zeros anyway.
                    if fs::read(&path).unwrap() == sound {
                        continue;
                    }
                    let found = read(&directory, Tail::Copied);
                    if half == 0 || zeros >= 64 {
                        assert_eq!(found.unwrap(), entries, "{zeros} zeros at {from}");
                    }
                    let found = read(&directory, Tail::Synced);
                    assert!(
                        matches!(found, Err(Error::Journal { .. })),
                        "{zeros} zeros at {from}: {found:?}"
                    );
                    fs::write(&path, &sound).unwrap();
                }
            }
        }
        // Which of the two it is, the directory knows.
        let from = end(100);
        let zeros = vec![0; usize::try_from(from.next_multiple_of(512) - from).unwrap()];
        overwrite(&path, from, &zeros);
        assert!(Journal::open(&directory, true).is_err());
        let copied = copy(&directory);
        assert_eq!(open(&copied.1).last_offset(), 100);
        fs::write(&path, &sound).unwrap();
        for at in to_u64(HEADER_BYTES)..end(100) {
            let byte = sound[usize::try_from(at).unwrap()];
            overwrite(&path, at, &[byte ^ 0x10]);
            let found = read(&directory, Tail::Copied);
            assert!(
                matches!(found, Err(Error::Journal { .. })),
                "byte {at}: {found:?}"
            );
            overwrite(&path, at, &[byte]);
        }
    }

    #[test]
    fn zeros_behind_an_earlier_segment_are_its_end_unless_entries_are_missing() {
        let (_folder, directory, first) = killed(1);
        let mut journal = open(&directory);
        journal.cut_tail().unwrap();
        journal.roll_at(end(20));
        append(&mut journal, 2..=40);
        drop(journal);
        assert_eq!(segments(&directory.journal()).unwrap().len(), 2);
        // A live copy has zeros that were cut off later.
        let sound = fs::read(&first).unwrap();
        fs::write(&first, [&sound[..], &[0; 3000]].concat()).unwrap();
        assert_eq!(read(&directory, Tail::Synced).unwrap(), 40);
        fs::write(&first, [&sound[..], &[0; 3000], b"1"].concat()).unwrap();
        assert!(matches!(
            read(&directory, Tail::Synced),
            Err(Error::Journal { .. })
        ));
        // The last entry is gone, though the length is right.
        let zeros = vec![0; usize::try_from(frame(20)).unwrap()];
        fs::write(&first, &sound).unwrap();
        overwrite(&first, to_u64(sound.len() - zeros.len()), &zeros);
        assert!(matches!(
            read(&directory, Tail::Synced),
            Err(Error::Journal { .. })
        ));
    }

    #[test]
    fn zeros_go_into_no_other_file_that_has_the_name_of_the_segment() {
        let (_folder, directory, path) = killed(3);
        let mut journal = open(&directory);
        journal.cut_tail().unwrap();
        let away = path.with_extension("away");
        fs::rename(&path, &away).unwrap();
        let other = fs::read(&away).unwrap();
        fs::write(&path, &other).unwrap();
        append(&mut journal, 4..=5);
        drop(journal);
        assert_eq!(fs::read(&path).unwrap(), other);
        assert_eq!(fs::metadata(&away).unwrap().len(), end(5));
    }

    #[test]
    fn without_room_for_zeros_entries_are_appended_and_an_error_of_the_disk_refuses_them() {
        let (_folder, directory, path) = killed(3);
        let mut journal = open(&directory);
        journal.cut_tail().unwrap();
        let full = PathBuf::from("/dev/full");
        journal.live().segment().put_zeros_elsewhere(full);
        append(&mut journal, 4..=5);
        assert!(journal.ahead().wait_for(u64::MAX).unwrap().no_room);
        append(&mut journal, 6..=7);
        assert_eq!(fs::metadata(&path).unwrap().len(), end(7));
        journal.live().segment().failed = Some(io::Error::other("the disk is gone"));
        let refused = journal.append(entry(8), |_| unreachable!()).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused}");
        assert_eq!(read(&directory, Tail::Synced).unwrap(), 7);
    }
}
