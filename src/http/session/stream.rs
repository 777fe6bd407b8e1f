//! Messages as they come, in one reply without an end: as events (SSE) or as lines of JSON.
//!
//! At any time one batch is on its way and a bounded mailbox waits behind it; a peer that takes nothing for
//! too long is cut, and goes on from its cursor.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::close_reason::CloseReason;
use super::page;
use super::schedule::{Schedule, jittered};
use crate::http::context::App;
use crate::http::parked::endless::EndlessReply;
use crate::http::parked::{Outcome, Parked, ParkedConnection, Running, Wake};
use crate::http::request::call::Call;
use crate::http::request::query::{PageForm, Parameter, Query, wrong};
use crate::http::response::json::{Writer, one_line};
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::hub::Feed;
use crate::model::{After, Batch, Cursor, LogId, PageLimit, Transport};

/// The browser's pause before it connects again, milliseconds.
const RETRY_MS: std::ops::RangeInclusive<u32> = 1000..=5000;

/// The browser's pause after a refusal that no new attempt mends.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// How the messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
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

/// An endless reply.
#[derive(Debug)]
struct Stream {
    feed: Feed,
    form: Form,
    /// What is written at once, and kept in memory of a reader that does not read.
    limit: PageLimit,
    schedule: Schedule,
    /// The last cursor that was sent.
    last_sent: Cursor,
    /// Whether the client does not know where it begins.
    names_start: bool,
}

/// `GET /v1/inbox/sse`
pub(in crate::http) fn events(call: &Call) -> Result<Outcome, Problem> {
    open(call, Form::Events)
}

/// `GET /v1/inbox/stream`
pub(in crate::http) fn lines(call: &Call) -> Result<Outcome, Problem> {
    open(call, Form::Lines)
}

fn open(call: &Call, form: Form) -> Result<Outcome, Problem> {
    let caller = call.caller()?;
    let schedule = Schedule::of(call, caller)?;
    let limit = call.page(form.page())?;
    if let (Form::Events, Some(other)) = (form, call.query.get(Parameter::Refusals))
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
    Ok(Outcome::park(Stream {
        last_sent: feed.cursor(),
        names_start: after == After::Now,
        feed,
        form,
        limit,
        schedule,
    }))
}

/// Whether a refusal is to be told as an event.
pub(in crate::http) fn tells_refusals(query: &Query) -> bool {
    query.get(Parameter::Refusals).as_deref() == Some("event")
}

/// A refusal as the only event of a stream. An `EventSource` is not told the status of a reply, nor its body, and
/// gives up for good unless the status is 200.
pub(in crate::http) fn problem_event(problem: &Problem, log: LogId) -> Reply {
    let reply = Reply::problem(problem, log);
    // What a new attempt may cure is worth one soon. For the rest the page should close it and start over.
    let pause = reply
        .retry_after_s
        .map_or(REFUSED_PAUSE, |seconds| Duration::from_secs(seconds.into()));
    let pause_ms = jittered(pause).as_millis();
    let mut object = problem.to_json(log);
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

impl Parked for Stream {
    fn run(self: Box<Self>, mut connection: ParkedConnection<'_>) -> Running<'_> {
        let mut stream = *self;
        // What is held open has a limit of its own.
        connection.in_progress = None;
        Box::pin(async move {
            let reply = Reply::stream(stream.form.content_type());
            let mut out = EndlessReply::new(&connection.response, &reply);
            drop(reply);
            out.put(stream.greeting(connection.app));
            let Some(reason) = stream.deliver(&mut connection, &mut out).await else {
                return connection.cut();
            };
            out.put(stream.farewell(&reason));
            out.end(connection).await
        })
    }
}

impl Stream {
    /// Writes what comes until it ends; none when the peer left or does not read.
    async fn deliver(
        &mut self,
        connection: &mut ParkedConnection<'_>,
        out: &mut EndlessReply,
    ) -> Option<CloseReason> {
        let app = connection.app;
        out.send(connection).await.ok()?;
        let (ends_at, reason) = self.schedule.end();
        let mut heartbeat = self.schedule.next_heartbeat();
        loop {
            let batch = match Box::pin(self.feed.read(self.limit)).await {
                Ok(batch) => batch,
                Err(error) => return Some(CloseReason::of(error)),
            };
            if !batch.messages.is_empty() {
                out.put(self.batch(app, &batch));
                out.send(connection).await.ok()?;
                app.delivered(batch.messages.len());
                heartbeat = self.schedule.next_heartbeat();
            }
            // After the batch: messages that were there before the end are delivered first.
            if connection.shutdown.has_begun() || (self.feed.closing() && !batch.more) {
                return Some(CloseReason::Closing);
            }
            if Instant::now() >= ends_at {
                return Some(reason);
            }
            if batch.more {
                continue;
            }
            let until = heartbeat.min(ends_at);
            if let Wake::Disconnected = connection.wait(pin!(self.feed.wait()), until).await {
                return None;
            }
            if Instant::now() >= heartbeat {
                out.put(self.beat(app));
                out.send(connection).await.ok()?;
                heartbeat = self.schedule.next_heartbeat();
            }
        }
    }

    /// What stands at the beginning. `after=now` would lose what comes before it is asked again, so there the cursor
    /// is told; as an event with a name and data, because many libraries make a message of one without.
    fn greeting(&self, app: &App) -> Vec<Bytes> {
        let Form::Events = self.form else {
            return self.nothing(app);
        };
        let (retry, next) = (retry_ms(), self.last_sent);
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
                let mut sent = self.last_sent;
                for (index, message) in batch.messages.iter().enumerate() {
                    *sent.position.of_mut(message.sequence()) = message.id;
                    let last = index + 1 == batch.messages.len();
                    let id = if last { batch.next } else { sent };
                    out.text(format_args!("id: {id}\ndata: "));
                    app.shared().rendered.write(&mut out, message);
                    out.raw("\n\n");
                }
            }
        }
        self.last_sent = batch.next;
        out.finish()
    }

    /// A sign of life. In events a comment, without the empty line of which many libraries make a message; the cursor
    /// that has moved without messages goes with the next event.
    fn beat(&mut self, app: &App) -> Vec<Bytes> {
        self.last_sent = self.feed.cursor();
        match self.form {
            Form::Lines => self.nothing(app),
            Form::Events => vec![Bytes::from_static(b":\n")],
        }
    }

    fn farewell(&self, reason: &CloseReason) -> Vec<Bytes> {
        let next = self.feed.cursor();
        let object = on_one_line(&reason.object(next));
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
            next: self.last_sent,
            more: false,
        };
        page::write(app, &mut out, &batch);
        out.raw("\n");
        out.finish()
    }
}
