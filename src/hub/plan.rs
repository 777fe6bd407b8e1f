//! What an entry does: a pure function of the entry and the state before it.
//!
//! No clock, no randomness, no configuration: the same journal gives the same ids on this machine, after a
//! rebuild, and on another node.

use std::sync::Arc;

use super::membership::Moved;
use super::state::{Group, GroupFacts, KEYS_KEPT_MS, Members, State, content_hash, key_hash};
use crate::error::Error;
use crate::model::{Draft, GroupName, Message, Position, Receipt, Receiver, Sequence, UserName};
use crate::store::{Change, Command, Entry, HistoryMode, KeyRow, Writes, key, record};

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
pub(super) enum Outcome {
    Message(Receipt),
    Group(GroupReceipt),
    Refused(Error),
}

/// A message and who may see it.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    pub(super) receivers: Receivers,
}

/// Who may see a message, at the moment of its entry.
#[derive(Debug)]
pub(super) enum Receivers {
    /// Sender and receiver.
    Pair(UserName, UserName),
    Members(Arc<GroupFacts>, Members),
}

/// What applying an entry comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) writes: Writes,
    /// One for each command.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) moved: Vec<Moved>,
    /// Ids taken of each sequence.
    pub(super) taken: Position,
}

/// Plans an entry, and moves the state behind it.
pub(super) fn plan(state: &mut State, offset: u64, entry: &Entry) -> Plan {
    assert!(
        offset == state.applied.offset + 1,
        "entry {offset} after {}",
        state.applied.offset
    );
    assert!(
        entry.at_ms >= state.applied.at_ms,
        "time falls in entry {offset}"
    );
    let mut planner = Planner {
        state,
        at_ms: entry.at_ms,
        plan: Plan::default(),
    };
    planner.forget_expired();
    for command in &entry.commands {
        let outcome = planner.command(command);
        planner.plan.outcomes.push(outcome);
    }
    let plan = planner.plan;
    state.applied.offset = offset;
    state.applied.at_ms = entry.at_ms;
    let new = u64::try_from(plan.writes.rows.len()).expect("a length fits 64 bits");
    state.applied.rows += new;
    plan
}

pub(super) struct Planner<'a> {
    pub(super) state: &'a mut State,
    at_ms: u64,
    pub(super) plan: Plan,
}

