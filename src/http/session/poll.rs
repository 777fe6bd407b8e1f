//! A held poll: it reads, waits if it finds nothing, and answers once; then the connection waits for the next one. A
//! request that comes again with another cursor is taken up at once, any other goes the long way.

use std::future::ready;
use std::pin::pin;
use std::task::Poll as Ready;
use std::time::Duration;

use tokio::time::Instant;

use super::page;
use super::remembered::RememberedHead;
use crate::clock;
use crate::error::Error;
use crate::http::context::App;
use crate::http::context::in_progress::InProgress;
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::{NextState, Outcome, Parked, ParkedConnection, Running};
use crate::http::reactor::{Heard, Session, Step, Turn};
use crate::http::request::call::Call;
use crate::http::request::query::{PageForm, Parameter};
use crate::http::response::head::ResponseContext;
use crate::http::response::problem::Problem;
use crate::http::response::reply::{HELD, Reply};
use crate::hub::{Feed, Unread};
use crate::model::{After, Batch, PageLimit, Transport, UserName};

/// How long a client's poll is held when it does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// What a poll asks for, but for its cursor.
#[derive(Clone, Debug)]
struct Asking {
    user: UserName,
    limit: PageLimit,
    wait: Duration,
    /// None for the backend.
    ends: Option<TokenEnd>,
}

/// When a token is no longer good.
#[derive(Clone, Copy, Debug)]
struct TokenEnd {
    at: Instant,
    /// The clock may have been set since.
    unix_s: u64,
}

impl TokenEnd {
    fn has_come(self, now: Instant) -> bool {
        now >= self.at || clock::now_s() >= self.unix_s
    }
}

impl Asking {
    fn feed(&self, app: &App, after: After) -> Result<Feed, Error> {
        let user = self.user.clone();
        match self.ends {
            Some(_) => app.hub.feed(user, after, Transport::Poll),
            None => app.hub.backend_feed(user, after),
        }
    }

    /// When a poll that begins now is answered at the latest. At the token's end it is no longer good for what comes.
    fn deadline(&self, now: Instant) -> Instant {
        let deadline = now + self.wait;
        self.ends.map_or(deadline, |ends| deadline.min(ends.at))
    }
}

/// A poll that has been found right, and subscribed.
#[derive(Debug)]
struct Poll {
    asking: Asking,
    feed: Feed,
    deadline: Instant,
}

/// `GET /v1/inbox`, for users and for the backend: classic and long polling.
///
/// Checks the request; reading and waiting are done outside of hyper, whose buffers would be many if
/// many clients came back at once.
pub(in crate::http) async fn open(call: Call) -> Result<Outcome, Problem> {
    let user = call.reader()?;
    let after = call.query.after()?;
    let asking = Asking {
        user,
        limit: call.page(PageForm::Reply)?,
        wait: wait(&call)?,
        ends: call.caller.as_ref().map(|caller| TokenEnd {
            at: caller.ends,
            unix_s: caller.ends_s,
        }),
    };
    let deadline = asking.deadline(Instant::now());
    // Subscribes before anything is read, so that no message falls between reading and waiting.
    let mut feed = asking.feed(&call.app, after)?;
    if call.may_hold {
        return Ok(Outcome::park(Poll {
            asking,
            feed,
            deadline,
        }));
    }
    let batch = feed.read(asking.limit).await?;
    Ok(Outcome::Reply(page::reply(&call.app, &batch)))
}

fn wait(call: &Call) -> Result<Duration, Problem> {
    let most = call.app.limits.poll_wait_max;
    let given = call.query.number(Parameter::Wait, 0..=most.as_secs())?;
    Ok(match (given, call.kind) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, ListenerKind::Client) => DEFAULT_WAIT.min(most),
        // The backend asks for what is there, as it does everywhere else.
        (None, ListenerKind::Admin) => Duration::ZERO,
    })
}

