//! A directory that is held open, so that it is told when its path names another one: removed, moved away, mounted
//! over. Nothing is made, renamed or removed by path without that look.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstatvfs};

use crate::store::error::Error;
use crate::store::journal::segment::to_u64;

/// Written again at once.
const REWRITTEN_BYTES: usize = 1 << 20;

/// A directory that is held open.
#[derive(Debug)]
pub(in crate::store) struct Place {
    path: PathBuf,
    file: File,
    opened: Identity,
}

/// A lock that is held; given back when dropped, also where a process that is just being started has it open.
#[derive(Debug)]
pub(in crate::store) struct Lock(File);

impl Lock {
    /// Takes a file or directory for this process.
    pub(in crate::store) fn take(file: File, path: &Path) -> Result<Self, Error> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::Locked {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it gives it back too, if this fails.
        drop(self.0.unlock());
    }
}

/// What tells one file or directory from another that is there at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
        }
    }
}

impl Place {
    /// Opens a directory.
    pub(in crate::store) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let data = file
            .metadata()
            .map_err(Error::io("read the inode of", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            opened: Identity::of(&data),
        })
    }

    /// Takes it for this process, on file systems that can lock directories. Network file systems only lock files that
    /// are open to be written; LOCK in the data directory is one.
    pub(in crate::store) fn lock(&self) -> Result<Option<Lock>, Error> {
        let file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        match Lock::take(file, &self.path) {
            Err(Error::Io { .. }) => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Where it was opened.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still names the directory that was opened.
    pub(in crate::store) fn check(&self) -> Result<(), Error> {
        check(&self.path, &self.file, self.opened)
    }

    /// Bytes that an ordinary process may still write on its file system, and files that may still be made.
    pub(in crate::store) fn free(&self) -> Result<(u64, u64), Error> {
        let found = fstatvfs(&self.file)
            .map_err(|e| Error::io("ask for the free space of", &self.path)(e.into()))?;
        // File systems without a fixed number of files say that there are none.
        let files = if found.f_files == 0 {
            u64::MAX
        } else {
            found.f_favail
        };
        Ok((found.f_bavail.saturating_mul(found.f_frsize), files))
    }

    /// Opens a file to write, making it if it is not there. `None`: it is there and longer than this.
    pub(in crate::store) fn create_or_empty(
        &self,
        name: &str,
        longest: u64,
    ) -> Result<Option<File>, Error> {
        let path = self.path.join(name);
        let file = match self.open_file(name, OpenOptions::new().create_new(true)) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                self.open_file(name, &mut OpenOptions::new())?
            }
            made => made?,
        };
        let data = file.metadata().map_err(Error::io("make", &path))?;
        if data.len() > longest || data.nlink() > 1 {
            return Ok(None);
        }
        file.set_len(0).map_err(Error::io("make", &path))?;
        Ok(Some(file))
    }

    /// Opens a file to write, making it if it is not there.
    pub(in crate::store) fn open_or_make(&self, name: &str) -> Result<File, Error> {
        self.open_file(name, OpenOptions::new().create(true))
    }

    /// Whoever has prepared the directory may have left links in it: none is followed.
    fn open_file(&self, name: &str, options: &mut OpenOptions) -> Result<File, Error> {
        self.check()?;
        let no_links = i32::try_from(OFlags::NOFOLLOW.bits()).expect("a flag fits");
        let path = self.path.join(name);
        let opened = options.write(true).custom_flags(no_links).open(&path);
        opened.map_err(Error::io("open to write", &path))
    }

    /// Makes `NAME.new`, also where an earlier try has left one.
    pub(in crate::store) fn create_new(&self, name: &str) -> Result<File, Error> {
        let new = format!("{name}.new");
        self.remove(&new)?;
        self.open_file(&new, OpenOptions::new().create_new(true))
    }

    /// Syncs `NAME.new` and gives it its name.
    pub(in crate::store) fn finish_new(&self, name: &str, file: &File) -> Result<(), Error> {
        let new = format!("{name}.new");
        file.sync_all()
            .map_err(Error::io("sync", &self.path.join(&new)))?;
        self.rename(&new, name)?;
        self.sync()
    }

    /// Writes a small file so that it is there whole or not at all.
    pub(in crate::store) fn write_durably(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let mut file = self.create_new(name)?;
        file.write_all(content)
            .map_err(Error::io("write", &self.path.join(name)))?;
        self.finish_new(name, &file)
    }

    /// Adds to the end of a small file, durably.
    pub(in crate::store) fn append(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let mut file = self.open_file(name, OpenOptions::new().create(true).append(true))?;
        file.write_all(content)
            .and_then(|()| file.sync_data())
            .map_err(Error::io("write", &path))
    }

    /// Removes a file. Whether it was there.
    pub(in crate::store) fn remove(&self, name: &str) -> Result<bool, Error> {
        self.check()?;
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("remove", &path)(e)),
        }
    }

    /// Gives what is in it another name.
    pub(in crate::store) fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.check()?;
        let (from, to) = (self.path.join(from), self.path.join(to));
        fs::rename(&from, to).map_err(Error::io("rename", &from))
    }

    /// Makes names made or removed in it durable.
    pub(in crate::store) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("sync", &self.path))
    }

    /// What its inode says.
    pub(in crate::store) fn metadata(&self) -> Result<Metadata, Error> {
        self.file
            .metadata()
            .map_err(Error::io("read the inode of", &self.path))
    }
}

