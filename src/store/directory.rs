//! The data directory: whose it is, which log it holds, and whether its sled may be trusted.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::error::Error;
use super::files::{
    files_of, identity, identity_with, is_there, lock, lock_to_read, make_directory, must_be_ours,
    must_exist, must_have_journal, read_only, sync_directory, sync_names_above, sync_readable,
    write_durably,
};
use super::journal::Journal;
use super::segment::Tail;
use crate::model::{Ancestor, Lineage, LogId, Position, log_text};

/// The version of everything in the data directory.
pub const FORMAT_VERSION: u32 = 1;

/// What the file `format` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Format {
    version: u32,
    #[serde(with = "log_text")]
    log: LogId,
    ancestors: Vec<Ancestor>,
    /// What a copy of the directory cannot have: numbers and birth times of its inodes.
    directory: String,
    /// Whether acknowledged entries may have been unsynced for a moment.
    relaxed: bool,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// The mark that a clean stop leaves: sled is just as it was then.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Clean {
    /// The last applied entry.
    offset: u64,
    /// Name, length and modification time of every file of sled.
    files: Vec<(String, u64, u64)>,
}

/// How sled may be used at open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Stopped cleanly and untouched since.
    Clean,
    /// Written here, but not stopped cleanly: recover and check it.
    Check,
    /// Copied while in use, or missing: make it anew.
    Rebuild,
}

/// An open data directory, locked for this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    format: Format,
    /// Whether this is another directory than the one that was written.
    copied: bool,
    clean: Option<Clean>,
    _lock: File,
}

