//! The rows of the index that keep what an entry adds and changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::key::{self, Key};
use super::record::{ListedMember, Membership, encode};
use super::writes::{Addition, Change, Writes};

/// A row: key and value.
pub(super) type Row = (Key, Vec<u8>);

/// A row that changes: a new value, or `None` to remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowChange {
    pub(super) key: Key,
    pub(super) value: Option<Vec<u8>>,
}

/// The rows that change: each once, with its last value.
pub(super) type RowChanges = BTreeMap<Key, Option<Vec<u8>>>;

impl Writes {
    /// The new rows of names, in the order of their keys. All others are messages and lists.
    pub(super) fn names(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for addition in &self.additions {
            addition.rows(&mut rows);
        }
        rows.sort_unstable();
        rows
    }

    /// Puts in the rows that change.
    pub(super) fn change(&self, rows: &mut RowChanges) {
        for change in &self.changes {
            change.rows(&mut |key, value| drop(rows.insert(key, value)));
        }
    }
}

impl Addition {
    /// Its rows, but for messages and lists.
    pub(super) fn rows(&self, rows: &mut Vec<Row>) {
        match self {
            Self::User { name, number } => {
                rows.push((key::user(name), number.to_be_bytes().into()));
            }
            Self::Group { name, number } => {
                rows.push((key::group(name), number.to_be_bytes().into()));
            }
            Self::DirectMessage { .. } | Self::GroupMessage { .. } => {}
        }
    }
}

impl Change {
    /// Its rows, with their new values.
    fn rows(&self, put: &mut impl FnMut(Key, Option<Vec<u8>>)) {
        match self {
            Self::Group { number, state } => put(key::group_row(*number), Some(state.encode())),
            Self::Member {
                group,
                user,
                name,
                from,
                membership,
            } => {
                let value = membership.as_ref().map(Membership::encode);
                put(key::membership(*user, *group, *from), value);
                let present = membership.filter(|membership| membership.until.is_none());
                let listed = present.map(|membership| ListedMember {
                    name: name.clone(),
                    from: *from,
                    membership,
                });
                put(
                    key::member(*group, *user),
                    listed.map(|member| member.encode()),
                );
            }
            Self::KeyUsed { hash, first } => {
                put(key::idempotency(*hash), Some(first.encode()));
                let expiry = key::expiry(first.keys_ms, *hash);
                put(expiry, Some(hash.0.to_vec()));
            }
            Self::ChannelOpened { user, channel } => {
                put(key::open_channel(*user), Some(encode(channel)));
            }
            Self::ChannelClosed { user, last } => {
                put(key::open_channel(*user), None);
                put(key::forgotten(*user), Some(last.to_be_bytes().to_vec()));
            }
        }
    }
}
