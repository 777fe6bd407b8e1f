//! The data directory: whose it is, which log it holds, and whether its sled may be trusted.

pub(super) mod aside;
pub(super) mod damage;
pub(super) mod files;
pub(super) mod format;
mod identity;
mod lock;
pub(super) mod mark;
mod owner;
pub(super) mod place;
pub(super) mod room;
pub(super) mod segments;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

use crate::model::{Ancestor, Lineage, Position};
use crate::store::error::Error;
use files::{
    is_there, make_directory, must_be_no_link, must_be_ours, must_exist, must_have_journal,
    sync_directory, sync_names_above, sync_readable,
};
use format::{
    FORMAT_VERSION, Format, README, inode_of_format, new_log_id, read_format, write_format,
};
use identity::{files_of, identity};
use lock::{Lock, lock, lock_journal, lock_to_read};
use mark::{JournalEnd, Marks};
use owner::must_be_owner;
use place::Place;
use segments::create_first;

/// How sled may be used at open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Stopped cleanly and untouched since.
    Clean,
    /// Written here, but not stopped cleanly: recover it, and check it while it is served.
    Check,
    /// Copied while in use, or missing: rebuild it.
    Rebuild,
}

/// How the last entries were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Each was synced before the next: behind a torn one there is none.
    Synced,
    /// Several may be torn, and others whole behind them.
    Unsynced,
    /// Copied while they were written: where the copier read zeros ahead of the end, and further on what was written
    /// meanwhile, there is a hole.
    Copied,
}

/// An open data directory, locked for this process.
#[derive(Debug)]
pub struct Directory {
    place: Arc<Place>,
    journal: Arc<Place>,
    format: Format,
    /// Whether this is another directory than the one that was written.
    copied: bool,
    marks: Marks,
    read_only: bool,
    /// Of the directory and of its journal, which may be mounted into several.
    _locks: (Lock, Option<Lock>),
}

