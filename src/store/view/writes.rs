//! What applying an entry keeps, in the words of who plans it: messages, names, memberships. What becomes of it in
//! the view is for `rows` alone to know.

use std::sync::Arc;

use super::key::KeyHash;
use super::record::{GroupState, KeyUse, Membership};
use crate::model::{GroupName, Message, Sequence, UserName};

/// What applying one entry keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// What is new and never changes, in the order of the entry. Messages rise within each sequence.
    pub additions: Vec<Addition>,
    /// What may change again, in the order of the entry.
    pub changes: Vec<Change>,
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
    },
    /// A message to a group.
    GroupMessage {
        /// The message.
        message: Arc<Message>,
        /// The group.
        group: u32,
    },
    /// A user's channel is opened for the first time.
    Channel(OpenChannel),
    /// A message gets a number in a user's channel.
    ChannelNumber {
        /// Whose channel.
        user: u32,
        /// The number.
        number: u64,
        /// The message's sequence.
        sequence: Sequence,
        /// The message's id.
        id: u64,
    },
}

/// A channel that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenChannel {
    /// Whose channel.
    pub user: u32,
    /// The user's name.
    pub name: UserName,
    /// The entry that opened it.
    pub offset: u64,
}

/// Something that is kept, changed or forgotten. Each says whether there was such a thing already: how much the view
/// holds is counted without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What a group is now.
    Group {
        /// The group.
        number: u32,
        /// What it is.
        state: GroupState,
        /// Whether it was made by this entry.
        new: bool,
    },
    /// A user joined a group or left it.
    Member {
        /// The group.
        group: u32,
        /// The user.
        user: u32,
        /// The group's last id when the user joined.
        from: u64,
        /// The membership; `None` if it is over and nothing could be read in it.
        membership: Option<Membership>,
        /// Whether there is no membership of this user from this id yet.
        new: bool,
    },
    /// An idempotency key is used, for the first time or after it was forgotten.
    KeyUsed {
        /// What stands for the key.
        hash: KeyHash,
        /// What is known under it, from the time in its receipt on.
        first: KeyUse,
        /// Whether nothing is kept under it.
        new: bool,
    },
    /// The time of a use of an idempotency key is over.
    KeyExpired {
        /// What stands for the key.
        hash: KeyHash,
        /// When it was used.
        at_ms: u64,
        /// Whether it was used again since, and is still kept for that.
        renewed: bool,
    },
    /// A user's channel that was closed is open again.
    ChannelReopened(OpenChannel),
    /// A user's channel is closed, and its numbers are forgotten.
    ChannelClosed {
        /// Whose channel.
        user: u32,
        /// The last number that was given.
        last: u64,
        /// Whether it was never closed before.
        new: bool,
    },
    /// A channel has forgotten numbers that are still kept.
    NumbersToDrop {
        /// Whose channel.
        user: u32,
        /// Whether it had none.
        new: bool,
    },
    /// Forgotten numbers of a channel are no longer kept.
    NumbersDropped {
        /// Whose channel.
        user: u32,
        /// The numbers.
        numbers: Vec<u64>,
        /// Whether no others are left.
        last: bool,
    },
}

/// How much was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows. One that changes counts twice: it is written aside first.
    pub rows: usize,
    /// Bytes of bodies.
    pub bytes: usize,
}

impl Writes {
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
}
