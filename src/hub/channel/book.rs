//! Which channels are open, and which may be opened.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound as Edge;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tracing::warn;

use crate::model::UserName;
use crate::store::{Channel, Command, Error, View};

/// What became of a user's channel.
#[derive(Debug)]
pub(in crate::hub) enum ChannelChange {
    /// With the user's number.
    Opened(u32, Channel),
    Closed(UserName),
}

/// The users whose channels are open or about to be; never more than there may be. How many there may be is a
/// matter of this process, so what applying does knows nothing of it: a channel too many is not proposed.
#[derive(Debug)]
pub(in crate::hub) struct Channels {
    max: usize,
    book: Arc<RwLock<Book>>,
    /// Whether the log has been told that there is no room.
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct Book {
    /// As in the view, with the users' numbers.
    open: BTreeMap<UserName, (u32, Channel)>,
    /// Proposed, and by how many proposals: opening twice is opening once.
    opening: HashMap<UserName, usize>,
    /// How many are in both: a proposal may stand behind one that opens the same, and behind its closing.
    both: usize,
}

impl Book {
    fn len(&self) -> usize {
        self.open.len() + self.opening.len() - self.both
    }

    fn change(&mut self, change: ChannelChange) {
        match change {
            ChannelChange::Opened(number, channel) => {
                let also = self.opening.contains_key(&channel.name);
                let known = self.open.insert(channel.name.clone(), (number, channel));
                self.both += usize::from(also && known.is_none());
            }
            ChannelChange::Closed(user) => {
                let also = self.opening.contains_key(&user);
                let known = self.open.remove(&user);
                self.both -= usize::from(also && known.is_some());
            }
        }
    }

    /// A proposal that opens a channel is over.
    fn proposed(&mut self, user: UserName) {
        let open = self.open.contains_key(&user);
        if let MapEntry::Occupied(mut proposals) = self.opening.entry(user) {
            *proposals.get_mut() -= 1;
            if *proposals.get() == 0 {
                proposals.remove();
                self.both -= usize::from(open);
            }
        }
    }
}

/// The channels that one proposal opens. They count from here on; dropped, only those that are open do.
#[derive(Debug)]
pub(in crate::hub) struct Opening {
    users: Vec<UserName>,
    /// Whether there was no room for others.
    refused: bool,
    book: Arc<RwLock<Book>>,
}

impl Opening {
    /// Whether there was no room for a channel that was to be opened.
    pub(in crate::hub) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether it opens none.
    pub(in crate::hub) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub(in crate::hub) fn commands(&self) -> impl Iterator<Item = Command> {
        let users = self.users.iter().cloned();
        users.map(|user| Command::OpenChannel { user })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.users.is_empty() {
            return;
        }
        let mut book = write(&self.book);
        for user in self.users.drain(..) {
            book.proposed(user);
        }
    }
}

fn read(book: &RwLock<Book>) -> RwLockReadGuard<'_, Book> {
    book.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(book: &RwLock<Book>) -> RwLockWriteGuard<'_, Book> {
    book.write().unwrap_or_else(PoisonError::into_inner)
}

impl Channels {
    /// Reads which are open.
    pub(in crate::hub) fn load(view: &View, max: usize) -> Result<Self, Error> {
        let mut book = Book::default();
        for channel in view.channels() {
            let (user, channel) = channel?;
            book.open.insert(channel.name.clone(), (user, channel));
        }
        Ok(Self {
            max,
            book: Arc::new(RwLock::new(book)),
            told: AtomicBool::new(false),
        })
    }

    /// Takes over what an entry opened and closed. Before its proposals are answered, so that none is ever not counted.
    pub(in crate::hub) fn changed(&self, changes: Vec<ChannelChange>) {
        if changes.is_empty() {
            return;
        }
        let mut book = write(&self.book);
        for change in changes {
            if matches!(change, ChannelChange::Closed(_)) {
                self.told.store(false, Ordering::Relaxed);
            }
            book.change(change);
        }
    }

    /// The channels of those users who have none, as far as there is room.
    pub(in crate::hub) fn to_open<'a>(
        &self,
        users: impl IntoIterator<Item = &'a UserName>,
    ) -> Opening {
        let mut opening = Opening {
            users: Vec::new(),
            refused: false,
            book: Arc::clone(&self.book),
        };
        if self.max == 0 {
            return opening;
        }
        let mut seen = HashSet::new();
        let new: Vec<&UserName> = {
            let book = read(&self.book);
            let users = users.into_iter();
            users
                .filter(|user| !book.open.contains_key(*user) && seen.insert(*user))
                .collect()
        };
        if new.is_empty() {
            return opening;
        }
        let mut book = write(&self.book);
        for user in new {
            if book.open.contains_key(user) {
                continue;
            }
            if book.opening.contains_key(user) || book.len() < self.max {
                *book.opening.entry(user.clone()).or_default() += 1;
                opening.users.push(user.clone());
            } else {
                opening.refused = true;
                self.tell();
            }
        }
        opening
    }

    /// Whether a user's channel is open or about to be.
    pub(in crate::hub) fn has(&self, user: &UserName) -> bool {
        let book = read(&self.book);
        book.open.contains_key(user) || book.opening.contains_key(user)
    }

    /// A user's channel, if it is open, and the user's number.
    pub(in crate::hub) fn get(&self, user: &UserName) -> Option<(u32, Channel)> {
        read(&self.book).open.get(user).cloned()
    }

    /// The users whose channels are open, in the order of their names, after one of them, and at most so many.
    pub(in crate::hub) fn open(&self, after: Option<&UserName>, limit: usize) -> Vec<UserName> {
        let book = read(&self.book);
        let from = after.map_or(Edge::Unbounded, Edge::Excluded);
        let open = book.open.range((from, Edge::Unbounded));
        open.take(limit).map(|(user, _)| user.clone()).collect()
    }

    /// Once: whoever asks for channel after channel must not fill the log.
    fn tell(&self) {
        if !self.told.swap(true, Ordering::Relaxed) {
            warn!(
                limit = self.max,
                "there are as many icomet channels as may be: new ones are refused, see icomet-channels-max"
            );
        }
    }
}

#[cfg(test)]
impl Channels {
    /// How many count.
    pub(in crate::hub) fn taken(&self) -> usize {
        read(&self.book).len()
    }

    /// Whether no proposal holds one.
    pub(in crate::hub) fn none_is_proposed(&self) -> bool {
        let book = read(&self.book);
        book.opening.is_empty() && book.both == 0
    }
}