impl Planner<'_> {
    fn command(&mut self, command: &Command) -> Outcome {
        let done = match command {
            Command::Message(draft) => self.message(draft).map(Outcome::Message),
            Command::SetGroup {
                group,
                members,
                history,
            } => self.set_group(group, members, *history).map(Outcome::Group),
            Command::ChangeMembers { group, add, remove } => {
                self.change_members(group, add, remove).map(Outcome::Group)
            }
            Command::DeleteGroup { group } => self.delete_group(group).map(Outcome::Group),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    fn message(&mut self, draft: &Draft) -> Result<Receipt, Error> {
        let hash = key_hash(draft);
        if let Some(kept) = hash.and_then(|hash| self.state.keys.get(&hash).copied().flatten())
            && kept.receipt.at_ms + KEYS_KEPT_MS > self.at_ms
        {
            let same = kept.content == content_hash(draft);
            let receipt = Receipt {
                duplicate: true,
                ..kept.receipt
            };
            return if same {
                Ok(receipt)
            } else {
                Err(Error::IdempotencyConflict)
            };
        }
        let receipt = match &draft.to {
            Receiver::User(to) => self.direct_message(draft, to),
            Receiver::Group(group) => self.group_message(draft, group)?,
        };
        if let Some(hash) = hash {
            let row = KeyRow {
                receipt,
                content: content_hash(draft),
            };
            let renewed = self.state.keys.insert(hash, Some(row)).flatten().is_some();
            self.change(key::idempotency(hash), Some(record::encode(&row)), renewed);
            self.change(key::expiry(self.at_ms, hash), Some(hash.0.to_vec()), false);
        }
        Ok(receipt)
    }

    fn direct_message(&mut self, draft: &Draft, to: &UserName) -> Receipt {
        let (sender, receiver) = (self.number(&draft.from), self.number(to));
        let users = (sender.min(receiver), sender.max(receiver));
        let id = self.take(Sequence::Direct);
        let prev = self.state.conversations.insert(users, id).unwrap_or(0);
        self.row(
            key::with_id(&key::conversation(sender, receiver), id),
            Vec::new(),
        );
        self.row(key::with_id(&key::inbox(sender), id), Vec::new());
        if prev == 0 {
            self.row(key::peer(sender, receiver), to.as_str().into());
        }
        if sender != receiver {
            self.row(key::with_id(&key::inbox(receiver), id), Vec::new());
            if prev == 0 {
                self.row(key::peer(receiver, sender), draft.from.as_str().into());
            }
        }
        let receivers = Receivers::Pair(draft.from.clone(), to.clone());
        self.keep(draft, id, prev, receivers)
    }

    fn group_message(&mut self, draft: &Draft, name: &GroupName) -> Result<Receipt, Error> {
        let group = live(self.state.groups.get(name))?;
        if draft.by_user && !group.members.contains_key(&draft.from) {
            return Err(Error::NotMember);
        }
        let (facts, members) = (Arc::clone(&group.facts), Arc::clone(&group.members));
        let id = self.take(Sequence::Group);
        let group = self
            .state
            .groups
            .get_mut(name)
            .ok_or(Error::GroupNotFound)?;
        let prev = std::mem::replace(&mut group.last, id);
        self.row(
            key::with_id(&key::group_messages(facts.number), id),
            Vec::new(),
        );
        Ok(self.keep(draft, id, prev, Receivers::Members(facts, members)))
    }

    fn keep(&mut self, draft: &Draft, id: u64, prev: u64, receivers: Receivers) -> Receipt {
        assert!(prev < id, "message {id} follows {prev}");
        let message = Arc::new(Message {
            id,
            prev,
            at_ms: self.at_ms,
            from: draft.from.clone(),
            to: draft.to.clone(),
            body: draft.body.clone(),
        });
        self.plan.writes.messages.push(Arc::clone(&message));
        let sequence = message.sequence();
        self.plan.deliveries.push(Delivery { message, receivers });
        Receipt {
            sequence,
            id,
            prev,
            at_ms: self.at_ms,
            duplicate: false,
        }
    }

    /// Gives a user his number, now if he has none.
    pub(super) fn number(&mut self, name: &UserName) -> u32 {
        if let Some(number) = self.state.users.get(name).copied().flatten() {
            return number;
        }
        self.state.applied.users += 1;
        let number = self.state.applied.users;
        self.state.users.insert(name.clone(), Some(number));
        self.row(key::user(name), number.to_be_bytes().into());
        number
    }

    /// The next id of a sequence.
    fn take(&mut self, sequence: Sequence) -> u64 {
        *self.plan.taken.of_mut(sequence) += 1;
        let head = self.state.applied.heads.of_mut(sequence);
        *head += 1;
        *head
    }

    pub(super) fn row(&mut self, key: key::Key, value: Vec<u8>) {
        self.plan.writes.rows.push((key, value));
    }

    /// A row that may change. `known`: whether there is such a row already.
    pub(super) fn change(&mut self, key: key::Key, value: Option<Vec<u8>>, known: bool) {
        let rows = &mut self.state.applied.rows;
        match (&value, known) {
            (Some(_), false) => *rows += 1,
            (None, true) => *rows -= 1,
            _ => {}
        }
        self.plan.writes.changes.push(Change { key, value });
    }

    /// Forgets keys whose time is over.
    fn forget_expired(&mut self) {
        for (at_ms, hash) in std::mem::take(&mut self.state.expired) {
            self.change(key::expiry(at_ms, hash), None, true);
            let kept = self.state.keys.get(&hash).copied().flatten();
            // Used again since: then it has a later time of its own.
            if kept.is_some_and(|row| row.receipt.at_ms == at_ms) {
                self.state.keys.insert(hash, None);
                self.change(key::idempotency(hash), None, true);
            }
        }
    }
}

/// A group that was made and not deleted.
pub(super) fn live(group: Option<&Group>) -> Result<&Group, Error> {
    group
        .filter(|group| !group.deleted)
        .ok_or(Error::GroupNotFound)
}
