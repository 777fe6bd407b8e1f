//! Whether the view is what its mark says: every row readable, every id there and listed, no row missing.

use std::thread::park_timeout;
use std::time::Duration;

use super::block;
use super::key;
use super::list::{Count, List, Part};
use super::mark::Mark;
use super::members::Members;
use super::recent::{self, Recent};
use super::record::{Channel, KeyUse, decode, decode_marked};
use super::{Addition, View};
use crate::model::{Message, Sequence};
use crate::store::error::Error;

/// How long a write that is under way is waited for until it is looked at again, and what this counts for whoever keeps
/// the pace: they are to look for whether to go on.
const WAIT: Duration = Duration::from_millis(1);
const WAIT_BYTES: usize = 1 << 20;
/// What an id takes in a list, roughly.
const ID_BYTES: usize = 4;

/// How many ids are in the lists.
#[derive(Default)]
struct Listed {
    conversations: u64,
    /// Those of a user with themselves.
    alone: u64,
    groups: u64,
    inboxes: u64,
    /// What users with a channel sent to groups.
    sent: u64,
}

impl Listed {
    fn count(&mut self, list: List, ids: usize) {
        let ids = u64::try_from(ids).expect("a length fits 64 bits");
        match list {
            List::Conversation(one, other) => {
                self.conversations += ids;
                if one == other {
                    self.alone += ids;
                }
            }
            List::Group(_) => self.groups += ids,
            List::Inbox(_) => self.inboxes += ids,
            List::Sent(..) => self.sent += ids,
        }
    }
}

/// What there is, up to a mark.
#[derive(Default)]
struct Found {
    /// Rows of the index, also behind the mark.
    rows: u64,
    users: u32,
    groups: u32,
    listed: Listed,
    members: Members,
}

/// Is told the bytes of each row; whether to read on.
type GoesOn<'a> = &'a mut dyn FnMut(usize) -> bool;

impl View {
    /// Reads everything once and compares it with the mark. Pages carry checksums of sled's own; a page that is lost or
    /// stale shows in the counts. What a write that was cut short left is removed before. Not while it is written.
    pub fn check(&self) -> Result<(), Error> {
        self.take_back()?;
        self.check_ends()?;
        let mark = self.mark()?;
        let sent = self.check_messages(&mark, &mut |_| true)?;
        match self.check_index(&mark, false, &mut |_| true)? {
            Some(found) => found.compare_all(&mark, sent.unwrap_or(0)),
            None => Ok(()),
        }
    }

    /// The same while it is written: what is there up to its mark of now, and never changes, is compared; of what changes
    /// it is only seen that it can be read, unless nothing is written meanwhile. Whether all was read.
    pub fn check_while_written(&self, goes_on: GoesOn<'_>) -> Result<bool, Error> {
        let before = self.mark()?;
        let Some(sent) = self.check_messages(&before, goes_on)? else {
            return Ok(false);
        };
        let Some(mark) = self.settled_mark(goes_on)? else {
            return Ok(false);
        };
        let quiet = self.is_quiet()?;
        let Some(found) = self.check_index(&mark, true, goes_on)? else {
            return Ok(false);
        };
        if quiet && self.is_quiet()? && self.mark()? == before {
            found.compare_all(&mark, sent)?;
        }
        Ok(true)
    }

    /// The mark once all that changed with it is in place. `None`: it is not waited for.
    fn settled_mark(&self, goes_on: GoesOn<'_>) -> Result<Option<Mark>, Error> {
        loop {
            let mark = self.mark()?;
            let changes = key::redos(mark.applied.offset);
            if self.db.scan_prefix(changes).next().transpose()?.is_none() {
                return Ok(Some(mark));
            }
            if !goes_on(WAIT_BYTES) {
                return Ok(None);
            }
            park_timeout(WAIT);
        }
    }

    /// Whether nothing is being written: a write is known of until its mark is set, and its changes until they are in place.
    fn is_quiet(&self) -> Result<bool, Error> {
        let written = self.cut_write()?.is_none();
        Ok(written && self.db.scan_prefix(b"r").next().transpose()?.is_none())
    }

