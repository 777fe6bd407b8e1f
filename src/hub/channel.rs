//! Channels: gap-free numbers, from 1, of one user's incoming messages, for clients that count messages instead of
//! keeping a cursor (icomet's). Numbering begins when the channel is opened, is part of applying, and never
//! restarts: a channel that was closed, and whose numbers are forgotten, goes on behind them. What a channel costs:
//! one row more for each message and receiver, also of groups.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound as Edge;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tracing::warn;

use super::plan::{ChannelChange, Outcome};
use super::tail::Reading;
use super::{Failure, Hub, Inner};
use crate::error::Error;
use crate::model::{Body, Draft, GroupName, Message, Position, Receipt, Receiver, UserName};
use crate::store::{self, Command, Numbered, View};

/// Bytes of bodies in one part of a channel.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// The name of both.
pub(super) const ICOMET: &str = "icomet";

/// The user from whom messages without a sender come.
pub fn icomet_user() -> UserName {
    UserName::parse(ICOMET).expect("it is a name")
}

/// The group of all that have a channel.
pub fn icomet_group() -> GroupName {
    GroupName::parse(ICOMET).expect("it is a name")
}

/// Part of a channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelPage {
    /// Messages with their numbers, which rise by one.
    pub messages: Vec<(u64, Arc<Message>)>,
    /// The first number that is not forgotten.
    pub first: u64,
    /// The number that the channel's next message will have.
    pub next: u64,
}

/// The users whose channels are open or about to be; never more than there may be. How many there may be is a
/// matter of this process, so what applying does knows nothing of it: a channel too many is not proposed.
#[derive(Debug)]
pub(super) struct Channels {
    max: usize,
    book: Arc<RwLock<Book>>,
    /// Whether the log has been told that there is no room.
    told: AtomicBool,
}

