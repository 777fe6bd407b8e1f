//! Who is a member of which group, as far as planning knows it: looked up in the view, or changed by entries.

use std::collections::HashMap;

use crate::model::UserName;
use crate::store::{Error, Membership};

/// Since when a user is a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) number: u32,
    /// The group's last id when they joined.
    pub(super) from: u64,
    /// Whether they may read back to the beginning.
    pub(super) all: bool,
    /// When they joined, Unix milliseconds.
    pub(super) joined_ms: u64,
}

impl Member {
    /// As it is kept.
    pub(super) fn membership(self, until: Option<u64>) -> Membership {
        Membership {
            until,
            all: self.all,
            joined_ms: self.joined_ms,
        }
    }
}

/// What a user is to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// None of the others.
    #[default]
    Outside,
    /// They left behind this message, where they had joined, and may read back to the beginning. Who rejoins before the
    /// next message has the same interval again.
    LeftAt(u64),
    Member(Member),
}

impl Standing {
    /// By the newest interval.
    pub(super) fn of(user: u32, newest: Option<(u64, Membership)>) -> Self {
        match newest {
            Some((from, membership)) if membership.until.is_none() => Self::Member(Member {
                number: user,
                from,
                all: membership.all,
                joined_ms: membership.joined_ms,
            }),
            Some((from, membership)) if membership.until == Some(from) => Self::LeftAt(from),
            _ => Self::Outside,
        }
    }

    pub(super) fn member(self) -> Option<Member> {
        match self {
            Self::Member(member) => Some(member),
            Self::Outside | Self::LeftAt(_) => None,
        }
    }
}

/// What is known. That which is not in the view yet is kept; the rest is a cache, and is forgotten when it is too much.
#[derive(Debug)]
pub(super) struct Standings {
    groups: HashMap<u32, InGroup>,
    values: usize,
    /// Values kept before any is forgotten.
    kept: usize,
    /// With so many it is looked for those that can be forgotten.
    full: usize,
    /// Or when all up to this entry is in the view, as those are then that could not be forgotten.
    waits_for: u64,
}

#[derive(Debug, Default)]
struct InGroup {
    /// With the entry that changed each last; 0: it is as in the view.
    users: HashMap<UserName, (Standing, u64)>,
    /// Whether all members are among them.
    listed: bool,
}

impl Standings {
    pub(super) fn new(kept: usize) -> Self {
        Self {
            groups: HashMap::new(),
            values: 0,
            kept,
            full: kept,
            waits_for: u64::MAX,
        }
    }

    /// What a user is to a group; what planning asks for was looked up before.
    pub(super) fn get(&self, group: u32, user: &UserName) -> Standing {
        let known = self
            .groups
            .get(&group)
            .and_then(|in_group| in_group.users.get(user));
        known.map_or(Standing::Outside, |(standing, _)| *standing)
    }

    /// Looks up what a user is to a group, unless it is known.
    pub(super) fn look_up(
        &mut self,
        group: u32,
        user: &UserName,
        look_up: impl FnOnce() -> Result<Standing, Error>,
    ) -> Result<(), Error> {
        let known = |in_group: &InGroup| in_group.users.contains_key(user);
        if !self.groups.get(&group).is_some_and(known) {
            self.put(group, user.clone(), look_up()?, 0);
        }
        Ok(())
    }

    /// Looks up all members of a group, unless they are known.
    pub(super) fn list(
        &mut self,
        group: u32,
        look_up: impl Iterator<Item = Result<(UserName, Member), Error>>,
    ) -> Result<(), Error> {
        if self.groups.get(&group).is_some_and(|known| known.listed) {
            return Ok(());
        }
        for member in look_up {
            let (user, member) = member?;
            self.look_up(group, &user, || Ok(Standing::Member(member)))?;
        }
        self.made(group);
        Ok(())
    }

    /// All members of a group are known, as of one that is made.
    pub(super) fn made(&mut self, group: u32) {
        self.groups.entry(group).or_default().listed = true;
    }

    /// An entry changes what a user is to a group.
    pub(super) fn change(&mut self, group: u32, user: UserName, standing: Standing, offset: u64) {
        self.put(group, user, standing, offset);
    }

