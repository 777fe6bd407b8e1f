//! A part of the tail: the messages of some entries in a row, lists of them, and what is to be kept of the entries.

use std::collections::HashMap;
use std::hash::Hash;
use std::iter::once;
use std::sync::Arc;

use crate::model::{Message, Position, Sequence, UserName};
use crate::store::{Addition, Applied, Change, Numbered, Writes};

/// What a message, a name or a change takes in memory, roughly, besides what it says.
const ADDED_BYTES: u64 = 400;

/// A direct message, as lists of conversations need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) struct Contact {
    pub(in crate::hub) id: u64,
    /// The number of the other user.
    pub(in crate::hub) peer: u32,
    /// Whether it is the first of their conversation.
    pub(in crate::hub) first: bool,
}

/// A part of the tail that is sealed at once.
#[derive(Debug)]
pub(in crate::hub) struct Window {
    /// Messages by the users who may see them.
    direct: Line<UserName>,
    /// The numbers of who sent each of them, and to whom.
    pairs: Vec<(u32, u32)>,
    /// Messages by the number of their group.
    group: Line<u32>,
    /// Users who were named for the first time.
    users: HashMap<UserName, u32>,
    /// Numbers given in users' channels.
    channels: HashMap<u32, Vec<Numbered>>,
    /// The last numbers of channels that were closed.
    forgotten: HashMap<u32, u64>,
    /// What is to be kept of it.
    pub(super) writes: Writes,
    /// The mark of its last entry.
    pub(super) applied: Applied,
    /// What it takes in memory, roughly.
    pub(super) bytes: u64,
}

/// The messages of one sequence in a window, and lists of them.
#[derive(Debug)]
struct Line<K> {
    /// The id before the first.
    base: u64,
    messages: Vec<Arc<Message>>,
    /// Places in `messages`, rising.
    lists: HashMap<K, Vec<u32>>,
}

impl<K: Hash + Eq> Line<K> {
    fn after(base: u64) -> Self {
        Self {
            base,
            messages: Vec::new(),
            lists: HashMap::new(),
        }
    }

    fn id(&self, place: u32) -> u64 {
        self.base + 1 + u64::from(place)
    }

    fn last(&self) -> u64 {
        self.base + u64::try_from(self.messages.len()).expect("a length fits 64 bits")
    }

    fn push(&mut self, message: &Arc<Message>, lists: impl IntoIterator<Item = K>) {
        assert!(
            message.id == self.last() + 1,
            "message {} follows {}",
            message.id,
            self.last()
        );
        let place = u32::try_from(self.messages.len()).expect("a window is smaller");
        self.messages.push(Arc::clone(message));
        for list in lists {
            self.lists.entry(list).or_default().push(place);
        }
    }

    fn get(&self, id: u64) -> Option<&Arc<Message>> {
        let place = usize::try_from(id.checked_sub(self.base + 1)?).ok()?;
        self.messages.get(place)
    }

    /// The places of a list within `after < id <= upto`.
    fn places<'a>(&self, list: Option<&'a Vec<u32>>, after: u64, upto: u64) -> &'a [u32] {
        let places = list.map_or(&[][..], Vec::as_slice);
        let from = places.partition_point(|place| self.id(*place) <= after);
        let to = places.partition_point(|place| self.id(*place) <= upto);
        places.get(from..to).unwrap_or_default()
    }

    /// Those of a list within `after < id <= upto`.
    fn listed<'a>(
        &'a self,
        list: Option<&'a Vec<u32>>,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Message>> {
        let places = self.places(list, after, upto).iter();
        places.filter_map(|place| self.get(self.id(*place)))
    }
}

impl Window {
    /// An empty one, behind an entry.
    pub(super) fn after(applied: Applied) -> Self {
        Self {
            direct: Line::after(applied.heads.direct),
            pairs: Vec::new(),
            group: Line::after(applied.heads.group),
            users: HashMap::new(),
            channels: HashMap::new(),
            forgotten: HashMap::new(),
            writes: Writes::default(),
            applied,
            bytes: 0,
        }
    }

