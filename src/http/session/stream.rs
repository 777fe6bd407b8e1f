//! Messages as they come, in one reply without an end: as events (SSE) or as lines of JSON.
//!
//! At any time one batch is on its way and a bounded mailbox waits behind it; a peer that takes nothing for
//! too long is cut, and goes on from its cursor.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::http::context::App;
use crate::http::listener::service::Listener;
use crate::http::parked::stopped;
use crate::http::parked::{End, Ticket, cut, jittered};
use crate::http::request::call::{Call, Caller};
use crate::http::request::query::{PageForm, Query, wrong};
use crate::http::response::head::Asked;
use crate::http::response::json::{Writer, one_line};
use crate::http::response::reply::{Outcome, Refusal, Reply};
use crate::http::session::close_reason::Ending;
use crate::http::session::page;
use crate::http::socket::Line;
use crate::http::socket::{left, write};
use crate::hub::Feed;
use crate::model::{After, Batch, Cursor, LogId, PageLimit, Transport};

/// Seconds between heartbeats when the client does not say.
const HEARTBEAT_USUAL_S: u64 = 30;
/// The longest heartbeat that a client may ask for.
pub(in crate::http) const HEARTBEAT_S_MAX: u64 = 300;
/// The browser's pause before it connects again, milliseconds.
const RETRY_MS: std::ops::RangeInclusive<u32> = 1000..=5000;

/// The browser's pause after a refusal that no new attempt mends.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// How the messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Form {
    /// `text/event-stream`: a message an event, its cursor the event's id.
    Events,
    /// `application/x-ndjson`: a page a line.
    Lines,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream; charset=utf-8",
            Self::Lines => "application/x-ndjson",
        }
    }

    fn page(self) -> PageForm {
        match self {
            Self::Events => PageForm::Events,
            Self::Lines => PageForm::Line,
        }
    }

    fn transport(self) -> Transport {
        match self {
            Self::Events => Transport::Sse,
            Self::Lines => Transport::Stream,
        }
    }
}

/// When what is held open speaks and when it ends; the same for streams and sockets.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Times {
    pub(in crate::http) heartbeat: Duration,
    /// When it has lasted long enough.
    pub(in crate::http) over: Instant,
    /// When the token ends.
    pub(in crate::http) expires: Instant,
}

impl Times {
    pub(in crate::http) fn of(call: &Call, caller: &Caller) -> Result<Self, Refusal> {
        let least = call.app.timeouts.heartbeat_s_min;
        let heartbeat = call.query.number("heartbeat", least..=HEARTBEAT_S_MAX)?;
        Ok(Self {
            heartbeat: Duration::from_secs(heartbeat.unwrap_or(HEARTBEAT_USUAL_S)),
            over: Instant::now() + jittered(call.app.timeouts.stream),
            expires: caller.ends,
        })
    }

    /// When it ends at the latest, and why.
    pub(in crate::http) fn end(&self) -> (Instant, Ending) {
        if self.expires <= self.over {
            (self.expires, Ending::TokenExpired)
        } else {
            (self.over, Ending::Over)
        }
    }

    /// A moment before the heartbeat is due; not the same for all that began together.
    pub(in crate::http) fn next_heartbeat(&self) -> Instant {
        Instant::now() + jittered(self.heartbeat.mul_f64(0.9))
    }
}

/// An endless reply.
#[derive(Debug)]
pub(in crate::http) struct Stream {
    feed: Feed,
    form: Form,
    /// What is written at once, and kept in memory of a reader that does not read.
    limit: PageLimit,
    times: Times,
    /// The last cursor that the client was told.
    told: Cursor,
    /// Whether the client does not know where it begins.
    names_start: bool,
    chunked: bool,
}

/// `GET /v1/inbox/sse`
pub(in crate::http) fn events(call: &Call) -> Result<Outcome, Refusal> {
    open(call, Form::Events)
}

/// `GET /v1/inbox/stream`
pub(in crate::http) fn lines(call: &Call) -> Result<Outcome, Refusal> {
    open(call, Form::Lines)
}

