//! Stored values: a version byte, then bincode. Decoding never panics.

use bincode::Options;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Body, GroupName, Message, Position, Receipt, Receiver, UserName};
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

/// A value of which there were other versions.
pub(super) fn encode_as<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
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

/// A stored value of which there were other versions.
pub(super) fn decode_as<T: DeserializeOwned>(
    version: u8,
    what: &str,
    bytes: &[u8],
) -> Result<T, Error> {
    match bytes.split_first() {
        Some((found, rest)) if *found == version => codec()
            .deserialize(rest)
            .map_err(|e| Error::View(format!("{what} is not readable: {e}"))),
        Some((other, _)) => Err(Error::View(format!("{what} has unknown version {other}"))),
        None => Err(Error::View(format!("{what} is empty"))),
    }
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
    mark: u64,
}

/// A message as it is stored under its id, with its mark, see `Addition::marked`.
pub(super) fn encode_message(message: &Message, mark: u64) -> Vec<u8> {
    encode(&MessageRow {
        prev: message.prev,
        n: message.n,
        at_ms: message.at_ms,
        from: message.from.clone(),
        to: message.to.clone(),
        body: message.body.clone(),
        mark,
    })
}

/// The message that is stored under an id.
pub(super) fn decode_message(id: u64, bytes: &[u8]) -> Result<Message, Error> {
    decode_marked(id, bytes).map(|(message, _)| message)
}

/// The same, with its mark, see `Addition::marked`.
pub(super) fn decode_marked(id: u64, bytes: &[u8]) -> Result<(Message, u64), Error> {
    let MessageRow {
        prev,
        n,
        at_ms,
        from,
        to,
        body,
        mark,
    } = decode("a message", bytes)?;
    let message = Message {
        id,
        prev,
        n,
        at_ms,
        from,
        to,
        body,
    };
    Ok((message, mark))
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
    /// How many members it has.
    pub members: u64,
}

const GROUP_VERSION: u8 = 2;

impl GroupState {
    /// As it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        encode_as(GROUP_VERSION, self)
    }

    /// What is stored.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode_as(GROUP_VERSION, "a group", bytes)
    }
}

/// When a user was a member of a group, in ids of the group sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// The last message before leaving; `None` while a member.
    pub until: Option<u64>,
    /// Whether history may be read from before joining.
    pub all: bool,
    /// When the user joined, Unix milliseconds.
    pub joined_ms: u64,
}

impl Membership {
    /// As it is stored among those of its user.
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// What is stored.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode("an interval of membership", bytes)
    }
}

/// Someone who is a member now, as the list of a group has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMember {
    /// The user's name.
    pub name: UserName,
    /// The group's last id when the user joined.
    pub from: u64,
    /// The same as among those of the user.
    pub membership: Membership,
}

const LISTED_VERSION: u8 = 3;

impl ListedMember {
    /// As it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        encode_as(LISTED_VERSION, self)
    }

    /// What is stored.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode_as(LISTED_VERSION, "a member of a group", bytes)
    }
}

/// How long a retried push is known again, at least: 24 hours.
pub const KEYS_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// What was stored under an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    /// The first receipt.
    pub receipt: Receipt,
    /// The entry's [`keys_ms`](crate::store::Entry::keys_ms): the time from which on the key is kept.
    pub keys_ms: u64,
    /// A hash of what was pushed.
    pub content: [u8; 16],
}

const KEY_USE_VERSION: u8 = 2;

impl KeyUse {
    /// Whether the key is still known when the time of the keys is this.
    pub fn lives_at(&self, keys_ms: u64) -> bool {
        self.keys_ms + KEYS_KEPT_MS > keys_ms
    }

    /// As it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        encode_as(KEY_USE_VERSION, self)
    }

    /// What is stored.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode_as(KEY_USE_VERSION, "an idempotency key", bytes)
    }
}

/// A channel that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Whose.
    pub name: UserName,
    /// The number before its first.
    pub base: u64,
    /// The last messages before it was opened.
    pub opened: Position,
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
            decode_marked(9, &encode_message(&message, 7)).unwrap(),
            (message, 7)
        );
    }

    #[test]
    fn cut_changed_or_longer_values_are_errors() {
        let row = GroupState {
            name: GroupName::parse("team").unwrap(),
            history: HistoryMode::All,
            deleted: false,
            members: 300,
        };
        let good = row.encode();
        assert_eq!(GroupState::decode(&good).unwrap(), row);
        for length in 0..good.len() {
            assert!(GroupState::decode(&good[..length]).is_err());
        }
        assert!(GroupState::decode(&[&good[..], &[0]].concat()).is_err());
        let newer = [&[GROUP_VERSION + 1], &good[1..]].concat();
        let error = GroupState::decode(&newer).unwrap_err().to_string();
        assert!(error.contains("version 3"), "{error}");
    }
}
