//! A directory that is held open, so that it is told when its path names another one: removed, moved away, mounted
//! over. Nothing is made, renamed or removed by path without that look.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstatvfs};

use crate::store::error::Error;

/// A directory that is held open.
#[derive(Debug)]
pub(in crate::store) struct Place {
    path: PathBuf,
    file: File,
    opened: Identity,
}

/// What tells one file or directory from another that is there at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(in crate::store) fn of(data: &Metadata) -> Self {
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

    /// Where it was opened.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still names the directory that was opened.
    pub(in crate::store) fn check(&self) -> Result<(), Error> {
        check(&self.path, &self.file, self.opened)
    }

    /// Bytes that an ordinary process may still write on its file system, and files that may still be made.
    pub(super) fn free(&self) -> Result<(u64, u64), Error> {
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
    pub(super) fn create_or_empty(&self, name: &str, longest: u64) -> Result<Option<File>, Error> {
        let path = self.path.join(name);
        let file = match self.open_file(name, OpenOptions::new().create_new(true)) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                self.open_file(name, &mut OpenOptions::new())?
            }
            made => made?,
        };
        let data = file.metadata().map_err(Error::io("make", &path))?;
        // With a second name it may be a backup's, made of hard links, which would be emptied too.
        if data.len() > longest || data.nlink() > 1 {
            return Ok(None);
        }
        file.set_len(0).map_err(Error::io("make", &path))?;
        Ok(Some(file))
    }

    /// Opens a file to write, making it if it is not there.
    pub(super) fn open_or_make(&self, name: &str) -> Result<File, Error> {
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
    pub(super) fn create_new(&self, name: &str) -> Result<File, Error> {
        let new = format!("{name}.new");
        // Made anew, never reused: what is left of an earlier try may have another owner, or a second name.
        self.remove(&new)?;
        self.open_file(&new, OpenOptions::new().create_new(true))
    }

    /// Syncs `NAME.new` and gives it its name.
    pub(super) fn finish_new(&self, name: &str, file: &File) -> Result<(), Error> {
        let new = format!("{name}.new");
        file.sync_all()
            .map_err(Error::io("sync", &self.path.join(&new)))?;
        self.rename(&new, name)?;
        self.sync()
    }

    /// Writes a small file so that it is there whole or not at all.
    pub(super) fn write_durably(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let mut file = self.create_new(name)?;
        file.write_all(content)
            .map_err(Error::io("write", &self.path.join(name)))?;
        self.finish_new(name, &file)
    }

    /// Adds to the end of a small file, durably.
    pub(super) fn append(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let mut file = self.open_file(name, OpenOptions::new().create(true).append(true))?;
        file.write_all(content)
            .and_then(|()| file.sync_data())
            .map_err(Error::io("write", &path))
    }

    /// Removes a file. Whether it was there.
    pub(super) fn remove(&self, name: &str) -> Result<bool, Error> {
        self.check()?;
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("remove", &path)(e)),
        }
    }

    /// Gives what is in it another name.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.check()?;
        let (from, to) = (self.path.join(from), self.path.join(to));
        fs::rename(&from, to).map_err(Error::io("rename", &from))
    }

    /// Makes names made or removed in it durable.
    pub(in crate::store) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("sync", &self.path))
    }

    /// What its inode says.
    pub(super) fn metadata(&self) -> Result<Metadata, Error> {
        self.file
            .metadata()
            .map_err(Error::io("read the inode of", &self.path))
    }
}

/// Whether a path still names a file or directory that is held open.
pub(in crate::store) fn check(path: &Path, held: &File, opened: Identity) -> Result<(), Error> {
    let moved = |how| {
        Err(Error::Moved {
            path: path.to_owned(),
            how,
        })
    };
    // None once it is removed, also where its path names another one by now.
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
