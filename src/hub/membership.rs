//! Who was a member of which group when: what readers ask before they read a group's messages.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::state::{Group, GroupFacts, Member, State};
use crate::model::{GroupName, UserName};
use crate::store::{Error, HistoryMode, IntervalRow, View};

/// A time of being a member, in ids of the group sequence: those with `from < id <= until`.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    pub(super) group: Arc<GroupFacts>,
    pub(super) from: u64,
    /// `None` while a member.
    pub(super) until: Option<u64>,
    /// Whether history may be read from the beginning.
    pub(super) all: bool,
}

impl Interval {
    /// Whether there was nothing that could be read.
    pub(super) fn is_empty(&self) -> bool {
        let from = if self.all { 0 } else { self.from };
        self.until.is_some_and(|until| until == from)
    }
}

/// A user joined or left.
#[derive(Debug)]
pub(super) struct Moved {
    user: UserName,
    pub(super) interval: Interval,
}

impl Moved {
    pub(super) fn joined(user: &UserName, group: &Arc<GroupFacts>, member: Member) -> Self {
        Self::new(user, group, member, None)
    }

    pub(super) fn left(
        user: &UserName,
        group: &Arc<GroupFacts>,
        member: Member,
        until: u64,
    ) -> Self {
        Self::new(user, group, member, Some(until))
    }

    fn new(user: &UserName, group: &Arc<GroupFacts>, member: Member, until: Option<u64>) -> Self {
        let Member { from, all, .. } = member;
        Self {
            user: user.clone(),
            interval: Interval {
                group: Arc::clone(group),
                from,
                until,
                all,
            },
        }
    }
}

impl Member {
    /// As it is stored.
    pub(super) fn row(self, user: &UserName, until: Option<u64>) -> IntervalRow {
        IntervalRow {
            user: user.clone(),
            until,
            all: self.all,
        }
    }
}

impl Group {
    /// Makes a user a member from the group's next message on. Who comes again where he left keeps what he could
    /// read, whatever the group's mode is now.
    pub(super) fn join(&mut self, user: &UserName, number: u32) -> Member {
        let member = Member {
            number,
            from: self.last,
            all: self.left.remove(user) || self.history == HistoryMode::All,
        };
        Arc::make_mut(&mut self.members).insert(user.clone(), member);
        member
    }
}

/// The intervals of every user, for readers.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    users: RwLock<HashMap<UserName, Vec<Interval>>>,
}

impl Memberships {
    /// Reads all intervals.
    pub(super) fn load(view: &View, state: &State) -> Result<Self, Error> {
        let groups: HashMap<u32, _> = state
            .groups
            .values()
            .map(|group| (group.facts.number, &group.facts))
            .collect();
        let mut users: HashMap<UserName, Vec<Interval>> = HashMap::new();
        for row in view.intervals() {
            let (group, _, from, IntervalRow { user, until, all }) = row?;
            let group = groups.get(&group).ok_or_else(|| {
                Error::View(format!("an interval names group {group}, which is missing"))
            })?;
            let interval = Interval {
                group: Arc::clone(group),
                from,
                until,
                all,
            };
            users.entry(user).or_default().push(interval);
        }
        Ok(Self {
            users: RwLock::new(users),
        })
    }

    /// Takes over what an entry changed.
    pub(super) fn moved(&self, moved: Vec<Moved>) {
        if moved.is_empty() {
            return;
        }
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        for Moved { user, interval } in moved {
            let intervals = users.entry(user).or_default();
            intervals.retain(|known| {
                known.group.number != interval.group.number || known.from != interval.from
            });
            if !interval.is_empty() {
                intervals.push(interval);
            }
        }
    }

    /// Whether no group of a user has a message after an id that he may see.
    pub(super) fn none_after(&self, user: &UserName, id: u64) -> bool {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.get(user).is_none_or(|intervals| {
            intervals.iter().all(|interval| {
                interval.until.is_some_and(|until| until <= id) || interval.group.last() <= id
            })
        })
    }

    /// All intervals of a user.
    pub(super) fn of(&self, user: &UserName) -> Vec<Interval> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.get(user).cloned().unwrap_or_default()
    }

    /// The intervals of a user in one group, oldest first.
    pub(super) fn in_group(&self, user: &UserName, group: &GroupName) -> Vec<Interval> {
        let mut intervals = self.of(user);
        intervals.retain(|interval| interval.group.name == *group);
        intervals.sort_by_key(|interval| interval.from);
        intervals
    }
}
