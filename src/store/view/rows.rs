//! The rows of the index that keep what an entry adds and changes.

use serde::{Deserialize, Serialize};

use super::key::{self, Key};
use super::record::{Membership, encode, encode_numbered, encode_opened};
use super::writes::{Addition, Change, OpenChannel, Writes};
use crate::model::Receiver;

/// A row that never changes: key and value.
pub(super) type Row = (Key, Vec<u8>);

/// A row that changes: a new value, or `None` to remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowChange {
    pub(super) key: Key,
    pub(super) value: Option<Vec<u8>>,
}

impl Writes {
    /// How many rows more the index has afterwards, which its mark says.
    pub fn rows_added(&self) -> i64 {
        let additions = self.additions.iter().map(Addition::rows_added);
        let changes = self.changes.iter().map(Change::rows_added);
        additions.chain(changes).sum()
    }

    /// The new rows.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for addition in &self.additions {
            addition.rows(&mut rows);
        }
        rows
    }

    /// The rows that change.
    pub(super) fn row_changes(&self) -> Vec<RowChange> {
        let mut rows = Vec::new();
        for change in &self.changes {
            change.rows(&mut |key, value| rows.push(RowChange { key, value }));
        }
        rows
    }
}

impl Addition {
    fn rows_added(&self) -> i64 {
        match self {
            Self::DirectMessage { message, from, to } => {
                let users = if from == to { 1 } else { 2 };
                1 + users * (1 + i64::from(message.prev == 0))
            }
            _ => 1,
        }
    }

    /// Its rows.
    pub(super) fn rows(&self, rows: &mut Vec<Row>) {
        match self {
            Self::User { name, number } => {
                rows.push((key::user(name), number.to_be_bytes().into()));
            }
            Self::Group { name, number } => {
                rows.push((key::group(name), number.to_be_bytes().into()));
            }
            Self::DirectMessage { message, from, to } => {
                let (from, to, id) = (*from, *to, message.id);
                let first = message.prev == 0;
                rows.push((key::with_id(&key::conversation(from, to), id), Vec::new()));
                rows.push((key::with_id(&key::inbox(from), id), Vec::new()));
                if first && let Receiver::User(name) = &message.to {
                    rows.push((key::peer(from, to), name.as_str().into()));
                }
                if from != to {
                    rows.push((key::with_id(&key::inbox(to), id), Vec::new()));
                    if first {
                        rows.push((key::peer(to, from), message.from.as_str().into()));
                    }
                }
            }
            Self::GroupMessage { message, group } => {
                let key = key::with_id(&key::group_messages(*group), message.id);
                rows.push((key, Vec::new()));
            }
            Self::Channel(channel) => rows.push(channel.row()),
            Self::ChannelNumber {
                user,
                number,
                sequence,
                id,
            } => {
                let key = key::with_id(&key::channel(*user), *number);
                rows.push((key, encode_numbered(*sequence, *id)));
            }
        }
    }
}

impl OpenChannel {
    fn row(&self) -> Row {
        let value = encode_opened(self.offset, &self.name);
        (key::open_channel(self.user), value)
    }
}

impl Change {
    fn rows_added(&self) -> i64 {
        match self {
            Self::Group { new, .. } | Self::NumbersToDrop { new, .. } => i64::from(*new),
            Self::Member {
                membership, new, ..
            } => i64::from(membership.is_some()) - i64::from(!new),
            Self::KeyUsed { new, .. } => 1 + i64::from(*new),
            Self::KeyExpired { renewed, .. } => -1 - i64::from(!renewed),
            Self::ChannelReopened(_) => 1,
            Self::ChannelClosed { new, .. } => i64::from(*new) - 1,
            Self::NumbersDropped { numbers, last, .. } => {
                let dropped = i64::try_from(numbers.len()).expect("a length fits 63 bits");
                -dropped - i64::from(*last)
            }
        }
    }

    /// Its rows, with their new values.
    fn rows(&self, put: &mut impl FnMut(Key, Option<Vec<u8>>)) {
        match self {
            Self::Group { number, state, .. } => put(key::group_row(*number), Some(encode(state))),
            Self::Member {
                group,
                user,
                from,
                membership,
                ..
            } => {
                let value = membership.as_ref().map(Membership::encode);
                put(key::interval(*group, *user, *from), value);
            }
            Self::KeyUsed { hash, first, .. } => {
                put(key::idempotency(*hash), Some(encode(first)));
                let expiry = key::expiry(first.receipt.at_ms, *hash);
                put(expiry, Some(hash.0.to_vec()));
            }
            Self::KeyExpired {
                hash,
                at_ms,
                renewed,
            } => {
                put(key::expiry(*at_ms, *hash), None);
                if !renewed {
                    put(key::idempotency(*hash), None);
                }
            }
            Self::ChannelReopened(channel) => {
                let (key, value) = channel.row();
                put(key, Some(value));
            }
            Self::ChannelClosed { user, last, .. } => {
                put(key::open_channel(*user), None);
                put(key::forgotten(*user), Some(last.to_be_bytes().to_vec()));
            }
            Self::NumbersToDrop { user, .. } => put(key::to_drop(*user), Some(Vec::new())),
            Self::NumbersDropped {
                user,
                numbers,
                last,
            } => {
                if *last {
                    put(key::to_drop(*user), None);
                }
                let channel = key::channel(*user);
                for number in numbers {
                    put(key::with_id(&channel, *number), None);
                }
            }
        }
    }
}
