//! The segment that is written, as far as others can do harm to it: removed, cut, replaced, or shared with another
//! directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::store::directory::place::{Identity, check};
use crate::store::directory::segments::to_u64;
use crate::store::error::Error;

/// How much [`write_again`] has in memory.
const REWRITTEN_BYTES: usize = 1 << 20;

/// The segment that is written, shared by who appends, who writes zeros, and who looks whether it is still there.
#[derive(Debug)]
pub(in crate::store) struct SharedSegment {
    segment: Mutex<LiveSegment>,
    /// Zeros are no longer being written.
    pub(super) filled: Condvar,
}

impl SharedSegment {
    pub(super) fn new(segment: LiveSegment) -> Arc<Self> {
        Arc::new(Self {
            segment: Mutex::new(segment),
            filled: Condvar::new(),
        })
    }

    pub(super) fn segment(&self) -> MutexGuard<'_, LiveSegment> {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the file is there and holds what was written to it.
    pub(in crate::store) fn check(&self) -> Result<(), Error> {
        self.segment().check()
    }
}

/// The segment that is written, as far as others can do harm to it.
#[derive(Debug)]
pub(super) struct LiveSegment {
    path: PathBuf,
    file: File,
    opened: Identity,
    /// It was written up to here: entries, and the zeros ahead of them. It is no shorter.
    pub(super) written: u64,
    /// It is no longer than this: zeros are being written, or were as far as there was room.
    pub(super) longest: u64,
    /// Zeros are being written behind `written`.
    pub(super) filling: bool,
    /// There was no room for zeros.
    pub(super) no_room: bool,
    /// Why zeros could not be written otherwise.
    pub(super) failed: Option<io::Error>,
}

impl LiveSegment {
    /// Watches a segment that is open.
    pub(super) fn new(path: &Path, file: &File) -> Result<Self, Error> {
        let failed = || Error::io("read the inode of", path);
        let data = file.metadata().map_err(failed())?;
        Ok(Self {
            path: path.to_owned(),
            file: file.try_clone().map_err(failed())?,
            opened: Identity::of(&data),
            written: data.len(),
            longest: data.len(),
            filling: false,
            no_room: false,
            failed: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it once more. Its path may name another file by now, which is not ours to write.
    pub(super) fn open_again(&self) -> Result<File, Error> {
        let file = open_own(&self.path)?;
        let data = file.metadata();
        let data = data.map_err(Error::io("read the inode of", &self.path))?;
        if Identity::of(&data) != self.opened {
            return Err(self.changed("was replaced by another one"));
        }
        Ok(file)
    }

    /// Where a test has no room for zeros.
    #[cfg(test)]
    pub(super) fn put_zeros_elsewhere(&mut self, path: PathBuf) {
        self.opened = Identity::of(&std::fs::metadata(&path).unwrap());
        self.path = path;
    }

    /// Something was written up to here.
    pub(super) fn reaches(&mut self, end: u64) {
        self.written = self.written.max(end);
        self.longest = self.longest.max(end);
    }

    /// Whether the file is there and holds what was written to it.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.length()? < self.written {
            return Err(self.changed("was cut: it is shorter than what was written to it"));
        }
        check(&self.path, &self.file, self.opened)
    }

    /// The same for the only one who writes, before the next write, without a look at its name.
    pub(super) fn check_to_write(&self) -> Result<(), Error> {
        match self.length()? {
            length if length < self.written => {
                Err(self.changed("was cut: it is shorter than what was written to it"))
            }
            length if length > self.longest => {
                Err(self
                    .changed("is longer than what was written to it: another process writes it"))
            }
            _ => Ok(()),
        }
    }

    fn length(&self) -> Result<u64, Error> {
        let data = self.file.metadata();
        let data = data.map_err(Error::io("read the size of", &self.path))?;
        if data.nlink() == 0 {
            return Err(self.changed("was removed"));
        }
        Ok(data.len())
    }

    fn changed(&self, how: &'static str) -> Error {
        Error::Moved {
            path: self.path.clone(),
            how,
        }
    }
}

/// Opens the last segment to write. It must be a file of this directory alone: through a link, another directory
/// would be written too.
pub(super) fn open_own(path: &Path) -> Result<File, Error> {
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
pub(super) fn write_again(file: &File, bytes: u64) -> io::Result<()> {
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
