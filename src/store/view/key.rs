//! Every key of sled, in one table. All numbers are big-endian, so that the order of bytes is the order
//! of ids.
//!
//! | tree | key | value |
//! |---|---|---|
//! | `direct`, `group` | id 8 | version 1, the message in bincode |
//! | `index` | `n` kind 1, name | number 4 of the user (`u`) or group (`g`) |
//! | | `c` lower user 4, higher user 4, direct id 8 | version 3, a part: 64 messages of this conversation, from the one with this id on |
//! | | `g` group 4, group id 8 | the same: 64 of this group's messages |
//! | | `s` group 4, user 4, group id 8 | the same: 64 of what a user with a channel sent to the group |
//! | | `u` user 4, direct id 8 | the same: 64 of what the user may see |
//! | | `l` the key of a list (`c`, `g`, `s`, `u`) up to the id | version 1, a block: the last parts, not yet full, of the lists from this one up to the next block's. For each: how many bytes of its key are those of the one before, how many others, these, how long the part is, the part |
//! | | `p` user 4, direct id 8 | version 1, varints: some of the user's conversations, rising by their last messages in full rows of `u`: the id, or by how much it is higher than the one before, and the peer's number |
//! | | `G` group 4 | version 2, what the group is |
//! | | `M` user 4, group 4, from 8 | version 1, an interval of membership, present or past |
//! | | `m` group 4, user 4 | version 3, a present member: name, and the interval again |
//! | | `k` hash 16 | version 2, the receipt under an idempotency key |
//! | | `x` at 8, hash 8 | hash 16: the key to forget when its time is over |
//! | | `o` user 4 | version 1, the user's channel, which is open |
//! | | `f` user 4 | number 8: the user's channel was closed, and its numbers up to this one are forgotten |
//! | default | `applied` | version 4, the mark: what has been applied, and rows of the index |
//! | | `writing` | offset 8: the last entry of the write that is under way or was cut short, or of the last one |
//! | | `seen` | version 1, the offset of the last entry that was known of |
//! | | `next-direct`, `next-group` | 8: the counters of the sequences, up to which ids are granted |
//! | | `r` offset 8, number 4 | changes to do once the mark of that entry is set |
//!
//! A part is varints: how many are before it (in `u` messages to the user, and how many conversations), the first id, and
//! for each one behind it by how much its id is higher. In `u` the peer's number stands behind each id, with two bits
//! behind it: the conversation's first, and received.
//!
//! A varint has seven bits a byte, the lowest first; all bytes but the last have the highest bit.
//!
//! Keys of the index stay within the 22 bytes that sled keeps inline, names apart.

use serde::{Deserialize, Serialize};

use crate::model::{GroupName, UserName};

/// A key of the index.
pub(super) type Key = Vec<u8>;

/// The hash that stands for an idempotency key and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub [u8; 16]);

pub(super) fn user(name: &UserName) -> Key {
    [b"nu", name.as_str().as_bytes()].concat()
}

pub(super) fn group(name: &GroupName) -> Key {
    [b"ng", name.as_str().as_bytes()].concat()
}

/// The prefix of a conversation; the same for both users.
pub(super) fn conversation(one: u32, other: u32) -> Key {
    [
        &b"c"[..],
        &one.min(other).to_be_bytes(),
        &one.max(other).to_be_bytes(),
    ]
    .concat()
}

pub(super) fn inbox(user: u32) -> Key {
    [&b"u"[..], &user.to_be_bytes()].concat()
}

pub(super) fn group_messages(group: u32) -> Key {
    [&b"g"[..], &group.to_be_bytes()].concat()
}

pub(super) fn sent(group: u32, user: u32) -> Key {
    [&b"s"[..], &group.to_be_bytes(), &user.to_be_bytes()].concat()
}

/// The first block of lists, and the end of all of them.
pub(super) const BLOCKS: &[u8] = b"l";
pub(super) const BLOCKS_END: &[u8] = b"m";

/// The block that begins with a list.
pub(super) fn block(list: &[u8]) -> Key {
    [BLOCKS, list].concat()
}

pub(super) fn recent(user: u32) -> Key {
    [&b"p"[..], &user.to_be_bytes()].concat()
}

