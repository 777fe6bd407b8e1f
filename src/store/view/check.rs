//! Whether the view is what its mark says: every row readable, every id there and listed, no row missing.

use super::key;
use super::list::List;
use super::mark::Mark;
use super::record::{decode_message, decode_numbered};
use super::scan::part;
use super::{Addition, View};
use crate::model::Sequence;
use crate::store::error::Error;

/// How many ids are in the lists.
#[derive(Default)]
struct Listed {
    conversations: u64,
    /// Those of a user with themselves.
    alone: u64,
    groups: u64,
    inboxes: u64,
}

impl Listed {
    fn count(&mut self, list: List, ids: u64) {
        match list {
            List::Conversation(one, other) => {
                self.conversations += ids;
                if one == other {
                    self.alone += ids;
                }
            }
            List::Group(_) => self.groups += ids,
            List::Inbox(_) => self.inboxes += ids,
        }
    }
}

impl View {
    /// Reads everything once and compares it with the mark. Pages carry checksums of sled's own; a page that is lost or
    /// stale shows in the counts. What a write that was cut short left is removed before. Not while it is written.
    pub fn check(&self) -> Result<(), Error> {
        if self.cut()?.is_some() {
            self.undo()?;
        }
        let mark = self.mark()?;
        self.check_messages(&mark)?;
        let listed = self.check_index(&mark)?;
        let heads = mark.applied.heads;
        let inboxes = 2 * listed.conversations - listed.alone;
        if (listed.conversations, listed.groups) != (heads.direct, heads.group)
            || listed.inboxes != inboxes
        {
            return Err(Error::View(format!(
                "its conversations have {} messages, its inboxes {}, its groups {}; its mark says {} and {}",
                listed.conversations, listed.inboxes, listed.groups, heads.direct, heads.group
            )));
        }
        Ok(())
    }

    fn check_messages(&self, mark: &Mark) -> Result<(), Error> {
        let (last, heads) = (self.last_ids()?, mark.applied.heads);
        if last != heads {
            return Err(Error::View(format!(
                "its last ids are {} and {}, its mark says {} and {}",
                last.direct, last.group, heads.direct, heads.group
            )));
        }
        for sequence in Sequence::ALL {
            let ids = mark.applied.floor.of(sequence) + 1..;
            for (next, row) in ids.zip(self.tree(sequence)) {
                let (key, value) = row?;
                if key::last_id(&key) != Some(next) {
                    return Err(Error::View(format!("{sequence} message {next} is missing")));
                }
                decode_message(next, &value)?;
            }
        }
        Ok(())
    }

    /// Counts the rows, and what is listed: each list rises, and its numbers have no gap.
    fn check_index(&self, mark: &Mark) -> Result<Listed, Error> {
        let (mut rows, mut listed) = (0, Listed::default());
        let mut before: Option<(List, u64, u64)> = None;
        for row in &self.index {
            let (key, value) = row?;
            rows += u64::from(!is_left(&key, &value, mark));
            let Some(list) = List::of(&key) else {
                continue;
            };
            let part = part(list, &key, &value)?;
            let (first, n) = match before {
                Some((same, last, n)) if same == list => (last + 1, n),
                _ => (1, u64::from(part.n > 0)),
            };
            let number = part.number(part.ids.len());
            if part.ids.first().is_none_or(|id| *id < first) || part.n != n {
                return Err(Error::View(format!(
                    "a list of it is damaged at {key:02x?}"
                )));
            }
            listed.count(list, u64::try_from(part.ids.len()).unwrap_or(u64::MAX));
            let last = part.ids.last().copied().unwrap_or(0);
            before = Some((list, last, if part.n == 0 { 0 } else { number }));
        }
        if rows != mark.rows {
            return Err(Error::View(format!(
                "its index has {rows} rows, its mark says {}",
                mark.rows
            )));
        }
        Ok(listed)
    }

    /// Whether something that was added is kept as it was written.
    pub fn check_addition(&self, addition: &Addition) -> Result<(), Error> {
        if let Some(message) = addition.message() {
            let (sequence, id) = (message.sequence(), message.id);
            if self.indexed(sequence, id)? != **message {
                return Err(Error::View(format!(
                    "{sequence} message {id} is not as in the journal"
                )));
            }
        }
        let mut rows = Vec::new();
        addition.rows(&mut rows);
        if let Some((key, _)) = rows.iter().find(|(key, value)| !self.has(key, value)) {
            return Err(Error::View(format!(
                "a row of its index is missing: {key:02x?}"
            )));
        }
        let mut listed = Ok(());
        addition.lists(|list, id, n| {
            listed = std::mem::replace(&mut listed, Ok(()))
                .and_then(|()| self.check_listed(list, id, n));
        });
        listed
    }

    fn check_listed(&self, list: List, id: u64, n: u64) -> Result<(), Error> {
        let found = self.number_in(list, id)?;
        if found == Some(n) {
            return Ok(());
        }
        Err(Error::View(format!(
            "message {id} is in a list with number {found:?}, where {n} is expected: {:02x?}",
            list.prefix()
        )))
    }
}

/// Whether a row was left by a write that was cut short, and counts only when that is done again.
fn is_left(key: &[u8], value: &[u8], mark: &Mark) -> bool {
    let applied = &mark.applied;
    match key {
        [b'n', kind, ..] => {
            let number = value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            let given = match kind {
                b'u' => applied.users,
                _ => applied.groups,
            };
            number.is_some_and(|number| number > given)
        }
        [b'C', ..] => {
            decode_numbered(value).is_some_and(|(sequence, id)| id > applied.heads.of(sequence))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::view::scan::tests::Story;
    use crate::store::view::tests::opened;

    #[test]
    fn a_row_that_is_lost_or_of_another_time_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let messages = [
            (1, 2),
            (2, 1),
            (3, 3),
            (1, 4),
            (2, 4),
            (1, 2),
            (3, 5),
            (2, 3),
        ];
        let story = Story::new(&messages, 3);
        for window in [story.window(0, 2), story.window(2, 3)] {
            view.write(&window.0, &window.1, &mut |_| Ok(())).unwrap();
        }
        let all = story.window(0, 3).0.additions;
        let noticed = || {
            let listed = |addition| view.check_addition(addition);
            view.check()
                .and_then(|()| all.iter().try_for_each(listed))
                .is_err()
        };
        assert!(!noticed());
        for tree in [&view.index, &view.direct, &view.group] {
            let rows: Vec<_> = tree.iter().map(Result::unwrap).collect();
            for (key, value) in &rows {
                tree.remove(key).unwrap();
                assert!(view.check().is_err(), "{key:02x?} is lost");
                if List::of(key).is_some() && value.len() > 2 {
                    tree.insert(key, &value[..value.len() - 1]).unwrap();
                    assert!(view.check().is_err(), "{key:02x?} is shorter");
                }
                if matches!(key[0], b'c' | b'g') {
                    let mut number = value.to_vec();
                    number[1] += 1;
                    tree.insert(key, number).unwrap();
                    assert!(view.check().is_err(), "{key:02x?} has another number");
                }
                for (other, moved) in &rows {
                    if value != moved {
                        tree.insert(key, moved).unwrap();
                        assert!(noticed(), "{key:02x?} is as {other:02x?}");
                    }
                }
                tree.insert(key, value).unwrap();
            }
            assert!(!noticed());
        }
    }
}
