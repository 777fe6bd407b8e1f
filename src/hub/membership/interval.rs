//! A time of being a member, as readers need it.

use std::sync::Arc;

use crate::hub::standing::Member;
use crate::hub::state::GroupFacts;
use crate::model::{GroupName, UserName};
use crate::store::Membership;

/// All intervals of a user, in no order.
pub(in crate::hub) type Intervals = Arc<Vec<Interval>>;

/// A time of being a member, in ids of the group sequence: those with `from < id <= until`.
#[derive(Clone, Debug)]
pub(in crate::hub) struct Interval {
    pub(in crate::hub) group: Arc<GroupFacts>,
    pub(in crate::hub) from: u64,
    /// `None` while a member.
    pub(in crate::hub) until: Option<u64>,
    /// Whether history may be read from the beginning.
    pub(in crate::hub) all: bool,
    /// When the user joined, Unix milliseconds.
    pub(in crate::hub) joined_ms: u64,
}

impl Interval {
    pub(super) fn new(group: Arc<GroupFacts>, from: u64, membership: Membership) -> Self {
        let Membership {
            until,
            all,
            joined_ms,
        } = membership;
        Self {
            group,
            from,
            until,
            all,
            joined_ms,
        }
    }

    /// Whether there was nothing that could be read.
    pub(in crate::hub) fn is_empty(&self) -> bool {
        let from = if self.all { 0 } else { self.from };
        self.until.is_some_and(|until| until == from)
    }
}

/// A user joined or left.
#[derive(Debug)]
pub(in crate::hub) struct Moved {
    pub(in crate::hub) user: UserName,
    pub(in crate::hub) interval: Interval,
}

impl Moved {
    pub(in crate::hub) fn new(
        user: &UserName,
        group: &Arc<GroupFacts>,
        member: Member,
        until: Option<u64>,
    ) -> Self {
        Self {
            user: user.clone(),
            interval: Interval::new(Arc::clone(group), member.from, member.membership(until)),
        }
    }
}

/// Those in groups with messages after an id that the user may see.
pub(in crate::hub) fn beyond(intervals: &[Interval], id: u64) -> Vec<Interval> {
    let beyond = |interval: &&Interval| {
        interval.until.is_none_or(|until| until > id) && interval.group.last() > id
    };
    intervals.iter().filter(beyond).cloned().collect()
}

/// Those in one group, oldest first.
pub(in crate::hub) fn in_group(intervals: &[Interval], group: &GroupName) -> Vec<Interval> {
    let own = intervals.iter().filter(|one| one.group.name == *group);
    let mut own: Vec<_> = own.cloned().collect();
    own.sort_by_key(|interval| interval.from);
    own
}
