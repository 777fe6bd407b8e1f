//! An entry as the bytes of a segment: a frame, checksummed.
//!
//! ```text
//! frame   payload length 4 | crc32c 4 (of all that follows) | version 1 | offset 8 | payload
//! ```
//! All numbers are big-endian. The version is that of the payload: 2 is written; 1 is what directories of format 1 have.

use bincode::Options;
use serde::Serialize;

use super::command::{Entry, EntryV1};
use crate::store::directory::segments::take;
use crate::store::error::Error;

pub(super) const FRAME_HEAD_BYTES: usize = 4 + 4 + 1 + 8;
/// The first byte of a frame that its checksum covers: the version.
pub(super) const CHECKED_FROM: usize = 4 + 4;
/// The version of entries that is written; what is read goes back to 1.
pub(super) const ENTRY_VERSION: u8 = 2;
/// The largest entry: the largest request that can be configured (32 MiB) plus what is queued beside it,
/// with a wide margin, for an entry that is refused here stops all writing. A frame that claims more is
/// damage.
const ENTRY_BYTES_MAX: usize = 512 << 20;

/// How entries are written in frames: bincode with varints, bounded, refusing trailing bytes.
pub(super) fn codec() -> impl Options {
    let limit = u64::try_from(ENTRY_BYTES_MAX).expect("the limit fits");
    bincode::DefaultOptions::new().with_limit(limit)
}

/// An entry as a frame.
pub(super) fn encode_frame(offset: u64, entry: &Entry) -> Result<Vec<u8>, Error> {
    encode_as(ENTRY_VERSION, offset, entry)
}

fn encode_as(version: u8, offset: u64, entry: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    codec()
        .serialize_into(&mut frame, entry)
        .map_err(|e| Error::View(format!("an entry cannot be encoded: {e}")))?;
    let length = u32::try_from(frame.len() - FRAME_HEAD_BYTES)
        .map_err(|_| Error::View("an entry is over 4 GiB".into()))?;
    let (head, payload) = frame
        .split_first_chunk_mut::<FRAME_HEAD_BYTES>()
        .expect("it was made so long");
    head[0..4].copy_from_slice(&length.to_be_bytes());
    head[8] = version;
    head[9..17].copy_from_slice(&offset.to_be_bytes());
    let crc = frame_crc(head, payload);
    head[4..8].copy_from_slice(&crc.to_be_bytes());
    Ok(frame)
}

/// The entry in a payload. `None`: no version that this program knows.
pub(super) fn decode_entry(version: u8, payload: &[u8]) -> Option<bincode::Result<Entry>> {
    match version {
        1 => Some(codec().deserialize::<EntryV1>(payload).map(Entry::from)),
        ENTRY_VERSION => Some(codec().deserialize(payload)),
        _ => None,
    }
}

/// What a frame says of its payload.
pub(super) struct FrameHead {
    /// Bytes of the payload.
    pub(super) length: usize,
    pub(super) crc: u32,
    pub(super) version: u8,
    pub(super) offset: u64,
}

impl FrameHead {
    /// The head that some bytes begin with. `None`: they are too few, or no frame is so long.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let length = usize::try_from(u32::from_be_bytes(take(&mut bytes).ok()?)).ok()?;
        let crc = u32::from_be_bytes(take(&mut bytes).ok()?);
        let [version] = take(&mut bytes).ok()?;
        let offset = u64::from_be_bytes(take(&mut bytes).ok()?);
        (length <= ENTRY_BYTES_MAX).then_some(Self {
            length,
            crc,
            version,
            offset,
        })
    }
}

/// The checksum of a frame.
pub(super) fn frame_crc(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(
        crc32c::crc32c(head.get(CHECKED_FROM..).unwrap_or_default()),
        payload,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::model::{GroupName, Position};
    use crate::store::directory::segments::segments;
    use crate::store::{Command, Directory, Follower, Journal};

    fn commands(n: u64) -> Vec<Command> {
        let group = GroupName::parse(&format!("group {n}")).unwrap();
        vec![Command::DeleteGroup { group }]
    }

    /// As version 1 wrote it, with this number.
    fn frame_v1(offset: u64, n: u64, at_ms: u64) -> Vec<u8> {
        let entry = EntryV1 {
            proposer: 7,
            n,
            at_ms,
            commands: commands(offset),
        };
        encode_as(1, offset, &entry).unwrap()
    }

    fn entry(n: u64, keys_us: u64) -> Entry {
        Entry {
            proposer: 7,
            n,
            at_ms: 9,
            keys_us,
            commands: commands(n),
        }
    }

    /// Puts frames behind what is in the only segment.
    fn append(data: &Path, frames: &[Vec<u8>]) {
        let (_, path) = segments(&data.join("journal")).unwrap().remove(0);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(frames.concat());
        fs::write(&path, bytes).unwrap();
    }

    /// The offset and the time of the keys of each entry.
    fn keys(mut follower: Follower) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        while let Some((offset, entry)) = follower.next_entry().unwrap() {
            assert_eq!(entry.commands, commands(offset));
            found.push((offset, entry.keys_us));
            if follower.caught_up() {
                break;
            }
        }
        found
    }

    #[test]
    fn a_journal_of_version_1_is_read_and_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        drop(Directory::open(data).unwrap());
        // The first ones counted; then the number was a time.
        let old = [frame_v1(1, 1, 5), frame_v1(2, EntryV1::TIMES + 6_789, 5)];
        append(data, &old);
        let directory = Directory::open(data).unwrap();
        let mut journal = Journal::open(&directory, true).unwrap();
        assert_eq!(journal.keys_ms_at_open(), 6);
        journal.cut_tail().unwrap();
        // A segment of both, then one of the new version alone.
        journal.append(entry(3, 7_000), |_| unreachable!()).unwrap();
        journal.roll_at(1);
        let heads = |_| Ok(Position::default());
        journal.append(entry(4, 8_000), heads).unwrap();
        let expected = [(1, 5_000), (2, 6_789), (3, 7_000), (4, 8_000)];
        assert_eq!(keys(journal.follow(0).unwrap()), expected);
        assert_eq!(keys(journal.follow(2).unwrap()), expected[2..]);
        drop(journal);
        assert_eq!(keys(Follower::checked(&directory).unwrap()), expected);
        assert_eq!(
            Journal::open(&directory, true).unwrap().keys_ms_at_open(),
            8
        );
    }

    #[test]
    fn an_entry_of_a_newer_version_is_refused_as_such_and_is_no_torn_tail() {
        for behind in [0, 1] {
            let folder = tempfile::tempdir().unwrap();
            let data = folder.path();
            drop(Directory::open(data).unwrap());
            let newer = encode_as(ENTRY_VERSION + 1, 2, &entry(2, 2)).unwrap();
            let mut frames = vec![encode_frame(1, &entry(1, 1)).unwrap(), newer];
            frames.extend((0..behind).map(|_| encode_frame(3, &entry(3, 3)).unwrap()));
            append(data, &frames);
            let mut directory = Directory::open(data).unwrap();
            let refused = [
                Journal::open(&directory, true).map(drop),
                Follower::checked(&directory).and_then(Follower::drain),
                Journal::cut_damage(&mut directory, 1).map(drop),
            ];
            for refused in refused {
                let said = refused.unwrap_err().to_string();
                assert!(said.contains("has entries of version 3"), "{said}");
                assert!(said.contains("newer version of Halley"), "{said}");
            }
            assert!(!directory.must_fork(), "nothing was given up");
        }
    }
}