    /// How many ids of each sequence are in it.
    pub(super) fn ids(&self) -> Position {
        Position {
            direct: self.direct.last() - self.direct.base,
            group: self.group.last() - self.group.base,
        }
    }

    /// Adds the next entry, whose commands weigh so much.
    pub(super) fn add(&mut self, writes: Writes, applied: Applied, weight: u64) {
        let added = writes.additions.len() + writes.changes.len();
        self.bytes += weight + ADDED_BYTES * u64::try_from(added).expect("a length fits 64 bits");
        for addition in &writes.additions {
            match addition {
                Addition::User { name, number } => {
                    self.users.insert(name.clone(), *number);
                }
                Addition::DirectMessage { message, from, to } => {
                    self.pairs.push((*from, *to));
                    let to = message.recipient().filter(|to| **to != message.from);
                    let users = once(&message.from).chain(to).cloned();
                    self.direct.push(message, users);
                }
                Addition::GroupMessage { message, group } => self.group.push(message, [*group]),
                Addition::ChannelNumber {
                    user,
                    number,
                    sequence,
                    id,
                } => {
                    let numbers = self.channels.entry(*user).or_default();
                    numbers.push((*number, *sequence, *id));
                }
                Addition::Group { .. } => {}
            }
        }
        for change in &writes.changes {
            if let Change::ChannelClosed { user, last, .. } = change {
                self.forgotten.insert(*user, *last);
            }
        }
        self.writes.append(writes);
        self.applied = applied;
    }

    /// A message by its id, if it is in it.
    pub(super) fn message(&self, sequence: Sequence, id: u64) -> Option<&Arc<Message>> {
        match sequence {
            Sequence::Direct => self.direct.get(id),
            Sequence::Group => self.group.get(id),
        }
    }

    /// The direct messages that a user may see, within `after < id <= upto`.
    pub(super) fn inbox(
        &self,
        user: &UserName,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        let list = self.direct.lists.get(user);
        self.direct.listed(list, after, upto)
    }

    /// The same as [`Contact`]s.
    pub(super) fn contacts(
        &self,
        user: &UserName,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = Contact> {
        let list = self.direct.lists.get(user);
        let places = self.direct.places(list, after, upto).iter();
        places.filter_map(|place| {
            let message = self.direct.get(self.direct.id(*place))?;
            let (from, to) = *self.pairs.get(usize::try_from(*place).ok()?)?;
            Some(Contact {
                id: message.id,
                peer: if message.from == *user { to } else { from },
                first: message.prev == 0,
            })
        })
    }

    /// The messages of two users with each other, within `after < id <= upto`.
    pub(super) fn conversation<'a>(
        &'a self,
        (one, other): (&'a UserName, &'a UserName),
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Message>> {
        let lists = [one, other].map(|user| self.direct.lists.get(user));
        // Whoever has fewer messages: there are few between one who writes to many and one of those.
        let list = lists
            .into_iter()
            .min_by_key(|list| list.map_or(0, Vec::len));
        let listed = self.direct.listed(list.flatten(), after, upto);
        listed.filter(move |message| message.is_between(one, other))
    }

    /// The messages of a group, by its number, within `after < id <= upto`.
    pub(super) fn group(
        &self,
        group: u32,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        let list = self.group.lists.get(&group);
        self.group.listed(list, after, upto)
    }

    /// The number of a user who was named for the first time in it.
    pub(super) fn user(&self, name: &UserName) -> Option<u32> {
        self.users.get(name).copied()
    }

    /// The numbers that were given in a user's channel from one on, with what has them.
    pub(super) fn channel(&self, user: u32, from: u64) -> &[Numbered] {
        let numbers = self.channels.get(&user).map_or(&[][..], Vec::as_slice);
        let at = numbers.partition_point(|(number, ..)| *number < from);
        numbers.get(at..).unwrap_or_default()
    }

    /// The last number of a user's channel that was forgotten, if it was closed.
    pub(super) fn forgotten(&self, user: u32) -> Option<u64> {
        self.forgotten.get(&user).copied()
    }
}
