//! A client that waits: a long poll, or a reply without an end as lines, events or scripts.
//!
//! It has first opened a feed and then reads its channel, so that nothing is missed whatever the timing. Each
//! answer is one write. A reader that takes nothing for too long is cut, and asks again for the number it wants.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::headers;
use super::out::Out;
use super::subscribe::{extra, whole};
use super::text::{self, Form, Kind, Object};
use crate::error::Error;
use crate::http::context::App;
use crate::http::context::channels::Subscribed;
use crate::http::context::in_progress::InProgress;
use crate::http::listener::service::Listener;
use crate::http::parked::stopped;
use crate::http::parked::{End, answer, cut, jittered};
use crate::http::response::head::Asked;
use crate::http::response::reply::{Refusal, Reply};
use crate::http::socket::Line;
use crate::http::socket::left;
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
pub(in crate::http) struct Subscriber {
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
    /// Counts the request, but while it waits.
    pub(super) work: InProgress,
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
enum Ended {
    /// The backend closed the channel: the reply is complete.
    Whole,
    /// There would be more to say later. The reply breaks off, as icomet's does when it stops: iCometClient4j takes
    /// that for a lost connection and comes again, but waits for ever where a reply is complete.
    Short,
    /// The peer left, or does not read.
    Gone,
}

/// What a poll answers, and how many messages are in it.
type Answer = (String, usize);

impl Subscriber {
    /// Whether it is answered once.
    pub(super) fn polls(&self) -> bool {
        matches!(self.form, Form::Poll(_))
    }

    /// Answers once.
    pub(super) async fn poll(
        mut self: Box<Self>,
        mut line: Line,
        asked: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let app = &listener.app;
        let found = match self.answer(app, &mut line, shutdown).await {
            Ok(None) => return End::Gone,
            Ok(Some(answer)) => Ok(answer),
            Err(error) => Err(error),
        };
        let keep = asked.keep && !self.feed.closing() && !*shutdown.borrow();
        let (reply, count) = match found {
            Ok((text, count)) => (whole(&self.form, text), count),
            Err(error) => (Reply::refusal(&Refusal::Hub(error), app.hub.log()), 0),
        };
        // The waiter goes before the reply is written: a slow peer is not a waiter, but a request in work.
        let Self {
            feed,
            subscribed,
            mut work,
            ..
        } = *self;
        work.go_on();
        drop((feed, subscribed));
        let end = answer(line, &asked, reply, keep, app.timeouts.patience()).await;
        if !matches!(end, End::Gone) {
            app.delivered(count);
        }
        end
    }

    /// What a poll answers; none when the peer left. What is short is boxed, and takes no room while it waits.
    async fn answer(
        &mut self,
        app: &App,
        line: &mut Line,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Option<Answer>, Error> {
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
                self.event(line, shutdown, noop).await
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
        let first = app.channels().map_or(1, |live| live.first(&self.user));
        self.next = wanted.max(first);
        let limit = if wanted == 0 { 0 } else { limit };
        let page = app.hub.channel_page(self.user.clone(), self.next, limit);
        let page = page.await?;
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

    async fn event(
        &mut self,
        line: &mut Line,
        shutdown: &mut watch::Receiver<bool>,
        noop: Instant,
    ) -> Event {
        self.subscribed.waits();
        self.work.pause();
        let until = self.expires.map_or(noop, |expires| expires.min(noop));
        let timed = if until < noop {
            Event::Expired
        } else {
            Event::Noop
        };
        tokio::select! {
            biased;
            () = self.feed.wait() => {
                if self.feed.closing() { Event::Stopping } else { Event::Message }
            }
            () = self.subscribed.closed() => Event::Closed,
            () = left(line) => Event::Left,
            () = stopped(shutdown) => Event::Stopping,
            () = sleep_until(until) => timed,
        }
    }

    /// Whether the backend has closed the channel, also just before this request was there to be ended.
    fn is_closed(&self, app: &App) -> bool {
        self.subscribed.is_closed() || !app.hub.has_channel(&self.user)
    }

    /// Why it is to end, whatever else there is to say.
    fn due(&self, app: &App, shutdown: &watch::Receiver<bool>) -> Option<Event> {
        if self.is_closed(app) {
            Some(Event::Closed)
        } else if *shutdown.borrow() || self.feed.closing() {
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
    pub(super) async fn stream(
        mut self: Box<Self>,
        mut line: Line,
        asked: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let app = &listener.app;
        let reply = Reply {
            more: headers(extra(&self.form)),
            ..Reply::stream(self.form.content_type())
        };
        let mut out = Out::new(&asked, &reply);
        out.put(self.form.beginning());
        let ended = self.run(app, &mut line, &mut out, shutdown).await;
        // The waiter goes before the last is written.
        drop(self);
        match ended {
            Ok(Ended::Whole) => out.end(app, line).await,
            Ok(Ended::Short) => out.cut_short(app, line).await,
            Err(error) if out.unbegun() => {
                let reply = Reply::refusal(&Refusal::Hub(error), app.hub.log());
                answer(line, &asked, reply, false, app.timeouts.patience()).await
            }
            Ok(Ended::Gone) | Err(_) => cut(&line.stream),
        }
    }

    /// Writes until there is a reason to end, and gives the last of it to be written.
    async fn run(
        &mut self,
        app: &App,
        line: &mut Line,
        out: &mut Out,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Ended, Error> {
        let (mut objects, mut count) = Box::pin(self.begin(app, BATCH_MAX)).await?;
        let mut noop = Instant::now() + jittered(app.timeouts.noop);
        loop {
            if !objects.is_empty() {
                noop = Instant::now() + jittered(app.timeouts.noop);
            }
            for object in &objects {
                out.put(&self.form.framed(object));
            }
            if out.send(app, line).await.is_err() {
                return Ok(Ended::Gone);
            }
            app.delivered(count);
            let event = match self.due(app, shutdown) {
                // There may be more.
                None if count > 0 => Event::Message,
                None => self.event(line, shutdown, noop).await,
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
                Event::Left => return Ok(Ended::Gone),
                Event::Stopping => return Ok(Ended::Short),
                Event::Expired => (text::sign(Kind::Token, &self.user, 0), Ended::Short),
                Event::Closed => (Box::pin(self.closed(app)).await?, Ended::Whole),
            };
            out.put(&self.form.framed(&last.into()));
            return Ok(ended);
        }
    }
}
