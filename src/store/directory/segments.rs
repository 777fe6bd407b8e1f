//! The journal's files as the directory knows them: their names and their heads, which tie each to its log and to the
//! one before it. What stands behind a head is the journal's.
//!
//! ```text
//! NAME    first offset in 20 digits, .journal
//! header  magic 8 | log id 16 | first offset 8 | previous segment's first offset 8 and length 8
//!         | next direct id 8 | next group id 8 | crc32c 4
//! ```
//! All numbers are big-endian.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::place::Place;
use crate::model::{LogId, Position};
use crate::store::error::Error;

const MAGIC: [u8; 8] = *b"HALLEYJ1";
pub(in crate::store) const HEADER_BYTES: usize = 8 + 16 + 5 * 8 + 4;

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
    fn encode(&self) -> Vec<u8> {
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

    pub(in crate::store) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
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
pub(in crate::store) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (chunk, after) = rest.split_first_chunk::<N>().ok_or("it is cut")?;
    *rest = after;
    Ok(*chunk)
}

/// Makes the first segment of a new log.
pub(super) fn create_first(place: &Place, log: LogId) -> Result<(), Error> {
    let directory = place.path();
    // A first start that was cut short leaves a header without entries behind.
    let found = segments(directory)?;
    if found.len() > 1 || found.iter().any(|(first, path)| *first != 1 || !bare(path)) {
        return Err(Error::Directory {
            path: directory.to_owned(),
            reason: "it has a journal, but the file `format` beside it is missing; nothing was \
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
    write_segment(place, &head).map(drop)
}

/// Whether there is no room for an entry in a segment.
fn bare(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.len() <= to_u64(HEADER_BYTES))
}

/// Writes a segment's header and syncs it and its name.
pub(in crate::store) fn write_segment(
    place: &Place,
    head: &SegmentHead,
) -> Result<(PathBuf, File, u64), Error> {
    let name = format!("{:020}.journal", head.first);
    let path = place.path().join(&name);
    // A stop may have left a header, with or without its end; more than that is somebody's data.
    let file = place.create_or_empty(&name, to_u64(HEADER_BYTES))?;
    let mut file = file.ok_or_else(|| Error::Journal {
        path: path.clone(),
        position: 0,
        reason:
            "it holds entries already, where a new segment should begin: another server writes here"
                .into(),
    })?;
    let header = head.encode();
    file.write_all(&header).map_err(Error::io("write", &path))?;
    file.sync_all().map_err(Error::io("sync", &path))?;
    place.sync()?;
    Ok((path, file, to_u64(header.len())))
}

/// The first offset (from the name) and the path of each segment, in order.
pub(in crate::store) fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = entry.map_err(Error::io("list", directory))?.path();
        // What was put aside has another extension, and is not read.
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

/// A journal is never without one: it is made with its first.
pub(in crate::store) fn no_segments(directory: &Path) -> Error {
    Error::Journal {
        path: directory.to_owned(),
        position: 0,
        reason: "it has no segment".into(),
    }
}

/// A length as a number of the file format.
pub(in crate::store) fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits 64 bits")
}
