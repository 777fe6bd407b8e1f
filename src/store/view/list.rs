//! Lists of ids, packed: those of a conversation, of a group, of what one user may see. A list has a row for each part
//! that was written at once, under its first id. Decoding never panics.

use super::key::{self, Key};
use super::rows::Row;
use super::writes::{Addition, Writes};
use crate::model::Sequence;

/// No row has more ids: few rows make sled's leaves large, and few ids are read in vain.
const IDS_MAX: usize = 256;
const VERSION: u8 = 1;

/// Which list, in the order of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    /// Of two users, the lower number first.
    Conversation(u32, u32),
    Group(u32),
    Inbox(u32),
}

/// The ids of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Rising.
    pub(super) ids: Vec<u64>,
    /// The number `n` of the first one; those behind it have the next ones. 0 in an inbox.
    pub(super) n: u64,
}

impl List {
    pub(super) fn conversation(one: u32, other: u32) -> Self {
        Self::Conversation(one.min(other), one.max(other))
    }

    pub(super) fn prefix(self) -> Key {
        match self {
            Self::Conversation(lower, higher) => key::conversation(lower, higher),
            Self::Group(group) => key::group_messages(group),
            Self::Inbox(user) => key::inbox(user),
        }
    }

    /// Of what its messages are.
    pub(super) fn sequence(self) -> Sequence {
        match self {
            Self::Conversation(..) | Self::Inbox(_) => Sequence::Direct,
            Self::Group(_) => Sequence::Group,
        }
    }

    /// Whether its messages have numbers.
    fn numbered(self) -> bool {
        !matches!(self, Self::Inbox(_))
    }

    /// The list of a row; `None` if it is of no list.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let first = key::first_number(key)?;
        match (key.first()?, key.len()) {
            (b'c', 17) => Some(Self::Conversation(first, key::second_number(key)?)),
            (b'g', 13) => Some(Self::Group(first)),
            (b'u', 13) => Some(Self::Inbox(first)),
            _ => None,
        }
    }

    /// What a row of it holds.
    pub(super) fn decode(self, key: &[u8], value: &[u8]) -> Option<Part> {
        let (&VERSION, mut rest) = value.split_first()? else {
            return None;
        };
        let mut id = key::last_id(key).filter(|id| *id > 0)?;
        let n = if self.numbered() {
            take_varint(&mut rest).filter(|n| *n > 0)?
        } else {
            0
        };
        let mut ids = vec![id];
        while !rest.is_empty() {
            let delta = take_varint(&mut rest).filter(|delta| *delta > 0)?;
            id = id.checked_add(delta)?;
            ids.push(id);
        }
        let last = n.checked_add(u64::try_from(ids.len()).ok()? - 1);
        last.filter(|_| ids.len() <= IDS_MAX)?;
        Some(Part { ids, n })
    }
}

impl Part {
    /// As it is stored behind the first id.
    fn encode(&self, list: List) -> Vec<u8> {
        let mut value = vec![VERSION];
        if list.numbered() {
            put_varint(&mut value, self.n);
        }
        for (before, id) in self.ids.iter().zip(self.ids.iter().skip(1)) {
            put_varint(&mut value, id - before);
        }
        value
    }

    /// The number of the id at a place in it.
    pub(super) fn number(&self, place: usize) -> u64 {
        self.n + u64::try_from(place).expect("a place fits 64 bits")
    }
}

/// A message's place in a list.
type Place = (List, u64, u64);

/// The rows of all lists that get something, in the order of their keys.
pub(super) fn rows(writes: &Writes) -> Vec<Row> {
    let mut places = Vec::new();
    for addition in &writes.additions {
        addition.lists(|list, id, n| places.push((list, id, n)));
    }
    places.sort_unstable();
    let mut rows = Vec::new();
    for list in places.chunk_by(|(one, ..), (other, ..)| one == other) {
        rows.extend(list.chunks(IDS_MAX).filter_map(row));
    }
    rows
}

fn row(places: &[Place]) -> Option<Row> {
    let (list, first, n) = *places.first()?;
    let ids = places.iter().map(|(_, id, _)| *id).collect();
    let key = key::with_id(&list.prefix(), first);
    Some((key, Part { ids, n }.encode(list)))
}

impl Addition {
    /// The lists that it is in, with its id and its number there.
    pub(super) fn lists(&self, mut put: impl FnMut(List, u64, u64)) {
        match self {
            Self::DirectMessage { message, from, to } => {
                put(List::conversation(*from, *to), message.id, message.n);
                put(List::Inbox(*from), message.id, 0);
                if from != to {
                    put(List::Inbox(*to), message.id, 0);
                }
            }
            Self::GroupMessage { message, group } => {
                put(List::Group(*group), message.id, message.n);
            }
            _ => {}
        }
    }
}