fn open(call: &Call, form: Form) -> Result<Outcome, Refusal> {
    let caller = call.caller()?;
    let times = Times::of(call, caller)?;
    let limit = call.page(form.page())?;
    if let (Form::Events, Some(other)) = (form, call.query.get("refusals"))
        && other != "event"
    {
        return Err(wrong("refusals", &other, "`event`"));
    }
    let last = match form {
        Form::Events => call.last_event_id(),
        Form::Lines => None,
    };
    let after = match last {
        Some(id) => After::parse(&id)?,
        None => call.query.after()?,
    };
    let user = caller.user.clone();
    let feed = call.app.hub.feed(user, after, form.transport())?;
    if !call.may_hold {
        return Ok(Outcome::Reply(Reply::stream(form.content_type())));
    }
    Ok(Outcome::Held(Ticket::Stream(Box::new(Stream {
        told: feed.cursor(),
        names_start: after == After::Now,
        feed,
        form,
        limit,
        times,
        chunked: true,
    }))))
}

/// Whether a refusal is to be told as an event.
pub(in crate::http) fn tells_refusals(query: &Query) -> bool {
    query.get("refusals").as_deref() == Some("event")
}

/// A refusal as the only event of a stream. An `EventSource` is not told the status of a reply, nor its body, and
/// gives up for good unless the status is 200.
pub(in crate::http) fn refusal(refusal: &Refusal, log: LogId) -> Reply {
    let reply = Reply::refusal(refusal, log);
    // What a new attempt may cure is worth one soon. For the rest the page should close it and start over.
    let pause = reply
        .retry_after_s
        .map_or(REFUSED_PAUSE, |seconds| Duration::from_secs(seconds.into()));
    let pause_ms = jittered(pause).as_millis();
    let mut object = refusal.problem(log);
    if let Some(fields) = object.as_object_mut() {
        let reconnect = reply.retry_after_s.is_some();
        fields.insert("reconnect".to_owned(), reconnect.into());
    }
    let text = format!(
        "retry: {pause_ms}\nevent: end\ndata: {}\n\n",
        on_one_line(&object)
    );
    Reply {
        body: vec![text.into()],
        ..Reply::stream(Form::Events.content_type())
    }
}

/// JSON that may stand in a line.
fn on_one_line(object: &Value) -> String {
    let text = object.to_string();
    String::from_utf8_lossy(&one_line(text.as_bytes())).into_owned()
}

/// At random, so that not all come at once.
fn retry_ms() -> u32 {
    let random = getrandom::u32().unwrap_or_default();
    RETRY_MS.start() + random % (RETRY_MS.end() - RETRY_MS.start())
}

impl Stream {
    pub(in crate::http) async fn wait(
        mut self: Box<Self>,
        mut line: Line,
        asked: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let app = &listener.app;
        let reply = Reply::stream(self.form.content_type());
        self.chunked = asked.chunks();
        let head = asked.raw_stream(&reply);
        let mut first = vec![head];
        first.append(&mut self.chunk(self.greeting(app)));
        if self.send(app, &line.stream, first).await.is_err() {
            return cut(&line.stream);
        }
        let Some(ending) = self.run(app, &mut line, shutdown).await else {
            return cut(&line.stream);
        };
        let last = self.farewell(&ending);
        let mut last = self.chunk(last);
        if self.chunked {
            last.push(Bytes::from_static(b"0\r\n\r\n"));
        }
        if self.send(app, &line.stream, last).await.is_err() {
            return cut(&line.stream);
        }
        End::Close(line.stream)
    }

