//! Who was a member of which group when: what readers ask before they read a group's messages.
//!
//! It is in the view and, of what is not sealed yet, in the tail. What readers asked for is kept, up to a limit, and what
//! entries change of it is changed together with the tail: a reader sees the messages of an entry and its changes of
//! members, or neither.

mod cache;
mod interval;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use super::state::{Group, GroupFacts, State};
use super::tail::{Reading, Tail};
use crate::model::{GroupName, UserName};
use crate::store::{Error, HistoryMode, Membership, View};
use cache::Cache;
pub(super) use interval::{Interval, Intervals, Moved, beyond, in_group};

impl Group {
    /// For readers.
    pub(super) fn present(&self) -> Present {
        Present {
            facts: Arc::clone(&self.facts),
            history: self.history,
            deleted: self.deleted,
        }
    }
}

/// A group as it is now.
#[derive(Clone, Debug)]
pub(super) struct Present {
    pub(super) facts: Arc<GroupFacts>,
    pub(super) history: HistoryMode,
    pub(super) deleted: bool,
}

/// Every group, and the intervals of users that readers asked for.
#[derive(Debug)]
pub(super) struct Memberships {
    inside: RwLock<Inside>,
}

#[derive(Debug)]
struct Inside {
    groups: HashMap<GroupName, Present>,
    /// The same by number.
    facts: HashMap<u32, Arc<GroupFacts>>,
    users: Cache,
}

impl Memberships {
    /// The groups; of users, what fits into so many bytes is kept.
    pub(super) fn new(state: &State, bytes_max: u64) -> Self {
        let memberships = Self {
            inside: RwLock::new(Inside {
                groups: HashMap::new(),
                facts: HashMap::new(),
                users: Cache::new(bytes_max),
            }),
        };
        memberships.changed(
            state.groups.values().map(Group::present),
            std::iter::empty(),
        );
        memberships
    }

    /// Takes over what an entry changed. Together with the tail, which also keeps it until it is in the view.
    pub(super) fn changed<'a>(
        &self,
        groups: impl IntoIterator<Item = Present>,
        moved: impl Iterator<Item = &'a Moved>,
    ) {
        let mut inside = self.write();
        for present in groups {
            let facts = Arc::clone(&present.facts);
            inside.facts.insert(facts.number, Arc::clone(&facts));
            inside.groups.insert(facts.name.clone(), present);
        }
        for moved in moved {
            inside.users.moved(moved);
        }
    }

    /// A group, if it was made and is not deleted.
    pub(super) fn group(&self, name: &GroupName) -> Option<Present> {
        let inside = self.inside.read().unwrap_or_else(PoisonError::into_inner);
        let present = inside.groups.get(name)?;
        (!present.deleted).then(|| present.clone())
    }

    fn known(&self, user: &UserName) -> Option<Intervals> {
        let inside = self.inside.read().unwrap_or_else(PoisonError::into_inner);
        inside.users.get(user)
    }

    /// Keeps the intervals of a user. The caller holds the tail's lock, so that no entry changes them in between.
    fn keep(
        &self,
        user: &UserName,
        rows: BTreeMap<(u32, u64), Membership>,
    ) -> Result<Intervals, Error> {
        let mut inside = self.write();
        let intervals = rows.into_iter().map(|((group, from), membership)| {
            let facts = inside.facts.get(&group).ok_or_else(|| {
                Error::View(format!("an interval names group {group}, which is missing"))
            })?;
            Ok(Interval::new(Arc::clone(facts), from, membership))
        });
        let intervals: Intervals = Arc::new(intervals.collect::<Result<_, Error>>()?);
        inside.users.insert(user.clone(), Arc::clone(&intervals));
        Ok(intervals)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inside> {
        self.inside.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memberships {
    /// The tail, and the intervals of a user at the same moment. `None`: the view must be read for them.
    pub(super) fn seen_by<'a>(
        &self,
        tail: &'a Tail,
        user: &UserName,
    ) -> Option<(Reading<'a>, Intervals)> {
        let tail = tail.read();
        let intervals = self.known(user)?;
        Some((tail, intervals))
    }

    /// The same, with the view.
    pub(super) fn seen_with<'a>(
        &self,
        tail: &'a Tail,
        view: &View,
        user: &UserName,
    ) -> Result<(Reading<'a>, Intervals), Error> {
        if let Some(seen) = self.seen_by(tail, user) {
            return Ok(seen);
        }
        let below = || {
            let mut rows = BTreeMap::new();
            // Who has no number in the view has nothing else there.
            if let Some(number) = view.user(user)? {
                for row in view.memberships(number) {
                    let (group, from, membership) = row?;
                    rows.insert((group, from), membership);
                }
            }
            Ok(rows)
        };
        let (tail, mut rows, changes) = tail.with_below(below, |tail| tail.moves_of(user))?;
        for ((group, from), membership) in changes {
            match membership {
                Some(membership) => rows.insert((group, from), membership),
                None => rows.remove(&(group, from)),
            };
        }
        let intervals = self.keep(user, rows)?;
        Ok((tail, intervals))
    }
}

