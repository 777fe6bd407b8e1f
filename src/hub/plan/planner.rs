//! What planning has at hand, and what it adds to.

use std::sync::Arc;

use crate::error::Error;
use crate::hub::channel::ChannelChange;
use crate::hub::membership::{Moved, Present};
use crate::hub::state::{Group, GroupFacts, State};
use crate::model::{Message, Receipt, Sequence, UserName};
use crate::store::{Addition, Change, HistoryMode, Writes};

/// What a change of a group's members did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupReceipt {
    /// Whether the group was made, or made again after it had been deleted.
    pub made: bool,
    /// Whether those who join may page back to the beginning.
    pub history: HistoryMode,
    /// Members afterwards.
    pub members: u64,
    /// How many joined.
    pub added: u64,
    /// How many left.
    pub removed: u64,
}

/// What one command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Outcome {
    Message(Receipt),
    Group(GroupReceipt),
    Opened,
    /// The number with which the channel would go on; none where it was not open.
    Closed(Option<u64>),
    Refused(Error),
}

/// A message and who may see it.
#[derive(Debug)]
pub(in crate::hub) struct Delivery {
    pub(in crate::hub) message: Arc<Message>,
    pub(in crate::hub) receivers: Receivers,
}

/// Who may see a message, at the moment of its entry.
#[derive(Debug)]
pub(in crate::hub) enum Receivers {
    /// Sender and receiver.
    Pair(UserName, UserName),
    /// Those who are members at its place among the events.
    Group(Arc<GroupFacts>),
}

/// What open feeds are told of.
#[derive(Debug)]
pub(in crate::hub) enum Event {
    Message(Delivery),
    Moved(Moved),
}

/// What applying an entry comes to.
#[derive(Debug, Default)]
pub(in crate::hub) struct Plan {
    pub(in crate::hub) writes: Writes,
    /// One for each command.
    pub(in crate::hub) outcomes: Vec<Outcome>,
    /// In the order in which they happened: who is a member may change between two messages.
    pub(in crate::hub) events: Vec<Event>,
    /// Groups that were made, changed or deleted.
    pub(in crate::hub) changed: Vec<Present>,
    /// Channels that were opened or closed.
    pub(in crate::hub) channels: Vec<ChannelChange>,
}

pub(super) struct Planner<'a> {
    pub(super) state: &'a mut State,
    pub(super) offset: u64,
    pub(super) at_ms: u64,
    pub(super) keys_ms: u64,
    pub(super) plan: Plan,
}

impl Planner<'_> {
    /// The user's number; assigned now if there is none.
    pub(super) fn number(&mut self, name: &UserName) -> u32 {
        if let Some(number) = self.state.users.get(name).flatten() {
            return number;
        }
        self.state.applied.users += 1;
        let number = self.state.applied.users;
        let users = &mut self.state.users;
        users.change(name.clone(), Some(number), self.offset);
        self.add(Addition::User {
            name: name.clone(),
            number,
        });
        number
    }

    /// The next id of a sequence.
    pub(super) fn take(&mut self, sequence: Sequence) -> u64 {
        let head = self.state.applied.heads.of_mut(sequence);
        *head += 1;
        *head
    }

    pub(super) fn add(&mut self, addition: Addition) {
        self.plan.writes.additions.push(addition);
    }

    pub(super) fn change(&mut self, change: Change) {
        self.plan.writes.changes.push(change);
    }
}

/// A group that was made and not deleted.
pub(super) fn live(group: Option<&Group>) -> Result<&Group, Error> {
    group
        .filter(|group| !group.deleted)
        .ok_or(Error::GroupNotFound)
}
