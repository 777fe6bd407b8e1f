//! One file of the journal, read from front to back: its head, then frames. Behind the last frame may stand zeros,
//! written ahead. A frame that does not check out is either a torn tail, with nothing valid after it, or damage.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::command::Entry;
use super::frame::{ENTRY_VERSION, FRAME_HEAD_BYTES, FrameHead, decode_entry, frame_crc};
use super::rest::{is_hole, later_frame, only_zeros};
use crate::store::directory::Tail;
use crate::store::directory::segments::{HEADER_BYTES, SegmentHead, to_u64};
use crate::store::error::Error;

/// What stands at a place of a segment.
enum Frame {
    /// An entry, and the length of its frame.
    Entry(Box<Entry>, u64),
    /// The file ends here, or holds nothing but zeros from here on.
    End,
    /// Nothing that checks out.
    Bad(&'static str),
}

/// Reads a segment from front to back.
#[derive(Debug)]
pub(super) struct SegmentReader {
    path: PathBuf,
    file: BufReader<File>,
    pub(super) head: SegmentHead,
    /// Where the next frame begins.
    position: u64,
    /// The offset that the next frame must have.
    next: u64,
    tail: Tail,
}

/// What a read of the next entry gives.
#[derive(Debug)]
pub(super) enum Next {
    /// The next entry and its offset.
    Entry(u64, Entry),
    /// The end of the entries, or what is left of one that was being written when the process or the machine
    /// stopped: nothing valid follows it.
    End {
        /// The length of the file without the torn rest and the zeros.
        good: u64,
        /// The bytes of the torn rest, without the zeros behind it.
        torn: u64,
    },
}

impl SegmentReader {
    /// Opens a segment. `Ok(None)`: its header was never completely written.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let length = file
            .metadata()
            .map_err(Error::io("read the size of", path))?
            .len();
        let mut bytes = [0; HEADER_BYTES];
        let got = read_up_to(&mut file, &mut bytes).map_err(Error::io("read", path))?;
        let head = match SegmentHead::decode(bytes.get(..got).unwrap_or_default()) {
            Ok(head) => head,
            // Frames are only written behind a header that was synced.
            Err(_) if length <= to_u64(HEADER_BYTES) => return Ok(None),
            Err(reason) => return Err(damage(path, 0, reason)),
        };
        let (position, next) = (to_u64(HEADER_BYTES), head.first);
        let file = BufReader::with_capacity(256 << 10, file);
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            head,
            position,
            next,
            tail: Tail::Synced,
        }))
    }

    /// Of the last segment: how its end was written. All others were synced before the next was begun.
    pub(super) fn ending(self, tail: Tail) -> Self {
        Self { tail, ..self }
    }

    /// The next entry. Damage before the end is an error.
    pub(super) fn next(&mut self) -> Result<Next, Error> {
        match self.frame()? {
            Frame::Entry(entry, length) => {
                self.position += length;
                self.next += 1;
                Ok(Next::Entry(self.next - 1, *entry))
            }
            Frame::End => Ok(Next::End {
                good: self.position,
                torn: 0,
            }),
            Frame::Bad(reason) => self.torn_end(reason),
        }
    }

    /// The end of the entries, if what does not check out can be a torn tail; else it is damage.
    fn torn_end(&mut self, reason: &str) -> Result<Next, Error> {
        let rest = self.rest()?;
        let zeros = rest.iter().rev().take_while(|byte| **byte == 0).count();
        let (written, _) = rest.split_at(rest.len() - zeros);
        // Whether whole entries may stand behind a torn one. They are given up with it.
        let may_follow = match self.tail {
            Tail::Synced => false,
            Tail::Unsynced => true,
            Tail::Copied => is_hole(written, self.position),
        };
        if !may_follow && later_frame(&rest, self.next) {
            return Err(damage(&self.path, self.position, reason));
        }
        Ok(Next::End {
            good: self.position,
            torn: to_u64(written.len()),
        })
    }

    /// The offset of the entry that would be next.
    pub(super) fn next_offset(&self) -> u64 {
        self.next
    }

    /// What stands here should be an entry.
    pub(super) fn damage_at(&self, position: u64) -> Error {
        damage(
            &self.path,
            position,
            "what stands here is not an entry, and another segment follows",
        )
    }

    fn frame(&mut self) -> Result<Frame, Error> {
        let mut head = [0; FRAME_HEAD_BYTES];
        let got = read_up_to(&mut self.file, &mut head).map_err(Error::io("read", &self.path))?;
        if head == [0; FRAME_HEAD_BYTES] {
            let ends = only_zeros(&mut self.file);
            if ends.map_err(Error::io("read", &self.path))? {
                return Ok(Frame::End);
            }
        }
        let decoded = FrameHead::decode(&head).filter(|_| got == head.len());
        let Some(FrameHead {
            length,
            crc,
            version,
            offset,
        }) = decoded
        else {
            return Ok(Frame::Bad("a frame's head is cut or impossible"));
        };
        if offset != self.next {
            return Ok(Frame::Bad("a frame has another offset than the next"));
        }
        let mut payload = Vec::new();
        let got = (&mut self.file)
            .take(to_u64(length))
            .read_to_end(&mut payload)
            .map_err(Error::io("read", &self.path))?;
        if got != length {
            return Ok(Frame::Bad("a frame is cut"));
        }
        if frame_crc(&head, &payload) != crc {
            return Ok(Frame::Bad("a frame's checksum is wrong"));
        }
        // The checksum is right, so this is what was written: an error here is a version's, not a disk's.
        let Some(entry) = decode_entry(version, &payload) else {
            return Err(Error::Version {
                path: self.path.clone(),
                what: "entries of version",
                found: version.into(),
                supported: ENTRY_VERSION.into(),
            });
        };
        match entry {
            Ok(entry) => Ok(Frame::Entry(
                Box::new(entry),
                to_u64(FRAME_HEAD_BYTES + length),
            )),
            Err(e) => Err(damage(
                &self.path,
                self.position,
                &format!("an entry is not readable: {e}"),
            )),
        }
    }

    /// All bytes from the last entry on. Nothing is read behind them.
    fn rest(&mut self) -> Result<Vec<u8>, Error> {
        let mut rest = Vec::new();
        self.file
            .seek(SeekFrom::Start(self.position))
            .map_err(Error::io("seek in", &self.path))?;
        self.file
            .read_to_end(&mut rest)
            .map_err(Error::io("read", &self.path))?;
        Ok(rest)
    }
}

fn damage(path: &Path, position: u64, reason: &str) -> Error {
    Error::Journal {
        path: path.to_owned(),
        position,
        reason: reason.to_owned(),
    }
}

fn read_up_to(from: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(space) = into.get_mut(filled..).filter(|space| !space.is_empty()) {
        match from.read(space) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
