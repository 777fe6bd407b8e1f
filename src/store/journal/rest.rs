//! What may stand in a segment where its entries end: zeros written ahead, a torn entry, damage, or a hole of a copy.

use std::io::{self, BufRead};

use super::checksum::Checksums;
use super::frame::{CHECKED_FROM, FRAME_HEAD_BYTES, FrameHead};
use crate::store::directory::segments::to_u64;

/// A frame begins with its length.
const LENGTH_BYTES: usize = 4;

/// Whether nothing but zeros is left to read.
pub(super) fn only_zeros(from: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let read = from.fill_buf()?;
        if read.is_empty() {
            return Ok(true);
        }
        if read.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let length = read.len();
        from.consume(length);
    }
}

/// Whether a whole frame of this offset or a later one stands anywhere after the first byte. An entry is
/// synced before the next is written, so behind a torn one there is none.
pub(super) fn later_frame(rest: &[u8], next: u64) -> bool {
    /// More than fit into a segment: an offset beyond is one only by chance.
    const FRAMES_AHEAD: u64 = 1 << 24;
    let sums = Checksums::new(rest);
    let heads = rest.windows(FRAME_HEAD_BYTES).enumerate().skip(1);
    heads
        .filter_map(|(at, head)| Some((at, FrameHead::decode(head)?)))
        .filter(|(_, head)| (next..next.saturating_add(FRAMES_AHEAD)).contains(&head.offset))
        .any(|(at, head)| {
            let (start, end) = (at + CHECKED_FROM, at + FRAME_HEAD_BYTES + head.length);
            sums.of(start, end) == Some(head.crc)
        })
}

/// Whether a frame that does not check out, at this position of a file, is a hole of a live copy. A copier reads
/// whole blocks: from where the entries ended then up to the end of a block it has zeros, and behind them what was
/// written later.
pub(super) fn is_hole(rest: &[u8], position: u64) -> bool {
    const BLOCK: usize = 512;
    /// So many zeros in a row are in no frame.
    const ZEROS: usize = 64;
    let frame = FRAME_HEAD_BYTES + FrameHead::decode(rest).map_or(0, |head| head.length);
    let in_block = usize::try_from(position % to_u64(BLOCK)).expect("it is small");
    // The frame begins so many bytes before the end of its block.
    let first_end = BLOCK - in_block;
    let zeros = (first_end..frame + BLOCK + ZEROS)
        .step_by(BLOCK)
        // Fewer zeros than its length has bytes are in any frame.
        .skip_while(|end| *end < LENGTH_BYTES)
        .map_while(|end| rest.get(end.saturating_sub(ZEROS)..end))
        .any(|before| before.iter().all(|byte| *byte == 0));
    zeros || (first_end < LENGTH_BYTES && lacks_length(rest, first_end))
}

/// Whether a frame is whole but for the first bytes of its length, which are zeros. In most frames those are zeros
/// anyway, so that they alone show no hole.
fn lacks_length(rest: &[u8], zeros: usize) -> bool {
    let Some(FrameHead { length, crc, .. }) = FrameHead::decode(rest) else {
        return false;
    };
    if rest.iter().take(zeros).any(|byte| *byte != 0) {
        return false;
    }
    let sums = Checksums::new(rest);
    // The last bytes of the length are known; the first ones are tried.
    let step = 1 << (8 * (LENGTH_BYTES - zeros));
    (length..rest.len())
        .step_by(step)
        .any(|length| sums.of(CHECKED_FROM, FRAME_HEAD_BYTES + length) == Some(crc))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Each byte may begin a frame that reaches to the end: none of them may be read through for it.
    #[test]
    fn what_stands_behind_damage_is_looked_through_in_linear_time() {
        const NEXT: u64 = 0x0101_0101_0000_0000;
        let length: u32 = 4 << 20;
        let mut head = length.to_be_bytes().to_vec();
        head.extend([0; 5]);
        head.extend((NEXT + 5).to_be_bytes());
        let rest = head.repeat(8 << 20 >> 4);
        let begun = Instant::now();
        assert!(!later_frame(&rest, NEXT));
        // Read once for each place, these would be a thousand gigabytes.
        assert!(
            begun.elapsed() < Duration::from_secs(40),
            "{:?}",
            begun.elapsed()
        );
    }
}
