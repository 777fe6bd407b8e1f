//! A part of the tail: the messages of some entries in a row, lists of them, and what is to be kept of the entries.

use std::collections::HashMap;
use std::hash::Hash;
use std::iter::once;
use std::sync::Arc;

use crate::model::{Message, Position, Sequence, UserName};
use crate::store::{Addition, Applied, Change, Membership, Writes};

/// What a message, a name or a change takes in memory, roughly, besides what it says.
const ADDED_BYTES: u64 = 400;

/// What is known of a direct message besides what it says.
#[derive(Clone, Copy, Debug)]
struct Pair {
    from: u32,
    to: u32,
    /// The last group message before it.
    group_head: u64,
}

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
    /// What else there is to each of them.
    pairs: Vec<Pair>,
    /// Messages by the number of their group.
    group: Line<u32>,
    /// Users who were named for the first time.
    users: HashMap<UserName, u32>,
    /// What users with a channel sent to groups, by the numbers of both: ids.
    sent: HashMap<(u32, u32), Vec<u64>>,
    /// The last numbers of channels that were closed.
    forgotten: HashMap<u32, u64>,
    /// Where in `writes` it is kept that users joined groups and left them, by user and by group.
    moves_of: HashMap<UserName, Vec<u32>>,
    moves_in: HashMap<u32, Vec<u32>>,
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
            sent: HashMap::new(),
            forgotten: HashMap::new(),
            moves_of: HashMap::new(),
            moves_in: HashMap::new(),
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
                Addition::DirectMessage {
                    message,
                    from,
                    to,
                    group_head,
                } => {
                    self.pairs.push(Pair {
                        from: *from,
                        to: *to,
                        group_head: *group_head,
                    });
                    let to = message.recipient().filter(|to| **to != message.from);
                    let users = once(&message.from).chain(to).cloned();
                    self.direct.push(message, users);
                }
                Addition::GroupMessage {
                    message,
                    group,
                    listener,
                } => {
                    self.group.push(message, [*group]);
                    if let Some(user) = listener {
                        let sent = self.sent.entry((*group, *user)).or_default();
                        sent.push(message.id);
                    }
                }
                Addition::Group { .. } => {}
            }
        }
        for (place, change) in (self.writes.changes.len()..).zip(&writes.changes) {
            match change {
                Change::ChannelClosed { user, last } => drop(self.forgotten.insert(*user, *last)),
                Change::Member { group, name, .. } => {
                    let place = u32::try_from(place).expect("a window is smaller");
                    self.moves_of.entry(name.clone()).or_default().push(place);
                    self.moves_in.entry(*group).or_default().push(place);
                }
                _ => {}
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
            let (message, pair) = self.placed(*place)?;
            Some(Contact {
                id: message.id,
                peer: if message.from == *user {
                    pair.to
                } else {
                    pair.from
                },
                first: message.prev == 0,
            })
        })
    }

    fn placed(&self, place: u32) -> Option<(&Arc<Message>, &Pair)> {
        let message = self.direct.get(self.direct.id(place))?;
        Some((message, self.pairs.get(usize::try_from(place).ok()?)?))
    }

    /// The direct messages that a user got, within `after < id <= upto`, each with the last group message before it.
    pub(super) fn received(
        &self,
        user: &UserName,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = (&Arc<Message>, u64)> {
        let list = self.direct.lists.get(user);
        let places = self.direct.places(list, after, upto).iter();
        let placed = places.filter_map(|place| self.placed(*place));
        let received = placed.filter(move |(message, _)| message.recipient() == Some(user));
        received.map(|(message, pair)| (message, pair.group_head))
    }

    /// The last group message before a direct one, if this is in it.
    pub(super) fn group_head(&self, id: u64) -> Option<u64> {
        let place = u32::try_from(id.checked_sub(self.direct.base + 1)?).ok()?;
        self.placed(place).map(|(_, pair)| pair.group_head)
    }

    /// How many messages up to an id a user with a channel sent to a group.
    pub(super) fn sent(&self, group: u32, user: u32, upto: u64) -> usize {
        let sent = self.sent.get(&(group, user));
        sent.map_or(0, |sent| sent.partition_point(|id| *id <= upto))
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

    /// How the intervals of a user were changed.
    pub(super) fn moves_of(
        &self,
        user: &UserName,
    ) -> impl Iterator<Item = ((u32, u64), Option<Membership>)> {
        let moves = self.changes(self.moves_of.get(user));
        moves.filter_map(|change| match change {
            Change::Member {
                group,
                from,
                membership,
                ..
            } => Some(((*group, *from), *membership)),
            _ => None,
        })
    }

    /// Who joined a group and left it.
    pub(super) fn moves_in(&self, group: u32) -> impl Iterator<Item = (u32, Option<UserName>)> {
        let moves = self.changes(self.moves_in.get(&group));
        moves.filter_map(|change| match change {
            Change::Member {
                user,
                name,
                membership,
                ..
            } => {
                let present = membership.is_some_and(|membership| membership.until.is_none());
                Some((*user, present.then(|| name.clone())))
            }
            _ => None,
        })
    }

    fn changes<'a>(&'a self, places: Option<&'a Vec<u32>>) -> impl Iterator<Item = &'a Change> {
        let places = places.into_iter().flatten();
        places.filter_map(|place| self.writes.changes.get(usize::try_from(*place).ok()?))
    }

    /// The last number of a user's channel that was forgotten, if it was closed.
    pub(super) fn forgotten(&self, user: u32) -> Option<u64> {
        self.forgotten.get(&user).copied()
    }
}
