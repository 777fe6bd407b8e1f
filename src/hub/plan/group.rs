//! What commands about groups do: the part of planning that changes who is a member.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::planner::{GroupReceipt, Planner, live};
use crate::error::Error;
use crate::hub::membership::Moved;
use crate::hub::state::{Group, GroupFacts, Members};
use crate::model::{ChainEnd, GroupName, UserName};
use crate::store::{Addition, Change, GroupState, HistoryMode};

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
        let members = &live(self.state.groups.get(name))?.members;
        let gone: HashSet<_> = remove.iter().collect();
        let joining: Vec<_> = add
            .iter()
            .filter(|name| !gone.contains(name) && !members.contains_key(*name))
            .cloned()
            .collect();
        let new = joining.iter().collect::<HashSet<_>>().len();
        // Counted by those who leave: a group may be large, and most changes are small.
        let leaving = gone.iter().filter(|name| members.contains_key(**name));
        let stay = members.len() - leaving.count();
        // A group that is larger already, as that of all channels may be, can still lose members.
        if new > 0 && new + stay > GROUP_MEMBERS_MAX {
            return Err(Error::GroupFull {
                limit: GROUP_MEMBERS_MAX,
            });
        }
        let removed = self.leave(name, remove);
        let added = self.join(name, &joining);
        self.group_receipt(name, false, added, removed)
    }

    pub(super) fn delete_group(&mut self, name: &GroupName) -> Result<GroupReceipt, Error> {
        let members: Vec<_> = live(self.state.groups.get(name))?
            .members
            .keys()
            .cloned()
            .collect();
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
        let (facts, members) = (Arc::new(facts), Members::default());
        let group = Group {
            facts,
            history,
            deleted: false,
            end: ChainEnd::default(),
            members,
            left: HashSet::new(),
        };
        self.state.groups.insert(name.clone(), group);
        self.group_changed(name);
    }

    pub(super) fn group_changed(&mut self, name: &GroupName) {
        if let Some(group) = self.state.groups.get(name) {
            self.plan.changed.push(group.present());
            let (number, history, deleted) = (group.facts.number, group.history, group.deleted);
            let state = GroupState {
                name: name.clone(),
                history,
                deleted,
            };
            self.change(Change::Group { number, state });
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

    pub(super) fn join(&mut self, name: &GroupName, joining: &[UserName]) -> u64 {
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
        let member = group.join(user, number, self.at_ms);
        let moved = Moved::joined(user, &group.facts, member);
        let change = Change::Member {
            group: group.facts.number,
            user: number,
            from: member.from,
            membership: Some(member.membership(user, None)),
        };
        self.change(change);
        self.plan.moved.push(moved);
        Some(())
    }

    pub(super) fn leave(&mut self, name: &GroupName, leaving: &[UserName]) -> u64 {
        leaving
            .iter()
            .map(|user| u64::from(self.leave_one(name, user).is_some()))
            .sum()
    }

    fn leave_one(&mut self, name: &GroupName, user: &UserName) -> Option<()> {
        let group = self.state.groups.get_mut(name)?;
        let member = Arc::make_mut(&mut group.members).remove(user)?;
        let until = group.end.last;
        let moved = Moved::left(user, &group.facts, member, until);
        // Who could read nothing leaves nothing behind.
        let membership = (!moved.interval.is_empty()).then(|| member.membership(user, Some(until)));
        if membership.is_some() && until == member.from {
            group.left.insert(user.clone());
        }
        let change = Change::Member {
            group: group.facts.number,
            user: member.number,
            from: member.from,
            membership,
        };
        self.change(change);
        self.plan.moved.push(moved);
        Some(())
    }
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
