//! What clients ask: long polls, and replies without an end as lines, events or scripts.
//!
//! A request first opens a feed and then reads its channel, so that nothing is missed whatever the timing. Each
//! answer is one write. A reader that takes nothing for too long is cut, and asks again for the number it wants.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::live::Subscribed;
use super::params::Params;
use super::text::{self, Form, Kind};
use super::{Extra, FRONT, FRONT_EVENTS, said};
use crate::config::IcometRules;
use crate::error::Error;
use crate::http::accept::stopped;
use crate::http::app::App;
use crate::http::auth;
use crate::http::call::Call;
use crate::http::head::Asked;
use crate::http::hold::{self, End, cut, jittered};
use crate::http::io::Line;
use crate::http::reply::{Outcome, Refusal, Reply};
use crate::http::service::Listener;
use crate::http::wire::{left, write};
use crate::hub::{ChannelPage, Feed};
use crate::model::{After, Transport, UserName};

/// Messages of one array.
const ARRAY_MAX: usize = 100;
/// Messages in one writing of an endless reply.
const BATCH_MAX: usize = 32;
/// Messages that a feed has read at once, only to know that they are there.
const SEEN_MAX: usize = 1000;

/// A request that waits.
#[derive(Debug)]
pub(in crate::http) struct Subscriber {
    feed: Feed,
    subscribed: Subscribed,
    user: UserName,
    form: Form,
    /// The number that the client wants next, as it said.
    wanted: i64,
    /// The number to be given next.
    next: u64,
    /// The number of the next noop.
    noop: i64,
    /// When the token ends.
    expires: Option<Instant>,
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

/// What a poll answers, and how many messages are in it.
type Answer = (String, usize);

/// Checks who asks for what. Refusals that icomet knows have its shape and status 200.
pub(super) async fn open(call: Call, form: Form) -> Result<Outcome, Refusal> {
    let params = Params::of_query(call.query.raw())?;
    let user = params.channel()?;
    let form = match form {
        Form::Poll(_) => Form::Poll(params.callback()?),
        endless => endless,
    };
    let app = &call.app;
    let refused = |kind| Ok(Outcome::Reply(refusal(&form, &user, kind)));
    let expires = match app.icomet {
        Some(IcometRules::Open) => None,
        Some(IcometRules::Strict) => match expires(&call, &params, &user) {
            Some(expires) => Some(expires),
            None => return refused(Kind::Token),
        },
        None => return Err(Refusal::NoRoute),
    };
    let feed = match app.hub.feed(user.clone(), After::Now, Transport::Icomet) {
        Err(Error::TooManyWaiters { .. }) => return refused(Kind::Subscribers),
        feed => feed?,
    };
    let live = app.live().ok_or(Refusal::NoRoute)?;
    let Some(subscribed) = live.subscribe(app, &user) else {
        return refused(Kind::Channels);
    };
    app.hub.open_channel(&user).await?;
    let subscriber = Subscriber {
        feed,
        subscribed,
        form,
        wanted: params.number("seq"),
        next: 0,
        noop: params.number("noop"),
        expires,
        user,
    };
    let ticket = super::Ticket::Subscriber(Box::new(subscriber));
    Ok(Outcome::Held(hold::Ticket::Icomet(ticket)))
}

/// When the token ends, if there is one and the channel is its user's.
fn expires(call: &Call, params: &Params, user: &UserName) -> Option<Instant> {
    let token = match auth::bearer(&call.headers) {
        Ok(Some(token)) => token,
        Ok(None) => params.get("token"),
        Err(_) => return None,
    };
    let caller = auth::bearer_of(&call.app, token).ok()?;
    (caller.user == *user).then_some(caller.ends)
}

/// `icomet_cb({"type":"ping","sub_timeout":30});`
pub(super) fn ping(call: &Call) -> Result<Reply, Refusal> {
    let callback = Params::of_query(call.query.raw())?.callback()?;
    let name = callback.as_ref().map_or("icomet_cb", |name| name.as_str());
    let seconds = call.app.timeouts.noop.as_secs().max(1);
    let text = format!("{name}({{\"type\":\"ping\",\"sub_timeout\":{seconds}}});\n");
    Ok(said("text/javascript; charset=utf-8", text))
}

/// The whole reply of a request that is refused.
fn refusal(form: &Form, user: &UserName, kind: Kind) -> Reply {
    let object = text::sign(kind, user, 0);
    whole(
        form,
        format!("{}{}", form.beginning(), form.framed(&object)),
    )
}

fn whole(form: &Form, text: String) -> Reply {
    Reply {
        extra: extra(form),
        ..said(form.content_type(), text)
    }
}

fn extra(form: &Form) -> Extra {
    match form {
        Form::Events => FRONT_EVENTS,
        Form::Poll(_) | Form::Stream | Form::Frame => FRONT,
    }
}

impl Subscriber {
    pub(super) async fn wait(
        mut self: Box<Self>,
        mut line: Line,
        asked: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let app = &listener.app;
        if !matches!(self.form, Form::Poll(_)) {
            return self.stream(app, line, &asked, shutdown).await;
        }
        let Some(answer) = self.poll(app, &mut line, shutdown).await else {
            return End::Gone;
        };
        let keep = asked.keep && !self.feed.closing() && !*shutdown.borrow();
        let (reply, count) = match answer {
            Ok((text, count)) => (whole(&self.form, text), count),
            Err(error) => (Reply::refusal(&Refusal::Hub(error), app.hub.log()), 0),
        };
        // The waiter goes before the reply is written: a slow peer is not a waiter.
        drop(self);
        let head = asked.raw(&reply, keep);
        if write(&line.stream, head, reply.body, app.timeouts.write)
            .await
            .is_err()
        {
            return cut(&line.stream);
        }
        app.delivered(count);
        if keep {
            End::GoOn(line)
        } else {
            End::Close(line.stream)
        }
    }

