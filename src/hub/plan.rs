//! What an entry does: a pure function of the entry and the state before it.
//!
//! No clock, no randomness, no configuration: the same journal gives the same ids on this machine, after a
//! rebuild, and on another node.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::membership::Moved;
use super::state::{Group, GroupFacts, KEYS_KEPT_MS, Members, State, content_hash, key_hash};
use crate::error::Error;
use crate::model::{Draft, GroupName, Message, Position, Receipt, Receiver, Sequence, UserName};
use crate::store::{Change, Command, Entry, GroupRow, HistoryMode, KeyRow, Writes, key, record};

/// The most members of one group: a message to more would hold up all others behind it.
pub(crate) const GROUP_MEMBERS_MAX: usize = 100_000;

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

struct Planner<'a> {
    state: &'a mut State,
    at_ms: u64,
    plan: Plan,
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

    fn set_group(
        &mut self,
        name: &GroupName,
        wanted: &[UserName],
        history: Option<HistoryMode>,
    ) -> Result<GroupReceipt, Error> {
        let before = self.state.groups.get(name);
        let made = before.is_none_or(|group| group.deleted);
        let history = history
            .or(before.map(|group| group.history))
            .unwrap_or(HistoryMode::Member);
        let leaving = before.map_or_else(Vec::new, |group| {
            let wanted: std::collections::HashSet<_> = wanted.iter().collect();
            group
                .members
                .keys()
                .filter(|name| !wanted.contains(name))
                .cloned()
                .collect()
        });
        if wanted.len() > GROUP_MEMBERS_MAX {
            return Err(Error::GroupFull {
                limit: GROUP_MEMBERS_MAX,
            });
        }
        if before.is_none() {
            self.make_group(name, history);
        } else if let Some(group) = self.state.groups.get_mut(name)
            && (group.deleted || group.history != history)
        {
            (group.deleted, group.history) = (false, history);
            self.group_changed(name, true);
        }
        let removed = self.leave(name, &leaving);
        let added = self.join(name, wanted);
        self.group_receipt(name, made, added, removed)
    }

    fn change_members(
        &mut self,
        name: &GroupName,
        add: &[UserName],
        remove: &[UserName],
    ) -> Result<GroupReceipt, Error> {
        let group = live(self.state.groups.get(name))?;
        if group.members.len() + add.len() > GROUP_MEMBERS_MAX + remove.len() {
            return Err(Error::GroupFull {
                limit: GROUP_MEMBERS_MAX,
            });
        }
        let gone: std::collections::HashSet<_> = remove.iter().collect();
        let joining: Vec<_> = add
            .iter()
            .filter(|name| !gone.contains(name))
            .cloned()
            .collect();
        let removed = self.leave(name, remove);
        let added = self.join(name, &joining);
        self.group_receipt(name, false, added, removed)
    }

    fn delete_group(&mut self, name: &GroupName) -> Result<GroupReceipt, Error> {
        let members: Vec<_> = live(self.state.groups.get(name))?
            .members
            .keys()
            .cloned()
            .collect();
        let removed = self.leave(name, &members);
        if let Some(group) = self.state.groups.get_mut(name) {
            group.deleted = true;
        }
        self.group_changed(name, true);
        self.group_receipt(name, false, 0, removed)
    }

    fn make_group(&mut self, name: &GroupName, history: HistoryMode) {
        self.state.applied.groups += 1;
        let number = self.state.applied.groups;
        self.row(key::group(name), number.to_be_bytes().into());
        let facts = GroupFacts {
            name: name.clone(),
            number,
            last: AtomicU64::new(0),
        };
        let (facts, members) = (Arc::new(facts), Members::default());
        let group = Group {
            facts,
            history,
            deleted: false,
            last: 0,
            members,
        };
        self.state.groups.insert(name.clone(), group);
        self.group_changed(name, false);
    }

    fn group_changed(&mut self, name: &GroupName, known: bool) {
        if let Some(group) = self.state.groups.get(name) {
            let (history, deleted) = (group.history, group.deleted);
            let row = GroupRow {
                name: name.clone(),
                history,
                deleted,
            };
            self.change(
                key::group_row(group.facts.number),
                Some(record::encode(&row)),
                known,
            );
        }
    }

    fn group_receipt(
        &self,
        name: &GroupName,
        made: bool,
        added: u64,
        removed: u64,
    ) -> Result<GroupReceipt, Error> {
        let group = self.state.groups.get(name).ok_or(Error::GroupNotFound)?;
        let members = u64::try_from(group.members.len()).expect("a length fits 64 bits");
        let history = group.history;
        Ok(GroupReceipt {
            made,
            history,
            members,
            added,
            removed,
        })
    }

    /// Gives a user his number, now if he has none.
    fn number(&mut self, name: &UserName) -> u32 {
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

    fn row(&mut self, key: key::Key, value: Vec<u8>) {
        self.plan.writes.rows.push((key, value));
    }

    /// A row that may change. `known`: whether there is such a row already.
    fn change(&mut self, key: key::Key, value: Option<Vec<u8>>, known: bool) {
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

    fn join(&mut self, name: &GroupName, joining: &[UserName]) -> u64 {
        let mut added = 0;
        for user in joining {
            let member = self
                .state
                .groups
                .get(name)
                .is_some_and(|g| g.members.contains_key(user));
            if !member {
                let number = self.number(user);
                added += u64::from(self.join_one(name, user, number).is_some());
            }
        }
        added
    }

    fn join_one(&mut self, name: &GroupName, user: &UserName, number: u32) -> Option<()> {
        let group = self.state.groups.get_mut(name)?;
        let member = group.join(user, number);
        let moved = Moved::joined(user, &group.facts, member);
        let key = key::interval(group.facts.number, number, member.from);
        self.change(key, Some(record::encode(&member.row(user, None))), false);
        self.plan.moved.push(moved);
        Some(())
    }

    fn leave(&mut self, name: &GroupName, leaving: &[UserName]) -> u64 {
        leaving
            .iter()
            .map(|user| u64::from(self.leave_one(name, user).is_some()))
            .sum()
    }

    fn leave_one(&mut self, name: &GroupName, user: &UserName) -> Option<()> {
        let group = self.state.groups.get_mut(name)?;
        let member = Arc::make_mut(&mut group.members).remove(user)?;
        let until = group.last;
        let key = key::interval(group.facts.number, member.number, member.from);
        let moved = Moved::left(user, &group.facts, member, until);
        // Who saw nothing leaves nothing behind.
        let row = (until > member.from).then(|| record::encode(&member.row(user, Some(until))));
        self.change(key, row, true);
        self.plan.moved.push(moved);
        Some(())
    }
}

fn live(group: Option<&Group>) -> Result<&Group, Error> {
    group
        .filter(|group| !group.deleted)
        .ok_or(Error::GroupNotFound)
}
