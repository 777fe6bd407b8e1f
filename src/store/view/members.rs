//! Whether the members of groups are the same by user and by group.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::key;
use super::record::{GroupState, ListedMember, Membership};
use crate::store::error::Error;

/// Present members, which are kept by user and by group, and counted for each group.
#[derive(Default)]
pub(super) struct Members {
    counted: u64,
    by_group: u64,
    /// What all members of groups say, added up, less what those of users say: nothing where each is in both.
    difference: u64,
}

impl Members {
    /// Counts a row of them, if it is one and readable. Past memberships are kept by user only.
    pub(super) fn count(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let numbers = || key::first_number(key).zip(key::second_number(key));
        match key.first()? {
            b'G' => {
                let group = GroupState::decode(value).ok()?;
                self.counted = self.counted.wrapping_add(group.members);
            }
            b'm' => {
                let (group, user) = numbers()?;
                let member = ListedMember::decode(value).ok()?;
                let says = hash(&(group, user, member.from, member.membership));
                self.difference = self.difference.wrapping_add(says);
                self.by_group += 1;
            }
            b'M' => {
                let ((user, group), from) = numbers().zip(key::last_id(key))?;
                let membership = Membership::decode(value).ok()?;
                if membership.until.is_none() {
                    let says = hash(&(group, user, from, membership));
                    self.difference = self.difference.wrapping_sub(says);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether each is in both, and counted. Only while nothing is written.
    pub(super) fn compare(&self) -> Result<(), Error> {
        if self.counted == self.by_group && self.difference == 0 {
            return Ok(());
        }
        Err(Error::View(format!(
            "its groups have {} members, which are not the {} that are counted, or not those of its users",
            self.by_group, self.counted
        )))
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::view::scan::tests::Story;
    use crate::store::view::tests::opened;

    /// As many rows as there should be.
    #[test]
    fn members_who_are_not_the_same_by_user_and_by_group_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        // 1 leaves group 4 again, and joins it again.
        let messages = [(1, 4), (2, 4), (1, 4), (3, 5), (1, 4), (3, 4)];
        let story = Story::with_members(&messages, 1);
        let (writes, applied) = story.window(0, story.len());
        view.write(&writes, &applied, &mut |_| Ok(())).unwrap();
        let rows = |prefix: &[u8]| -> Vec<_> { view.index.scan_prefix(prefix).flatten().collect() };
        assert_eq!((rows(b"M").len(), rows(b"m").len()), (5, 4));
        view.check().unwrap();
        let present =
            |row: &(sled::IVec, sled::IVec)| Membership::decode(&row.1).unwrap().until.is_none();
        let of_users = rows(b"M").into_iter().filter(present);
        for (key, value) in of_users.chain(rows(b"m")) {
            // Of another user, and of another group.
            for place in [4, 8] {
                let mut other = key.to_vec();
                other[place] += 10;
                view.index.remove(&key).unwrap();
                view.index.insert(&other, &value).unwrap();
                assert!(view.check().is_err(), "{key:02x?} as {other:02x?}");
                view.index.remove(other).unwrap();
                view.index.insert(&key, &value).unwrap();
            }
        }
        let key = key::group_row(4);
        let value = view.index.get(&key).unwrap().unwrap();
        let mut counted = GroupState::decode(&value).unwrap();
        counted.members += 1;
        view.index.insert(&key, counted.encode()).unwrap();
        assert!(view.check().is_err(), "one too many is counted");
    }
}