    fn put(&mut self, group: u32, user: UserName, standing: Standing, changed: u64) {
        let in_group = self.groups.entry(group).or_default();
        let before = in_group.users.insert(user, (standing, changed));
        self.values += usize::from(before.is_none());
    }

    /// The members of a group that was listed, in the order of their numbers.
    pub(super) fn members(&self, group: u32) -> Vec<(UserName, Member)> {
        let known = self.groups.get(&group).filter(|known| known.listed);
        let known =
            known.expect("the members of a group are looked up before all of them are asked for");
        let members = known.users.iter();
        let mut members: Vec<_> = members
            .filter_map(|(user, (standing, _))| Some((user.clone(), standing.member()?)))
            .collect();
        members.sort_unstable_by_key(|(_, member)| member.number);
        members
    }

    /// Forgets what is in the view, which has all up to an entry, when too much is known.
    pub(super) fn forget(&mut self, sealed: u64) {
        if self.values < self.full && sealed < self.waits_for {
            return;
        }
        let mut newest = 0;
        self.groups.retain(|_, known| {
            let before = known.users.len();
            known.users.retain(|_, (_, changed)| {
                newest = newest.max(*changed);
                *changed > sealed
            });
            known.listed &= known.users.len() == before;
            known.users.shrink_to_fit();
            !known.users.is_empty()
        });
        self.groups.shrink_to_fit();
        self.values = self.groups.values().map(|known| known.users.len()).sum();
        // What remains is looked through again only when there is as much again, or none of it need remain, so that
        // this costs little.
        self.full = self.kept.max(2 * self.values);
        let all = self.values < self.kept;
        self.waits_for = if all { u64::MAX } else { newest };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u32) -> UserName {
        UserName::parse(&format!("user-{number}")).unwrap()
    }

    fn member(number: u32) -> Member {
        Member {
            number,
            from: 0,
            all: false,
            joined_ms: 1,
        }
    }

    fn numbers(standings: &Standings, group: u32) -> Vec<u32> {
        let members = standings.members(group);
        members.iter().map(|(_, member)| member.number).collect()
    }

    #[test]
    fn what_is_not_in_the_view_yet_is_never_forgotten_and_a_list_is_looked_up_again() {
        let in_view = |_: &Standings| (1..=5).map(|n| Ok((user(n), member(n))));
        for kept in [0, 6, 100] {
            let mut known = Standings::new(kept);
            known.change(7, user(2), Standing::Outside, 20);
            known.change(7, user(9), Standing::Member(member(9)), 21);
            let view = in_view(&known);
            known.list(7, view).unwrap();
            assert_eq!(numbers(&known, 7), [1, 3, 4, 5, 9]);
            known.made(8);
            known.change(8, user(9), Standing::Member(member(9)), 20);
            known.change(8, user(9), Standing::LeftAt(3), 22);
            known.forget(20);
            let forgotten = kept < 7;
            let expected = if forgotten {
                Standing::Outside
            } else {
                Standing::Member(member(1))
            };
            assert_eq!(known.get(7, &user(1)), expected);
            assert_eq!(known.get(7, &user(9)), Standing::Member(member(9)));
            assert_eq!(known.get(8, &user(9)), Standing::LeftAt(3));
            // What is in the view by now is as there.
            let view =
                in_view(&known).filter(|row| !matches!(row, Ok((_, one)) if one.number == 2));
            known.list(7, view).unwrap();
            assert_eq!(numbers(&known, 7), [1, 3, 4, 5, 9]);
            assert!(numbers(&known, 8).is_empty());
        }
    }

    #[test]
    fn who_left_where_they_joined_is_told_from_others() {
        let with = |until| Membership {
            until,
            all: true,
            joined_ms: 1,
        };
        let of = |until| Standing::of(3, Some((5, with(until))));
        let expected = Member {
            from: 5,
            all: true,
            ..member(3)
        };
        assert_eq!(of(None), Standing::Member(expected));
        assert_eq!(of(Some(5)), Standing::LeftAt(5));
        assert_eq!(of(Some(6)), Standing::Outside);
        assert_eq!(Standing::of(3, None), Standing::Outside);
    }
}
