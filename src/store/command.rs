//! What the journal records: entries of commands. Applying them is the only way state changes.

use serde::{Deserialize, Serialize};

use crate::model::{Draft, GroupName, UserName};

/// Whether those who join a group may page back to before they joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryMode {
    /// A member sees what was sent while being a member.
    Member,
    /// A member may also page back to the beginning.
    All,
}

/// One change of state. The journal holds the positions of these: a new one goes to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Give a message its id and keep it.
    Message(Draft),
    /// Make a group, or set who its members are.
    SetGroup {
        /// The group.
        group: GroupName,
        /// Exactly these are members afterwards.
        members: Vec<UserName>,
        /// For those who join from now on; `None` keeps what the group has.
        history: Option<HistoryMode>,
    },
    /// Let some join and some leave.
    ChangeMembers {
        /// The group.
        group: GroupName,
        /// Who joins.
        add: Vec<UserName>,
        /// Who leaves; wins over `add`.
        remove: Vec<UserName>,
    },
    /// All members leave, and nothing can be sent any more.
    DeleteGroup {
        /// The group.
        group: GroupName,
    },
    /// From here on, messages for a user also get contiguous numbers of his own.
    OpenChannel {
        /// Whose channel.
        user: UserName,
    },
}

impl Command {
    /// Roughly the bytes that it takes in memory and in the journal.
    pub fn weight(&self) -> usize {
        const NAME: usize = 32;
        128 + match self {
            Self::Message(draft) => draft.body.as_bytes().len(),
            Self::SetGroup { members, .. } => members.len() * NAME,
            Self::ChangeMembers { add, remove, .. } => (add.len() + remove.len()) * NAME,
            Self::DeleteGroup { .. } | Self::OpenChannel { .. } => 0,
        }
    }
}

/// What is committed at once: the journal's unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which process proposed it: a random number of its own.
    pub proposer: u64,
    /// The how-manieth proposal of that process, so that it knows its own entries again.
    pub n: u64,
    /// Commit time, Unix milliseconds, never falling. Applying reads no other clock.
    pub at_ms: u64,
    /// In the order in which they take effect.
    pub commands: Vec<Command>,
}
