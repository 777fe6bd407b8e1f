//! What the journal records: entries of commands. Applying them is the only way state changes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Draft, GroupName, UserName};

/// Whether those who join a group may page back to before they joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// All members leave, and nothing more can be sent.
    DeleteGroup {
        /// The group.
        group: GroupName,
    },
    /// From here on, messages for a user also get contiguous numbers of their own.
    OpenChannel {
        /// Whose channel.
        user: UserName,
    },
    /// They get none any more, and those that there are are forgotten. Opened again, the numbers go on behind them.
    CloseChannel {
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
            Self::DeleteGroup { .. } | Self::OpenChannel { .. } | Self::CloseChannel { .. } => 0,
        }
    }
}

/// What is committed at once: the journal's unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which process proposed it: a random number of its own.
    pub proposer: u64,
    /// Rises within that process, which recognises its own entries by it.
    pub n: u64,
    /// Commit time, Unix milliseconds, never falling. Applying reads no other clock.
    pub at_ms: u64,
    /// The time by which idempotency keys are kept, in microseconds, never falling. It says nothing of the time of day:
    /// a clock that jumps must neither end them early nor keep them for ever.
    pub keys_us: u64,
    /// In the order in which they take effect.
    pub commands: Vec<Command>,
}

impl Entry {
    /// The time by which idempotency keys are kept, in milliseconds.
    pub fn keys_ms(&self) -> u64 {
        self.keys_us / 1000
    }
}

/// An entry as version 1 has it, which is still read: the time of the keys is in its number.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub(super) struct EntryV1 {
    pub(super) proposer: u64,
    pub(super) n: u64,
    pub(super) at_ms: u64,
    pub(super) commands: Vec<Command>,
}

impl EntryV1 {
    /// Numbers from here on are times, in microseconds. Smaller ones, the first that there were, count the entries of
    /// a process, whose keys were kept by the clock.
    pub(super) const TIMES: u64 = 1 << 62;
}

impl From<EntryV1> for Entry {
    fn from(entry: EntryV1) -> Self {
        let EntryV1 {
            proposer,
            n,
            at_ms,
            commands,
        } = entry;
        let keys_us = n.checked_sub(EntryV1::TIMES);
        Self {
            proposer,
            n,
            at_ms,
            keys_us: keys_us.unwrap_or_else(|| at_ms.saturating_mul(1000)),
            commands,
        }
    }
}