    /// Writes what comes until it ends; none when the peer left or does not read.
    async fn run(
        &mut self,
        app: &App,
        line: &mut Line,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Option<Ending> {
        let (ends_at, ending) = self.times.end();
        let mut heartbeat = self.times.next_heartbeat();
        loop {
            let batch = match Box::pin(self.feed.read(self.limit)).await {
                Ok(batch) => batch,
                Err(error) => return Some(Ending::of(error)),
            };
            if !batch.messages.is_empty() {
                let text = self.batch(app, &batch);
                let chunk = self.chunk(text);
                self.send(app, &line.stream, chunk).await.ok()?;
                app.delivered(batch.messages.len());
                heartbeat = self.times.next_heartbeat();
            }
            if *shutdown.borrow() || (self.feed.closing() && !batch.more) {
                return Some(Ending::Closing);
            }
            if Instant::now() >= ends_at {
                return Some(ending);
            }
            if batch.more {
                continue;
            }
            tokio::select! {
                biased;
                () = self.feed.wait() => {}
                () = left(line) => return None,
                () = stopped(shutdown) => {}
                () = sleep_until(heartbeat.min(ends_at)) => {}
            }
            if Instant::now() >= heartbeat {
                let text = self.beat(app);
                let chunk = self.chunk(text);
                self.send(app, &line.stream, chunk).await.ok()?;
                heartbeat = self.times.next_heartbeat();
            }
        }
    }

    async fn send(
        &self,
        app: &App,
        stream: &TcpStream,
        mut parts: Vec<Bytes>,
    ) -> std::io::Result<()> {
        let first = parts.remove(0);
        // Boxed, as it is short and would take room in every open stream.
        Box::pin(write(stream, first, parts, app.timeouts.patience())).await
    }

    /// A chunk of the reply, for clients that know what that is.
    fn chunk(&self, mut text: Vec<Bytes>) -> Vec<Bytes> {
        if self.chunked {
            let length: usize = text.iter().map(Bytes::len).sum();
            text.insert(0, format!("{length:x}\r\n").into());
            text.push(Bytes::from_static(b"\r\n"));
        }
        text
    }

    /// What stands at the beginning. `after=now` would lose what comes before it is asked again, so there the cursor
    /// is told; as an event with a name and data, because many libraries make a message of one without.
    fn greeting(&self, app: &App) -> Vec<Bytes> {
        let Form::Events = self.form else {
            return self.nothing(app);
        };
        let (retry, next) = (retry_ms(), self.told);
        let start = if self.names_start {
            let object = json!({ "next": next.to_string() });
            format!("event: start\nid: {next}\ndata: {object}\n\n")
        } else {
            String::new()
        };
        vec![format!("retry: {retry}\n{start}").into()]
    }

    fn batch(&mut self, app: &App, batch: &Batch) -> Vec<Bytes> {
        let mut out = Writer::lines();
        match self.form {
            Form::Lines => {
                page::write(app, &mut out, batch);
                out.raw("\n");
            }
            Form::Events => {
                let mut told = self.told;
                for (index, message) in batch.messages.iter().enumerate() {
                    *told.position.of_mut(message.sequence()) = message.id;
                    let last = index + 1 == batch.messages.len();
                    let id = if last { batch.next } else { told };
                    out.raw("id: ");
                    out.raw(&id.to_string());
                    out.raw("\ndata: ");
                    app.shared().rendered.write(&mut out, message);
                    out.raw("\n\n");
                }
            }
        }
        self.told = batch.next;
        out.finish()
    }

    /// A sign of life. In events a comment, without the empty line of which many libraries make a message; the cursor
    /// that has moved without messages goes with the next event.
    fn beat(&mut self, app: &App) -> Vec<Bytes> {
        self.told = self.feed.cursor();
        match self.form {
            Form::Lines => self.nothing(app),
            Form::Events => vec![Bytes::from_static(b":\n")],
        }
    }

    fn farewell(&self, ending: &Ending) -> Vec<Bytes> {
        let next = self.feed.cursor();
        let object = on_one_line(&ending.object(next));
        vec![match self.form {
            Form::Events => format!("event: end\nid: {next}\ndata: {object}\n\n").into(),
            Form::Lines => format!("{{\"end\":{object}}}\n").into(),
        }]
    }

    /// A page without messages.
    fn nothing(&self, app: &App) -> Vec<Bytes> {
        let mut out = Writer::lines();
        let batch = Batch {
            messages: Vec::new(),
            next: self.told,
            more: false,
        };
        page::write(app, &mut out, &batch);
        out.raw("\n");
        out.finish()
    }
}
