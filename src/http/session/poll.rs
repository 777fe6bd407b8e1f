//! A held poll: it reads, waits if it finds nothing, and answers once.

use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use super::page;
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::{NextState, Outcome, Parked, ParkedConnection, Running, Wake};
use crate::http::request::call::Call;
use crate::http::request::query::{PageForm, Parameter};
use crate::http::response::problem::Problem;
use crate::hub::Feed;
use crate::model::{Batch, PageLimit, Transport};

/// How long a client's poll is held when it does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// A poll: it reads, and waits if it finds nothing.
#[derive(Debug)]
struct Poll {
    feed: Feed,
    limit: PageLimit,
    deadline: Instant,
}

/// `GET /v1/inbox`, for users and for the backend: classic and long polling.
///
/// Checks the request; reading and waiting are done outside of hyper, whose buffers would be many if
/// many clients came back at once.
pub(in crate::http) async fn open(call: Call) -> Result<Outcome, Problem> {
    let user = call.reader()?;
    let after = call.query.after()?;
    let limit = call.page(PageForm::Reply)?;
    let deadline = Instant::now() + wait(&call)?;
    // At its end the token is no longer good for what comes.
    let deadline = match &call.caller {
        Some(caller) => deadline.min(caller.ends),
        None => deadline,
    };
    // Subscribes before anything is read, so that no message falls between reading and waiting.
    let mut feed = match call.kind {
        ListenerKind::Client => call.app.hub.feed(user, after, Transport::Poll)?,
        ListenerKind::Admin => call.app.hub.backend_feed(user, after)?,
    };
    if call.may_hold {
        return Ok(Outcome::park(Poll {
            feed,
            limit,
            deadline,
        }));
    }
    let batch = feed.read(limit).await?;
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
    fn run(self: Box<Self>, mut connection: ParkedConnection<'_>) -> Running<'_> {
        let mut poll = *self;
        Box::pin(async move {
            let Some(outcome) = poll.outcome(&mut connection).await else {
                return NextState::Gone;
            };
            let keep_alive = connection.may_keep_alive() && !poll.feed.closing();
            // The waiter goes before the reply is written: a slow peer is not a waiter, but a request in progress.
            connection.resume();
            drop(poll);
            let (reply, messages) = match outcome {
                Ok(batch) => (page::reply(connection.app, &batch), batch.messages.len()),
                Err(problem) => (connection.problem(&problem), 0),
            };
            connection.answer(reply, messages, keep_alive).await
        })
    }
}

impl Poll {
    /// What to answer; none when the peer left.
    async fn outcome(
        &mut self,
        connection: &mut ParkedConnection<'_>,
    ) -> Option<Result<Batch, Problem>> {
        let mut last = self.deadline <= Instant::now() || self.feed.closing();
        loop {
            // Boxed: it is short, and would take room in every parked request.
            match Box::pin(self.feed.read(self.limit)).await {
                Ok(batch) if batch.messages.is_empty() && !batch.more && !last => {}
                batch => return Some(batch.map_err(Problem::Hub)),
            }
            connection.pause();
            // When the time is up or the server stops, it reads once more: a message may have come in that moment.
            let wake = connection.wait(pin!(self.feed.wait()), self.deadline).await;
            last = match wake {
                Wake::Event(()) => self.feed.closing(),
                Wake::Disconnected => return None,
                Wake::Shutdown | Wake::Time => true,
            };
        }
    }
}