impl Directory {
    /// Opens a data directory, or makes a new one where there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        make_directory(path)?;
        if !is_there(&path.join("format"))? {
            must_be_ours(path)?;
        }
        let lock = lock(path)?;
        if !is_there(&path.join("format"))? {
            create(path)?;
            info!(path = %path.display(), "there was no data here: a new log begins");
        }
        Self::read(path, lock)
    }

    /// Opens a data directory that must exist.
    pub fn open_existing(path: &Path) -> Result<Self, Error> {
        must_exist(path)?;
        Self::read(path, lock(path)?)
    }

    /// The same to read it, also where nothing may be written.
    pub fn open_to_read(path: &Path) -> Result<Self, Error> {
        must_exist(path)?;
        Self::read(path, lock_to_read(path)?)
    }

    fn read(path: &Path, lock: File) -> Result<Self, Error> {
        let format = read_format(&path.join("format"))?;
        must_have_journal(path)?;
        let copied = format.directory != identity(path)?;
        let clean = fs::read(path.join("clean")).ok();
        let clean = clean.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Self {
            path: path.to_owned(),
            format,
            copied,
            clean,
            _lock: lock,
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing may be written to it.
    pub fn read_only(&self) -> bool {
        read_only(&self.path)
    }

    /// Where the journal's segments are.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Where sled is.
    pub fn sled(&self) -> PathBuf {
        self.path.join("sled")
    }

    /// The log and those it continues.
    pub fn lineage(&self) -> Lineage {
        Lineage {
            log: self.format.log,
            ancestors: self.format.ancestors.clone(),
        }
    }

    /// How the journal's last entries were written.
    pub(super) fn tail(&self) -> Tail {
        if self.format.relaxed && self.clean.is_none() {
            Tail::Unsynced
        } else {
            Tail::Synced
        }
    }

    /// Whether the last stop left its mark.
    pub(super) fn stopped_cleanly(&self) -> bool {
        self.clean.is_some()
    }

    /// Whether the journal holds all that had been applied at the last clean stop. A copy that was taken while
    /// the server stopped may have the mark of the stop and a journal from before it.
    pub fn check_end(&self, journal_end: u64) -> Result<(), Error> {
        match &self.clean {
            Some(clean) if clean.offset > journal_end && self.copied => {
                warn!(
                    journal = journal_end,
                    applied = clean.offset,
                    "this copy lacks entries that were written while it was taken"
                );
                Ok(())
            }
            Some(clean) if clean.offset > journal_end => Err(Error::JournalBehind {
                journal: journal_end,
                applied: clean.offset,
            }),
            _ => Ok(()),
        }
    }

    /// How sled may be used, given the journal's last offset.
    pub fn trust(&self, journal_end: u64) -> Result<Trust, Error> {
        if !self.sled().is_dir() {
            return Ok(Trust::Rebuild);
        }
        let untouched = match &self.clean {
            Some(clean) => clean.offset == journal_end && clean.files == files_of(&self.sled())?,
            None => false,
        };
        Ok(match (untouched, self.copied) {
            (true, _) => Trust::Clean,
            (false, false) => Trust::Check,
            (false, true) => Trust::Rebuild,
        })
    }

    /// Whether this log may be gone on with: not in a copy, and not after acknowledged entries may have
    /// been lost.
    pub fn must_fork(&self) -> bool {
        self.copied || (self.format.relaxed && self.clean.is_none())
    }

    /// Gives the log a new id; cursors of the old one go on up to `parted`.
    pub fn fork(&mut self, parted: Position) -> Result<(), Error> {
        let old = self.format.log;
        self.format.ancestors.push(Ancestor { log: old, parted });
        self.format.log = new_log_id();
        self.write_format()?;
        self.copied = false;
        info!(old = %old, new = %self.format.log, direct = parted.direct, group = parted.group,
            "this log goes on under a new id; cursors of the old one are good up to these ids");
        Ok(())
    }

    /// Says that from now on sled is written, so that a stop without [`Self::close`] is noticed. Where
    /// [`Self::must_fork`] holds, [`Self::fork`] must follow: until then the file `format` is left as it is,
    /// so that a stop in between changes nothing of that.
    pub fn begin(&mut self, relaxed: bool) -> Result<(), Error> {
        let fork = self.must_fork();
        if self.copied {
            self.sync_copy()?;
        }
        if self.format.relaxed != relaxed {
            self.format.relaxed = relaxed;
            if !fork {
                self.write_format()?;
            }
        }
        self.remove_clean()
    }

    /// Makes a copy durable: who copies files seldom syncs them, and what is acknowledged from now on is worth
    /// nothing without what was before it. Not sled, which can be made anew.
    fn sync_copy(&self) -> Result<(), Error> {
        for directory in [&self.path, &self.journal()] {
            for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
                let path = entry.map_err(Error::io("list", directory))?.path();
                if path.is_file() {
                    sync_readable(&path)?;
                }
            }
            sync_directory(directory)?;
        }
        sync_names_above(&self.path)
    }

    /// Says that acknowledged entries are about to be given up: until [`Self::fork`], also after a stop,
    /// [`Self::must_fork`] holds.
    pub fn expect_loss(&mut self) -> Result<(), Error> {
        if !self.copied && !self.format.relaxed {
            self.format.relaxed = true;
            self.write_format()?;
        }
        self.remove_clean()
    }

    fn remove_clean(&mut self) -> Result<(), Error> {
        self.clean = None;
        let mark = self.path.join("clean");
        match fs::remove_file(&mark) {
            Ok(()) => sync_directory(&self.path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io("remove", &mark)(e)),
        }
    }

    /// Leaves the mark of a clean stop. sled must be closed.
    pub fn close(&self, offset: u64) -> Result<(), Error> {
        let clean = Clean {
            offset,
            files: files_of(&self.sled())?,
        };
        let text = serde_json::to_vec_pretty(&clean).expect("plain data encodes");
        write_durably(&self.path, "clean", &text)
    }

    /// Puts sled aside under another name. Those that were put aside earlier stay until the new one is complete:
    /// [`Self::remove_set_aside`].
    pub fn set_sled_aside(&self, now_ms: u64) -> Result<(), Error> {
        let sled = self.sled();
        if fs::symlink_metadata(&sled).is_err() {
            return Ok(());
        }
        let aside = self.path.join(format!("sled.damaged-{now_ms}"));
        fs::rename(&sled, &aside).map_err(Error::io("put aside", &sled))?;
        sync_directory(&self.path)?;
        warn!(path = %aside.display(), "put the readable view aside; it may be deleted once the new one is complete");
        Ok(())
    }

    /// Removes what was put aside, but for the latest.
    pub fn remove_set_aside(&self) -> Result<(), Error> {
        let mut aside = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(Error::io("list", &self.path))? {
            let path = entry.map_err(Error::io("list", &self.path))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with("sled.damaged-")) {
                aside.push(path);
            }
        }
        aside.sort_unstable();
        aside.pop();
        for path in aside {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Writes `format` into a new file that knows its own inode, and gives it its name.
    fn write_format(&mut self) -> Result<(), Error> {
        let new = self.path.join("format.new");
        let file = File::create(&new).map_err(Error::io("make", &new))?;
        drop(file);
        self.format.directory = identity_with(&self.path, &new)?;
        let text = serde_json::to_vec_pretty(&self.format).expect("plain data encodes");
        let mut file = OpenOptions::new()
            .write(true)
            .open(&new)
            .map_err(Error::io("open to write", &new))?;
        file.write_all(&text).map_err(Error::io("write", &new))?;
        file.sync_all().map_err(Error::io("sync", &new))?;
        let format = self.path.join("format");
        fs::rename(&new, &format).map_err(Error::io("rename", &new))?;
        sync_directory(&self.path)
    }
}

/// Makes a new log in an empty directory.
fn create(path: &Path) -> Result<(), Error> {
    let log = new_log_id();
    Journal::create(&path.join("journal"), log)?;
    write_durably(path, "README", README.as_bytes())?;
    let format = Format {
        version: FORMAT_VERSION,
        log,
        ancestors: Vec::new(),
        directory: String::new(),
        relaxed: false,
    };
    let directory = Directory {
        path: path.to_owned(),
        format,
        copied: false,
        clean: None,
        _lock: File::open(path).map_err(Error::io("open", path))?,
    };
    { directory }.write_format()?;
    sync_names_above(path)
}

const README: &str = "\
This is a data directory of Halley. Everything in it belongs together.

format        version of this directory, and its log id
journal/      every message ever accepted: never delete, rename or change a file in it
sled/         the same messages arranged for reading; rebuilt from the journal when it is missing
clean         left by a clean stop: sled/ can be trusted as it is
admin.key     the backend's key: keep it secret
token.secret  signs user tokens: keep it secret
LOCK          held by the running server
sled.damaged-*  a sled/ that was set aside: may be deleted once sled/ is rebuilt

Backup: copy the whole directory (cp -a) to a new place, also while the server runs; then halley verify.
Restore, and what may be deleted: docs/backup.md of the project.
";

fn read_format(path: &Path) -> Result<Format, Error> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let unreadable = |e: serde_json::Error| Error::Directory {
        path: path.to_owned(),
        reason: format!("it is not readable ({e}); put it back from a backup of this directory"),
    };
    let VersionOnly { version } = serde_json::from_slice(&text).map_err(unreadable)?;
    if version != FORMAT_VERSION {
        return Err(Error::Version {
            path: path.to_owned(),
            found: version,
            supported: FORMAT_VERSION,
        });
    }
    serde_json::from_slice(&text).map_err(unreadable)
}

