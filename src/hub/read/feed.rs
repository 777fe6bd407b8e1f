//! One reader's cursor: subscribe, read after the cursor, else wait. Every transport reads through this.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::inbox::{InboxPage, InboxTail, Moment};
use crate::error::Error;
use crate::hub::live::Mailbox;
use crate::hub::{Hub, Inner};
use crate::model::{
    After, Batch, Cursor, PageLimit, Position, Resolution, Sequence, Transport, UserName,
};

/// An open feed of one user. Dropping it ends it.
#[derive(Debug)]
pub struct Feed {
    hub: Hub,
    user: UserName,
    position: Position,
    /// Whether all up to a moment was read, and the mailbox tells what came since.
    caught_up: bool,
    mailbox: Arc<Mailbox>,
    groups: Groups,
}

/// Whether the mailbox is told of messages of the groups that the user is in.
#[derive(Debug)]
enum Groups {
    NotYet,
    /// Not yet, and at the last reading the user was in these.
    At(Moment),
    /// Yes, and joining and leaving is taken over.
    Entered,
}

impl Hub {
    /// Opens a feed of a user's inbox after a cursor: first subscribes, so that nothing is missed, then
    /// checks that this log can go on from there.
    pub fn feed(&self, user: UserName, after: After, transport: Transport) -> Result<Feed, Error> {
        let most = self.0.options.waiters_per_user_max;
        self.feed_of(user, after, transport, most)
    }

    /// The same for the backend, which may read however many feeds the user has open.
    pub fn backend_feed(&self, user: UserName, after: After) -> Result<Feed, Error> {
        self.feed_of(user, after, Transport::Poll, usize::MAX)
    }

    fn feed_of(
        &self,
        user: UserName,
        after: After,
        transport: Transport,
        most: usize,
    ) -> Result<Feed, Error> {
        self.0.open()?;
        let mailbox = self.0.waiters.register(&user, transport, most)?;
        let mut feed = Feed {
            hub: self.clone(),
            user,
            position: Position::default(),
            caught_up: false,
            mailbox,
            groups: Groups::NotYet,
        };
        feed.position = match after {
            // Of every message behind this the mailbox is told, for it is registered.
            After::Now => self.0.tail.heads(),
            After::Cursor(cursor) => self.0.resolve(cursor)?,
        };
        if self.0.closing() {
            return Err(Error::Closing);
        }
        Ok(feed)
    }
}

impl Inner {
    /// Where a cursor stands in this log.
    fn resolve(&self, cursor: Cursor) -> Result<Position, Error> {
        let here = |position| Cursor::new(position, self.lineage.log);
        match self.lineage.resolve(cursor, self.floor, self.tail.heads()) {
            Resolution::GoOn(position) => Ok(position),
            Resolution::Ahead { restart } => Err(Error::CursorAhead {
                restart: here(restart),
            }),
            Resolution::Unknown { restart } => Err(Error::LogUnknown {
                restart: here(restart),
            }),
            Resolution::Gone { first } => Err(Error::CursorGone { first: here(first) }),
        }
    }
}

/// What the tail has of a reading that takes the view, where that is known.
#[derive(Debug)]
pub struct Unread(Option<Box<InboxTail>>);

impl Feed {
    /// What is there now, up to a limit. Empty if nothing is; `next` has moved all the same. With `more`, ask again
    /// at once.
    pub async fn read(&mut self, limit: PageLimit) -> Result<Batch, Error> {
        match self.read_now(limit) {
            Ok(batch) => Ok(batch),
            Err(unread) => self.read_with_view(unread, limit).await,
        }
    }

    /// What [`Self::read_now`] could not read, with the same limit.
    pub async fn read_with_view(
        &mut self,
        Unread(unread): Unread,
        limit: PageLimit,
    ) -> Result<Batch, Error> {
        let (user, after) = (self.user.clone(), self.position);
        let read = self.hub.blocking(move |inner, view| {
            let tail = match unread {
                Some(tail) => *tail,
                None => inner.inbox_with(view, &user, after, limit)?,
            };
            Ok(tail.page_with(view, &user, limit)?)
        });
        Ok(self.given(read.await?))
    }

    /// What is there, if all of it is in the tail; otherwise what [`Self::read_with_view`] begins with.
    pub fn read_now(&mut self, limit: PageLimit) -> Result<Batch, Unread> {
        self.pass_what_is_not_for_it();
        // Also if this reading is given up: then nobody knows what came before the mailbox's next.
        self.caught_up = false;
        let tail = self.hub.0.inbox(&self.user, self.position, limit);
        let tail = tail.ok_or(Unread(None))?;
        let page = tail.page(limit).map_err(|tail| Unread(Some(tail)))?;
        Ok(self.given(page))
    }

