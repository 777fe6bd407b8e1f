//! Numbers in as few bytes as they need.

/// Seven bits a byte, the lowest first; all but the last byte have the highest bit.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let [.., low] = value.to_be_bytes();
        value >>= 7;
        if value == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// `None`: it is cut, too large, or longer than it need be.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        value |= bits << shift;
        if bits << shift >> shift != bits || (*byte == 0 && shift > 0) {
            return None;
        }
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