/// Whether a path still names a file or directory that is held open.
fn check(path: &Path, held: &File, opened: Identity) -> Result<(), Error> {
    let moved = |how| {
        Err(Error::Moved {
            path: path.to_owned(),
            how,
        })
    };
    let links = held.metadata().map_or(0, |data| data.nlink());
    match fs::metadata(path) {
        Ok(now) if Identity::of(&now) == opened => Ok(()),
        _ if links == 0 => moved("was removed"),
        Ok(now) if now.dev() != opened.device => {
            moved("is on another file system now, which was mounted over it")
        }
        Ok(_) => moved("was replaced by another one"),
        Err(e) if e.kind() == ErrorKind::NotFound => moved("was moved away"),
        Err(e) => Err(Error::io("read the inode of", path)(e)),
    }
}

/// Opens the last segment to write. It must be a file of this directory alone: through a link, another directory
/// would be written too.
pub(in crate::store) fn open_own(path: &Path) -> Result<File, Error> {
    let shared = |how: &str| Error::Journal {
        path: path.to_owned(),
        position: 0,
        reason: format!(
            "{how}, so another directory may hold it too: make a copy of it and give that its name"
        ),
    };
    if path.is_symlink() {
        return Err(shared("it is a symbolic link"));
    }
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(Error::io("open to write", path))?;
    let data = file.metadata();
    if data.map_err(Error::io("read the inode of", path))?.nlink() > 1 {
        return Err(shared("it has another name (a hard link)"));
    }
    Ok(file)
}

/// Writes the first bytes of a file once more, in place. After a write that failed the system may take for written
/// what is only in its memory; what is read there would then pass for durable, and no sync would write it.
pub(in crate::store) fn write_again(file: &File, bytes: u64) -> io::Result<()> {
    let mut piece = vec![0; REWRITTEN_BYTES];
    let mut at = 0;
    while at < bytes {
        let length =
            usize::try_from(bytes - at).map_or(REWRITTEN_BYTES, |left| left.min(REWRITTEN_BYTES));
        piece.truncate(length);
        file.read_exact_at(&mut piece, at)?;
        file.write_all_at(&piece, at)?;
        at += to_u64(length);
    }
    Ok(())
}

/// The segment that is written, as far as others can do harm to it.
#[derive(Debug)]
pub(in crate::store) struct LiveSegment {
    path: PathBuf,
    file: File,
    opened: Identity,
    /// Its length, with the zeros ahead of the end of the journal.
    pub(in crate::store) bytes: u64,
    /// It may be as long as this: zeros are being written, or were as far as there was room.
    pub(in crate::store) longest: u64,
    /// Zeros are being written behind `bytes`.
    pub(in crate::store) filling: bool,
    /// There was no room for zeros.
    pub(in crate::store) no_room: bool,
    /// Why zeros could not be written otherwise.
    pub(in crate::store) failed: Option<io::Error>,
}

impl LiveSegment {
    /// Watches a segment that is open.
    pub(in crate::store) fn new(path: &Path, file: &File) -> Result<Self, Error> {
        let failed = || Error::io("read the inode of", path);
        let data = file.metadata().map_err(failed())?;
        Ok(Self {
            path: path.to_owned(),
            file: file.try_clone().map_err(failed())?,
            opened: Identity::of(&data),
            bytes: data.len(),
            longest: data.len(),
            filling: false,
            no_room: false,
            failed: None,
        })
    }

    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it once more. Its path may name another file by now, which is not ours to write.
    pub(in crate::store) fn open_again(&self) -> Result<File, Error> {
        let file = open_own(&self.path)?;
        let data = file.metadata();
        let data = data.map_err(Error::io("read the inode of", &self.path))?;
        if Identity::of(&data) != self.opened {
            self.changed("was replaced by another one")?;
        }
        Ok(file)
    }

    /// Where a test has no room for zeros.
    #[cfg(test)]
    pub(in crate::store) fn put_zeros_elsewhere(&mut self, path: PathBuf) {
        self.opened = Identity::of(&fs::metadata(&path).unwrap());
        self.path = path;
    }

    /// Something was written up to here.
    pub(in crate::store) fn reaches(&mut self, end: u64) {
        self.bytes = self.bytes.max(end);
        self.longest = self.longest.max(end);
    }

    /// Whether the file is there and holds what was written to it.
    pub(in crate::store) fn check(&self) -> Result<(), Error> {
        if self.length()? < self.bytes {
            return self.changed("was cut: it is shorter than what was written to it");
        }
        check(&self.path, &self.file, self.opened)
    }

    /// The same for the only one who writes, before the next write, without a look at its name.
    pub(in crate::store) fn check_to_write(&self) -> Result<(), Error> {
        match self.length()? {
            length if length < self.bytes => {
                self.changed("was cut: it is shorter than what was written to it")
            }
            length if length > self.longest => {
                self.changed("is longer than what was written to it: another process writes it")
            }
            _ => Ok(()),
        }
    }

    fn length(&self) -> Result<u64, Error> {
        let data = self.file.metadata();
        let data = data.map_err(Error::io("read the size of", &self.path))?;
        if data.nlink() == 0 {
            self.changed("was removed")?;
        }
        Ok(data.len())
    }

    fn changed(&self, how: &'static str) -> Result<(), Error> {
        Err(Error::Moved {
            path: self.path.clone(),
            how,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pieces_are_written_again_as_they_are() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(2 * REWRITTEN_BYTES + 5).collect();
        file.write_all_at(&bytes, 0).unwrap();
        write_again(&file, to_u64(bytes.len()) - 1).unwrap();
        let mut found = vec![0; bytes.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == bytes);
        assert_eq!(file.metadata().unwrap().len(), to_u64(bytes.len()));
    }
}
