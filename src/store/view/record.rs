//! Stored values: a version byte, then bincode; those of channels are plain bytes. Decoding never panics.

use bincode::Options;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Applied;
use crate::model::{Body, GroupName, Message, Receipt, Receiver, Sequence, UserName};
use crate::store::error::Error;
use crate::store::journal::command::HistoryMode;

const VERSION: u8 = 1;
/// No value is larger: the largest is a message, whose body has a lower limit of its own.
const VALUE_BYTES_MAX: u64 = 8 << 20;

fn codec() -> impl Options {
    bincode::DefaultOptions::new().with_limit(VALUE_BYTES_MAX)
}

/// A value as it is stored.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(VERSION, value)
}

fn encode_as<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    codec()
        .serialize_into(&mut bytes, value)
        .expect("plain data within the limit encodes");
    bytes
}

/// A stored value; `what` names it in the error.
pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    decode_as(VERSION, what, bytes)
}

fn decode_as<T: DeserializeOwned>(version: u8, what: &str, bytes: &[u8]) -> Result<T, Error> {
    match bytes.split_first() {
        Some((found, rest)) if *found == version => codec()
            .deserialize(rest)
            .map_err(|e| Error::View(format!("{what} is not readable: {e}"))),
        Some((other, _)) => Err(Error::View(format!("{what} has unknown version {other}"))),
        None => Err(Error::View(format!("{what} is empty"))),
    }
}

/// Of the mark, and so of all rows: with any other, the view is rebuilt. In 1, messages had no number.
const MARK_VERSION: u8 = 2;

/// The mark as it is stored.
pub(super) fn encode_mark(mark: &Applied) -> Vec<u8> {
    encode_as(MARK_VERSION, mark)
}

/// The stored mark.
pub(super) fn decode_mark(bytes: &[u8]) -> Result<Applied, Error> {
    decode_as(MARK_VERSION, "the applied mark", bytes)
}

/// A message as it is stored; the id is its key, the sequence its tree.
#[derive(Serialize, Deserialize)]
struct MessageRow {
    prev: u64,
    n: u64,
    at_ms: u64,
    from: UserName,
    to: Receiver,
    body: Body,
}

/// A message as it is stored under its id.
pub(super) fn encode_message(message: &Message) -> Vec<u8> {
    encode(&MessageRow {
        prev: message.prev,
        n: message.n,
        at_ms: message.at_ms,
        from: message.from.clone(),
        to: message.to.clone(),
        body: message.body.clone(),
    })
}

/// The message that is stored under an id.
pub(super) fn decode_message(id: u64, bytes: &[u8]) -> Result<Message, Error> {
    let MessageRow {
        prev,
        n,
        at_ms,
        from,
        to,
        body,
    } = decode("a message", bytes)?;
    Ok(Message {
        id,
        prev,
        n,
        at_ms,
        from,
        to,
        body,
    })
}

/// What a group is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Its name.
    pub name: GroupName,
    /// For those who join from now on.
    pub history: HistoryMode,
    /// Nothing more can be sent.
    pub deleted: bool,
}

/// When a user was a member of a group, in ids of the group sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The user's name.
    pub user: UserName,
    /// The last message before leaving; `None` while a member.
    pub until: Option<u64>,
    /// Whether history may be read from before joining.
    pub all: bool,
    /// When the user joined, Unix milliseconds; 0 if that was not kept yet.
    pub joined_ms: u64,
}

/// What followed in rows of version 1.
#[derive(Deserialize)]
struct UndatedMembership {
    user: UserName,
    until: Option<u64>,
    all: bool,
}

const INTERVAL_VERSION: u8 = 2;

impl Membership {
    /// As it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        encode_as(INTERVAL_VERSION, self)
    }

    /// What is stored.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        const WHAT: &str = "an interval of membership";
        if bytes.first() == Some(&INTERVAL_VERSION) {
            return decode_as(INTERVAL_VERSION, WHAT, bytes);
        }
        let UndatedMembership { user, until, all } = decode(WHAT, bytes)?;
        Ok(Self {
            user,
            until,
            all,
            joined_ms: 0,
        })
    }
}

