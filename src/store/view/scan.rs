//! Scans of lists, both ways.

use std::{option, vec};

use super::View;
use super::key;
use super::list::{List, Part, Place};
use crate::model::ChainEnd;
use crate::store::error::Error;

impl View {
    /// Ids of a conversation, rising or falling, within `after < id <= upto`.
    pub fn conversation_ids(
        &self,
        users: (u32, u32),
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = Result<u64, Error>> + use<> {
        self.ids(List::conversation(users.0, users.1), after, upto)
    }

    /// Ids of the direct messages that a user may see, within `after < id <= upto`.
    pub fn inbox_ids(
        &self,
        user: u32,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = Result<u64, Error>> + use<> {
        self.ids(List::Inbox(user), after, upto)
    }

    /// Ids of a group's messages within `after < id <= upto`.
    pub fn group_ids(
        &self,
        group: u32,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = Result<u64, Error>> + use<> {
        self.ids(List::Group(group), after, upto)
    }

    /// The end of a group up to a head.
    pub fn last_of_group(&self, group: u32, head: u64) -> Result<ChainEnd, Error> {
        self.end(List::Group(group), head)
    }

    /// The end of a conversation up to a head.
    pub fn last_of_conversation(&self, users: (u32, u32), head: u64) -> Result<ChainEnd, Error> {
        self.end(List::conversation(users.0, users.1), head)
    }

    fn end(&self, list: List, head: u64) -> Result<ChainEnd, Error> {
        let upto = self.written(list, head);
        let Some(part) = self.part_at(list, upto)? else {
            return Ok(ChainEnd::default());
        };
        let place = part.ids.partition_point(|id| *id <= upto) - 1;
        let last = part.ids.get(place).copied();
        Ok(ChainEnd {
            last: last.expect("the first id of a row is not above the bound that finds it"),
            n: part.count_to(place + 1).n,
        })
    }

    /// Whether a list has a message at this place.
    pub(super) fn has_place(&self, place: &Place) -> Result<bool, Error> {
        let Some(part) = self.part_at(place.list, place.id)? else {
            return Ok(false);
        };
        let at = part.ids.binary_search(&place.id);
        Ok(at.is_ok_and(|at| {
            let counted = place.n == 0 || part.count_to(at + 1).n == place.n;
            counted && part.exchanges.get(at).copied() == place.exchange
        }))
    }

    /// The part of a list in which an id would be.
    pub(super) fn part_at(&self, list: List, id: u64) -> Result<Option<Part>, Error> {
        // Before the rows: what becomes one meanwhile is in it already.
        let last = self.last_part(list)?;
        if last
            .as_ref()
            .is_none_or(|last| last.ids.first().is_some_and(|first| *first <= id))
        {
            return Ok(last);
        }
        let prefix = list.prefix();
        let rows = key::with_id(&prefix, 0)..=key::with_id(&prefix, id);
        let row = self.index.range(rows).next_back().transpose()?;
        row.map(|(key, value)| list.read(&key, &value)).transpose()
    }

    /// The parts of a list that may hold ids within `after < id <= upto`, and others.
    pub(super) fn parts(
        &self,
        list: List,
        after: u64,
        upto: u64,
    ) -> Result<impl DoubleEndedIterator<Item = Result<Part, Error>> + use<>, Error> {
        // Before the rows: what becomes one meanwhile is in it already, and in no row up to its first id.
        let last = self.last_part(list)?;
        self.parts_with(list, last, after, upto)
    }

    /// The same with the last part as it was before.
    pub(super) fn parts_with(
        &self,
        list: List,
        last: Option<Part>,
        after: u64,
        upto: u64,
    ) -> Result<impl DoubleEndedIterator<Item = Result<Part, Error>> + use<>, Error> {
        let last = last.filter(|_| after < upto);
        let first = last.as_ref().and_then(|last| last.ids.first());
        let end = first.map_or(upto, |first| upto.min(first - 1));
        let mut rows = None;
        if last.is_some() && after < end {
            let prefix = list.prefix();
            // The row in which the bound lies may hold ids above it.
            let before = key::with_id(&prefix, 0)..=key::with_id(&prefix, after);
            let before = self.index.range(before).next_back().transpose()?;
            let begin =
                before.map_or_else(|| key::with_id(&prefix, after), |(key, _)| key.to_vec());
            rows = Some(self.index.range(begin..=key::with_id(&prefix, end)));
        }
        let rows = rows.into_iter().flatten().map(move |row| {
            let (key, value) = row?;
            list.read(&key, &value)
        });
        Ok(rows.chain(last.map(Ok)))
    }

    fn ids(
        &self,
        list: List,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = Result<u64, Error>> + use<> {
        self.ids_of(list, after, upto, false)
    }

    /// The same; of an inbox perhaps only those that were received.
    pub(super) fn ids_of(
        &self,
        list: List,
        after: u64,
        upto: u64,
        received: bool,
    ) -> impl DoubleEndedIterator<Item = Result<u64, Error>> + use<> {
        let upto = self.written(list, upto);
        let (parts, failed) = match self.parts(list, after, upto) {
            Ok(parts) => (Some(parts), None),
            Err(error) => (None, Some(Err(error))),
        };
        let parts = parts.into_iter().flatten();
        failed
            .into_iter()
            .chain(parts.flat_map(move |part| match part {
                Ok(mut part) => {
                    part.truncate(upto);
                    if received {
                        part.keep_received();
                    }
                    let mut ids = part.ids;
                    ids.drain(..ids.partition_point(|id| *id <= after));
                    Ids::Of(ids.into_iter())
                }
                Err(error) => Ids::Damaged(Some(error).into_iter()),
            }))
    }

    /// A bound of a scan, but not above the mark: lists grow before it is set, and what is above it nobody may see.
    pub(super) fn written(&self, list: List, upto: u64) -> u64 {
        upto.min(self.heads.of(list.sequence()))
    }
}

/// The ids of one part.
enum Ids {
    Of(vec::IntoIter<u64>),
    Damaged(option::IntoIter<Error>),
}

impl Iterator for Ids {
    type Item = Result<u64, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Of(ids) => ids.next().map(Ok),
            Self::Damaged(error) => error.next().map(Err),
        }
    }
}

impl DoubleEndedIterator for Ids {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Of(ids) => ids.next_back().map(Ok),
            Self::Damaged(error) => error.next_back().map(Err),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Body, GroupName, LogId, Message, Receiver, UserName};
    use crate::store::view::aside::STEP_ROWS;
    use crate::store::view::tests::opened;
    use crate::store::{Addition, Applied, Change, GroupState, HistoryMode, Membership, Writes};

    /// Entries, each with the mark behind it, and what the lists hold in the end.
    pub(in crate::store::view) struct Story {
        entries: Vec<(Writes, Applied)>,
        lists: BTreeMap<List, Vec<Place>>,
        /// Since when who is in which group.
        members: BTreeMap<(u32, u32), u64>,
        applied: Applied,
    }

    fn count(count: usize) -> u64 {
        u64::try_from(count).unwrap()
    }

    fn user(number: u32) -> UserName {
        UserName::parse(&format!("user-{number}")).unwrap()
    }

    fn group(number: u32) -> GroupName {
        GroupName::parse(&format!("group-{number}")).unwrap()
    }

    impl Story {
        /// Of messages from users to users, or to groups where the receiver is above 3: some in each entry.
        pub(in crate::store::view) fn new(messages: &[(u32, u32)], entry: usize) -> Self {
            Self::of(messages, entry, |_, _, _, _| ())
        }

        /// The same; whoever sends to a group leaves it behind that, or joins it.
        pub(in crate::store::view) fn with_members(messages: &[(u32, u32)], entry: usize) -> Self {
            Self::of(messages, entry, Self::move_member)
        }

        fn of(
            messages: &[(u32, u32)],
            entry: usize,
            behind: impl Fn(&mut Self, u32, u32, &mut Writes),
        ) -> Self {
            let mut story = Self {
                entries: Vec::new(),
                lists: BTreeMap::new(),
                members: BTreeMap::new(),
                applied: Applied::nothing(LogId([1; 16])),
            };
            for messages in messages.chunks(entry) {
                let mut writes = Writes::default();
                for (from, to) in messages {
                    story.message(*from, *to, &mut writes);
                    if *to > 3 {
                        behind(&mut story, *to, *from, &mut writes);
                    }
                }
                story.applied.offset += 1;
                story.entries.push((writes, story.applied));
            }
            story
        }

        fn message(&mut self, from: u32, to: u32, writes: &mut Writes) {
            // Numbers are given in their order.
            while self.applied.users < from.max(if to > 3 { 0 } else { to }) {
                self.applied.users += 1;
                let number = self.applied.users;
                writes.additions.push(Addition::User {
                    name: user(number),
                    number,
                });
            }
            while to > 3 && self.applied.groups < to {
                self.applied.groups += 1;
                let number = self.applied.groups;
                writes.additions.push(Addition::Group {
                    name: group(number),
                    number,
                });
            }
            let chain = match to {
                0..=3 => List::conversation(from, to),
                _ => List::Group(to),
            };
            let receiver = match to {
                0..=3 => Receiver::User(user(to)),
                _ => Receiver::Group(group(to)),
            };
            let head = self.applied.heads.of_mut(receiver.sequence());
            *head += 1;
            let before = self.lists.get(&chain).map_or(&[][..], Vec::as_slice);
            let message = Arc::new(Message {
                id: *head,
                prev: before.last().map_or(0, |place| place.id),
                n: count(before.len()) + 1,
                at_ms: 1,
                from: user(from),
                to: receiver,
                body: Body::from(b"1".to_vec()),
            });
            let addition = match to {
                0..=3 => Addition::DirectMessage {
                    message,
                    from,
                    to,
                    group_head: self.applied.heads.group,
                },
                // Of those who send, one has a channel.
                _ => Addition::GroupMessage {
                    message,
                    group: to,
                    listener: (from == 2).then_some(from),
                },
            };
            addition.places(|place| self.lists.entry(place.list).or_default().push(place));
            writes.additions.push(addition);
        }

        /// A user who is in a group leaves it, and another one joins it.
        fn move_member(&mut self, group: u32, user: u32, writes: &mut Writes) {
            let (last, id) = (self.applied.heads.group, (group, user));
            let (from, until) = match self.members.remove(&id) {
                Some(from) => (from, Some(last)),
                None => (last, None),
            };
            if until.is_none() {
                self.members.insert(id, from);
            }
            let membership = Membership {
                until,
                all: user == 1,
                joined_ms: from,
            };
            writes.changes.push(Change::Member {
                group,
                user,
                name: self::user(user),
                from,
                membership: Some(membership),
            });
            let members = self.members.range((group, 0)..(group + 1, 0)).count();
            let state = GroupState {
                name: self::group(group),
                history: HistoryMode::Member,
                deleted: false,
                members: count(members),
            };
            writes.changes.push(Change::Group {
                number: group,
                state,
            });
        }

        /// The entries behind one up to another, and the mark behind them.
        pub(in crate::store::view) fn window(&self, from: usize, to: usize) -> (Writes, Applied) {
            let mut writes = Writes::default();
            for (entry, _) in &self.entries[from..to] {
                writes.append(entry.clone());
            }
            (writes, self.entries[to - 1].1)
        }

        /// Each peer of a user up to an id, with their last message, the newest first.
        fn peers(&self, user: u32, upto: u64) -> Vec<(u64, u32)> {
            let places = self.lists.get(&List::Inbox(user)).into_iter().flatten();
            let places = places.filter(|place| place.id <= upto);
            let last: BTreeMap<_, _> = places
                .map(|place| (place.exchange.unwrap().peer, place.id))
                .collect();
            let mut last: Vec<_> = last.into_iter().map(|(peer, id)| (id, peer)).collect();
            last.sort_unstable_by(|one, other| other.cmp(one));
            last
        }

        pub(in crate::store::view) fn len(&self) -> usize {
            self.entries.len()
        }

        /// The lists that there are up to an id of either sequence.
        pub(in crate::store::view) fn ids(
            &self,
            upto: u64,
        ) -> impl Iterator<Item = (List, Vec<u64>)> {
            let all = self.lists.iter().map(move |(list, places)| {
                let ids = places.iter().map(|place| place.id);
                (*list, ids.filter(|id| *id <= upto).collect::<Vec<_>>())
            });
            all.filter(|(_, ids)| !ids.is_empty())
        }
    }

    /// With whom a user has had conversations up to an id, the newest first.
    fn peers(view: &View, user: u32, upto: u64) -> Vec<(u64, u32)> {
        let first = |all: &mut dyn Iterator<Item = Result<(u64, u32), Error>>| {
            let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
            for last in all {
                let (id, peer) = last.unwrap();
                if seen.insert(peer) {
                    found.push((id, peer));
                }
            }
            found
        };
        let found = first(&mut view.peers_of_all(user, upto).unwrap());
        if view.is_written_to(upto) {
            assert_eq!(first(&mut view.peers(user, upto).unwrap()), found);
        }
        let conversations = view.conversations(user, upto).unwrap();
        assert_eq!(count(found.len()), conversations);
        found
    }

    fn write(view: &View, (writes, applied): (Writes, Applied)) {
        view.write(&writes, &applied, &mut |_| Ok(())).unwrap();
    }

    /// Some ids of a list, with its bounds: those that are written.
    fn expected(story: &Story, view: &View, list: List, after: u64, upto: u64) -> Vec<u64> {
        let upto = view.written(list, upto);
        let ids = story.lists.get(&list).map_or(&[][..], Vec::as_slice);
        let ids = ids.iter().map(|place| place.id);
        ids.filter(|id| after < *id && *id <= upto).collect()
    }

    /// Reads a list from both ends, as the bits say, and its end.
    fn check_scan(story: &Story, view: &View, list: List, (after, upto, ends): (u64, u64, u64)) {
        let expected = expected(story, view, list, after, upto);
        let mut ids = view.ids(list, after, upto);
        let (mut front, mut back) = (Vec::new(), Vec::new());
        for turn in 0.. {
            let from_back = ends >> (turn % 64) & 1 == 1;
            let id = if from_back {
                ids.next_back()
            } else {
                ids.next()
            };
            let Some(id) = id else { break };
            if from_back { &mut back } else { &mut front }.push(id.unwrap());
        }
        assert!(ids.next().is_none() && ids.next_back().is_none());
        back.reverse();
        front.extend(back);
        assert_eq!(front, expected, "{list:?} {after} {upto}");
        let all = story.lists.get(&list).map_or(&[][..], Vec::as_slice);
        let written = all
            .iter()
            .filter(|place| place.id <= view.written(list, u64::MAX));
        for place in written.clone() {
            assert!(view.has_place(place).unwrap());
            let mut other = *place;
            match &mut other.exchange {
                Some(exchange) => exchange.first = !exchange.first,
                None if matches!(list, List::Sent(..)) => other.id += 1 << 32,
                None => other.n += 1,
            }
            assert!(!view.has_place(&other).unwrap());
        }
        let received = |place: &&Place| place.exchange.is_none_or(|exchange| exchange.received);
        let counted = written.filter(received).map(|place| place.id);
        let counted: Vec<_> = counted.filter(|id| *id <= upto).collect();
        assert_eq!(view.count(list, upto).unwrap(), count(counted.len()));
        if let List::Inbox(user) = list {
            let within = counted.iter().filter(|id| **id > after);
            let found: Result<Vec<_>, _> = view.received_ids(user, after, upto).collect();
            assert_eq!(found.unwrap(), within.copied().collect::<Vec<_>>());
            let upto = view.written(list, upto);
            assert_eq!(peers(view, user, upto), story.peers(user, upto));
        }
        let listed = self::expected(story, view, list, 0, upto);
        if !matches!(list, List::Inbox(_)) {
            let (last, n) = (listed.last().copied().unwrap_or(0), count(listed.len()));
            assert_eq!(view.end(list, upto).unwrap(), ChainEnd { last, n });
        }
    }

    fn lists() -> [List; 10] {
        [
            List::conversation(1, 1),
            List::conversation(2, 1),
            List::conversation(3, 2),
            List::Group(4),
            List::Group(5),
            List::Sent(4, 2),
            List::Sent(5, 1),
            List::Inbox(1),
            List::Inbox(2),
            List::Inbox(3),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        /// Windows of any size, some of them cut short and then done again or divided otherwise, also after an open.
        #[test]
        fn scans_both_ways_read_what_was_written(
            messages in prop::collection::vec((1..4_u32, 1..6_u32), 1..1500),
            entry in 1..9_usize,
            windows in prop::collection::vec((1..400_usize, 0..400_usize, 0..200_usize, any::<bool>()), 1..12),
            scans in prop::collection::vec((0..1600_u64, 0..1600_u64, any::<u64>()), 12),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (mut view, _) = opened(folder.path());
            let story = Story::new(&messages, entry);
            let mut at = 0;
            for (size, cut, steps, reopen) in windows {
                if at == story.len() {
                    break;
                }
                if cut > 0 {
                    let (writes, applied) = story.window(at, (at + cut).min(story.len()));
                    // Anywhere, or behind the names and messages.
                    let before = writes.additions.len() / STEP_ROWS;
                    let mut left = if steps < 100 { steps } else { before + steps % 12 };
                    let mut step = |_| {
                        left = left.checked_sub(1).ok_or(Error::OlderView)?;
                        Ok(())
                    };
                    let marked = view.mark().unwrap().applied.offset;
                    let done = view.write(&writes, &applied, &mut step);
                    if view.mark().unwrap().applied.offset > marked {
                        at = (at + cut).min(story.len());
                    }
                    prop_assert!(done.is_ok() || left == 0);
                    if reopen || done.is_err() && count(at) == applied.offset {
                        // An open that was cut short while it took the write back.
                        let mut left = cut % 40;
                        let undone = view.undo(&mut |_| {
                            left = left.checked_sub(1).ok_or(Error::OlderView)?;
                            Ok(())
                        });
                        prop_assert!(undone.is_ok() || left == 0);
                        let seen = view.seen().unwrap();
                        drop(view);
                        view = opened(folder.path()).0;
                        prop_assert_eq!(view.seen().unwrap(), seen);
                        prop_assert_eq!(view.cut_write().unwrap(), None);
                        prop_assert_eq!(view.last_ids().unwrap(), view.heads.get());
                    }
                }
                for list in lists() {
                    check_scan(&story, &view, list, (0, u64::MAX, 0));
                    check_scan(&story, &view, list, (0, u64::MAX, u64::MAX));
                }
                if steps % 2 == 0 {
                    view.check().unwrap();
                }
                if at < story.len() {
                    let to = (at + size).min(story.len());
                    write(&view, story.window(at, to));
                    at = to;
                    prop_assert_eq!(view.db.scan_prefix("r").count(), 0);
                }
                view.check().unwrap();
                for list in lists() {
                    for scan in &scans {
                        check_scan(&story, &view, list, *scan);
                    }
                }
            }
        }
    }

    #[test]
    fn a_scan_of_a_damaged_list_ends_in_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let story = Story::new(&[(1, 2); 600], 600);
        write(&view, story.window(0, 1));
        let list = List::Inbox(1);
        let second = key::with_id(&list.prefix(), 65);
        view.index.insert(second, vec![9]).unwrap();
        let read: Vec<_> = view.inbox_ids(1, 0, 600).collect();
        assert_eq!(read.len(), 600 - 63);
        assert!(matches!(read[64], Err(Error::View(_))));
        assert!(view.inbox_ids(1, 0, 64).all(|id| id.is_ok()));
        assert!(view.inbox_ids(1, 100, 600).next().unwrap().is_err());
        assert_eq!(view.inbox_ids(1, 0, 600).next_back().unwrap().unwrap(), 600);
        assert!(view.part_at(list, 100).is_err());
        let first = key::with_id(&key::recent(1), 1);
        view.index.insert(first, vec![9]).unwrap();
        assert!(view.peers(1, 600).unwrap().any(|peer| peer.is_err()));
        assert!(view.peers_of_all(1, 600).unwrap().any(|peer| peer.is_err()));
        assert!(view.check().is_err());
    }
}
