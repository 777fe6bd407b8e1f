//! Messages: a draft has no id yet, a message has, a receipt is what its pusher gets back.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::id::Sequence;
use super::name::{GroupName, UserName};
use super::portable::{self, NotPortable};

/// The longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// Any JSON value, kept and returned byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Bytes);

impl Body {
    /// Takes over JSON text that a parser has already accepted, in memory of its own, if every client can read it.
    pub fn from_json(raw: &RawValue) -> Result<Self, NotPortable> {
        portable::check(raw.get())?;
        Ok(Self(Bytes::copy_from_slice(raw.get().as_bytes())))
    }

    /// The JSON text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Body {
    /// Takes back what was stored.
    fn from(json: Vec<u8>) -> Self {
        Self(json.into())
    }
}

impl fmt::Debug for Body {
    /// The length only: bodies stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(&self.0[..], to)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        serde_bytes::deserialize::<Vec<u8>, D>(from).map(Self::from)
    }
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Receiver {
    /// One user.
    User(UserName),
    /// All members of a group.
    Group(GroupName),
}

impl Receiver {
    /// The sequence that numbers messages for it.
    pub fn sequence(&self) -> Sequence {
        match self {
            Self::User(_) => Sequence::Direct,
            Self::Group(_) => Sequence::Group,
        }
    }
}

/// What makes a retried push the same push: 1 to 255 printable ASCII bytes, chosen by the pusher.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Checks the rule; the error says it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let printable = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        if text.is_empty() || text.len() > KEY_BYTES_MAX || !printable {
            return Err("an idempotency key is 1 to 255 printable ASCII characters");
        }
        Ok(Self(text.to_owned()))
    }

    /// The key of one item of an array that was pushed under this key.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        Self(format!("{}/{index}", self.0))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A message that has no id yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// Who sends it.
    pub from: UserName,
    /// Whom it is for.
    pub to: Receiver,
    /// What it says.
    pub body: Body,
    /// Makes a retry harmless.
    pub key: Option<IdempotencyKey>,
    /// Sent with a user's own token: keys are the user's own, and a group wants membership.
    pub by_user: bool,
}

/// A message with its id, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id within the sequence that `to` tells.
    pub id: u64,
    /// The id before it in the same conversation or group; 0 for the first.
    pub prev: u64,
    /// Its number within its conversation or group: one more than the message before it, 1 for the first.
    pub n: u64,
    /// Commit time, Unix milliseconds, never falling within a sequence.
    pub at_ms: u64,
    /// Who sent it.
    pub from: UserName,
    /// Whom it is for.
    pub to: Receiver,
    /// What it says.
    pub body: Body,
}

impl Message {
    /// The sequence of its id.
    pub fn sequence(&self) -> Sequence {
        self.to.sequence()
    }

    /// The end of its conversation or group while nothing follows it.
    pub fn chain_end(&self) -> ChainEnd {
        ChainEnd {
            last: self.id,
            n: self.n,
        }
    }

    /// The user whom it is for, if it is not for a group.
    pub fn recipient(&self) -> Option<&UserName> {
        match &self.to {
            Receiver::User(to) => Some(to),
            Receiver::Group(_) => None,
        }
    }

    /// Whether it is from one of two users to the other.
    pub fn is_between(&self, one: &UserName, other: &UserName) -> bool {
        self.recipient().is_some_and(|to| {
            (&self.from == one && to == other) || (&self.from == other && to == one)
        })
    }
}

/// The end of a conversation or group: its last message. The default: nothing was sent yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainEnd {
    /// The last message's id.
    pub last: u64,
    /// The last message's number, which is also how many messages there were.
    pub n: u64,
}

impl ChainEnd {
    /// The end after one more message.
    #[must_use]
    pub fn then(self, id: u64) -> Self {
        // Every message takes an id of its own, so there are never fewer ids than numbers.
        let Self { last, n } = self;
        assert!(
            last < id && n <= last && (n == 0) == (last == 0),
            "message {id} follows {last}, whose number is {n}"
        );
        Self { last: id, n: n + 1 }
    }
}

/// What the pusher gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The sequence of the id.
    pub sequence: Sequence,
    /// The message's id.
    pub id: u64,
    /// The id before it in the same conversation or group; 0 for the first.
    pub prev: u64,
    /// Commit time, Unix milliseconds.
    pub at_ms: u64,
    /// Whether an earlier push under the same key had stored it.
    pub duplicate: bool,
}