pub(super) fn group_row(group: u32) -> Key {
    [&b"G"[..], &group.to_be_bytes()].concat()
}

/// The prefix of all intervals of a user.
pub(super) fn memberships(user: u32) -> Key {
    [&b"M"[..], &user.to_be_bytes()].concat()
}

/// The prefix of the intervals of a user in one group.
pub(super) fn memberships_in(user: u32, group: u32) -> Key {
    [memberships(user).as_slice(), &group.to_be_bytes()].concat()
}

/// An interval that begins after an id.
pub(super) fn membership(user: u32, group: u32, from: u64) -> Key {
    with_id(&memberships_in(user, group), from)
}

/// The prefix of the present members of a group.
pub(super) fn members(group: u32) -> Key {
    [&b"m"[..], &group.to_be_bytes()].concat()
}

pub(super) fn member(group: u32, user: u32) -> Key {
    [members(group).as_slice(), &user.to_be_bytes()].concat()
}

pub(super) fn idempotency(hash: KeyHash) -> Key {
    [&b"k"[..], &hash.0].concat()
}

pub(super) fn expiry(at_ms: u64, hash: KeyHash) -> Key {
    let (half, _) = hash.0.split_at(8);
    [&expiries_before(at_ms)[..], half].concat()
}

/// The end of the range of keys that were kept before this time; `x` alone begins it.
pub(super) fn expiries_before(at_ms: u64) -> Key {
    [&b"x"[..], &at_ms.to_be_bytes()].concat()
}

/// The time in an `x` key.
pub(super) fn expiry_time(key: &[u8]) -> Option<u64> {
    key.get(1..9)?
        .first_chunk()
        .map(|bytes| u64::from_be_bytes(*bytes))
}

/// A prefix with an id behind it.
pub(super) fn with_id(prefix: &[u8], id: u64) -> Key {
    [prefix, &id.to_be_bytes()].concat()
}

/// The id at the end of a key.
pub(super) fn last_id(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The number of a group (`G`, `m`) or user (`M` and others) at the front of a key, behind its prefix byte.
pub(super) fn first_number(key: &[u8]) -> Option<u32> {
    key.get(1..5)?
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// The second number of an `m`, `M`, `c` or `s` key.
pub(super) fn second_number(key: &[u8]) -> Option<u32> {
    key.get(5..9)?
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn open_channel(user: u32) -> Key {
    [&b"o"[..], &user.to_be_bytes()].concat()
}

/// The last number of a user's channel that is forgotten.
pub(super) fn forgotten(user: u32) -> Key {
    [&b"f"[..], &user.to_be_bytes()].concat()
}

pub(super) const APPLIED: &[u8] = b"applied";

pub(super) const WRITING: &[u8] = b"writing";

pub(super) const SEEN: &[u8] = b"seen";

/// The prefix of the changes of one entry.
pub(super) fn redos(offset: u64) -> Key {
    [&b"r"[..], &offset.to_be_bytes()].concat()
}

pub(super) fn redo(offset: u64, number: u32) -> Key {
    [redos(offset).as_slice(), &number.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_id_and_stay_small() {
        assert!(with_id(&inbox(1), 255) < with_id(&inbox(1), 256));
        assert!(with_id(&inbox(1), u64::MAX) < with_id(&inbox(2), 0));
        assert_eq!(conversation(7, 3), conversation(3, 7));
        let hash = KeyHash([9; 16]);
        for key in [
            with_id(&conversation(1, 2), 3),
            membership(1, 2, 3),
            member(1, 2),
            idempotency(hash),
            expiry(1, hash),
            with_id(&sent(1, 2), 3),
            block(&sent(1, 2)),
        ] {
            assert!(key.len() <= 22, "{} bytes", key.len());
        }
        assert_eq!(last_id(&membership(1, 2, 3)), Some(3));
        assert_eq!(first_number(&membership(1, 2, 3)), Some(1));
        assert_eq!(second_number(&membership(1, 2, 3)), Some(2));
        assert_eq!(expiry_time(&expiry(77, hash)), Some(77));
        assert_eq!(first_number(b"m"), None);
    }
}
