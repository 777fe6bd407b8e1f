//! The intervals of users that were asked for last: a cache with a limit in bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::interval::{Interval, Intervals, Moved};
use crate::model::UserName;

/// What a user takes besides the name and the intervals, roughly: places in two collections, and what the allocator adds.
const USER_BYTES: usize = 200;
/// Users who are passed by for one that goes: a search for who was not asked for lately may not take long.
const PASSED_MAX: usize = 32;

/// The users that are known, also those in no group.
#[derive(Debug)]
pub(super) struct Cache {
    users: HashMap<UserName, One>,
    /// The same users; the first is the next to go, unless he was asked for since he was here last.
    turns: VecDeque<UserName>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct One {
    intervals: Intervals,
    asked: AtomicBool,
}

fn bytes(user: &UserName, intervals: &Intervals) -> u64 {
    let bytes = USER_BYTES + user.as_str().len() + intervals.capacity() * size_of::<Interval>();
    u64::try_from(bytes).expect("a length fits 64 bits")
}

impl Cache {
    /// Nothing yet, and never more than so many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            users: HashMap::new(),
            turns: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn get(&self, user: &UserName) -> Option<Intervals> {
        let one = self.users.get(user)?;
        // Most users are asked for again and again: what is set already is not written.
        if !one.asked.load(Ordering::Relaxed) {
            one.asked.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&one.intervals))
    }

    pub(super) fn insert(&mut self, user: UserName, intervals: Intervals) {
        self.bytes += bytes(&user, &intervals);
        let one = One {
            intervals,
            asked: AtomicBool::new(false),
        };
        match self.users.insert(user.clone(), one) {
            Some(before) => self.bytes -= bytes(&user, &before.intervals),
            None => self.turns.push_back(user),
        }
        self.make_room();
    }

    /// Takes over that a user joined or left, if he is known.
    pub(super) fn moved(&mut self, moved: &Moved) {
        let Moved { user, interval } = moved;
        let Some(one) = self.users.get_mut(user) else {
            return;
        };
        self.bytes -= bytes(user, &one.intervals);
        let intervals = Arc::make_mut(&mut one.intervals);
        intervals.retain(|known| {
            known.group.number != interval.group.number || known.from != interval.from
        });
        if !interval.is_empty() {
            intervals.push(interval.clone());
        }
        self.bytes += bytes(user, &one.intervals);
        self.make_room();
    }

    fn make_room(&mut self) {
        let mut passed = 0;
        while self.bytes > self.bytes_max
            && let Some(user) = self.turns.pop_front()
        {
            let asked = self.users.get_mut(&user).map(|one| one.asked.get_mut());
            if passed < PASSED_MAX && asked.is_some_and(std::mem::take) {
                passed += 1;
                self.turns.push_back(user);
            } else if let Some(one) = self.users.remove(&user) {
                self.bytes -= bytes(&user, &one.intervals);
            }
        }
        if self.users.len() * 4 < self.users.capacity() {
            self.users.shrink_to_fit();
            self.turns.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::hub::state::GroupFacts;
    use crate::model::GroupName;

    fn user(n: usize) -> UserName {
        UserName::parse(&format!("user-{n:04}")).unwrap()
    }

    fn interval(group: u32, from: u64, until: Option<u64>) -> Interval {
        let facts = GroupFacts {
            name: GroupName::parse(&format!("group-{group}")).unwrap(),
            number: group,
            last: AtomicU64::new(9),
        };
        Interval {
            group: Arc::new(facts),
            from,
            until,
            all: false,
            joined_ms: 1,
        }
    }

    /// What is known by other means.
    fn counted(known: &Cache) -> u64 {
        assert_eq!(known.turns.len(), known.users.len());
        let each = known.users.iter();
        each.map(|(user, one)| bytes(user, &one.intervals)).sum()
    }

    #[test]
    fn those_who_are_asked_for_stay_and_there_are_never_more_bytes_than_the_limit() {
        let each = bytes(&user(0), &Intervals::default());
        let mut known = Cache::new(10 * each);
        for n in 0..100 {
            known.insert(user(n), Intervals::default());
            assert!(known.get(&user(0)).is_some(), "{n}");
            assert_eq!(known.users.len(), (n + 1).min(10));
            assert_eq!(known.bytes, counted(&known));
        }
        assert!(known.get(&user(99)).is_some() && known.get(&user(50)).is_none());
        // One that takes more than all may is not kept.
        let many = (0..500).map(|group| interval(group, 0, None)).collect();
        known.insert(user(7), Arc::new(many));
        assert!(known.get(&user(7)).is_none());
        assert!(known.bytes <= 10 * each && known.bytes == counted(&known));
        let mut none = Cache::new(0);
        none.insert(user(1), Intervals::default());
        assert!(none.get(&user(1)).is_none() && none.bytes == 0);
    }

    #[test]
    fn what_is_known_of_a_user_changes_with_each_entry() {
        let mut known = Cache::new(1 << 20);
        known.insert(user(1), Intervals::default());
        let mut moved = |from, until| {
            let interval = interval(3, from, until);
            for n in 1..=2 {
                let user = user(n);
                let interval = interval.clone();
                known.moved(&Moved { user, interval });
            }
            assert_eq!(known.bytes, counted(&known));
            assert!(known.get(&user(2)).is_none(), "who is not known stays so");
            let own = known.get(&user(1)).unwrap();
            own.iter()
                .map(|one| (one.from, one.until))
                .collect::<Vec<_>>()
        };
        assert_eq!(moved(4, None), [(4, None)]);
        assert_eq!(moved(4, Some(7)), [(4, Some(7))]);
        assert_eq!(moved(7, None), [(4, Some(7)), (7, None)]);
        // Nothing could be read in it.
        assert_eq!(moved(7, Some(7)), [(4, Some(7))]);
    }
}
