//! One file of the journal: a header, then frames, each checksummed.
//!
//! ```text
//! header  magic 8 | log id 16 | first offset 8 | previous segment's first offset 8 and length 8
//!         | next direct id 8 | next group id 8 | crc32c 4
//! frame   payload length 4 | crc32c 4 (of all that follows) | version 1 | offset 8 | payload
//! ```
//! All numbers are big-endian. Behind the last frame may stand zeros, written ahead. A frame that does not check out
//! is either a torn tail, with nothing valid after it, or damage.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bincode::Options;

use super::command::Entry;
use super::rest::{is_hole, later_frame, only_zeros};
use crate::model::{LogId, Position};
use crate::store::error::Error;

const MAGIC: [u8; 8] = *b"HALLEYJ1";
pub(in crate::store) const HEADER_BYTES: usize = 8 + 16 + 5 * 8 + 4;
pub(in crate::store) const FRAME_HEAD_BYTES: usize = 4 + 4 + 1 + 8;
/// Where in a frame the checksum's bytes begin.
pub(in crate::store) const CHECKED_FROM: usize = 8;
const ENTRY_VERSION: u8 = 1;
/// The largest entry: the largest request that can be configured (32 MiB) plus what is queued beside it,
/// with a wide margin, for an entry that is refused here stops all writing. A frame that claims more is
/// damage.
const ENTRY_BYTES_MAX: usize = 512 << 20;

/// What the head of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct SegmentHead {
    pub(in crate::store) log: LogId,
    /// The offset of its first entry.
    pub(in crate::store) first: u64,
    /// The segment before it: its first offset and its length in bytes; zeros for none.
    pub(in crate::store) previous: (u64, u64),
    /// The ids given before its first entry.
    pub(in crate::store) heads: Position,
}

impl SegmentHead {
    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.log.0);
        let (previous, length) = self.previous;
        for number in [
            self.first,
            previous,
            length,
            self.heads.direct + 1,
            self.heads.group + 1,
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut rest = bytes;
        if take(&mut rest)? != MAGIC {
            return Err("this is not a segment of the journal");
        }
        let head = Self {
            log: LogId(take(&mut rest)?),
            first: u64::from_be_bytes(take(&mut rest)?),
            previous: (
                u64::from_be_bytes(take(&mut rest)?),
                u64::from_be_bytes(take(&mut rest)?),
            ),
            heads: Position {
                direct: u64::from_be_bytes(take(&mut rest)?).wrapping_sub(1),
                group: u64::from_be_bytes(take(&mut rest)?).wrapping_sub(1),
            },
        };
        let checked = bytes.get(..HEADER_BYTES - 4).ok_or("the header is cut")?;
        if take(&mut rest)? != crc32c::crc32c(checked).to_be_bytes() {
            return Err("the header's checksum is wrong");
        }
        Ok(head)
    }
}

/// Takes a fixed number of bytes off the front.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (chunk, after) = rest.split_first_chunk::<N>().ok_or("it is cut")?;
    *rest = after;
    Ok(*chunk)
}

/// How entries are written in frames: bincode with varints, bounded, refusing trailing bytes.
fn codec() -> impl Options {
    let limit = u64::try_from(ENTRY_BYTES_MAX).expect("the limit fits");
    bincode::DefaultOptions::new().with_limit(limit)
}

/// An entry as a frame.
pub(in crate::store) fn encode_frame(offset: u64, entry: &Entry) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    codec()
        .serialize_into(&mut frame, entry)
        .map_err(|e| Error::View(format!("an entry cannot be encoded: {e}")))?;
    let length = u32::try_from(frame.len() - FRAME_HEAD_BYTES)
        .map_err(|_| Error::View("an entry is over 4 GiB".into()))?;
    let (head, _) = frame
        .split_first_chunk_mut::<FRAME_HEAD_BYTES>()
        .expect("it was made so long");
    head[0..4].copy_from_slice(&length.to_be_bytes());
    head[8] = ENTRY_VERSION;
    head[9..17].copy_from_slice(&offset.to_be_bytes());
    let crc = crc32c::crc32c(frame.get(CHECKED_FROM..).unwrap_or_default());
    frame
        .get_mut(4..8)
        .expect("it was made so long")
        .copy_from_slice(&crc.to_be_bytes());
    Ok(frame)
}

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
pub(in crate::store) struct SegmentReader {
    path: PathBuf,
    file: BufReader<File>,
    pub(in crate::store) head: SegmentHead,
    /// Where the next frame begins.
    position: u64,
    /// The offset that the next frame must have.
    next: u64,
    tail: Tail,
}

/// How the last entries were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Tail {
    /// Each was synced before the next: behind a torn one there is none.
    Synced,
    /// Several may be torn, and others whole behind them.
    Unsynced,
    /// Copied while they were written: where the copier read zeros ahead of the end, and further on what was written
    /// meanwhile, there is a hole.
    Copied,
}

/// What a read of the next entry gives.
#[derive(Debug)]
pub(in crate::store) enum Next {
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
    pub(in crate::store) fn open(path: &Path) -> Result<Option<Self>, Error> {
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

    /// Tells how the last entries of this segment, the last one, were written.
    pub(in crate::store) fn ending(self, tail: Tail) -> Self {
        Self { tail, ..self }
    }

    /// The next entry. Damage before the end is an error.
    pub(in crate::store) fn next(&mut self) -> Result<Next, Error> {
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
            Frame::Bad(reason) => {
                let rest = self.rest()?;
                let zeros = rest.iter().rev().take_while(|byte| **byte == 0).count();
                let (written, _) = rest.split_at(rest.len() - zeros);
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
        }
    }

    /// The offset of the entry that would be next.
    pub(in crate::store) fn next_offset(&self) -> u64 {
        self.next
    }

    /// What stands here should be an entry.
    pub(in crate::store) fn damage_at(&self, position: u64) -> Error {
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
        let Some((length, crc, offset)) = frame_head(&head).filter(|_| got == head.len()) else {
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
        let [.., version, _, _, _, _, _, _, _, _] = head;
        if version != ENTRY_VERSION {
            return Err(Error::Version {
                path: self.path.clone(),
                found: version.into(),
                supported: ENTRY_VERSION.into(),
            });
        }
        match codec().deserialize(&payload) {
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

    /// All bytes from the present position on.
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

/// Length of the payload, checksum and offset, unless the length is impossible.
pub(in crate::store) fn frame_head(head: &[u8]) -> Option<(usize, u32, u64)> {
    let mut rest = head;
    let length = usize::try_from(u32::from_be_bytes(take(&mut rest).ok()?)).ok()?;
    let crc = u32::from_be_bytes(take(&mut rest).ok()?);
    let _: [u8; 1] = take(&mut rest).ok()?;
    let offset = u64::from_be_bytes(take(&mut rest).ok()?);
    (length <= ENTRY_BYTES_MAX).then_some((length, crc, offset))
}

fn frame_crc(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(
        crc32c::crc32c(head.get(CHECKED_FROM..).unwrap_or_default()),
        payload,
    )
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

/// A length as a number of the file format.
pub(in crate::store) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits 64 bits")
}
