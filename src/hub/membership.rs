//! Who was a member of which group when: what readers ask before they read a group's messages.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::state::{Group, GroupFacts, Member, State};
use crate::model::{GroupName, UserName};
use crate::store::{Error, HistoryMode, Membership, View};

/// A time of being a member, in ids of the group sequence: those with `from < id <= until`.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    pub(super) group: Arc<GroupFacts>,
    pub(super) from: u64,
    /// `None` while a member.
    pub(super) until: Option<u64>,
    /// Whether history may be read from the beginning.
    pub(super) all: bool,
    /// When the user joined, Unix milliseconds.
    pub(super) joined_ms: u64,
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
        let Member {
            from,
            all,
            joined_ms,
            ..
        } = member;
        Self {
            user: user.clone(),
            interval: Interval {
                group: Arc::clone(group),
                from,
                until,
                all,
                joined_ms,
            },
        }
    }
}

impl Member {
    /// As it is kept.
    pub(super) fn membership(self, user: &UserName, until: Option<u64>) -> Membership {
        Membership {
            user: user.clone(),
            until,
            all: self.all,
            joined_ms: self.joined_ms,
        }
    }
}

impl Group {
    /// For readers.
    pub(super) fn present(&self) -> Present {
        Present {
            facts: Arc::clone(&self.facts),
            history: self.history,
            deleted: self.deleted,
        }
    }

    /// Adds a member as of the next message. A user who rejoins before any new message keeps their previous read
    /// access, whatever the group's current mode.
    pub(super) fn join(&mut self, user: &UserName, number: u32, now_ms: u64) -> Member {
        let member = Member {
            number,
            from: self.end.last,
            all: self.left.remove(user) || self.history == HistoryMode::All,
            joined_ms: now_ms,
        };
        Arc::make_mut(&mut self.members).insert(user.clone(), member);
        member
    }
}

/// A group as it is now.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub(super) facts: Arc<GroupFacts>,
    pub(super) history: HistoryMode,
    pub(super) deleted: bool,
}

/// The intervals of every user, and every group with its members, for readers: an entry's changes are seen all
/// or not at all.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    inside: RwLock<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    users: HashMap<UserName, Vec<Interval>>,
    groups: HashMap<GroupName, (Present, BTreeSet<UserName>)>,
}

impl Memberships {
    /// Reads all intervals.
    pub(super) fn load(view: &View, state: &State) -> Result<Self, Error> {
        let groups: HashMap<u32, _> = state
            .groups
            .values()
            .map(|group| (group.facts.number, &group.facts))
            .collect();
        let mut inside = Inside::default();
        for group in state.groups.values() {
            let members = group.members.keys().cloned().collect();
            let name = group.facts.name.clone();
            inside.groups.insert(name, (group.present(), members));
        }
        for interval in view.intervals() {
            let (group, _, from, membership) = interval?;
            let Membership {
                user,
                until,
                all,
                joined_ms,
            } = membership;
            let group = groups.get(&group).ok_or_else(|| {
                Error::View(format!("an interval names group {group}, which is missing"))
            })?;
            let interval = Interval {
                group: Arc::clone(group),
                from,
                until,
                all,
                joined_ms,
            };
            inside.users.entry(user).or_default().push(interval);
        }
        Ok(Self {
            inside: RwLock::new(inside),
        })
    }

    /// Takes over what an entry changed.
    pub(super) fn moved(&self, changed: Vec<Present>, moved: Vec<Moved>) {
        if changed.is_empty() && moved.is_empty() {
            return;
        }
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        let Inside { users, groups } = &mut *inside;
        for present in changed {
            let name = present.facts.name.clone();
            match groups.entry(name) {
                Entry::Occupied(mut known) => known.get_mut().0 = present,
                Entry::Vacant(new) => drop(new.insert((present, BTreeSet::new()))),
            }
        }
        for Moved { user, interval } in moved {
            if let Some((_, members)) = groups.get_mut(&interval.group.name) {
                match interval.until {
                    None => members.insert(user.clone()),
                    Some(_) => members.remove(&user),
                };
            }
            let intervals = users.entry(user).or_default();
            intervals.retain(|known| {
                known.group.number != interval.group.number || known.from != interval.from
            });
            if !interval.is_empty() {
                intervals.push(interval);
            }
        }
    }

    /// The intervals of a user in groups with messages after an id that they may see.
    pub(super) fn after(&self, user: &UserName, id: u64) -> Vec<Interval> {
        let inside = self.read();
        let intervals = inside.users.get(user).into_iter().flatten();
        let beyond = |interval: &&Interval| {
            interval.until.is_none_or(|until| until > id) && interval.group.last() > id
        };
        intervals.filter(beyond).cloned().collect()
    }

    /// All intervals of a user.
    pub(super) fn of(&self, user: &UserName) -> Vec<Interval> {
        self.read().users.get(user).cloned().unwrap_or_default()
    }

    /// A group and its members, sorted; none if it was never made or is deleted.
    pub(super) fn group(&self, name: &GroupName) -> Option<(Present, Vec<UserName>)> {
        let inside = self.read();
        let (present, members) = inside.groups.get(name)?;
        (!present.deleted).then(|| (present.clone(), members.iter().cloned().collect()))
    }

    fn read(&self) -> RwLockReadGuard<'_, Inside> {
        self.inside.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The intervals of a user in one group, oldest first.
    pub(super) fn in_group(&self, user: &UserName, group: &GroupName) -> Vec<Interval> {
        let mut intervals = self.of(user);
        intervals.retain(|interval| interval.group.name == *group);
        intervals.sort_by_key(|interval| interval.from);
        intervals
    }
}