impl Parked for Poll {
    fn run(self: Box<Self>, connection: ParkedConnection<'_>) -> Running<'_> {
        let Self {
            asking,
            feed,
            deadline,
        } = *self;
        let ParkedConnection {
            socket,
            response,
            in_progress,
            head,
            app,
            shutdown: _,
        } = connection;
        let user = asking.user.clone();
        let held = HeldPoll {
            last: deadline <= Instant::now() || feed.closing(),
            deadline,
            state: State::Reads(feed),
            remembered: head.as_deref().and_then(RememberedHead::of),
            app: app.clone(),
            asking,
            response,
            in_progress,
        };
        Box::pin(ready(NextState::Reactor(socket, user, Box::new(held))))
    }
}

/// A reading of what is no longer in memory, with its feed.
type Reading = Box<dyn Future<Output = (Feed, Result<Batch, Error>)> + Send>;

/// A connection of polls, one after the other.
struct HeldPoll {
    app: App,
    asking: Asking,
    response: ResponseContext,
    remembered: Option<RememberedHead>,
    /// Counts the request, but while it waits.
    in_progress: Option<InProgress>,
    state: State,
    /// When the poll is answered at the latest, or the next one must have come.
    deadline: Instant,
    /// Whether it is answered whatever is found.
    last: bool,
}

enum State {
    Reads(Feed),
    ReadsView(std::pin::Pin<Reading>),
    Waits(Feed),
    /// The reply with so many messages is on its way.
    Answers {
        messages: usize,
        keep: bool,
    },
    /// For the next request.
    Idles {
        /// Whether it is over but for what has come already.
        last: bool,
    },
    Over,
}

impl Session for HeldPoll {
    fn step(&mut self, turn: &mut Turn<'_>) -> Step {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Over) {
                State::Reads(mut feed) => match feed.read_now(self.asking.limit) {
                    Ok(batch) => match self.found(feed, Ok(batch), turn) {
                        Ok(state) => state,
                        Err(step) => return step,
                    },
                    Err(unread) => State::ReadsView(read_view(feed, unread, self.asking.limit)),
                },
                State::ReadsView(mut reading) => match reading.as_mut().poll(&mut turn.context) {
                    Ready::Ready((feed, found)) => match self.found(feed, found, turn) {
                        Ok(state) => state,
                        Err(step) => return step,
                    },
                    Ready::Pending => {
                        self.state = State::ReadsView(reading);
                        return Step::Work;
                    }
                },
                State::Waits(mut feed) => {
                    let told = pin!(feed.wait()).poll(&mut turn.context).is_ready();
                    self.last = feed.closing() || turn.stopping || turn.now >= self.deadline;
                    if !told && !self.last {
                        self.state = State::Waits(feed);
                        return Step::Listen {
                            until: self.deadline,
                        };
                    }
                    // Also when the time is up or the server stops: a message may have come in that moment.
                    State::Reads(feed)
                }
                State::Answers { messages, keep } => {
                    self.app.delivered(messages);
                    self.in_progress.iter_mut().for_each(InProgress::pause);
                    if !keep {
                        return Step::End;
                    }
                    self.deadline = turn.now + self.app.timeouts.idle;
                    State::Idles { last: false }
                }
                State::Idles { last: true } => return Step::End,
                State::Idles { last: false } => {
                    // A request that has come is answered, also while the server stops.
                    let last = turn.stopping || turn.now >= self.deadline;
                    self.state = State::Idles { last };
                    let until = if last { turn.now } else { self.deadline };
                    return Step::Listen { until };
                }
                State::Over => return Step::Cut,
            };
        }
    }

    fn hear(&mut self, said: &[u8]) -> Heard {
        match self.state {
            State::Idles { .. } => self.again(said).map_or(Heard::Other, |()| Heard::All),
            _ => Heard::Later,
        }
    }
}

impl HeldPoll {
    /// What to do with what was read.
    fn found(
        &mut self,
        feed: Feed,
        found: Result<Batch, Error>,
        turn: &Turn<'_>,
    ) -> Result<State, Step> {
        if let Ok(batch) = &found
            && batch.messages.is_empty()
            && !batch.more
            && !self.last
        {
            self.in_progress.iter_mut().for_each(InProgress::pause);
            return Ok(State::Waits(feed));
        }
        let found = match found {
            // The hub closed before this was read: who would wait is told the same as those who wait already.
            Err(Error::Closing) if !self.asking.wait.is_zero() => Ok(feed.nothing()),
            found => found,
        };
        let keep = self.response.keep_alive && !feed.closing() && !turn.stopping;
        // The waiter goes before the reply is written: a slow peer is not a waiter, but a request in progress.
        drop(feed);
        self.in_progress.iter_mut().for_each(InProgress::resume);
        let (mut reply, messages) = match found {
            Ok(batch) => (page::reply(&self.app, &batch), batch.messages.len()),
            Err(error) => {
                let problem = Problem::Hub(error);
                (Reply::problem(&problem, self.app.hub.log()), 0)
            }
        };
        reply.cache = HELD;
        let mut parts = vec![self.response.head(&reply, keep)];
        parts.append(&mut reply.body);
        self.state = State::Answers { messages, keep };
        Err(Step::Say(parts))
    }

    /// Begins with a request that is the same but for its cursor. What is refused goes the long way, which says why.
    fn again(&mut self, said: &[u8]) -> Option<()> {
        let after = self.remembered?.cursor_in(said)?;
        let now = Instant::now();
        if self.asking.ends.is_some_and(|ends| ends.has_come(now)) {
            return None;
        }
        if let Some(in_progress) = &mut self.in_progress
            && !in_progress.begin_again()
        {
            return None;
        }
        let Ok(feed) = self.asking.feed(&self.app, after) else {
            self.in_progress.iter_mut().for_each(InProgress::pause);
            return None;
        };
        self.deadline = self.asking.deadline(now);
        self.last = self.deadline <= now || feed.closing();
        self.state = State::Reads(feed);
        Some(())
    }
}

fn read_view(mut feed: Feed, unread: Unread, limit: PageLimit) -> std::pin::Pin<Reading> {
    Box::pin(async move {
        let found = feed.read_with_view(unread, limit).await;
        (feed, found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_by_whichever_clock_says_so_first() {
        const HOUR_S: u64 = 3600;
        let (now, now_s) = (Instant::now(), clock::now_s());
        let later = now + Duration::from_secs(HOUR_S);
        for (at, unix_s, has_come) in [
            (later, now_s + HOUR_S, false),
            (later, now_s, true),
            (now, now_s + HOUR_S, true),
        ] {
            assert_eq!(TokenEnd { at, unix_s }.has_come(now), has_come);
        }
    }
}
