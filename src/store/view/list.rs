//! Lists of ids, packed: those of a conversation, of a group, of what one user may see. A list has a row for so many
//! ids, under the first of them; its last row grows until it is full. Decoding never panics.

use super::key::{self, Key};
use super::varint::{put_varint, take_varint};
use super::writes::{Addition, Writes};
use crate::model::Sequence;
use crate::store::error::Error;

/// Ids of a full row: few enough to be read and written again while it grows, and so many that a list takes few rows.
pub(super) const ROW_IDS: usize = 64;
const VERSION: u8 = 2;

/// Which list, in the order of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    /// Of two users, the lower number first.
    Conversation(u32, u32),
    Group(u32),
    /// What a user sent to a group: group, user.
    Sent(u32, u32),
    Inbox(u32),
}

/// What an inbox says of a message besides its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exchange {
    /// With whom.
    pub(super) peer: u32,
    /// Whether it is the first of the two.
    pub(super) first: bool,
    /// Whether the user got it: also one to themselves.
    pub(super) received: bool,
}

/// What lists say before their rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Count {
    /// Messages; in an inbox only those that were received.
    pub(super) n: u64,
    /// In an inbox, conversations.
    pub(super) conversations: u64,
}

/// The ids of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Of all before it.
    pub(super) before: Count,
    /// Rising.
    pub(super) ids: Vec<u64>,
    /// In an inbox, one for each id; else none.
    pub(super) exchanges: Vec<Exchange>,
}

/// A message's place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) list: List,
    pub(super) id: u64,
    /// Its number `n`; 0 where only those of the list itself count.
    pub(super) n: u64,
    /// In an inbox.
    pub(super) exchange: Option<Exchange>,
}

impl List {
    pub(super) fn conversation(one: u32, other: u32) -> Self {
        Self::Conversation(one.min(other), one.max(other))
    }

    pub(super) fn prefix(self) -> Key {
        match self {
            Self::Conversation(lower, higher) => key::conversation(lower, higher),
            Self::Group(group) => key::group_messages(group),
            Self::Sent(group, user) => key::sent(group, user),
            Self::Inbox(user) => key::inbox(user),
        }
    }

    /// Of what its messages are.
    pub(super) fn sequence(self) -> Sequence {
        match self {
            Self::Conversation(..) | Self::Inbox(_) => Sequence::Direct,
            Self::Group(_) | Self::Sent(..) => Sequence::Group,
        }
    }

    fn is_inbox(self) -> bool {
        matches!(self, Self::Inbox(_))
    }

    /// The list of a row; `None` if it is of no list.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let first = key::first_number(key)?;
        match (key.first()?, key.len()) {
            (b'c', 17) => Some(Self::Conversation(first, key::second_number(key)?)),
            (b'g', 13) => Some(Self::Group(first)),
            (b's', 17) => Some(Self::Sent(first, key::second_number(key)?)),
            (b'u', 13) => Some(Self::Inbox(first)),
            _ => None,
        }
    }

    /// What a row of it holds, or that this is damaged.
    pub(super) fn read(self, key: &[u8], value: &[u8]) -> Result<Part, Error> {
        let part = self.decode(key, value);
        part.ok_or_else(|| Error::View(format!("a row of its index is not readable: {key:02x?}")))
    }

    /// What a row of it holds.
    pub(super) fn decode(self, key: &[u8], value: &[u8]) -> Option<Part> {
        let (&VERSION, mut rest) = value.split_first()? else {
            return None;
        };
        let mut part = Part::after(Count::default());
        part.before.n = take_varint(&mut rest)?;
        if self.is_inbox() {
            part.before.conversations = take_varint(&mut rest)?;
        }
        let mut id = key::last_id(key).filter(|id| *id > 0)?;
        loop {
            part.ids.push(id);
            if self.is_inbox() {
                part.exchanges
                    .push(Exchange::unpack(take_varint(&mut rest)?)?);
            }
            if rest.is_empty() {
                break;
            }
            let delta = take_varint(&mut rest).filter(|delta| *delta > 0)?;
            id = id.checked_add(delta)?;
        }
        // Neither count overflows.
        let most = u64::try_from(part.ids.len()).ok()?;
        part.before.n.checked_add(most)?;
        part.before.conversations.checked_add(most)?;
        (part.ids.len() <= ROW_IDS).then_some(part)
    }
}

