//! Lists of ids, packed: those of a conversation, of a group, of what one user may see. A list has a row for so many
//! ids, under the first of them; what comes behind these is its last part, which grows in a block (see `block`) until it
//! is full and becomes a row. Decoding never panics.

use super::key::{self, Key};
use super::rows::Row;
use super::varint::{put_varint, take_varint};
use super::writes::{Addition, Writes};
use crate::model::Sequence;
use crate::store::error::Error;

/// Ids of a row: few enough to be read and written again while they grow, and so many that a list takes few rows.
pub(super) const ROW_IDS: usize = 64;
const VERSION: u8 = 3;

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

/// Some ids of a list: those of a row, or its last ones.
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
        Self::of_prefix(key.split_last_chunk::<8>()?.0)
    }

    /// The list whose rows begin so; `None` if there is no such list.
    pub(super) fn of_prefix(prefix: &[u8]) -> Option<Self> {
        let first = key::first_number(prefix)?;
        match (prefix.first()?, prefix.len()) {
            (b'c', 9) => {
                let other = key::second_number(prefix).filter(|other| first <= *other)?;
                Some(Self::Conversation(first, other))
            }
            (b'g', 5) => Some(Self::Group(first)),
            (b's', 9) => Some(Self::Sent(first, key::second_number(prefix)?)),
            (b'u', 5) => Some(Self::Inbox(first)),
            _ => None,
        }
    }

    /// What a row of it holds, or that this is damaged.
    pub(super) fn read(self, key: &[u8], value: &[u8]) -> Result<Part, Error> {
        let part = value.split_first().and_then(|(version, part)| {
            let part = self.decode(part).filter(|_| *version == VERSION)?;
            let is_of_key = part.ids.first().copied() == key::last_id(key);
            Some(part).filter(|part| is_of_key && part.is_full())
        });
        part.ok_or_else(|| Error::View(format!("a row of its index is not readable: {key:02x?}")))
    }

    /// What its last part is, as it is stored in a block, or that this is damaged.
    pub(super) fn read_last(self, part: &[u8]) -> Result<Part, Error> {
        let damaged = || Error::View(format!("the last part of a list is not readable: {self:?}"));
        self.decode(part).ok_or_else(damaged)
    }

    /// What a part of it is, as it is stored.
    pub(super) fn decode(self, mut rest: &[u8]) -> Option<Part> {
        let mut part = Part::after(Count::default());
        part.before.n = take_varint(&mut rest)?;
        if self.is_inbox() {
            part.before.conversations = take_varint(&mut rest)?;
        }
        let mut id = 0_u64;
        while !rest.is_empty() {
            let delta = take_varint(&mut rest).filter(|delta| *delta > 0)?;
            id = id.checked_add(delta)?;
            part.ids.push(id);
            if self.is_inbox() {
                part.exchanges
                    .push(Exchange::unpack(take_varint(&mut rest)?)?);
            }
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
    pub(super) fn truncate(&mut self, upto: u64) {
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

    /// Its row, once it is full.
    pub(super) fn row(&self, list: List) -> Option<Row> {
        let first = *self.ids.first().filter(|_| self.is_full())?;
        let value = [&[VERSION], &self.encode(list)[..]].concat();
        Some((key::with_id(&list.prefix(), first), value))
    }

    /// As it is stored.
    pub(super) fn encode(&self, list: List) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, self.before.n);
        if list.is_inbox() {
            put_varint(&mut bytes, self.before.conversations);
        }
        let mut exchanges = self.exchanges.iter();
        let mut last = 0;
        for id in &self.ids {
            put_varint(&mut bytes, id - last);
            last = *id;
            if let Some(exchange) = exchanges.next() {
                put_varint(&mut bytes, exchange.pack());
            }
        }
        bytes
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
            all in prop::collection::vec((number(), exchange()), 0..=ROW_IDS),
        ) {
            let next = |id: &mut u64, (delta, exchange)| {
                *id = id.checked_add(delta)?;
                Some((*id, exchange))
            };
            let all: Vec<_> = all.into_iter().scan(0, next).collect();
            let before = Count {
                n: n.min(u64::MAX - 256),
                conversations: if list.is_inbox() { conversations.min(u64::MAX - 256) } else { 0 },
            };
            let mut part = Part::after(before);
            for (id, exchange) in &all {
                let exchange = Some(*exchange).filter(|_| list.is_inbox());
                part.push(&Place { list, id: *id, n: 0, exchange });
            }
            let bytes = part.encode(list);
            prop_assert_eq!(list.decode(&bytes), Some(part.clone()));
            for length in 0..bytes.len() {
                let cut = list.decode(&bytes[..length]);
                let shorter = cut.is_none_or(|cut| {
                    cut.ids.len() < part.ids.len() && part.ids.starts_with(&cut.ids)
                });
                prop_assert!(shorter);
            }
            let Some((key, mut value)) = part.row(list) else {
                prop_assert!(!part.is_full());
                return Ok(());
            };
            prop_assert_eq!(List::of(&key), Some(list));
            prop_assert_eq!(list.read(&key, &value).unwrap(), part);
            let other = key::with_id(&list.prefix(), all[1].0);
            prop_assert!(list.read(&other, &value).is_err(), "it begins elsewhere");
            value.pop();
            prop_assert!(list.read(&key, &value).is_err(), "it is not full");
        }

        /// Whatever is read is what would be written: nothing can be misread.
        #[test]
        fn any_bytes_are_read_as_they_would_be_written_or_not_at_all(
            list in list(),
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff)], 0..20),
                prop::collection::vec(1..3_u8, 60..130),
            ],
        ) {
            if let Some(part) = list.decode(&bytes) {
                prop_assert!(part.ids.is_sorted_by(|one, next| one < next) && part.ids.len() <= ROW_IDS);
                prop_assert_eq!(part.exchanges.len(), if list.is_inbox() { part.ids.len() } else { 0 });
                prop_assert_eq!(part.encode(list), bytes);
            }
        }

        #[test]
        fn any_key_is_that_of_a_list_or_not(key in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(list) = List::of(&key) {
                prop_assert!(key.starts_with(&list.prefix()) && key.len() == list.prefix().len() + 8);
            }
        }
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let more = [&max[..9], &[2]].concat();
        let longer = [&max[..9], &[0x81, 1]].concat();
        let (group, inbox) = (List::Group(1), List::Inbox(1));
        let read = |list: List, rest: &[u8]| {
            let part = list.decode(&[&[0], rest].concat());
            part.map(|part| part.ids.len())
        };
        let large = [&[0xfe], &max[1..]].concat();
        assert_eq!(read(group, &max), Some(1));
        assert_eq!(read(group, &large), Some(1));
        let two = [&large[..], &[1]].concat();
        assert_eq!(read(group, &two), Some(2));
        let three = [&two[..], &[1]].concat();
        assert_eq!(read(group, &three), None, "there is no such id");
        let before = |n: &[u8]| group.decode(&[n, &[1]].concat()).is_some();
        assert!(before(&large) && !before(&max), "one more is no number");
        assert_eq!(read(inbox, &[0]), Some(0));
        assert_eq!(read(inbox, &[0, 1, 4]), Some(1));
        assert_eq!(read(inbox, &[0, 1]), None, "with whom is missing");
        let peer = [&[0, 1][..], &max].concat();
        assert_eq!(read(inbox, &peer), None, "no such number");
        for value in [&more, &longer] {
            assert_eq!(read(group, value), None);
        }
        assert_eq!(read(group, &[1; ROW_IDS]), Some(ROW_IDS));
        assert_eq!(read(group, &[1; ROW_IDS + 1]), None);
        assert_eq!(read(group, &[0]), None, "ids begin with 1");
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
