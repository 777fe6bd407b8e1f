//! Checksums of any part of some bytes, each in constant time: looking for a whole frame behind damage must not
//! read the same bytes again for each place where one might begin.

/// CRC-32C, its bits reversed, as the `crc32c` crate has it.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;
/// A checksum is kept for each so many bytes; what is left is read.
const STEP: usize = 1 << 10;

/// Bytes whose parts are checked.
pub(super) struct Checksums<'a> {
    bytes: &'a [u8],
    /// Of all bytes before each step.
    before: Vec<u32>,
    /// `x^(8 * 2^n)` for each n.
    powers: [u32; 64],
}

impl<'a> Checksums<'a> {
    /// Reads all bytes once.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut before = vec![0];
        let mut sum = 0;
        for chunk in bytes.chunks(STEP) {
            sum = crc32c::crc32c_append(sum, chunk);
            before.push(sum);
        }
        let mut power = ONE >> 8;
        let powers = std::array::from_fn(|_| {
            let this = power;
            power = multiply(power, power);
            this
        });
        Self {
            bytes,
            before,
            powers,
        }
    }

    /// The CRC-32C of the bytes from `start` to `end`; `None` beyond the last.
    pub(super) fn of(&self, start: usize, end: usize) -> Option<u32> {
        let length = end.checked_sub(start)?;
        Some(self.until(end)? ^ self.moved(self.until(start)?, length))
    }

    /// Of all bytes before a place.
    fn until(&self, end: usize) -> Option<u32> {
        let step = end / STEP;
        let rest = self.bytes.get(step * STEP..end)?;
        Some(crc32c::crc32c_append(*self.before.get(step)?, rest))
    }

    /// What a checksum becomes when so many more bytes follow, but for those bytes themselves.
    fn moved(&self, sum: u32, length: usize) -> u32 {
        let bits = self.powers.iter().enumerate();
        bits.filter(|(bit, _)| length >> bit & 1 == 1)
            .fold(sum, |sum, (_, power)| multiply(*power, sum))
    }
}

/// The product of two polynomials, modulo [`POLYNOMIAL`].
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        b = if b & 1 == 1 {
            b >> 1 ^ POLYNOMIAL
        } else {
            b >> 1
        };
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_the_checksum_that_it_has_alone() {
        let bytes: Vec<u8> = (0..5000_u32)
            .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        let sums = Checksums::new(&bytes);
        let ends = [0, 1, 2, 17, 1023, 1024, 1025, 2048, 4095, 4999, 5000];
        for start in ends {
            for end in ends.into_iter().filter(|end| *end >= start) {
                let alone = crc32c::crc32c(&bytes[start..end]);
                assert_eq!(sums.of(start, end), Some(alone), "{start}..{end}");
            }
        }
        assert_eq!(sums.of(0, 5001), None);
        assert_eq!(sums.of(2, 1), None);
    }
}
