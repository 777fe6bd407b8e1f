//! A client that waits: a long poll, or a reply without an end as lines, events or scripts.
//!
//! It has first opened a feed and then reads its channel, so that nothing is missed whatever the timing. Each
//! answer is one write. A reader that takes nothing for too long is cut, and asks again for the number it wants.

use std::pin::pin;

use tokio::time::Instant;

use super::reply::{extra, whole};
use super::text::{self, Form, Kind, Object};
use crate::error::Error;
use crate::http::context::App;
use crate::http::context::channels::Subscribed;
use crate::http::context::in_progress::InProgress;
use crate::http::parked::endless::EndlessReply;
use crate::http::parked::{NextState, Parked, ParkedConnection, Running, Wake};
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::http::session::schedule::jittered;
use crate::http::shutdown::Shutdown;
use crate::hub::{ChannelPage, Feed};
use crate::model::{PageLimit, UserName};

/// Messages of one array.
const ARRAY_MAX: usize = 100;
/// Messages in one writing of an endless reply.
const BATCH_MAX: usize = 32;
/// Messages that a feed has read at once, only to know that they are there.
const SEEN_MAX: usize = 1000;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) feed: Feed,
    pub(super) subscribed: Subscribed,
    pub(super) user: UserName,
    pub(super) form: Form,
    /// The number that the client wants next, as it said.
    pub(super) wanted: i64,
    /// The number to be given next.
    pub(super) next: u64,
    /// The number of the next noop.
    pub(super) noop: i64,
    /// When the token ends.
    pub(super) expires: Option<Instant>,
    /// Counts the request, until it is parked: the connection then has it.
    pub(super) in_progress: Option<InProgress>,
}

/// What became of waiting.
enum Event {
    /// Something may have come.
    Message,
    Noop,
    Closed,
    Expired,
    /// The server stops.
    Stopping,
    /// The peer is gone.
    Left,
}

/// How an endless reply ended.
enum ReplyEnd {
    /// The backend closed the channel: the reply is complete.
    Complete,
    /// There would be more to say later. The reply breaks off, as icomet's does when it stops: iCometClient4j takes
    /// that for a lost connection and comes again, but waits for ever where a reply is complete.
    BrokenOff,
    /// The peer left, or does not read.
    Gone,
}

/// What a poll answers, and how many messages are in it.
type Answer = (String, usize);

