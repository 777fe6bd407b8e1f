//! What commands about groups do: the part of planning that changes who is a member.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::planner::{Event, GroupReceipt, Planner, live};
use crate::error::Error;
use crate::hub::membership::Moved;
use crate::hub::standing::{Member, Standing};
use crate::hub::state::{Group, GroupFacts};
use crate::model::{ChainEnd, GroupName, UserName};
use crate::store::{Addition, Change, GroupState, HistoryMode, Membership};

/// The most members of one group: a message to more would hold up all others behind it.
pub(crate) const GROUP_MEMBERS_MAX: usize = 100_000;

impl Planner<'_> {
    pub(super) fn set_group(
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
            let wanted: HashSet<_> = wanted.iter().collect();
            let members = self.state.standings.members(group.facts.number);
            let names = members.into_iter().map(|(name, _)| name);
            names.filter(|name| !wanted.contains(name)).collect()
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
            self.group_changed(name);
        }
        let removed = self.leave(name, &leaving);
        let added = self.join(name, wanted);
        self.group_receipt(name, made, added, removed)
    }

    pub(super) fn change_members(
        &mut self,
        name: &GroupName,
        add: &[UserName],
        remove: &[UserName],
    ) -> Result<GroupReceipt, Error> {
        let group = live(self.state.groups.get(name))?;
        let (number, members) = (group.facts.number, group.members);
        let is_member = |user: &UserName| self.is_member(number, user);
        let gone: HashSet<_> = remove.iter().collect();
        let joining: Vec<_> = add
            .iter()
            .filter(|user| !gone.contains(user) && !is_member(user))
            .cloned()
            .collect();
        let new = count(joining.iter().collect::<HashSet<_>>().len());
        let leaving = gone.iter().filter(|user| is_member(user));
        let stay = members - count(leaving.count());
        // A group that is larger already, as that of all channels may be, can still lose members.
        if new > 0 && new + stay > count(GROUP_MEMBERS_MAX) {
            return Err(Error::GroupFull {
                limit: GROUP_MEMBERS_MAX,
            });
        }
        let removed = self.leave(name, remove);
        let added = self.join(name, &joining);
        self.group_receipt(name, false, added, removed)
    }

    pub(super) fn delete_group(&mut self, name: &GroupName) -> Result<GroupReceipt, Error> {
        let number = live(self.state.groups.get(name))?.facts.number;
        let members = self.state.standings.members(number);
        let members: Vec<_> = members.into_iter().map(|(name, _)| name).collect();
        let removed = self.leave(name, &members);
        if let Some(group) = self.state.groups.get_mut(name) {
            group.deleted = true;
        }
        self.group_changed(name);
        self.group_receipt(name, false, 0, removed)
    }

    pub(super) fn make_group(&mut self, name: &GroupName, history: HistoryMode) {
        self.state.applied.groups += 1;
        let number = self.state.applied.groups;
        self.add(Addition::Group {
            name: name.clone(),
            number,
        });
        let facts = GroupFacts {
            name: name.clone(),
            number,
            last: AtomicU64::new(0),
        };
        let group = Group {
            facts: Arc::new(facts),
            history,
            deleted: false,
            end: ChainEnd::default(),
            members: 0,
        };
        self.state.standings.made(number);
        self.state.groups.insert(name.clone(), group);
        self.group_changed(name);
    }

    pub(super) fn group_changed(&mut self, name: &GroupName) {
        if let Some(group) = self.state.groups.get(name) {
            self.plan.changed.push(group.present());
            self.keep_group(name);
        }
    }

    fn keep_group(&mut self, name: &GroupName) {
        if let Some(group) = self.state.groups.get(name) {
            let number = group.facts.number;
            let state = GroupState {
                name: name.clone(),
                history: group.history,
                deleted: group.deleted,
                members: group.members,
            };
            self.change(Change::Group { number, state });
        }
    }

    /// Whether a user is a member of a group now.
    pub(super) fn is_member(&self, group: u32, user: &UserName) -> bool {
        self.state.standings.get(group, user).member().is_some()
    }

    fn group_receipt(
        &self,
        name: &GroupName,
        made: bool,
        added: u64,
        removed: u64,
    ) -> Result<GroupReceipt, Error> {
        let group = self.state.groups.get(name).ok_or(Error::GroupNotFound)?;
        Ok(GroupReceipt {
            made,
            history: group.history,
            members: group.members,
            added,
            removed,
        })
    }

    /// Adds those who are no members yet. How many these are.
    pub(super) fn join(&mut self, name: &GroupName, joining: &[UserName]) -> u64 {
        let Some(group) = self.state.groups.get(name).map(|g| g.facts.number) else {
            return 0;
        };
        let mut added = 0;
        for user in joining {
            if !self.is_member(group, user) {
                let number = self.number(user);
                added += u64::from(self.join_one(name, user, number).is_some());
            }
        }
        if added > 0 {
            self.keep_group(name);
        }
        added
    }

    /// As of the next message. A user who rejoins before any new message keeps their previous read access, whatever the
    /// group's current mode.
    fn join_one(&mut self, name: &GroupName, user: &UserName, number: u32) -> Option<()> {
        let group = self.state.groups.get_mut(name)?;
        let (facts, from) = (Arc::clone(&group.facts), group.end.last);
        group.members += 1;
        let before = self.state.standings.get(facts.number, user);
        let member = Member {
            number,
            from,
            all: before == Standing::LeftAt(from) || group.history == HistoryMode::All,
            joined_ms: self.at_ms,
        };
        self.state.standings.change(
            facts.number,
            user.clone(),
            Standing::Member(member),
            self.offset,
        );
        self.moved(user, &facts, member, None);
        Some(())
    }

    /// Removes those who are members. How many these are.
    pub(super) fn leave(&mut self, name: &GroupName, leaving: &[UserName]) -> u64 {
        let left = leaving.iter().filter_map(|user| self.leave_one(name, user));
        let removed = count(left.count());
        if removed > 0 {
            self.keep_group(name);
        }
        removed
    }

    fn leave_one(&mut self, name: &GroupName, user: &UserName) -> Option<()> {
        let group = self.state.groups.get_mut(name)?;
        let (facts, until) = (Arc::clone(&group.facts), group.end.last);
        let member = self.state.standings.get(facts.number, user).member()?;
        group.members -= 1;
        let kept = self.moved(user, &facts, member, Some(until));
        let standing = Standing::of(member.number, kept.map(|kept| (member.from, kept)));
        self.state
            .standings
            .change(facts.number, user.clone(), standing, self.offset);
        Some(())
    }

    /// Keeps that a user joined or left, and tells open feeds. Who could read nothing leaves nothing behind.
    fn moved(
        &mut self,
        user: &UserName,
        group: &Arc<GroupFacts>,
        member: Member,
        until: Option<u64>,
    ) -> Option<Membership> {
        let moved = Moved::new(user, group, member, until);
        let kept = !moved.interval.is_empty();
        let membership = kept.then(|| member.membership(until));
        self.change(Change::Member {
            group: group.number,
            user: member.number,
            name: user.clone(),
            from: member.from,
            membership,
        });
        self.plan.events.push(Event::Moved(moved));
        membership
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).expect("a length fits 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::plan::{Outcome, plan};
    use crate::hub::state::State;
    use crate::model::LogId;
    use crate::store::{Applied, Command, Entry};

    fn change(add: Vec<UserName>, remove: Vec<UserName>) -> Command {
        let group = GroupName::parse("team").unwrap();
        Command::ChangeMembers { group, add, remove }
    }

    #[test]
    fn a_group_has_no_more_members_than_the_limit() {
        let user = |n: usize| UserName::parse(&format!("user-{n}")).unwrap();
        let members: Vec<_> = (0..GROUP_MEMBERS_MAX).map(user).collect();
        let group = GroupName::parse("team").unwrap();
        let history = None;
        let commands = vec![
            Command::SetGroup {
                group,
                members,
                history,
            },
            change(vec![UserName::parse("new").unwrap()], vec![]),
            change(
                vec![UserName::parse("new").unwrap()],
                vec![UserName::parse("nobody").unwrap()],
            ),
            change(vec![user(1), user(2)], vec![]),
            change(vec![UserName::parse("new").unwrap()], vec![user(1)]),
        ];
        let entry = Entry {
            proposer: 1,
            n: 1,
            at_ms: 1,
            keys_us: 1000,
            commands,
        };
        let mut state = State::new(Applied::nothing(LogId([1; 16])));
        let full = Outcome::Refused(Error::GroupFull {
            limit: GROUP_MEMBERS_MAX,
        });
        let outcomes = plan(&mut state, 1, &entry).outcomes;
        let fits = |outcome: &Outcome| matches!(outcome, Outcome::Group(_));
        assert!(fits(&outcomes[0]));
        assert_eq!(outcomes[1], full);
        assert_eq!(outcomes[2], full);
        assert!(fits(&outcomes[3]) && fits(&outcomes[4]));
    }
}
