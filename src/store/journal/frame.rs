//! An entry as the bytes of a segment: a frame, checksummed.
//!
//! ```text
//! frame   payload length 4 | crc32c 4 (of all that follows) | version 1 | offset 8 | payload
//! ```
//! All numbers are big-endian.

use bincode::Options;

use super::command::Entry;
use crate::store::directory::segments::take;
use crate::store::error::Error;

pub(super) const FRAME_HEAD_BYTES: usize = 4 + 4 + 1 + 8;
/// Where in a frame the checksum's bytes begin.
pub(super) const CHECKED_FROM: usize = 8;
pub(super) const ENTRY_VERSION: u8 = 1;
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

/// Length of the payload, checksum and offset, unless the length is impossible.
pub(super) fn frame_head(head: &[u8]) -> Option<(usize, u32, u64)> {
    let mut rest = head;
    let length = usize::try_from(u32::from_be_bytes(take(&mut rest).ok()?)).ok()?;
    let crc = u32::from_be_bytes(take(&mut rest).ok()?);
    let _: [u8; 1] = take(&mut rest).ok()?;
    let offset = u64::from_be_bytes(take(&mut rest).ok()?);
    (length <= ENTRY_BYTES_MAX).then_some((length, crc, offset))
}

pub(super) fn frame_crc(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(
        crc32c::crc32c(head.get(CHECKED_FROM..).unwrap_or_default()),
        payload,
    )
}