/// Seven bits a byte, the lowest first; all but the last byte have the highest bit.
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let [.., low] = value.to_be_bytes();
        value >>= 7;
        if value == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

/// `None`: it is cut, too large, or longer than it need be.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        value |= bits << shift;
        if bits << shift >> shift != bits || (*byte == 0 && shift > 0) {
            return None;
        }
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list() -> impl Strategy<Value = List> {
        prop_oneof![
            (any::<u32>(), any::<u32>()).prop_map(|(one, other)| List::conversation(one, other)),
            any::<u32>().prop_map(List::Group),
            any::<u32>().prop_map(List::Inbox),
        ]
    }

    /// An id or number: most are small.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![1..200_u64, 1..1_u64 << 40, 1..=u64::MAX]
    }

    proptest! {
        #[test]
        fn parts_round_trip(
            list in list(),
            n in number(),
            first in number(),
            deltas in prop::collection::vec(number(), 0..IDS_MAX),
        ) {
            let next = |id: &mut u64, delta| {
                *id = id.checked_add(delta)?;
                Some(*id)
            };
            let ids: Vec<_> = [0].into_iter().chain(deltas).scan(first, next).collect();
            let n = if list.numbered() { n.min(u64::MAX - 256) } else { 0 };
            let part = Part { ids, n };
            let key = key::with_id(&list.prefix(), first);
            let value = part.encode(list);
            prop_assert_eq!(List::of(&key), Some(list));
            prop_assert_eq!(list.decode(&key, &value), Some(part.clone()));
            for length in 0..value.len() {
                let cut = list.decode(&key, &value[..length]);
                let shorter = cut.is_none_or(|cut| {
                    cut.ids.len() < part.ids.len() && part.ids.starts_with(&cut.ids)
                });
                prop_assert!(shorter);
            }
        }

        /// Whatever is read is what would be written: nothing can be misread.
        #[test]
        fn any_bytes_are_read_as_they_would_be_written_or_not_at_all(
            list in list(),
            first in number(),
            value in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff)], 0..20)
                    .prop_map(|rest| [&[VERSION], &rest[..]].concat()),
                prop::collection::vec(1..3_u8, 250..260).prop_map(|rest| [&[VERSION], &rest[..]].concat()),
            ],
        ) {
            let key = key::with_id(&list.prefix(), first);
            if let Some(part) = list.decode(&key, &value) {
                prop_assert!(part.ids.is_sorted_by(|one, next| one < next));
                prop_assert!(part.ids.len() <= IDS_MAX && part.ids[0] == first);
                prop_assert_eq!(list.numbered(), part.n > 0);
                prop_assert_eq!(part.encode(list), value);
            }
        }

        #[test]
        fn any_key_is_that_of_a_list_or_not(key in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(list) = List::of(&key) {
                prop_assert!(key.starts_with(&list.prefix()) || matches!(list, List::Conversation(..)));
            }
        }
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let more = [&max[..9], &[2]].concat();
        let longer = [&max[..9], &[0x81, 1]].concat();
        let (group, inbox) = (List::Group(1), List::Inbox(1));
        let read = |list: List, first: u64, value: &[u8]| {
            let key = key::with_id(&list.prefix(), first);
            let part = list.decode(&key, &[&[VERSION], value].concat());
            part.map(|part| part.ids.len())
        };
        assert_eq!(read(group, 1, &max), Some(1));
        assert_eq!(read(group, 1, &[&max[..], &[1]].concat()), None);
        assert_eq!(read(inbox, u64::MAX - 1, &[1]), Some(2));
        assert_eq!(read(inbox, u64::MAX - 1, &[1, 1]), None);
        assert_eq!(read(inbox, u64::MAX - 1, &[3]), None);
        for value in [&more, &longer] {
            assert_eq!(read(group, 1, value), None);
            assert_eq!(read(inbox, 1, value), None);
        }
        assert_eq!(read(inbox, 1, &[1; IDS_MAX - 1]), Some(IDS_MAX));
        assert_eq!(read(inbox, 1, &[1; IDS_MAX]), None);
        assert_eq!(read(inbox, 0, &[]), None);
    }

    #[test]
    fn lists_are_in_the_order_of_their_keys() {
        let lists = [
            List::conversation(2, 1),
            List::conversation(1, 3),
            List::conversation(2, 2),
            List::Group(1),
            List::Group(256),
            List::Inbox(0),
        ];
        assert!(lists.is_sorted());
        assert!(lists.map(List::prefix).is_sorted());
    }
}