    /// Whether the messages end with the mark, or behind it with those of a write that was cut short. What a start has
    /// the time for.
    pub fn check_ends(&self) -> Result<(), Error> {
        let (last, heads) = (self.last_ids()?, self.mark()?.applied.heads);
        let behind = |sequence| last.of(sequence) > heads.of(sequence);
        let missing = |sequence| last.of(sequence) < heads.of(sequence);
        if Sequence::ALL.into_iter().any(missing)
            || Sequence::ALL.into_iter().any(behind) && self.cut_write()?.is_none()
        {
            return Err(Error::View(format!(
                "its last ids are {} and {}, its mark says {} and {}",
                last.direct, last.group, heads.direct, heads.group
            )));
        }
        Ok(())
    }

    /// How many were sent to groups by users with a channel. `None`: not read to their end.
    fn check_messages(&self, mark: &Mark, goes_on: GoesOn<'_>) -> Result<Option<u64>, Error> {
        let mut sent = 0;
        for sequence in Sequence::ALL {
            let head = mark.applied.heads.of(sequence);
            let mut rows = self.tree(sequence).range(..=head.to_be_bytes());
            for id in mark.applied.floor.of(sequence) + 1..=head {
                let row = rows.next().transpose()?;
                let row = row.filter(|(key, _)| key::last_id(key) == Some(id));
                let (key, value) =
                    row.ok_or_else(|| Error::View(format!("{sequence} message {id} is missing")))?;
                let (_, marked) = decode_marked(id, &value)?;
                if sequence == Sequence::Group {
                    sent += marked;
                }
                if !goes_on(key.len() + value.len()) {
                    return Ok(None);
                }
            }
        }
        Ok(Some(sent))
    }

    /// What there is: each list rises, its numbers have no gap, and all together hold what the mark says.
    /// `None`: not read to its end.
    fn check_index(
        &self,
        mark: &Mark,
        written: bool,
        goes_on: GoesOn<'_>,
    ) -> Result<Option<Found>, Error> {
        // The mark last: a write that ended just before has set it.
        let moved = || Ok::<_, Error>(written && (!self.is_quiet()? || self.mark()? != *mark));
        let (mut found, mut before) = (Found::default(), None);
        for row in &self.index {
            let (key, value) = row?;
            if !goes_on(key.len() + value.len()) {
                return Ok(None);
            }
            found.rows += u64::from(!is_left(&key, &value, mark));
            if let Some(list) = List::of(&key) {
                // Whether it is one of the list, and what it holds, is seen with the list's last part.
                list.read(&key, &value)?;
            } else if key.starts_with(key::BLOCKS) {
                for (list, last) in block::lists(&key, &value)? {
                    // A block that was divided meanwhile may be met again in its old size.
                    if before.is_some_and(|before| list <= before) {
                        if moved()? {
                            continue;
                        }
                        return Err(Error::View(format!(
                            "a list of it is there twice: {list:?}"
                        )));
                    }
                    before = Some(list);
                    let Some(ids) = self.check_list((list, last), mark, moved, goes_on)? else {
                        return Ok(None);
                    };
                    found.listed.count(list, ids);
                }
            } else {
                found.check_other(&key, &value, mark)?;
            }
        }
        found.compare(mark)?;
        Ok(Some(found))
    }

    /// How many ids a list has up to the mark, of which this is the last part. `None`: not read to its end.
    fn check_list(
        &self,
        (list, last): (List, Part),
        mark: &Mark,
        moved: impl Fn() -> Result<bool, Error>,
        goes_on: GoesOn<'_>,
    ) -> Result<Option<usize>, Error> {
        let head = mark.applied.heads.of(list.sequence());
        let (mut ids, mut count, mut before) = (0, Count::default(), 0);
        let mut recent = match list {
            List::Inbox(user) => Some(Recent::none(user)),
            _ => None,
        };
        for part in self.parts_with(list, Some(last), 0, u64::MAX)? {
            let mut part = part?;
            if !goes_on(ID_BYTES * part.ids.len()) {
                return Ok(None);
            }
            if part.before != count || part.ids.first().is_some_and(|first| *first <= before) {
                return Err(Error::View(format!("a list of it is damaged: {list:?}")));
            }
            (count, before) = (part.count(), part.ids.last().copied().unwrap_or(before));
            if let Some(recent) = recent.as_mut().filter(|_| part.is_full()) {
                recent.fold(&part);
            }
            // What is written since the mark was read does not count.
            part.truncate(head);
            ids += part.ids.len();
        }
        if before > head && !moved()? {
            return Err(Error::View(format!(
                "a list of it goes beyond the mark: {list:?}"
            )));
        }
        self.check_recent(recent, moved)?;
        Ok(Some(ids))
    }

