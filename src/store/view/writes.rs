//! What applying an entry keeps, in the words of who plans it: messages, names, memberships. What becomes of it in
//! the view is for `rows` alone to know.

use std::sync::Arc;

use super::key::KeyHash;
use super::record::{Channel, GroupState, KeyUse, Membership};
use crate::model::{GroupName, Message, UserName};

/// What applying one entry keeps, or several entries that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// What is new and never changes, in the order of the entry. Messages rise within each sequence.
    pub additions: Vec<Addition>,
    /// What may change again, in the order of the entry: of the same thing the last change counts.
    pub changes: Vec<Change>,
    /// The last entry's [`keys_ms`](crate::store::Entry::keys_ms): what is kept for a day is kept until then.
    pub keys_ms: u64,
}

/// Something new that never changes. Users and groups are named by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addition {
    /// A user is named for the first time and gets a number.
    User {
        /// The user's name.
        name: UserName,
        /// The user's number.
        number: u32,
    },
    /// A group is made for the first time and gets a number.
    Group {
        /// The group's name.
        name: GroupName,
        /// The group's number.
        number: u32,
    },
    /// A message of one user to another, or to themselves.
    DirectMessage {
        /// The message.
        message: Arc<Message>,
        /// Who sent it.
        from: u32,
        /// Who gets it.
        to: u32,
        /// The last message of the other sequence before it.
        group_head: u64,
    },
    /// A message to a group.
    GroupMessage {
        /// The message.
        message: Arc<Message>,
        /// The group.
        group: u32,
        /// Who sent it, if that user has a channel.
        listener: Option<u32>,
    },
}

/// Something that is kept, changed or forgotten, whether or not there was such a thing before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What a group is now.
    Group {
        /// The group.
        number: u32,
        /// What it is.
        state: GroupState,
    },
    /// A user joined a group or left it.
    Member {
        /// The group.
        group: u32,
        /// The user.
        user: u32,
        /// The user's name.
        name: UserName,
        /// The group's last id when the user joined.
        from: u64,
        /// The membership; `None` if it is over and nothing could be read in it.
        membership: Option<Membership>,
    },
    /// An idempotency key is used, for the first time or after its time was over.
    KeyUsed {
        /// What stands for the key.
        hash: KeyHash,
        /// What is known under it from now on.
        first: KeyUse,
    },
    /// A user's channel is opened.
    ChannelOpened {
        /// Whose channel.
        user: u32,
        /// What it is.
        channel: Channel,
    },
    /// A user's channel is closed, and its numbers are forgotten.
    ChannelClosed {
        /// Whose channel.
        user: u32,
        /// The last number that may have been given.
        last: u64,
    },
}

/// How much was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows. One that is written aside first counts twice.
    pub rows: usize,
    /// Bytes of rows of the index.
    pub row_bytes: usize,
    /// Bytes of bodies.
    pub body_bytes: usize,
}

impl Writes {
    /// Adds what the entries behind these keep.
    pub fn append(&mut self, mut later: Self) {
        self.additions.append(&mut later.additions);
        self.changes.append(&mut later.changes);
        self.keys_ms = later.keys_ms;
    }

    /// The messages, rising within each sequence.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.additions.iter().filter_map(Addition::message)
    }
}

impl Addition {
    /// The message, if it is one.
    pub fn message(&self) -> Option<&Arc<Message>> {
        match self {
            Self::DirectMessage { message, .. } | Self::GroupMessage { message, .. } => {
                Some(message)
            }
            _ => None,
        }
    }

    /// The message, if it is one, and what is stored with it: of a direct one, the last group message before it; of a
    /// group's, whether its sender had a channel.
    pub(super) fn marked(&self) -> Option<(&Arc<Message>, u64)> {
        let mark = match self {
            Self::DirectMessage { group_head, .. } => *group_head,
            Self::GroupMessage { listener, .. } => u64::from(listener.is_some()),
            _ => 0,
        };
        Some((self.message()?, mark))
    }
}