impl Directory {
    /// Opens a data directory, or makes a new one where there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        make_directory(path)?;
        // Both before LOCK is made: in a directory that is refused, nothing is left behind.
        if is_there(&path.join("format"))? {
            must_be_owner(path, "serve")?;
        } else {
            must_be_ours(path)?;
        }
        let place = Place::open(path)?;
        let lock = lock(&place)?;
        // Looked for again: another process may have made it before this one had the lock.
        if !is_there(&path.join("format"))? {
            create(&place)?;
            info!(path = %path.display(), "there was no data here: a new log begins");
        }
        Self::read(place, lock)
    }

    /// Opens a data directory that must exist.
    pub fn open_existing(path: &Path) -> Result<Self, Error> {
        must_exist(path)?;
        must_be_owner(path, "rebuild")?;
        let place = Place::open(path)?;
        let lock = lock(&place)?;
        Self::read(place, lock)
    }

    /// The same to read it, also where nothing may be written.
    pub fn open_to_read(path: &Path) -> Result<Self, Error> {
        must_exist(path)?;
        let place = Place::open(path)?;
        let (lock, read_only) = lock_to_read(&place)?;
        let directory = Self::read(place, lock)?;
        Ok(Self {
            read_only,
            ..directory
        })
    }

    fn read(place: Place, lock: Lock) -> Result<Self, Error> {
        let path = place.path();
        let format = read_format(&path.join("format"))?;
        for name in ["journal", "sled"] {
            must_be_no_link(path, name)?;
        }
        must_have_journal(path)?;
        let journal = Place::open(&path.join("journal"))?;
        let locks = (lock, lock_journal(&journal)?);
        let inode = inode_of_format(&place)?;
        // Whoever copies a directory, and however: its inodes are others. If a copy went on under the same log id, it
        // and the original would give the same ids to different messages, and both would take each other's cursors.
        let copied = format.directory != identity(&place, &journal, &inode)?;
        let marks = Marks::read(&place, &inode);
        Ok(Self {
            place: Arc::new(place),
            journal: Arc::new(journal),
            format,
            copied,
            marks,
            read_only: false,
            _locks: locks,
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The directory itself, held open.
    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Where the journal's segments are, held open.
    pub(super) fn journal_place(&self) -> &Arc<Place> {
        &self.journal
    }

    /// Whether nothing may be written to it.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Where the journal's segments are.
    pub fn journal(&self) -> PathBuf {
        self.journal.path().to_owned()
    }

    /// Where sled is.
    pub fn sled(&self) -> PathBuf {
        self.path().join("sled")
    }

    /// The log and those it continues.
    pub fn lineage(&self) -> Lineage {
        Lineage {
            log: self.format.log,
            ancestors: self.format.ancestors.clone(),
        }
    }

    /// The version of its format, if that is an earlier one: its view must be rebuilt.
    pub fn earlier_format(&self) -> Option<u32> {
        Some(self.format.version).filter(|version| *version < FORMAT_VERSION)
    }

    /// How the journal's last entries were written.
    pub(super) fn tail(&self) -> Tail {
        // A stop that left its mark has synced and cut the last segment, so a copy of it has no hole either.
        if self.marks.clean.is_some() {
            Tail::Synced
        // Before the copies, for it allows more: a copy of an unsynced journal may have both.
        } else if self.format.relaxed {
            Tail::Unsynced
        } else if self.copied || self.marks.restored {
            Tail::Copied
        } else {
            Tail::Synced
        }
    }

    /// Whether the last stop left its mark.
    pub(super) fn stopped_cleanly(&self) -> bool {
        self.marks.clean.is_some()
    }

    /// Whether the journal holds all that the marks of the last clean stop and the last start say was in it.
    pub fn check_end(&self, journal_end: u64) -> Result<(), Error> {
        let Marks { clean, begun, .. } = &self.marks;
        // sled cannot say it alone: where it is deleted, or was put back together with an older journal, its own mark
        // is gone or agrees, and the ids of the entries that are missing would be given again.
        let stopped = clean.as_ref().map_or(0, |clean| clean.offset);
        let begun = begun.as_ref().map_or(0, |begun| begun.offset);
        let known = stopped.max(begun);
        if known > journal_end {
            return Err(Error::JournalBehind {
                journal: journal_end,
                applied: known,
                data: self.path().to_owned(),
            });
        }
        Ok(())
    }

    /// How sled may be used, given the journal's last offset.
    pub fn trust(&self, journal_end: u64) -> Result<Trust, Error> {
        if !self.sled().is_dir() {
            return Ok(Trust::Rebuild);
        }
        // sled reads a file that was put back or cut without a complaint if its checksums are right, and says nothing
        // of what it lacks. Sizes and times tell that this is the one that was closed, without reading it.
        let untouched = match &self.marks.clean {
            Some(clean) => clean.offset == journal_end && clean.files == files_of(&self.sled())?,
            None => false,
        };
        Ok(match (untouched, self.copied || self.marks.restored) {
            // A copy too: it was made after the stop, and has all the files that the mark lists.
            (true, _) => Trust::Clean,
            // After a kill, sled recovers to one moment; the journal has what follows.
            (false, false) => Trust::Check,
            // Copied file by file while it was written, it is of many moments, and a check need not find that.
            (false, true) => Trust::Rebuild,
        })
    }

    /// Whether this log may not be gone on with: in a copy, where a backup was copied over the directory, and after
    /// acknowledged entries may have been lost.
    pub fn must_fork(&self) -> bool {
        // Entries that clients have seen may be lost. Their ids will be given to other messages, so a cursor from
        // before the stop must be told from one after it.
        let lossy = self.format.relaxed && self.marks.clean.is_none();
        self.copied || self.marks.restored || lossy
    }

    /// Gives the log a new id; cursors of the old one go on up to `parted`.
    pub fn fork(&mut self, parted: Position, end: &JournalEnd) -> Result<(), Error> {
        let old = self.format.log;
        self.format.ancestors.push(Ancestor { log: old, parted });
        self.format.log = new_log_id();
        // First the log, then the mark: after a stop between the two, an old mark does not fit `format`, and the log
        // forks once more. The other way round, the mark would vouch for a log that has not forked.
        self.write_format()?;
        self.copied = false;
        self.leave_begun(end)?;
        info!(old = %old, new = %self.format.log, direct = parted.direct, group = parted.group,
            "this log goes on under a new id; cursors of the old one are good up to these ids");
        Ok(())
    }

    /// Says that from now on sled is written, so that a stop without [`Self::close`] is noticed. Where
    /// [`Self::must_fork`] holds, [`Self::fork`] must follow: until then it holds also after a stop in between.
    pub fn begin(&mut self, relaxed: bool, end: &JournalEnd) -> Result<(), Error> {
        let fork = self.must_fork();
        if self.copied || self.marks.restored {
            self.sync_copy()?;
        }
        // What shows the restore may be the mark of the clean stop, which is about to go.
        if self.marks.restored {
            self.remember_loss()?;
        }
        if self.format.relaxed != relaxed {
            self.format.relaxed = relaxed;
            // `fork` writes it: until then `format` must go on saying that the log has to fork, and a copy must keep
            // the `format` that tells it from the original.
            if !fork {
                self.write_format()?;
            }
        }
        // Of a restore, the old mark is the witness.
        if !fork {
            self.leave_begun(end)?;
        }
        // Once the mark of the start is there: without any mark, a restore would not be noticed.
        self.marks.remove_clean(&self.place)
    }

    fn leave_begun(&mut self, end: &JournalEnd) -> Result<(), Error> {
        let format = inode_of_format(&self.place)?;
        self.marks.begin(&self.place, &format, end)
    }

    /// Says which sled is written from now on. To be called once it is open, after [`Self::begin`].
    pub fn note_sled(&self) -> Result<(), Error> {
        mark::note_sled(&self.place)
    }

    /// Makes a copy durable: who copies files seldom syncs them, and what is acknowledged from now on is worth
    /// nothing without what was before it. Not sled, which can be rebuilt.
    fn sync_copy(&self) -> Result<(), Error> {
        for directory in [&self.place, &self.journal] {
            let directory = directory.path();
            for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
                let path = entry.map_err(Error::io("list", directory))?.path();
                if path.is_file() {
                    sync_readable(&path)?;
                }
            }
            sync_directory(directory)?;
        }
        sync_names_above(self.path())
    }

    /// Says that acknowledged entries are about to be given up: until [`Self::fork`], also after a stop,
    /// [`Self::must_fork`] holds.
    pub fn expect_loss(&mut self) -> Result<(), Error> {
        self.remember_loss()?;
        self.marks.remove_clean(&self.place)
    }

    fn remember_loss(&mut self) -> Result<(), Error> {
        // A copy is known as one as long as `format` is the one that was copied: writing it here would make it an
        // original.
        if !self.copied && !self.format.relaxed {
            self.format.relaxed = true;
            self.write_format()?;
        }
        Ok(())
    }

    /// Leaves the mark of a clean stop, unless the directory is no longer the one that was opened. sled must be
    /// closed.
    pub fn close(&self, offset: u64) -> Result<(), Error> {
        // In another directory of this name, the mark would vouch for another sled.
        self.place.check()?;
        // Until the log has forked, only those that are there show that a backup was copied over the directory.
        if self.marks.restored && !self.copied {
            return Ok(());
        }
        let sled = Place::open(&self.sled())?;
        mark::close(&self.place, &sled, offset)
    }

    /// Says that the directory has the present format, as its view has now. To be called after [`Self::close`], when
    /// there is no mark of a start, which would have to be left again for the new `format`: after a stop between the
    /// two, it would look as if a backup had been copied over the directory.
    pub fn finish_upgrade(&mut self) -> Result<(), Error> {
        if self.earlier_format().is_none() {
            return Ok(());
        }
        self.place.write_durably("README", README.as_bytes())?;
        self.format.version = FORMAT_VERSION;
        self.write_format()?;
        self.marks = Marks::read(&self.place, &inode_of_format(&self.place)?);
        Ok(())
    }

    /// Writes `format` into a new file that knows its own inode, and gives it its name.
    fn write_format(&mut self) -> Result<(), Error> {
        write_format(&self.place, &self.journal, &mut self.format)
    }
}

/// Makes a new log in an empty directory.
fn create(place: &Place) -> Result<(), Error> {
    let log = new_log_id();
    let path = place.path();
    must_be_no_link(path, "journal")?;
    make_directory(&path.join("journal"))?;
    let journal = Place::open(&path.join("journal"))?;
    create_first(&journal, log)?;
    place.write_durably("README", README.as_bytes())?;
    let mut format = Format {
        version: FORMAT_VERSION,
        log,
        ancestors: Vec::new(),
        directory: String::new(),
        relaxed: false,
    };
    // `format` is the last: without it, what a stop has left here is a first start, which begins again.
    write_format(place, &journal, &mut format)?;
    sync_names_above(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Aside, Entry, Journal};
    use identity::changed;

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        (parent, path)
    }

    fn begin(directory: &mut Directory, relaxed: bool) -> Journal {
        let journal = Journal::open(directory, true).unwrap();
        directory.begin(relaxed, &journal.end().unwrap()).unwrap();
        journal
    }

    fn fork(directory: &mut Directory) {
        let journal = begin(directory, false);
        directory
            .fork(Position::default(), &journal.end().unwrap())
            .unwrap();
    }

    fn must_fork(path: &Path) -> bool {
        Directory::open(path).unwrap().must_fork()
    }

    #[test]
    fn a_copy_must_fork_until_it_has_also_after_a_stop_in_between() {
        let (parent, path) = fresh();
        drop(Directory::open(&path).unwrap());
        assert!(!must_fork(&path));
        let copy = parent.path().join("copy");
        fs::create_dir_all(copy.join("journal")).unwrap();
        for name in ["format", "journal/00000000000000000001.journal"] {
            fs::copy(path.join(name), copy.join(name)).unwrap();
        }
        for relaxed in [true, false] {
            let mut directory = Directory::open(&copy).unwrap();
            assert!(directory.must_fork());
            begin(&mut directory, relaxed);
        }
        let mut directory = Directory::open(&copy).unwrap();
        assert!(directory.must_fork());
        fork(&mut directory);
        drop(directory);
        assert!(!must_fork(&copy));
    }

    #[test]
    fn entries_that_may_be_lost_fork_the_log_also_after_another_stop() {
        let (_parent, path) = fresh();
        let mut directory = Directory::open(&path).unwrap();
        begin(&mut directory, true);
        fs::create_dir(directory.sled()).unwrap();
        directory.close(0).unwrap();
        drop(directory);
        assert!(!must_fork(&path), "a clean stop syncs all");
        begin(&mut Directory::open(&path).unwrap(), true);
        assert!(must_fork(&path));
        let mut directory = Directory::open(&path).unwrap();
        begin(&mut directory, false);
        drop(directory);
        assert!(must_fork(&path));
        let mut directory = Directory::open(&path).unwrap();
        fork(&mut directory);
        drop(directory);
        assert!(!must_fork(&path));
    }

    #[test]
    fn a_loss_that_was_accepted_is_remembered_until_the_fork() {
        let (_parent, path) = fresh();
        Directory::open(&path).unwrap().expect_loss().unwrap();
        assert!(must_fork(&path));
        let mut directory = Directory::open(&path).unwrap();
        fork(&mut directory);
        drop(directory);
        assert!(!must_fork(&path));
    }

    #[test]
    fn what_shows_a_restore_stays_until_the_log_forks() {
        let (_parent, path) = fresh();
        let mut directory = Directory::open(&path).unwrap();
        begin(&mut directory, false);
        fs::create_dir(directory.sled()).unwrap();
        drop(directory);
        // As a backup that is copied over it changes it.
        let format = path.join("format");
        let changed = || changed(&fs::metadata(&format).unwrap());
        let (before, content) = (changed(), fs::read(&format).unwrap());
        while changed() == before {
            fs::write(&format, &content).unwrap();
        }
        let directory = Directory::open(&path).unwrap();
        assert!(directory.must_fork());
        // So does a look at it that opens sled.
        directory.close(0).unwrap();
        drop(directory);
        let mut directory = Directory::open(&path).unwrap();
        assert!(directory.must_fork());
        fork(&mut directory);
        directory.close(0).unwrap();
        drop(directory);
        assert!(!must_fork(&path));
    }

    #[test]
    fn sled_is_trusted_unseen_only_as_the_stop_left_it() {
        let (_parent, path) = fresh();
        let directory = Directory::open(&path).unwrap();
        let sled = directory.sled();
        fs::create_dir(&sled).unwrap();
        fs::write(sled.join("db"), "1").unwrap();
        directory.close(3).unwrap();
        drop(directory);
        let trust = |end| Directory::open(&path).unwrap().trust(end).unwrap();
        assert_eq!(trust(3), Trust::Clean);
        assert_eq!(trust(4), Trust::Check, "it lacks an entry");
        fs::write(sled.join("db"), "12").unwrap();
        assert_eq!(trust(3), Trust::Check, "it has changed");
        // Whose `format` has another inode is a copy: what it holds may be of many moments.
        let format = fs::read(path.join("format")).unwrap();
        fs::write(path.join("copy"), format).unwrap();
        fs::rename(path.join("copy"), path.join("format")).unwrap();
        assert_eq!(trust(3), Trust::Rebuild);
        fs::write(sled.join("db"), "1").unwrap();
        Directory::open(&path).unwrap().close(3).unwrap();
        assert_eq!(trust(3), Trust::Clean);
        fs::remove_dir_all(&sled).unwrap();
        assert_eq!(trust(3), Trust::Rebuild);
    }

    #[test]
    fn what_was_put_aside_stays_until_it_is_told_to_go() {
        let (_parent, path) = fresh();
        let directory = Directory::open(&path).unwrap();
        let make_sled = || {
            fs::create_dir(directory.sled()).unwrap();
            fs::write(directory.sled().join("db"), "1").unwrap();
        };
        let names = [11, 12, 13].map(|time| {
            make_sled();
            let aside = directory.set_sled_aside(Aside::Damaged, time);
            aside.unwrap().unwrap()
        });
        make_sled();
        let ahead = directory.set_sled_aside(Aside::Ahead, 14).unwrap().unwrap();
        let there = || names.each_ref().map(|name| path.join(name).exists());
        assert_eq!(there(), [true; 3]);
        directory.remove_set_aside(Some(&names[2])).unwrap();
        assert_eq!(there(), [false, false, true]);
        directory.remove_set_aside(None).unwrap();
        assert_eq!(there(), [false; 3]);
        assert!(
            path.join(ahead).exists(),
            "nothing else may hold what is in it"
        );
    }

    #[test]
    fn a_directory_of_an_earlier_format_keeps_it_until_its_upgrade_is_finished() {
        let (_parent, path) = fresh();
        drop(Directory::open(&path).unwrap());
        let write_version = |version: u32| {
            let format = path.join("format");
            let mut text: serde_json::Value =
                serde_json::from_slice(&fs::read(&format).unwrap()).unwrap();
            text["version"] = version.into();
            fs::write(&format, text.to_string()).unwrap();
        };
        for unknown in [0, FORMAT_VERSION + 1] {
            write_version(unknown);
            let error = Directory::open(&path).unwrap_err().to_string();
            let found = format!("has the format version {unknown}, and");
            assert!(error.contains(&found), "{error}");
        }
        write_version(1);
        // Neither another setting nor a fork writes another version.
        let mut directory = Directory::open(&path).unwrap();
        begin(&mut directory, true);
        drop(directory);
        let mut directory = Directory::open(&path).unwrap();
        fork(&mut directory);
        let aside = || {
            fs::create_dir(directory.sled()).unwrap();
            fs::write(directory.sled().join("db"), "1").unwrap();
            directory.set_sled_aside(Aside::Damaged, 5).unwrap()
        };
        assert_eq!(aside().as_deref(), Some("sled.format-1-5"));
        assert_eq!(aside(), None, "what an upgrade left is no view of format 1");
        assert!(!directory.sled().exists());
        fs::create_dir(directory.sled()).unwrap();
        directory.close(0).unwrap();
        drop(directory);
        let mut directory = Directory::open(&path).unwrap();
        assert_eq!(directory.earlier_format(), Some(1));
        directory.finish_upgrade().unwrap();
        directory.remove_set_aside(None).unwrap();
        assert!(!path.join("sled.format-1-5").exists());
        assert_eq!(directory.trust(0).unwrap(), Trust::Clean);
        drop(directory);
        let directory = Directory::open(&path).unwrap();
        assert_eq!(directory.earlier_format(), None);
        assert!(!directory.must_fork());
        assert_eq!(directory.trust(0).unwrap(), Trust::Clean);
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_begun_again() {
        let (_parent, path) = fresh();
        drop(Directory::open(&path).unwrap());
        fs::remove_file(path.join("format")).unwrap();
        fs::rename(path.join("README"), path.join("README.new")).unwrap();
        let directory = Directory::open(&path).unwrap();
        let mut journal = Journal::open(&directory, true).unwrap();
        let entry = Entry {
            proposer: 1,
            n: 1,
            at_ms: 1,
            keys_us: 1000,
            commands: Vec::new(),
        };
        journal.append(entry, |_| unreachable!()).unwrap();
        drop((journal, directory));
        fs::remove_file(path.join("format")).unwrap();
        let error = Directory::open(&path).unwrap_err().to_string();
        assert!(error.contains("it has a journal"), "{error}");
    }
}