    /// Whether the rows of a user's conversations are what the inbox gives, unless something was written meanwhile.
    fn check_recent(
        &self,
        recent: Option<Recent>,
        moved: impl Fn() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let Some(recent) = recent else {
            return Ok(());
        };
        let user = recent.user;
        if self.has_recent(recent)? || moved()? {
            return Ok(());
        }
        Err(Error::View(format!(
            "the conversations of user {user} are not those of their inbox"
        )))
    }

    /// Whether something that was added is kept as it was written.
    pub fn check_addition(&self, addition: &Addition) -> Result<(), Error> {
        if let Some((message, mark)) = addition.marked() {
            let (sequence, id) = (message.sequence(), message.id);
            let row = self.tree(sequence).get(id.to_be_bytes())?;
            let found = row.map(|row| decode_marked(id, &row)).transpose()?;
            let same = |(found, other): (Message, u64)| found == **message && other == mark;
            if !found.is_some_and(same) {
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
        let mut places = Vec::new();
        addition.places(|place| places.push(place));
        for place in places {
            if !self.has_place(&place)? {
                return Err(Error::View(format!("a list of it lacks {place:?}")));
            }
        }
        Ok(())
    }
}

impl Found {
    /// Compares what only counts while nothing is written.
    fn compare_all(&self, mark: &Mark, sent: u64) -> Result<(), Error> {
        if self.rows != mark.rows {
            return Err(Error::View(format!(
                "its index has {} rows, its mark says {}",
                self.rows, mark.rows
            )));
        }
        if self.listed.sent != sent {
            return Err(Error::View(format!(
                "{sent} messages to groups are of users with a channel, {} are listed so",
                self.listed.sent
            )));
        }
        self.members.compare()
    }

    fn compare(&self, mark: &Mark) -> Result<(), Error> {
        let Self { listed, .. } = self;
        let (heads, inboxes) = (mark.applied.heads, 2 * listed.conversations - listed.alone);
        if (listed.conversations, listed.groups) != (heads.direct, heads.group)
            || listed.inboxes != inboxes
        {
            return Err(Error::View(format!(
                "its conversations have {} messages, its inboxes {}, its groups {}; its mark says {} and {}",
                listed.conversations, listed.inboxes, listed.groups, heads.direct, heads.group
            )));
        }
        let (users, groups) = (mark.applied.users, mark.applied.groups);
        if (self.users, self.groups) != (users, groups) {
            return Err(Error::View(format!(
                "it has {} users and {} groups, its mark says {users} and {groups}",
                self.users, self.groups
            )));
        }
        Ok(())
    }

    /// A row that is not of a list.
    fn check_other(&mut self, key: &[u8], value: &[u8], mark: &Mark) -> Result<(), Error> {
        match (key, name_number(key, value)) {
            ([b'n', b'u', ..], Some(number)) => {
                self.users += u32::from(number <= mark.applied.users);
            }
            ([b'n', ..], Some(number)) => self.groups += u32::from(number <= mark.applied.groups),
            _ if self.members.count(key, value).is_some() => {}
            _ if is_readable(key, value) => {}
            _ => {
                return Err(Error::View(format!(
                    "a row of its index is not readable: {key:02x?}"
                )));
            }
        }
        Ok(())
    }
}

/// The number that a name has, if it is the row of a name.
fn name_number(key: &[u8], value: &[u8]) -> Option<u32> {
    let number = <[u8; 4]>::try_from(value).ok()?;
    matches!(key, [b'n', b'u' | b'g', ..]).then(|| u32::from_be_bytes(number))
}

/// Whether a row that is of no list, no name and no group can be read.
fn is_readable(key: &[u8], value: &[u8]) -> bool {
    match key.first() {
        Some(b'o') => decode::<Channel>("a channel", value).is_ok(),
        Some(b'p') => recent::decode(key, value).is_some(),
        Some(b'k') => KeyUse::decode(value).is_ok(),
        Some(b'x') => key::expiry_time(key).is_some() && value.len() == 16,
        Some(b'f') => value.len() == 8,
        _ => false,
    }
}

/// Whether a row was left by a write that was cut short, and counts only when that is done again.
fn is_left(key: &[u8], value: &[u8], mark: &Mark) -> bool {
    let applied = &mark.applied;
    match key {
        [b'n', kind, ..] => {
            let given = match kind {
                b'u' => applied.users,
                _ => applied.groups,
            };
            name_number(key, value).is_some_and(|number| number > given)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::view::KEYS_KEPT_MS;
    use crate::store::view::forget::tests::key_used;
    use crate::store::view::scan::tests::Story;
    use crate::store::view::tests::opened;

    impl View {
        /// Makes the end of a user's inbox unreadable.
        pub(crate) fn damage_inbox(&self, user: u32) {
            let block = key::block(&List::Inbox(user).prefix());
            let row = self.index.range(..=block).next_back();
            let (key, _) = row.unwrap().unwrap();
            self.index.insert(key, vec![9]).unwrap();
            self.flush().unwrap();
        }
    }

    #[test]
    fn what_is_written_during_a_check_is_no_damage_and_what_was_lost_before_is() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let messages: Vec<_> = (0..3000).map(|n| (n % 3 + 1, n % 7 + 1)).collect();
        let story = Story::with_members(&messages, 3);
        let windows: Vec<_> = (0..story.len()).step_by(10).collect();
        let checked = |ended: bool| {
            let checked = view.check_while_written(&mut |_| true);
            assert!(checked.unwrap());
            ended
        };
        let write = |from: usize| {
            let (mut writes, applied) = story.window(from, (from + 10).min(story.len()));
            // Keys that come and go.
            writes.keys_ms = KEYS_KEPT_MS / 60 * u64::try_from(from).unwrap();
            let numbers = (from..from + 60).map(|key| u32::try_from(key).unwrap());
            let keys_ms = writes.keys_ms;
            writes
                .changes
                .extend(numbers.map(|key| key_used(key, keys_ms)));
            view.write(&writes, &applied, &mut |_| Ok(())).unwrap();
        };
        write(0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| windows[1..].iter().for_each(|from| write(*from)));
            while !checked(writer.is_finished()) {}
        });
        let mut rows = 0;
        let stopped = view.check_while_written(&mut |_| {
            rows += 1;
            rows < 5
        });
        assert!(matches!((stopped, rows), (Ok(false), 5)));
        view.check().unwrap();
        for prefix in [
            &b"n"[..],
            b"p",
            b"c",
            b"g",
            b"l",
            b"u",
            b"k",
            b"x",
            b"G",
            b"M",
            b"m",
        ] {
            let (key, value) = view.index.scan_prefix(prefix).next().unwrap().unwrap();
            view.index.remove(&key).unwrap();
            let checked = view.check_while_written(&mut |_| true);
            assert!(matches!(checked, Err(Error::View(_))), "{key:02x?} is lost");
            view.index.insert(key, value).unwrap();
        }
        assert!(checked(true));
    }

    #[test]
    fn only_a_write_that_was_cut_short_leaves_messages_behind_the_mark() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let story = Story::new(&[(1, 2); 9], 3);
        let (writes, applied) = story.window(0, 2);
        view.write(&writes, &applied, &mut |_| Ok(())).unwrap();
        view.check_ends().unwrap();
        let last = view.direct.pop_max().unwrap().unwrap();
        assert!(view.check_ends().is_err(), "a message is missing");
        view.direct.insert(&last.0, &last.1).unwrap();
        view.direct.insert(7_u64.to_be_bytes(), &last.1).unwrap();
        assert!(view.check_ends().is_err(), "there is one too many");
        view.begin(3).unwrap();
        view.check_ends().unwrap();
    }

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
        let story = Story::with_members(&messages, 3);
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