    /// What a poll answers; none when the peer left.
    async fn poll(
        &mut self,
        app: &App,
        line: &mut Line,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Option<Result<Answer, Error>> {
        match self.begin(app, ARRAY_MAX).await {
            Ok((objects, 0)) if objects.is_empty() => {}
            // Even of a single message: clients know a replay by that.
            Ok((objects, count @ 1..)) => {
                return Some(Ok((self.called(&text::array(&objects)), count)));
            }
            Ok((objects, 0)) => return Some(Ok((self.called(&objects.concat()), 0))),
            Err(error) => return Some(Err(error)),
        }
        let noop = Instant::now() + jittered(app.timeouts.noop);
        loop {
            let object = match self.event(line, shutdown, noop).await {
                Event::Message => match self.read(app, 1).await {
                    Ok((objects, 0)) if objects.is_empty() => continue,
                    Ok((objects, count)) => {
                        let one = objects.len() == 1;
                        let json = if one {
                            objects.concat()
                        } else {
                            text::array(&objects)
                        };
                        return Some(Ok((self.called(&json), count)));
                    }
                    Err(error) => return Some(Err(error)),
                },
                Event::Left => return None,
                Event::Closed => match self.closed(app).await {
                    Ok(object) => object,
                    Err(error) => return Some(Err(error)),
                },
                Event::Expired => text::sign(Kind::Token, &self.user, 0),
                Event::Noop | Event::Stopping => text::sign(Kind::Noop, &self.user, self.noop),
            };
            return Some(Ok((self.called(&object), 0)));
        }
    }

    fn called(&self, json: &str) -> String {
        self.form.framed(json)
    }

    /// Where the client stands, and what it is told at once.
    async fn begin(&mut self, app: &App, limit: usize) -> Result<(Vec<String>, usize), Error> {
        self.look().await?;
        let wanted = u64::try_from(self.wanted).unwrap_or(1);
        let first = app.live().map_or(1, |live| live.first(&self.user));
        self.next = wanted.max(first);
        let limit = if wanted == 0 { 0 } else { limit };
        let page = app.hub.channel_page(self.user.clone(), self.next, limit);
        let page = page.await?;
        if wanted == 0 || wanted > page.next {
            self.next = page.next;
            return Ok((vec![text::sign(Kind::NextSeq, &self.user, page.next)], 0));
        }
        Ok(self.objects(&page))
    }

    /// What has come.
    async fn read(&mut self, app: &App, limit: usize) -> Result<(Vec<String>, usize), Error> {
        self.look().await?;
        let page = app.hub.channel_page(self.user.clone(), self.next, limit);
        Ok(self.objects(&page.await?))
    }

    /// Has the feed see all that there is, so that it wakes only for more. Before the channel is read.
    async fn look(&mut self) -> Result<(), Error> {
        while Box::pin(self.feed.read(SEEN_MAX)).await?.more {}
        Ok(())
    }

    fn objects(&mut self, page: &ChannelPage) -> (Vec<String>, usize) {
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

    /// Why it is to end, whatever else there is to say.
    fn due(&self, shutdown: &watch::Receiver<bool>) -> Option<Event> {
        if self.subscribed.is_closed() {
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

    async fn stream(
        mut self: Box<Self>,
        app: &App,
        mut line: Line,
        asked: &Asked,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let reply = Reply {
            extra: extra(&self.form),
            ..Reply::stream(self.form.content_type())
        };
        let mut out = Out {
            first: Some(asked.raw_stream(&reply)),
            chunked: asked.chunks(),
            text: String::new(),
        };
        out.put(self.form.beginning());
        let ended = self.run(app, &mut line, &mut out, shutdown).await;
        if !matches!(ended, Some(Ok(()))) {
            return cut(&line.stream);
        }
        if out.chunked {
            out.text.push_str("0\r\n\r\n");
        }
        match out.send(app, &line).await {
            Ok(()) => End::Close(line.stream),
            Err(_) => cut(&line.stream),
        }
    }

    /// Writes what comes until it ends; none when the peer left or does not read.
    async fn run(
        &mut self,
        app: &App,
        line: &mut Line,
        out: &mut Out,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Option<Result<(), Error>> {
        let mut read = self.begin(app, BATCH_MAX).await;
        let mut noop = Instant::now() + jittered(app.timeouts.noop);
        loop {
            let (objects, count) = match read {
                Ok(read) => read,
                Err(error) => return Some(Err(error)),
            };
            if !objects.is_empty() {
                noop = Instant::now() + jittered(app.timeouts.noop);
            }
            for object in &objects {
                out.put(&self.form.framed(object));
            }
            out.send(app, line).await.ok()?;
            app.delivered(count);
            let event = match self.due(shutdown) {
                // There may be more.
                None if count > 0 => Event::Message,
                None => self.event(line, shutdown, noop).await,
                Some(event) => event,
            };
            read = match event {
                Event::Message => self.read(app, BATCH_MAX).await,
                Event::Noop => {
                    let object = text::sign(Kind::Noop, &self.user, self.noop);
                    self.noop = self.noop.wrapping_add(1);
                    Ok((vec![object], 0))
                }
                Event::Left => return None,
                Event::Stopping => return Some(Ok(())),
                Event::Expired => {
                    let object = text::sign(Kind::Token, &self.user, 0);
                    out.put(&self.form.framed(&object));
                    return Some(Ok(()));
                }
                Event::Closed => match self.closed(app).await {
                    Ok(object) => {
                        out.put(&self.form.framed(&object));
                        return Some(Ok(()));
                    }
                    Err(error) => return Some(Err(error)),
                },
            };
        }
    }
}

/// What is to be written next, a chunk an object.
struct Out {
    /// The head, as long as it is not written.
    first: Option<Bytes>,
    chunked: bool,
    text: String,
}

impl Out {
    fn put(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.chunked {
            self.text
                .push_str(&format!("{:x}\r\n{text}\r\n", text.len()));
        } else {
            self.text.push_str(text);
        }
    }

    /// Writes it at once; what the peer does not take for too long is an error.
    async fn send(&mut self, app: &App, line: &Line) -> std::io::Result<()> {
        let text = Bytes::from(std::mem::take(&mut self.text));
        let (first, rest) = match self.first.take() {
            Some(head) => (head, vec![text]),
            None if text.is_empty() => return Ok(()),
            None => (text, Vec::new()),
        };
        write(&line.stream, first, rest, app.timeouts.write).await
    }
}