impl Exchange {
    fn pack(self) -> u64 {
        u64::from(self.peer) << 2 | u64::from(self.first) << 1 | u64::from(self.received)
    }

    fn unpack(bits: u64) -> Option<Self> {
        Some(Self {
            peer: u32::try_from(bits >> 2).ok()?,
            first: bits & 2 > 0,
            received: bits & 1 > 0,
        })
    }
}

impl Part {
    /// An empty one behind so many messages.
    pub(super) fn after(before: Count) -> Self {
        Self {
            before,
            ids: Vec::new(),
            exchanges: Vec::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.ids.len() >= ROW_IDS
    }

    pub(super) fn push(&mut self, place: &Place) {
        self.ids.push(place.id);
        self.exchanges.extend(place.exchange);
    }

    /// Forgets what is beyond an id.
    pub(super) fn cut(&mut self, upto: u64) {
        let length = self.ids.partition_point(|id| *id <= upto);
        self.ids.truncate(length);
        self.exchanges.truncate(length);
    }

    /// Keeps of an inbox only what was received.
    pub(super) fn keep_received(&mut self) {
        let mut exchanges = self.exchanges.iter();
        let mut received = |_: &u64| exchanges.next().is_some_and(|exchange| exchange.received);
        self.ids.retain(&mut received);
        self.exchanges.retain(|exchange| exchange.received);
    }

    /// Its row.
    pub(super) fn row(&self, list: List) -> Option<(Key, Vec<u8>)> {
        let first = *self.ids.first()?;
        Some((key::with_id(&list.prefix(), first), self.encode(list)))
    }

    /// As it is stored behind the first id.
    fn encode(&self, list: List) -> Vec<u8> {
        let mut value = vec![VERSION];
        put_varint(&mut value, self.before.n);
        if list.is_inbox() {
            put_varint(&mut value, self.before.conversations);
        }
        let mut exchanges = self.exchanges.iter();
        let mut last = None;
        for id in &self.ids {
            if let Some(last) = last {
                put_varint(&mut value, id - last);
            }
            last = Some(id);
            if let Some(exchange) = exchanges.next() {
                put_varint(&mut value, exchange.pack());
            }
        }
        value
    }

    /// What there is up to its end.
    pub(super) fn count(&self) -> Count {
        self.count_to(self.ids.len())
    }

    /// What there is up to a place in it, without what is there.
    pub(super) fn count_to(&self, place: usize) -> Count {
        let mut count = self.before;
        if self.exchanges.is_empty() {
            count.n += u64::try_from(place).expect("a place fits 64 bits");
        }
        for exchange in self.exchanges.iter().take(place) {
            count.n += u64::from(exchange.received);
            count.conversations += u64::from(exchange.first);
        }
        count
    }
}

/// The places of all messages, by list and id.
pub(super) fn places(writes: &Writes) -> Vec<Place> {
    let mut places = Vec::new();
    for addition in &writes.additions {
        addition.places(|place| places.push(place));
    }
    places.sort_unstable();
    places
}

impl Addition {
    /// Where it is listed.
    pub(super) fn places(&self, mut put: impl FnMut(Place)) {
        match self {
            Self::DirectMessage {
                message, from, to, ..
            } => {
                let id = message.id;
                put(Place {
                    list: List::conversation(*from, *to),
                    id,
                    n: message.n,
                    exchange: None,
                });
                let first = message.prev == 0;
                let mut inbox = |user, peer, received| {
                    put(Place {
                        list: List::Inbox(user),
                        id,
                        n: 0,
                        exchange: Some(Exchange {
                            peer,
                            first,
                            received,
                        }),
                    });
                };
                inbox(*to, *from, true);
                if from != to {
                    inbox(*from, *to, false);
                }
            }
            Self::GroupMessage {
                message,
                group,
                listener,
            } => {
                let (id, exchange) = (message.id, None);
                put(Place {
                    list: List::Group(*group),
                    id,
                    n: message.n,
                    exchange,
                });
                if let Some(user) = listener {
                    put(Place {
                        list: List::Sent(*group, *user),
                        id,
                        n: 0,
                        exchange,
                    });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list() -> impl Strategy<Value = List> {
        prop_oneof![
            (any::<u32>(), any::<u32>()).prop_map(|(one, other)| List::conversation(one, other)),
            any::<u32>().prop_map(List::Group),
            (any::<u32>(), any::<u32>()).prop_map(|(group, user)| List::Sent(group, user)),
            any::<u32>().prop_map(List::Inbox),
        ]
    }

    /// An id or number: most are small.
    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![1..200_u64, 1..1_u64 << 40, 1..=u64::MAX]
    }

    fn exchange() -> impl Strategy<Value = Exchange> {
        let exchange = |(peer, first, received)| Exchange {
            peer,
            first,
            received,
        };
        (any::<u32>(), any::<bool>(), any::<bool>()).prop_map(exchange)
    }

    proptest! {
        #[test]
        fn parts_round_trip(
            list in list(),
            (n, conversations) in (number(), number()),
            first in number(),
            deltas in prop::collection::vec((number(), exchange()), 0..ROW_IDS),
        ) {
            let next = |id: &mut u64, (delta, exchange)| {
                *id = id.checked_add(delta)?;
                Some((*id, exchange))
            };
            let alone = Exchange { peer: 7, first: true, received: true };
            let all: Vec<_> = [(0, alone)].into_iter().chain(deltas).scan(first, next).collect();
            let before = Count {
                n: n.min(u64::MAX - 256),
                conversations: if list.is_inbox() { conversations.min(u64::MAX - 256) } else { 0 },
            };
            let mut part = Part::after(before);
            for (id, exchange) in &all {
                let exchange = Some(*exchange).filter(|_| list.is_inbox());
                part.push(&Place { list, id: *id, n: 0, exchange });
            }
            let (key, value) = part.row(list).unwrap();
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
                prop::collection::vec(1..3_u8, 60..130).prop_map(|rest| [&[VERSION], &rest[..]].concat()),
            ],
        ) {
            let key = key::with_id(&list.prefix(), first);
            if let Some(part) = list.decode(&key, &value) {
                prop_assert!(part.ids.is_sorted_by(|one, next| one < next));
                prop_assert!(part.ids.len() <= ROW_IDS && part.ids[0] == first);
                prop_assert_eq!(list.is_inbox(), !part.exchanges.is_empty());
                prop_assert_eq!(part.row(list), Some((key, value)));
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
        let large = [&[0xfe], &max[1..]].concat();
        assert_eq!(read(group, 1, &large), Some(1));
        assert_eq!(read(group, 1, &max), None, "one more is no number");
        assert_eq!(read(group, u64::MAX - 1, &[0, 1]), Some(2));
        assert_eq!(read(group, u64::MAX - 1, &[0, 1, 1]), None);
        assert_eq!(read(inbox, 1, &[0, 0, 4]), Some(1));
        assert_eq!(read(inbox, 1, &[0, 0]), None, "with whom is missing");
        assert_eq!(
            read(inbox, 1, &[&[0, 0][..], &max].concat()),
            None,
            "no such number"
        );
        for value in [&more, &longer] {
            assert_eq!(read(group, 1, value), None);
        }
        assert_eq!(read(group, 1, &[1; ROW_IDS]), Some(ROW_IDS));
        assert_eq!(read(group, 1, &[1; ROW_IDS + 1]), None);
        assert_eq!(read(group, 0, &[0]), None);
    }

    #[test]
    fn lists_are_in_the_order_of_their_keys() {
        let lists = [
            List::conversation(2, 1),
            List::conversation(1, 3),
            List::conversation(2, 2),
            List::Group(1),
            List::Group(256),
            List::Sent(1, 2),
            List::Sent(2, 1),
            List::Inbox(0),
        ];
        assert!(lists.is_sorted());
        assert!(lists.map(List::prefix).is_sorted());
    }
}