/// The tail, and the members of a group at the same moment.
pub(super) fn members_with<'a>(
    tail: &'a Tail,
    view: &View,
    group: u32,
) -> Result<(Reading<'a>, Vec<UserName>), Error> {
    let below = || {
        let members = view.members(group);
        members
            .map(|row| row.map(|(number, member)| (number, member.name)))
            .collect::<Result<BTreeMap<_, _>, _>>()
    };
    let changes = |tail: &Reading<'_>| tail.moves_in(group);
    let (tail, mut members, changes) = tail.with_below(below, changes)?;
    for (number, joined) in changes {
        match joined {
            Some(name) => members.insert(number, name),
            None => members.remove(&number),
        };
    }
    let mut members: Vec<_> = members.into_values().collect();
    members.sort_unstable();
    Ok((tail, members))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::hub::{Caches, Hub, Options, WindowSize};
    use crate::model::{Body, Draft, Receiver};
    use crate::store::Command;

    const ENTRIES: u64 = 120;

    fn bob() -> UserName {
        UserName::parse("bob").unwrap()
    }

    fn group(number: u64) -> GroupName {
        GroupName::parse(&format!("group-{number}")).unwrap()
    }

    /// An entry in which bob goes from one of two groups into the other, and each gets a message behind that.
    fn entry(number: u64) -> Vec<Command> {
        let (from, to) = (group(number % 2), group((number + 1) % 2));
        let message = |to: &GroupName| {
            Command::Message(Draft {
                from: UserName::parse("ann").unwrap(),
                to: Receiver::Group(to.clone()),
                body: Body::from(b"1".to_vec()),
                key: None,
                by_user: false,
            })
        };
        let change =
            |group: &GroupName, add: &[UserName], remove: &[UserName]| Command::ChangeMembers {
                group: group.clone(),
                add: add.to_vec(),
                remove: remove.to_vec(),
            };
        vec![
            change(&from, &[], &[bob()]),
            change(&to, &[bob()], &[]),
            message(&from),
            message(&to),
        ]
    }

    async fn commit(hub: &Hub, commands: Vec<Command>) {
        let opening = hub.0.channels.to_open(&[]);
        hub.0.propose(opening, commands).await.unwrap();
    }

    /// At every moment bob is where the last entry that is seen has put him, and was in as many before.
    fn check(hub: &Hub, view: &View) -> u64 {
        let inner = &hub.0;
        let (tail, intervals) = inner
            .memberships
            .seen_with(&inner.tail, view, &bob())
            .unwrap();
        let seen = tail.heads().group / 2;
        drop(tail);
        assert_eq!(u64::try_from(intervals.len()).unwrap(), seen);
        let present = intervals.iter().filter(|one| one.until.is_none());
        let present: Vec<_> = present.map(|one| one.group.name.clone()).collect();
        let expected = (seen > 0).then(|| group((seen + 1) % 2));
        assert_eq!(present, Vec::from_iter(expected));
        for number in 0..2 {
            let facts = inner.memberships.group(&group(number)).unwrap().facts;
            let (tail, members) = members_with(&inner.tail, view, facts.number).unwrap();
            let seen = tail.heads().group / 2;
            let expected = (seen > 0 && number == (seen + 1) % 2).then(bob);
            assert_eq!(members, Vec::from_iter(expected), "{number} at {seen}");
        }
        seen
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_entry_is_seen_with_all_that_it_changes_whatever_is_sealed_and_forgotten() {
        for (memberships_bytes, ids) in [(0, 1), (0, 9), (1 << 20, 2)] {
            let data = tempfile::tempdir().unwrap();
            let options = Options {
                caches: Caches {
                    memberships_bytes,
                    values: 0,
                },
                window: WindowSize {
                    ids,
                    bytes: u64::MAX,
                },
                ..Options::small(data.path())
            };
            let hub = Hub::open(options.clone()).unwrap();
            for number in 0..2 {
                let made = Command::SetGroup {
                    group: group(number),
                    members: Vec::new(),
                    history: None,
                };
                commit(&hub, vec![made]).await;
            }
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let view = hub.0.view.read().unwrap().clone().unwrap();
                        while !done.load(Ordering::Acquire) {
                            check(&hub, &view);
                        }
                        assert_eq!(check(&hub, &view), ENTRIES);
                    });
                }
                tokio::task::block_in_place(|| {
                    let runtime = tokio::runtime::Handle::current();
                    for number in 1..=ENTRIES {
                        runtime.block_on(commit(&hub, entry(number)));
                    }
                });
                done.store(true, Ordering::Release);
            });
            hub.close();
            let hub = Hub::open(options).unwrap();
            let view = hub.0.view.read().unwrap().clone().unwrap();
            assert_eq!(check(&hub, &view), ENTRIES);
            drop(view);
            hub.close();
        }
    }
}