#[derive(Debug, Default)]
struct Book {
    /// As in the view.
    open: BTreeSet<UserName>,
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
            ChannelChange::Opened(user) => {
                let also = self.opening.contains_key(&user);
                let new = self.open.insert(user);
                self.both += usize::from(also && new);
            }
            ChannelChange::Closed(user) => {
                let also = self.opening.contains_key(&user);
                let known = self.open.remove(&user);
                self.both -= usize::from(also && known);
            }
        }
    }

    /// A proposal that opens a channel is over.
    fn proposed(&mut self, user: UserName) {
        let open = self.open.contains(&user);
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
pub(super) struct Opening {
    users: Vec<UserName>,
    /// Whether there was no room for others.
    refused: bool,
    book: Arc<RwLock<Book>>,
}

impl Opening {
    pub(super) fn commands(&self) -> impl Iterator<Item = Command> {
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
    /// Reads which are open, unless none is to be opened.
    pub(super) fn load(view: &View, max: usize) -> Result<Self, store::Error> {
        let mut book = Book::default();
        if max > 0 {
            let names = view.channels().map(|channel| channel.map(|(_, name)| name));
            book.open = names.collect::<Result<_, _>>()?;
        }
        Ok(Self {
            max,
            book: Arc::new(RwLock::new(book)),
            told: AtomicBool::new(false),
        })
    }

    /// Takes over what an entry opened and closed. Before its proposals are answered, so that none is ever not counted.
    pub(super) fn changed(&self, changes: Vec<ChannelChange>) {
        if self.max == 0 || changes.is_empty() {
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
    pub(super) fn to_open<'a>(&self, users: impl IntoIterator<Item = &'a UserName>) -> Opening {
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
                .filter(|user| !book.open.contains(*user) && seen.insert(*user))
                .collect()
        };
        if new.is_empty() {
            return opening;
        }
        let mut book = write(&self.book);
        for user in new {
            if book.open.contains(user) {
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

impl Hub {
    /// Whether a user's channel is open or about to be.
    pub fn has_channel(&self, user: &UserName) -> bool {
        let book = read(&self.0.channels.book);
        book.open.contains(user) || book.opening.contains_key(user)
    }

    /// Opens a user's channel, and does nothing if it is open. `false`: there are as many as may be.
    pub async fn open_channel(&self, user: &UserName) -> Result<bool, Error> {
        let opening = self.0.channels.to_open([user]);
        if opening.refused {
            return Ok(false);
        }
        if !opening.users.is_empty() {
            let answer = self.0.propose(opening, Vec::new()).await?;
            answer.await.map_err(|_| Error::WritesRefused)??;
        }
        Ok(true)
    }

    /// Closes a user's channel and forgets its numbers; messages stay. The number that its next message would have had;
    /// `None`: it was not open.
    pub async fn close_channel(&self, user: UserName) -> Result<Option<u64>, Error> {
        let none = self.0.channels.to_open([]);
        let close = vec![Command::CloseChannel { user }];
        let answer = self.0.propose(none, close).await?;
        let outcomes = answer.await.map_err(|_| Error::WritesRefused)??;
        match outcomes.first() {
            Some(Outcome::Closed(next)) => Ok(*next),
            _ => Err(Error::WritesRefused),
        }
    }

    /// The users whose channels are open, in the order of their names, after one of them, and at most so many.
    pub fn open_channels(&self, after: Option<&UserName>, limit: usize) -> Vec<UserName> {
        let book = read(&self.0.channels.book);
        let from = after.map_or(Edge::Unbounded, Edge::Excluded);
        let open = book.open.range((from, Edge::Unbounded));
        open.take(limit).cloned().collect()
    }

    /// Commits a draft for a user whose channel is open or is opened with it. `None`: there are as many as may be.
    pub async fn push_to_channel(&self, draft: Draft) -> Result<Option<Receipt>, Error> {
        let to = match &draft.to {
            Receiver::User(to) => Some(to),
            Receiver::Group(_) => None,
        };
        let opening = self.0.channels.to_open(to);
        if opening.refused {
            return Ok(None);
        }
        let receipts = self.0.commit(opening, vec![draft]).await?;
        let receipt = receipts.into_iter().next().ok_or(Error::WritesRefused)?;
        receipt.map(Some)
    }

    /// What a user's channel holds from a number on, at most `limit` messages and 1 MiB of bodies. To wait for more,
    /// open a [`Feed`](super::Feed) before.
    pub async fn channel_page(
        &self,
        user: UserName,
        from: u64,
        limit: usize,
    ) -> Result<ChannelPage, Error> {
        self.blocking(move |inner, view| {
            loop {
                let number = inner.tail.read().user(&user);
                // What was let go of since is in the view.
                let number = number.map_or_else(|| view.user(&user), |number| Ok(Some(number)))?;
                let Some(number) = number else {
                    return Ok(ChannelPage {
                        messages: Vec::new(),
                        first: 1,
                        next: 1,
                    });
                };
                let tail = ChannelTail::of(&inner.tail.read(), number, (from, limit));
                let page = inner.channel_page(view, (number, &tail), from, limit)?;
                // Of what is forgotten meanwhile the rows go, and a part of them would look like the whole.
                if page.first == tail.first(view, number)? {
                    return Ok::<_, Failure>(page);
                }
            }
        })
        .await
    }

    /// Sends to all who have a channel. `None`: nobody has one yet.
    pub async fn broadcast(&self, body: Body) -> Result<Option<Receipt>, Error> {
        let draft = Draft {
            from: icomet_user(),
            to: Receiver::Group(icomet_group()),
            body,
            key: None,
            by_user: false,
        };
        match self.push(vec![draft]).await?.into_iter().next() {
            Some(Ok(receipt)) => Ok(Some(receipt)),
            Some(Err(Error::GroupNotFound)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err(Error::WritesRefused),
        }
    }
}

/// What the tail has of a channel.
struct ChannelTail {
    /// The view has all up to here.
    base: Position,
    /// The last number that was forgotten, if it was closed.
    forgotten: u64,
    /// The first number and the last that it has.
    given: Option<(u64, u64)>,
    /// Those from where a page begins, as many as it holds, or all.
    numbers: Vec<Numbered>,
}

impl ChannelTail {
    /// For a page from a number on with at most so many messages.
    fn of(tail: &Reading<'_>, user: u32, (from, limit): (u64, usize)) -> Self {
        let forgotten = tail.forgotten(user).unwrap_or(0);
        let mut given = tail.channel(user, 0).map(|(number, ..)| number);
        let first = given.next();
        let last = given.next_back().or(first);
        let numbers = tail.channel(user, from.max(forgotten + 1));
        Self {
            base: tail.base(),
            forgotten,
            given: first.zip(last),
            numbers: numbers.take(limit).collect(),
        }
    }

    /// The first number that is not forgotten.
    fn first(&self, view: &View, user: u32) -> Result<u64, store::Error> {
        Ok(self.forgotten.max(view.forgotten(user)?.unwrap_or(0)) + 1)
    }
}

impl Inner {
    fn channel_page(
        &self,
        view: &View,
        (user, tail): (u32, &ChannelTail),
        from: u64,
        limit: usize,
    ) -> Result<ChannelPage, store::Error> {
        let first = tail.first(view, user)?;
        // What was sealed since the tail was read is in both.
        let (sealed, last) = if let Some((first, last)) = tail.given {
            (first - 1, last)
        } else {
            let last = view.last_of_channel(user, tail.base)?;
            (last, last)
        };
        let next = last.max(first - 1) + 1;
        let from = from.max(first);
        let below = view.channel_from(user, from);
        let below = below.take_while(|row| row.as_ref().map_or(true, |row| row.0 <= sealed));
        let above = tail.numbers.iter().filter(|row| row.0 >= from);
        let (mut messages, mut bytes) = (Vec::new(), 0);
        for row in below.chain(above.copied().map(Ok)) {
            if messages.len() >= limit || bytes >= PAGE_BYTES_MAX {
                break;
            }
            let (number, sequence, id) = row?;
            let message = self.message(view, sequence, id)?;
            bytes += message.body.as_bytes().len();
            messages.push((number, message));
        }
        Ok(ChannelPage {
            messages,
            first,
            next,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Compared, GroupChange, Options, rebuild, verify};
    use crate::model::{After, PageLimit, Sequence, Transport};

    fn open(data: &std::path::Path, channels_max: usize) -> Hub {
        Hub::open(Options {
            channels_max,
            ..Options::small(data)
        })
        .unwrap()
    }

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    async fn push(hub: &Hub, from: &str, to: Receiver) {
        let draft = Draft {
            from: user(from),
            to,
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        };
        hub.push(vec![draft]).await.unwrap().remove(0).unwrap();
    }

    async fn numbers(hub: &Hub, name: &str, from: u64, limit: usize) -> (String, u64) {
        let page = hub.channel_page(user(name), from, limit).await.unwrap();
        let one = |(number, message): &(u64, Arc<Message>)| match message.sequence() {
            Sequence::Direct => format!("{number}=d{}", message.id),
            Sequence::Group => format!("{number}=g{}", message.id),
        };
        let texts: Vec<_> = page.messages.iter().map(one).collect();
        (texts.join(" "), page.next)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn numbers_begin_with_the_channel_and_outlive_every_start() {
        let data = tempfile::tempdir().unwrap();
        let bob = || Receiver::User(user("bob"));
        let hub = open(data.path(), 0);
        push(&hub, "ann", bob()).await;
        hub.open_channel(&user("bob")).await.unwrap();
        assert_eq!(numbers(&hub, "bob", 0, 9).await, (String::new(), 1));
        hub.close();
        let hub = open(data.path(), 9);
        assert_eq!(hub.broadcast(Body::from(b"0".to_vec())).await, Ok(None));
        push(&hub, "ann", bob()).await;
        push(&hub, "bob", Receiver::User(user("ann"))).await;
        push(&hub, "bob", bob()).await;
        let group = GroupName::parse("team").unwrap();
        let change = GroupChange::Set {
            members: Some(vec![user("bob"), user("cyd")]),
            history: None,
        };
        hub.change_group(group.clone(), change).await.unwrap();
        push(&hub, "ann", Receiver::Group(group.clone())).await;
        push(&hub, "bob", Receiver::Group(group.clone())).await;
        hub.broadcast(Body::from(b"0".to_vec())).await.unwrap();
        let expected = [
            ("ann", "1=d3 2=g3", 3),
            ("bob", "1=d2 2=d4 3=g1 4=g3", 5),
            ("cyd", "1=g1 2=g2 3=g3", 4),
            ("dan", "", 1),
        ];
        for start in 0..4 {
            let hub = match start {
                0 => hub.clone(),
                1 => open(data.path(), 9),
                _ => open(data.path(), 0),
            };
            for (name, all, next) in expected {
                assert_eq!(numbers(&hub, name, 0, 9).await, (all.to_owned(), next));
            }
            assert_eq!(numbers(&hub, "bob", 2, 2).await, ("2=d4 3=g1".into(), 5));
            assert_eq!(numbers(&hub, "bob", 5, 2).await, (String::new(), 5));
            hub.close();
            if start == 2 {
                rebuild(&Options::small(data.path()), false).unwrap();
            }
            let verified = verify(data.path(), 8 << 20, &mut |_, _| ()).unwrap();
            assert_eq!(verified.view, Compared::Same);
        }
        // Without the option an open channel goes on, and none is opened.
        let hub = open(data.path(), 0);
        push(&hub, "ann", bob()).await;
        push(&hub, "ann", Receiver::User(user("dan"))).await;
        assert_eq!(numbers(&hub, "bob", 5, 2).await, ("5=d5".into(), 6));
        assert_eq!(numbers(&hub, "dan", 0, 2).await, (String::new(), 1));
        hub.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_wakes_a_feed_is_in_the_channel_and_nothing_is_skipped() {
        const MESSAGES: u64 = 400;
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path(), 9);
        hub.open_channel(&user("bob")).await.unwrap();
        let group = GroupName::parse("team").unwrap();
        let change = GroupChange::Set {
            members: Some(vec![user("bob")]),
            history: None,
        };
        hub.change_group(group.clone(), change).await.unwrap();
        let writers = [Receiver::User(user("bob")), Receiver::Group(group)].map(|to| {
            let hub = hub.clone();
            tokio::spawn(async move {
                for _ in 0..MESSAGES / 2 {
                    push(&hub, "ann", to.clone()).await;
                }
            })
        });
        let mut feed = hub
            .feed(user("bob"), After::Now, Transport::Icomet)
            .unwrap();
        let mut next = 1;
        while next <= MESSAGES {
            while feed.read(PageLimit::count(1000)).await.unwrap().more {}
            let page = hub.channel_page(user("bob"), next, 7).await.unwrap();
            if page.messages.is_empty() {
                assert_eq!(page.next, next);
                feed.wait().await;
            }
            for (number, _) in page.messages {
                assert_eq!(number, next);
                next += 1;
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
        drop(feed);
        hub.close();
    }

    /// Whether there is room for one more, which is not opened.
    fn fits(hub: &Hub, name: &str) -> bool {
        !hub.0.channels.to_open([&user(name)]).refused
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn there_are_never_more_channels_than_may_be_also_after_a_start_and_a_rebuild() {
        let data = tempfile::tempdir().unwrap();
        let direct = |to: &str| Draft {
            from: user("ann"),
            to: Receiver::User(user(to)),
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        };
        let hub = open(data.path(), 3);
        for name in ["a", "b", "b"] {
            assert_eq!(hub.open_channel(&user(name)).await, Ok(true));
        }
        // In one push there is room for one of two; the messages are stored all the same.
        let receipts = hub.push(vec![direct("c"), direct("d"), direct("c")]).await;
        assert!(receipts.unwrap().iter().all(Result::is_ok));
        hub.close();
        for (start, max) in [3, 2, 3, 4].into_iter().enumerate() {
            match start {
                1 => std::fs::remove_dir_all(data.path().join("sled")).unwrap(),
                2 => drop(rebuild(&Options::small(data.path()), false).unwrap()),
                _ => {}
            }
            let hub = open(data.path(), max);
            assert_eq!(fits(&hub, "e"), max > 3, "start {start}");
            if max <= 3 {
                assert_eq!(hub.open_channel(&user("d")).await, Ok(false));
                assert_eq!(hub.push_to_channel(direct("d")).await, Ok(None));
                hub.push(vec![direct("d")])
                    .await
                    .unwrap()
                    .remove(0)
                    .unwrap();
            }
            for name in ["a", "b", "c"] {
                assert_eq!(hub.open_channel(&user(name)).await, Ok(true));
                assert!(hub.push_to_channel(direct(name)).await.unwrap().is_some());
            }
            hub.close();
        }
        let hub = open(data.path(), 4);
        assert_eq!(numbers(&hub, "d", 0, 9).await, (String::new(), 1));
        assert!(hub.push_to_channel(direct("d")).await.unwrap().is_some());
        assert!(!fits(&hub, "e"));
        assert_eq!(numbers(&hub, "a", 0, 0).await.1, 5);
        assert_eq!(numbers(&hub, "c", 0, 0).await.1, 7);
        assert_eq!(numbers(&hub, "d", 0, 0).await.1, 2);
        hub.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closed_channel_makes_room_and_goes_on_behind_its_numbers_also_after_a_start_and_a_rebuild()
     {
        let data = tempfile::tempdir().unwrap();
        let bob = || Receiver::User(user("bob"));
        let hub = open(data.path(), 1);
        assert_eq!(hub.close_channel(user("bob")).await, Ok(None));
        for _ in 0..200 {
            push(&hub, "ann", bob()).await;
        }
        hub.broadcast(Body::from(b"0".to_vec())).await.unwrap();
        assert!(!fits(&hub, "cyd"));
        assert_eq!(hub.open_channels(None, 9), [user("bob")]);
        assert_eq!(hub.close_channel(user("bob")).await, Ok(Some(202)));
        assert_eq!(hub.close_channel(user("bob")).await, Ok(None));
        assert!(hub.open_channels(None, 9).is_empty() && fits(&hub, "cyd"));
        assert_eq!(numbers(&hub, "bob", 1, 9).await, (String::new(), 202));
        // All of it is still there, and of what comes now nothing has a number.
        let broadcast = hub.broadcast(Body::from(b"0".to_vec()));
        assert!(broadcast.await.unwrap().is_some());
        let draft = Draft {
            from: user("bob"),
            to: Receiver::User(user("bob")),
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: true,
        };
        hub.push(vec![draft]).await.unwrap().remove(0).unwrap();
        assert_eq!(numbers(&hub, "bob", 1, 9).await, (String::new(), 202));
        assert_eq!(hub.open_channel(&user("bob")).await, Ok(true));
        assert!(!fits(&hub, "cyd"));
        push(&hub, "ann", bob()).await;
        for start in 0..4 {
            let hub = match start {
                0 => hub.clone(),
                _ => open(data.path(), 1),
            };
            for from in [0, 1, 64, 201, 202] {
                let expected = ("202=d202".to_owned(), 203);
                assert_eq!(numbers(&hub, "bob", from, 9).await, expected, "{from}");
            }
            assert!(!fits(&hub, "cyd"));
            hub.close();
            if start == 2 {
                rebuild(&Options::small(data.path()), false).unwrap();
            }
            let verified = verify(data.path(), 8 << 20, &mut |_, _| ()).unwrap();
            assert_eq!(verified.view, Compared::Same);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn openings_closings_and_pushes_at_once_are_counted_exactly() {
        const MAX: usize = 4;
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path(), MAX);
        let tasks: Vec<_> = (0..24_usize)
            .map(|task| {
                let hub = hub.clone();
                tokio::spawn(async move {
                    let mut last: HashMap<UserName, u64> = HashMap::new();
                    for round in 0..40 {
                        let name = format!("user-{}", (task + round) % 6);
                        let to = Receiver::User(user(&name));
                        match (task + round / 6) % 3 {
                            0 => drop(hub.open_channel(&user(&name)).await.unwrap()),
                            1 => push(&hub, "ann", to).await,
                            _ => drop(hub.close_channel(user(&name)).await.unwrap()),
                        }
                        assert!(read(&hub.0.channels.book).len() <= MAX);
                        assert!(hub.open_channels(None, 9).len() <= MAX);
                        // No number comes again, and a page has no gap.
                        let page = hub.channel_page(user(&name), 0, 99).await.unwrap();
                        let numbers: Vec<_> = page.messages.iter().map(|m| m.0).collect();
                        let all: Vec<_> = (page.first..page.next).collect();
                        assert_eq!(numbers, all);
                        let before = last.insert(user(&name), page.next);
                        assert!(before <= Some(page.next));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        // What a proposal holds is let go only behind its answer, at the latest with the last thread.
        hub.close();
        let open_now = hub.open_channels(None, 9);
        {
            let book = read(&hub.0.channels.book);
            assert!(book.opening.is_empty() && book.both == 0, "{book:?}");
        }
        let hub = open(data.path(), MAX);
        assert_eq!(hub.open_channels(None, 9), open_now);
        hub.close();
        let verified = verify(data.path(), 8 << 20, &mut |_, _| ()).unwrap();
        assert_eq!(verified.view, Compared::Same);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_get_as_many_channels_as_may_be_and_what_is_not_stored_takes_none() {
        const MAX: usize = 7;
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path(), MAX);
        let asking: Vec<_> = (0..64)
            .map(|n| {
                let (hub, name) = (hub.clone(), user(&format!("user-{}", n % 32)));
                tokio::spawn(async move { (hub.open_channel(&name).await, name) })
            })
            .collect();
        let mut opened = HashSet::new();
        for asked in asking {
            if let (Ok(true), name) = asked.await.unwrap() {
                opened.insert(name);
            }
        }
        assert_eq!(opened.len(), MAX);
        hub.close();
        // What cannot be written is counted only as long as it is tried.
        let hub = open(data.path(), MAX + 1);
        hub.begin_close();
        assert_eq!(hub.open_channel(&user("x")).await, Err(Error::Closing));
        assert!(fits(&hub, "y"));
        hub.close();
    }
}