impl Parked for Subscriber {
    fn run(self: Box<Self>, mut connection: ParkedConnection<'_>) -> Running<'_> {
        let mut subscriber = *self;
        connection.in_progress = subscriber.in_progress.take();
        if let Form::Poll(_) = subscriber.form {
            subscriber.poll(connection)
        } else {
            subscriber.stream(connection)
        }
    }
}

impl Subscriber {
    /// Answers once.
    fn poll(mut self, mut connection: ParkedConnection<'_>) -> Running<'_> {
        Box::pin(async move {
            let found = match self.answer(&mut connection).await {
                Ok(None) => return NextState::Gone,
                Ok(Some(answer)) => Ok(answer),
                Err(error) => Err(error),
            };
            let keep_alive = connection.may_keep_alive() && !self.feed.closing();
            let (reply, messages) = match found {
                Ok((text, messages)) => (whole(&self.form, text), messages),
                Err(error) => (connection.problem(&Problem::Hub(error)), 0),
            };
            // The waiter goes before the reply is written: a slow peer is not a waiter, but a request in progress.
            connection.resume();
            drop(self);
            connection.answer(reply, messages, keep_alive).await
        })
    }

    /// What a poll answers; none when the peer left. What is short is boxed, and takes no room while it waits.
    async fn answer(
        &mut self,
        connection: &mut ParkedConnection<'_>,
    ) -> Result<Option<Answer>, Error> {
        let app = connection.app;
        let (objects, count) = Box::pin(self.begin(app, ARRAY_MAX)).await?;
        if count > 0 {
            // Even of a single message: clients know a replay by that.
            return Ok(Some((
                self.form.framed(&text::array(&objects).into()),
                count,
            )));
        }
        if let [object] = objects.as_slice() {
            return Ok(Some((self.form.framed(object), 0)));
        }
        let noop = Instant::now() + jittered(app.timeouts.noop);
        loop {
            let event = if self.is_closed(app) {
                Event::Closed
            } else {
                self.event(connection, noop).await
            };
            let (json, count) = match event {
                Event::Message => {
                    let (objects, count) = Box::pin(self.read(app, 1)).await?;
                    match objects.as_slice() {
                        [] => continue,
                        [object] => (object.json.clone(), count),
                        objects => (text::array(objects), count),
                    }
                }
                Event::Left => return Ok(None),
                Event::Closed => (Box::pin(self.closed(app)).await?, 0),
                Event::Expired => (text::sign(Kind::Token, &self.user, 0), 0),
                Event::Noop | Event::Stopping => (text::sign(Kind::Noop, &self.user, self.noop), 0),
            };
            return Ok(Some((self.form.framed(&json.into()), count)));
        }
    }

    /// Where the client stands, and what it is told at once.
    async fn begin(&mut self, app: &App, limit: usize) -> Result<(Vec<Object>, usize), Error> {
        self.look().await?;
        let wanted = u64::try_from(self.wanted).unwrap_or(1);
        let first = app
            .channels()
            .map_or(1, |channels| channels.first(&self.user));
        self.next = wanted.max(first);
        let limit = if wanted == 0 { 0 } else { limit };
        let page = app.hub.channel_page(self.user.clone(), self.next, limit);
        let page = page.await?;
        // icomet tells a client that does not know its number, or is ahead, where to begin.
        if wanted == 0 || wanted > page.next {
            self.next = page.next;
            return Ok((vec![text::next_seq(&self.user, page.next)], 0));
        }
        Ok(self.objects(&page))
    }

    /// What has come.
    async fn read(&mut self, app: &App, limit: usize) -> Result<(Vec<Object>, usize), Error> {
        self.look().await?;
        let page = app.hub.channel_page(self.user.clone(), self.next, limit);
        Ok(self.objects(&page.await?))
    }

    /// Has the feed see all that there is, so that it wakes only for more. Before the channel is read.
    async fn look(&mut self) -> Result<(), Error> {
        while Box::pin(self.feed.read(PageLimit::count(SEEN_MAX)))
            .await?
            .more
        {}
        Ok(())
    }

    fn objects(&mut self, page: &ChannelPage) -> (Vec<Object>, usize) {
        let mut objects = Vec::new();
        for (number, message) in &page.messages {
            objects.append(&mut text::message(&self.user, *number, message));
            self.next = number + 1;
        }
        (objects, page.messages.len())
    }

    async fn closed(&self, app: &App) -> Result<String, Error> {
        let page = app.hub.channel_page(self.user.clone(), 1, 0).await?;
        Ok(text::sign(Kind::Close, &self.user, page.next))
    }

    async fn event(&mut self, connection: &mut ParkedConnection<'_>, noop: Instant) -> Event {
        self.subscribed.waits();
        connection.pause();
        let until = self.expires.map_or(noop, |expires| expires.min(noop));
        let timed = if until < noop {
            Event::Expired
        } else {
            Event::Noop
        };
        let (feed, subscribed) = (&mut self.feed, &mut self.subscribed);
        let event = async {
            tokio::select! {
                biased;
                () = feed.wait() => {
                    if feed.closing() { Event::Stopping } else { Event::Message }
                }
                () = subscribed.closed() => Event::Closed,
            }
        };
        match connection.wait(pin!(event), until).await {
            Wake::Event(event) => event,
            Wake::Disconnected => Event::Left,
            Wake::Shutdown => Event::Stopping,
            Wake::Time => timed,
        }
    }

    /// Whether the backend has closed the channel, also just before this request was there to be ended.
    fn is_closed(&self, app: &App) -> bool {
        self.subscribed.is_closed() || !app.hub.has_channel(&self.user)
    }

    /// Why it is to end, whatever else there is to say.
    fn due(&self, app: &App, shutdown: &Shutdown) -> Option<Event> {
        if self.is_closed(app) {
            Some(Event::Closed)
        } else if shutdown.has_begun() || self.feed.closing() {
            Some(Event::Stopping)
        } else if self
            .expires
            .is_some_and(|expires| expires <= Instant::now())
        {
            Some(Event::Expired)
        } else {
            None
        }
    }

    /// Writes what comes until it ends.
    fn stream(mut self, mut connection: ParkedConnection<'_>) -> Running<'_> {
        Box::pin(async move {
            let reply = Reply {
                more: extra(&self.form),
                ..Reply::stream(self.form.content_type())
            };
            let mut out = EndlessReply::new(&connection.response, &reply);
            drop(reply);
            out.put_texts([self.form.beginning()]);
            let ended = self.deliver(&mut connection, &mut out).await;
            // The waiter goes before the last is written.
            connection.in_progress = None;
            drop(self);
            match ended {
                Ok(ReplyEnd::Complete) => out.end(connection).await,
                Ok(ReplyEnd::BrokenOff) => out.break_off(connection).await,
                Err(error) if out.unbegun() => {
                    let reply = connection.problem(&Problem::Hub(error));
                    connection.answer(reply, 0, false).await
                }
                Ok(ReplyEnd::Gone) | Err(_) => connection.cut(),
            }
        })
    }

    /// Writes until there is a reason to end, and gives the last of it to be written.
    async fn deliver(
        &mut self,
        connection: &mut ParkedConnection<'_>,
        out: &mut EndlessReply,
    ) -> Result<ReplyEnd, Error> {
        let app = connection.app;
        let (mut objects, mut count) = Box::pin(self.begin(app, BATCH_MAX)).await?;
        let mut noop = Instant::now() + jittered(app.timeouts.noop);
        loop {
            if !objects.is_empty() {
                noop = Instant::now() + jittered(app.timeouts.noop);
            }
            out.put_texts(objects.iter().map(|object| self.form.framed(object)));
            if out.send(connection).await.is_err() {
                return Ok(ReplyEnd::Gone);
            }
            app.delivered(count);
            let event = match self.due(app, connection.shutdown) {
                // There may be more.
                None if count > 0 => Event::Message,
                None => self.event(connection, noop).await,
                Some(event) => event,
            };
            let (last, ended) = match event {
                Event::Message => {
                    (objects, count) = Box::pin(self.read(app, BATCH_MAX)).await?;
                    continue;
                }
                Event::Noop => {
                    let object = text::sign(Kind::Noop, &self.user, self.noop);
                    self.noop = self.noop.wrapping_add(1);
                    (objects, count) = (vec![object.into()], 0);
                    continue;
                }
                Event::Left => return Ok(ReplyEnd::Gone),
                Event::Stopping => return Ok(ReplyEnd::BrokenOff),
                Event::Expired => (text::sign(Kind::Token, &self.user, 0), ReplyEnd::BrokenOff),
                Event::Closed => (Box::pin(self.closed(app)).await?, ReplyEnd::Complete),
            };
            out.put_texts([self.form.framed(&last.into())]);
            return Ok(ended);
        }
    }
}