    /// Moves behind a page.
    fn given(&mut self, page: InboxPage) -> Batch {
        self.caught_up = !page.more;
        if !matches!(self.groups, Groups::Entered) {
            self.groups = Groups::At(page.moment);
        }
        self.position = page.next;
        Batch {
            messages: page.messages,
            next: self.cursor(),
            more: page.more,
        }
    }

    /// Nothing, from where it stands on.
    pub fn nothing(&self) -> Batch {
        Batch {
            messages: Vec::new(),
            next: self.cursor(),
            more: false,
        }
    }

    /// Resolves when [`Self::read`] may find something, or the hub closes. May be dropped and called again.
    pub async fn wait(&mut self) {
        self.enter_groups();
        poll_fn(|context| {
            if self.caught_up {
                self.mailbox.poll(self.position, context)
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    /// Has the mailbox told of the messages of groups, too. Only who waits needs that; most polls find something first.
    ///
    /// The mailbox was found by its user when the groups were read, so it is told of joining since. Messages that came
    /// since are read again.
    fn enter_groups(&mut self) {
        let Groups::At(moment) = &self.groups else {
            return;
        };
        let present = moment.intervals.iter().filter(|one| one.until.is_none());
        let mut present = present.map(|interval| interval.group.number).peekable();
        if present.peek().is_some() {
            self.hub.0.waiters.enter(&self.mailbox, present);
            // Behind that: who has told others of a message has made it visible before.
            self.caught_up &= self.hub.0.tail.heads().group == moment.group;
        }
        self.groups = Groups::Entered;
    }

    /// Moves up to before the first that came since all was read: what is between is not for this user. So a feed that
    /// was idle for long reads the tail and not what was sealed meanwhile.
    fn pass_what_is_not_for_it(&mut self) {
        // Before the mailbox is asked: it was told of all up to here.
        let told = self.hub.0.told.get();
        let first = self.mailbox.first();
        // A mailbox that is not told of groups knows nothing of what is between.
        if !self.caught_up || !matches!(self.groups, Groups::Entered) {
            return;
        }
        for sequence in Sequence::ALL {
            let passed = match first.of(sequence) {
                0 => told.of(sequence),
                id => id - 1,
            };
            let position = self.position.of_mut(sequence);
            *position = passed.max(*position);
        }
    }

    /// Where the feed stands: everything up to here has been read.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.position, self.hub.0.lineage.log)
    }

    /// Whether the hub is closing.
    pub fn closing(&self) -> bool {
        self.mailbox.closed()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.hub.0.waiters.unregister(&self.user, &self.mailbox);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;
    use crate::hub::{Caches, Durability, GroupChange, Options};
    use crate::model::{Body, Draft, GroupName, Message, Receiver};
    use crate::store::Command;

    /// Only for what must not happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn team() -> GroupName {
        GroupName::parse("team").unwrap()
    }

    fn draft(to: Receiver) -> Draft {
        Draft {
            from: user("ann"),
            to,
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        }
    }

    fn change(add: &[&str], remove: &[&str]) -> Command {
        let names = |names: &[&str]| names.iter().map(|name| user(name)).collect();
        Command::ChangeMembers {
            group: team(),
            add: names(add),
            remove: names(remove),
        }
    }

    fn open(data: &tempfile::TempDir) -> Hub {
        Hub::open(Options {
            durability: Durability::Interval,
            ..Options::small(data.path())
        })
        .unwrap()
    }

    async fn push(hub: &Hub, to: &str) -> u64 {
        let drafts = vec![draft(Receiver::User(user(to)))];
        hub.push(drafts).await.unwrap().remove(0).unwrap().id
    }

    /// Waits and reads until the direct message with this id is there.
    async fn read_to(feed: &mut Feed, last: u64, limit: usize) -> Vec<Arc<Message>> {
        let mut got = Vec::new();
        while ids(&got, Sequence::Direct).last() != Some(&last) {
            timeout(PATIENCE, feed.wait()).await.unwrap();
            got.extend(feed.read(PageLimit::count(limit)).await.unwrap().messages);
        }
        got
    }

    fn ids(messages: &[Arc<Message>], sequence: Sequence) -> Vec<u64> {
        let own = messages.iter().filter(|m| m.sequence() == sequence);
        own.map(|message| message.id).collect()
    }

    /// A feed may be open for long: what a reading misses would be gone for good.
    #[test]
    fn what_comes_while_the_view_is_read_is_given_next_also_if_the_reading_is_given_up() {
        let data = tempfile::tempdir().unwrap();
        let hub = open(&data);
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        for (limit, given_up) in [(1, false), (2, false), (9, false), (1, true), (9, true)] {
            let first = runtime.block_on(push(&hub, "bob"));
            runtime.block_on(push(&hub, "bob"));
            let position = Position {
                direct: first - 1,
                group: 0,
            };
            let after = After::Cursor(Cursor::new(position, hub.log()));
            let mut feed = hub.feed(user("bob"), after, Transport::Sse).unwrap();
            hub.seal_all();
            // The reading stops here, behind its beginning.
            let held = hub.0.view.write().unwrap();
            let mut reading = Box::pin(feed.read(PageLimit::count(limit)));
            runtime.block_on(async {
                assert!(timeout(Duration::ZERO, &mut reading).await.is_err());
                push(&hub, "bob").await;
                // Once this is answered, the mailboxes were told of the one before.
                push(&hub, "carol").await;
            });
            drop(held);
            let mut got = if given_up {
                drop(reading);
                Vec::new()
            } else {
                runtime.block_on(reading).unwrap().messages
            };
            runtime.block_on(async {
                let last = push(&hub, "bob").await;
                got.extend(read_to(&mut feed, last, limit).await);
                let expected = [first, first + 1, first + 2, last];
                assert_eq!(ids(&got, Sequence::Direct), expected, "by {limit}");
            });
        }
        hub.close();
    }

    /// What the mailbox was asked for it does not say again.
    #[test]
    fn a_reading_that_is_given_up_by_a_feed_that_was_caught_up_loses_nothing() {
        let data = tempfile::tempdir().unwrap();
        let hub = open(&data);
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let mut feed = hub.feed(user("bob"), After::Now, Transport::Sse).unwrap();
        runtime.block_on(feed.read(PageLimit::count(9))).unwrap();
        let id = runtime.block_on(push(&hub, "bob"));
        // Once this is answered, the mailboxes were told of the one before.
        runtime.block_on(push(&hub, "carol"));
        hub.seal_all();
        let held = hub.0.view.write().unwrap();
        runtime.block_on(async {
            let reading = feed.read(PageLimit::count(9));
            assert!(timeout(Duration::ZERO, reading).await.is_err());
        });
        drop(held);
        let got = runtime.block_on(read_to(&mut feed, id, 9));
        assert_eq!(ids(&got, Sequence::Direct), [id]);
        hub.close();
    }

    #[tokio::test]
    async fn a_page_from_the_mailbox_says_whether_there_is_more() {
        let data = tempfile::tempdir().unwrap();
        let hub = open(&data);
        let mut feed = hub.feed(user("bob"), After::Now, Transport::Sse).unwrap();
        feed.read(PageLimit::count(9)).await.unwrap();
        for limit in [1, 2, 3, 9] {
            for to in ["bob", "bob", "bob", "carol"] {
                push(&hub, to).await;
            }
            let mut left: usize = 3;
            while left > 0 {
                let batch = feed.read(PageLimit::count(limit)).await.unwrap();
                assert_eq!(batch.messages.len(), limit.min(left));
                left -= batch.messages.len();
                assert_eq!(batch.more, left > 0, "{left} left of a page by {limit}");
            }
        }
        hub.close();
    }

    /// The last of many members is told of a message long after it has become visible.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cursor_does_not_pass_what_is_not_in_the_mailbox_yet() {
        let data = tempfile::tempdir().unwrap();
        let hub = open(&data);
        let before = (0..5000).map(|n| user(&format!("member-{n}")));
        let change = GroupChange::Set {
            members: Some(before.chain([user("zoe")]).collect()),
            history: None,
        };
        hub.change_group(team(), change).await.unwrap();
        let mut feed = hub.feed(user("zoe"), After::Now, Transport::Sse).unwrap();
        feed.read(PageLimit::count(9)).await.unwrap();
        for id in 1..=20 {
            let pusher = hub.clone();
            let drafts = vec![draft(Receiver::Group(team()))];
            let pushed = tokio::spawn(async move { pusher.push(drafts).await });
            loop {
                let batch = feed.read(PageLimit::count(9)).await.unwrap();
                if !batch.messages.is_empty() {
                    assert_eq!(ids(&batch.messages, Sequence::Group), [id]);
                    break;
                }
                assert!(batch.next.position.group < id, "message {id} was passed");
                tokio::task::yield_now().await;
            }
            pushed.await.unwrap().unwrap();
        }
        tokio::task::spawn_blocking(move || hub.close())
            .await
            .unwrap();
    }

    /// Of the groups that its user is in, a mailbox is told only once its feed waits.
    #[tokio::test]
    async fn a_feed_misses_nothing_of_groups_however_its_user_became_a_member() {
        let group = |name: &str| GroupName::parse(name).unwrap();
        let data = tempfile::tempdir().unwrap();
        for memberships_bytes in [0, 1 << 20] {
            let small = Options::small(data.path());
            let hub = Hub::open(Options {
                caches: Caches {
                    memberships_bytes,
                    ..small.caches
                },
                ..small
            })
            .unwrap();
            let send = async |to: &str| {
                let drafts = vec![draft(Receiver::Group(group(to)))];
                let id = hub.push(drafts).await.unwrap().remove(0).unwrap().id;
                // Once this is answered, the mailboxes were told of the one before.
                push(&hub, "carol").await;
                id
            };
            let members = async |of: &str, members: &[&str]| {
                let members = members.iter().map(|name| user(name)).collect();
                let change = GroupChange::Set {
                    members: Some(members),
                    history: None,
                };
                hub.change_group(group(of), change).await.unwrap();
            };
            members("one", &["bob", "cyd"]).await;
            members("other", &[]).await;
            hub.seal_all();
            let mut feed = hub.feed(user("bob"), After::Now, Transport::Sse).unwrap();
            let empty = async |feed: &mut Feed| {
                let batch = feed.read(PageLimit::count(9)).await.unwrap();
                assert!(batch.messages.is_empty() && !batch.more);
            };
            let given = async |feed: &mut Feed, expected: u64| {
                timeout(PATIENCE, feed.wait()).await.unwrap();
                let batch = feed.read(PageLimit::count(9)).await.unwrap();
                assert_eq!(ids(&batch.messages, Sequence::Group), [expected]);
            };
            empty(&mut feed).await;
            // Between reading and waiting, and while it waits.
            for _ in 0..2 {
                let id = send("one").await;
                given(&mut feed, id).await;
            }
            members("other", &["bob"]).await;
            let id = send("other").await;
            given(&mut feed, id).await;
            // What came while its user was none is not for it.
            members("one", &["cyd"]).await;
            send("one").await;
            members("one", &["bob"]).await;
            hub.seal_all();
            let id = send("one").await;
            given(&mut feed, id).await;
            // A feed that has read and not waited, of a user who joins then.
            members("other", &[]).await;
            let mut feed = hub.feed(user("bob"), After::Now, Transport::Sse).unwrap();
            empty(&mut feed).await;
            members("other", &["bob"]).await;
            let id = send("other").await;
            given(&mut feed, id).await;
            let id = send("one").await;
            given(&mut feed, id).await;
            drop(feed);
            hub.close();
        }
    }

    /// What joins and leaves around it in one entry must not tell whom a message is for.
    #[tokio::test]
    async fn a_message_is_for_those_who_are_members_at_its_place_within_an_entry() {
        let data = tempfile::tempdir().unwrap();
        let hub = open(&data);
        let feed = |name, after| hub.feed(user(name), after, Transport::Poll).unwrap();
        let mut waiting = Vec::new();
        for (name, expected) in [("bob", [1, 4].as_slice()), ("cyd", &[2]), ("dan", &[])] {
            let mut feed = feed(name, After::Now);
            assert!(
                feed.read(PageLimit::count(9))
                    .await
                    .unwrap()
                    .messages
                    .is_empty()
            );
            waiting.push((name, feed, expected));
        }
        let made = Command::SetGroup {
            group: team(),
            members: vec![user("bob")],
            history: None,
        };
        let message = || Command::Message(draft(Receiver::Group(team())));
        // A proposal is never divided.
        let commands = vec![
            made,
            message(),
            change(&["cyd"], &["bob"]),
            message(),
            change(&[], &["cyd"]),
            message(),
            change(&["bob", "dan"], &[]),
            change(&[], &["dan"]),
            message(),
        ];
        let opening = hub.0.channels.to_open(&[]);
        hub.0.propose(opening, commands).await.unwrap();
        for (name, mut waited, expected) in waiting {
            let last = push(&hub, name).await;
            let got = read_to(&mut waited, last, 9).await;
            let late = feed(name, After::START)
                .read(PageLimit::count(9))
                .await
                .unwrap()
                .messages;
            for messages in [got, late] {
                assert_eq!(ids(&messages, Sequence::Group), expected, "{name}");
            }
        }
        hub.close();
    }
}
