//! One reader's cursor: subscribe, read after the cursor, else wait. Every transport reads through this.

use std::future::poll_fn;
use std::sync::Arc;

use super::wake::{Found, Mailbox};
use super::{Hub, Inner};
use crate::error::Error;
use crate::model::{After, Batch, Cursor, Message, Position, Resolution, Transport, UserName};

/// Bytes of bodies in one batch or page; a longer one says that there is more.
pub(super) const PAGE_BYTES_MAX: usize = 1 << 20;

/// An open feed of one user. Dropping it ends it.
#[derive(Debug)]
pub struct Feed {
    hub: Hub,
    user: UserName,
    position: Position,
    mailbox: Arc<Mailbox>,
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
            mailbox,
        };
        feed.position = match after {
            // Behind this, every message has reached the mailbox or its waker was not yet asked for.
            After::Now => self.0.visible.get(),
            After::Cursor(cursor) => self.0.resolve(cursor)?,
        };
        if self.0.closing() {
            return Err(Error::Closing);
        }
        Ok(feed)
    }
}

impl Inner {
    /// Whether it is known, without reading, that a user has nothing after a position.
    fn nothing_new(&self, user: &UserName, after: Position) -> bool {
        self.recent.none_after(user, after.direct) && self.memberships.none_after(user, after.group)
    }

    /// Where a cursor stands in this log.
    fn resolve(&self, cursor: Cursor) -> Result<Position, Error> {
        let here = |position| Cursor::new(position, self.lineage.log);
        match self.lineage.resolve(cursor, self.floor, self.visible.get()) {
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

impl Feed {
    /// What is there now, at most `limit` messages and 1 MiB of bodies. Empty if nothing is; `next` has moved
    /// all the same. With `more`, ask again at once.
    pub async fn read(&mut self, limit: usize) -> Result<Batch, Error> {
        // Before the mailbox: what was put in it before this is there now.
        let woken = self.hub.0.woken.get();
        match self.mailbox.take(self.position, limit) {
            Found::Nothing => {
                self.advance(woken);
                Ok(self.batch(Vec::new(), false))
            }
            Found::Messages(messages) => {
                let more = self.taken(&messages, woken);
                Ok(self.batch(messages, more))
            }
            Found::Behind => self.read_view(limit).await,
        }
    }

    /// Resolves when [`Self::read`] may find something, or the hub closes. May be dropped and called again.
    pub async fn wait(&mut self) {
        poll_fn(|context| self.mailbox.poll(self.position, context)).await;
    }

    /// Where the feed stands: everything up to here has been read.
    pub fn cursor(&self) -> Cursor {
        Cursor::new(self.position, self.hub.0.lineage.log)
    }

    /// Whether the hub is closing.
    pub fn closing(&self) -> bool {
        self.mailbox.closed()
    }

    /// Moves behind messages from the mailbox; whether it holds more.
    fn taken(&mut self, messages: &[Arc<Message>], woken: Position) -> bool {
        for message in messages {
            *self.position.of_mut(message.sequence()) = message.id;
        }
        match self.mailbox.take(self.position, 0) {
            Found::Nothing => {
                self.advance(woken);
                false
            }
            Found::Messages(_) | Found::Behind => true,
        }
    }

    async fn read_view(&mut self, limit: usize) -> Result<Batch, Error> {
        let reading = Reading::begin(&self.mailbox);
        let upto = self.hub.0.visible.get();
        if self.hub.0.nothing_new(&self.user, self.position) {
            reading.all_was_read();
            self.advance(upto);
            return Ok(self.batch(Vec::new(), false));
        }
        let (user, after) = (self.user.clone(), self.position);
        let read = self
            .hub
            .blocking(move |inner, view| inner.inbox(view, &user, (after, upto), limit));
        let page = read.await?;
        if !page.more {
            reading.all_was_read();
        }
        self.position = page.next;
        Ok(self.batch(page.messages, page.more))
    }

    fn advance(&mut self, to: Position) {
        self.position.direct = self.position.direct.max(to.direct);
        self.position.group = self.position.group.max(to.group);
    }

    fn batch(&self, messages: Vec<Arc<Message>>, more: bool) -> Batch {
        Batch {
            messages,
            next: self.cursor(),
            more,
        }
    }
}

/// A reading of the view. Unless it gets to its end, also when it is dropped, the view must be read again.
struct Reading(Option<Arc<Mailbox>>);

impl Reading {
    fn begin(mailbox: &Arc<Mailbox>) -> Self {
        mailbox.clear();
        Self(Some(Arc::clone(mailbox)))
    }

    fn all_was_read(mut self) {
        self.0 = None;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(mailbox) = &self.0 {
            mailbox.fall_behind();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.hub.0.waiters.unregister(&self.user, &self.mailbox);
    }
}