fn new_log_id() -> LogId {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the operating system gives random bytes");
    LogId(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Entry;

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        (parent, path)
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
            directory.begin(relaxed).unwrap();
        }
        let mut directory = Directory::open(&copy).unwrap();
        assert!(directory.must_fork());
        directory.fork(Position::default()).unwrap();
        drop(directory);
        assert!(!must_fork(&copy));
    }

    #[test]
    fn entries_that_may_be_lost_fork_the_log_also_after_another_stop() {
        let (_parent, path) = fresh();
        let mut directory = Directory::open(&path).unwrap();
        directory.begin(true).unwrap();
        fs::create_dir(directory.sled()).unwrap();
        directory.close(0).unwrap();
        drop(directory);
        assert!(!must_fork(&path), "a clean stop syncs all");
        Directory::open(&path).unwrap().begin(true).unwrap();
        assert!(must_fork(&path));
        let mut directory = Directory::open(&path).unwrap();
        directory.begin(false).unwrap();
        drop(directory);
        assert!(must_fork(&path));
        let mut directory = Directory::open(&path).unwrap();
        directory.begin(false).unwrap();
        directory.fork(Position::default()).unwrap();
        drop(directory);
        assert!(!must_fork(&path));
    }

    #[test]
    fn a_loss_that_was_accepted_is_remembered_until_the_fork() {
        let (_parent, path) = fresh();
        Directory::open(&path).unwrap().expect_loss().unwrap();
        assert!(must_fork(&path));
        let mut directory = Directory::open(&path).unwrap();
        directory.begin(false).unwrap();
        directory.fork(Position::default()).unwrap();
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
        for time in [11, 12, 13] {
            fs::create_dir(directory.sled()).unwrap();
            directory.set_sled_aside(time).unwrap();
        }
        let aside = |time| path.join(format!("sled.damaged-{time}")).exists();
        assert_eq!([11, 12, 13].map(aside), [true; 3]);
        directory.remove_set_aside().unwrap();
        assert_eq!([11, 12, 13].map(aside), [false, false, true]);
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
            commands: Vec::new(),
        };
        journal.append(entry, |_| unreachable!()).unwrap();
        drop((journal, directory));
        fs::remove_file(path.join("format")).unwrap();
        let error = Directory::open(&path).unwrap_err().to_string();
        assert!(error.contains("it has a journal"), "{error}");
    }
}