/// What was stored under an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    /// The first receipt, with the entry's [`keys_ms`](crate::store::Entry::keys_ms) for the message's time.
    pub receipt: Receipt,
    /// A hash of what was pushed.
    pub content: [u8; 16],
}

/// The message that has a number in a channel.
pub(super) fn encode_numbered(sequence: Sequence, id: u64) -> Vec<u8> {
    let tag = match sequence {
        Sequence::Direct => b'd',
        Sequence::Group => b'g',
    };
    [&[tag][..], &id.to_be_bytes()].concat()
}

pub(super) fn decode_numbered(value: &[u8]) -> Option<(Sequence, u64)> {
    let (tag, id) = value.split_first()?;
    let sequence = match tag {
        b'd' => Sequence::Direct,
        b'g' => Sequence::Group,
        _ => return None,
    };
    Some((sequence, u64::from_be_bytes(id.try_into().ok()?)))
}

/// The entry that opened a user's channel, and the user's name.
pub(super) fn encode_opened(offset: u64, name: &UserName) -> Vec<u8> {
    [&offset.to_be_bytes()[..], name.as_str().as_bytes()].concat()
}

pub(super) fn decode_opened(value: &[u8]) -> Option<(u64, UserName)> {
    let (offset, name) = value.split_first_chunk()?;
    let name = UserName::parse(str::from_utf8(name).ok()?).ok()?;
    Some((u64::from_be_bytes(*offset), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_round_trips_byte_for_byte() {
        let message = Message {
            id: 9,
            prev: 3,
            n: 2,
            at_ms: 1_763_890_000_123,
            from: UserName::parse("alice").unwrap(),
            to: Receiver::Group(GroupName::parse("team").unwrap()),
            body: Body::from(b"{ \"a\" : 1.50 }".to_vec()),
        };
        assert_eq!(
            decode_message(9, &encode_message(&message)).unwrap(),
            message
        );
    }

    #[test]
    fn an_interval_without_its_time_is_read_too() {
        let row = Membership {
            user: UserName::parse("bob").unwrap(),
            until: Some(7),
            all: true,
            joined_ms: 5,
        };
        assert_eq!(Membership::decode(&row.encode()).unwrap(), row);
        let undated = [1, 3, b'b', b'o', b'b', 1, 7, 1];
        let read = Membership::decode(&undated).unwrap();
        assert_eq!(
            read,
            Membership {
                joined_ms: 0,
                ..row
            }
        );
        for length in 0..undated.len() {
            assert!(Membership::decode(&undated[..length]).is_err());
        }
    }

    #[test]
    fn cut_changed_or_longer_values_are_errors() {
        let row = GroupState {
            name: GroupName::parse("team").unwrap(),
            history: HistoryMode::All,
            deleted: false,
        };
        let good = encode(&row);
        assert_eq!(decode::<GroupState>("a group", &good).unwrap(), row);
        for length in 0..good.len() {
            assert!(decode::<GroupState>("a group", &good[..length]).is_err());
        }
        assert!(decode::<GroupState>("a group", &[&good[..], &[0]].concat()).is_err());
        let newer = [&[2], &good[1..]].concat();
        assert!(
            decode::<GroupState>("a group", &newer)
                .unwrap_err()
                .to_string()
                .contains("version 2")
        );
    }

    #[test]
    fn values_of_channels_round_trip_and_cut_ones_are_not_read() {
        for sequence in Sequence::ALL {
            let value = encode_numbered(sequence, 9);
            assert_eq!(decode_numbered(&value), Some((sequence, 9)));
            for length in 0..value.len() {
                assert_eq!(decode_numbered(&value[..length]), None);
            }
        }
        let name = UserName::parse("bob").unwrap();
        let value = encode_opened(5, &name);
        assert_eq!(decode_opened(&value), Some((5, name)));
        for length in 0..9 {
            assert_eq!(decode_opened(&value[..length.min(8)]), None);
        }
    }
}
