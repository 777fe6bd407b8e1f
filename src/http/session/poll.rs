//! A held poll: it reads, waits if it finds nothing, and answers once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::http::context::in_progress::InProgress;
use crate::http::listener::service::Listener;
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::Ticket;
use crate::http::parked::stopped;
use crate::http::parked::{End, answer};
use crate::http::request::call::Call;
use crate::http::request::query::PageForm;
use crate::http::response::head::Asked;
use crate::http::response::reply::{Outcome, Refusal, Reply};
use crate::http::session::page;
use crate::http::socket::Line;
use crate::http::socket::left;
use crate::hub::Feed;
use crate::model::{Batch, PageLimit, Transport};

/// How long a client's poll is held when it does not say.
const WAIT_USUAL: Duration = Duration::from_secs(30);

/// A poll: it reads, and waits if it finds nothing.
#[derive(Debug)]
pub(in crate::http) struct Poll {
    pub(in crate::http) feed: Feed,
    pub(in crate::http) limit: PageLimit,
    pub(in crate::http) deadline: Instant,
    /// Counts the request, but while it waits.
    pub(in crate::http) work: Option<InProgress>,
}

/// `GET /v1/inbox`, for users and for the backend: classic and long polling.
///
/// Checks the request; reading and waiting are done outside of hyper, whose buffers would be many if
/// many clients came back at once.
pub(in crate::http) async fn open(call: Call) -> Result<Outcome, Refusal> {
    let user = call.reader()?;
    let after = call.query.after()?;
    let limit = call.page(PageForm::Reply)?;
    let deadline = Instant::now() + wait(&call)?;
    // At its end the token is no longer good for what comes.
    let deadline = match &call.caller {
        Some(caller) => deadline.min(caller.ends),
        None => deadline,
    };
    let mut feed = match call.kind {
        ListenerKind::Client => call.app.hub.feed(user, after, Transport::Poll)?,
        ListenerKind::Admin => call.app.hub.backend_feed(user, after)?,
    };
    if call.may_hold {
        return Ok(Outcome::Held(Ticket::Poll(Poll {
            feed,
            limit,
            deadline,
            work: None,
        })));
    }
    let batch = feed.read(limit).await?;
    Ok(Outcome::Reply(page::reply(&call.app, &batch)))
}

fn wait(call: &Call) -> Result<Duration, Refusal> {
    let most = call.app.limits.poll_wait_max;
    let given = call.query.number("wait", 0..=most.as_secs())?;
    Ok(match (given, call.kind) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, ListenerKind::Client) => WAIT_USUAL.min(most),
        // The backend asks for what is there, as it does everywhere else.
        (None, ListenerKind::Admin) => Duration::ZERO,
    })
}

impl Poll {
    pub(in crate::http) async fn wait(
        mut self,
        mut line: Line,
        asked: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let Some(outcome) = self.outcome(&mut line, shutdown).await else {
            return End::Gone;
        };
        let keep = asked.keep && !self.feed.closing() && !*shutdown.borrow();
        // The waiter goes before the reply is written: a slow peer is not a waiter, but a request in work.
        let mut work = self.work.take();
        work.iter_mut().for_each(InProgress::go_on);
        drop(self);
        let app = &listener.app;
        let (reply, count) = match outcome {
            Ok(batch) => (page::reply(app, &batch), batch.messages.len()),
            Err(refusal) => (Reply::refusal(&refusal, app.hub.log()), 0),
        };
        // Boxed, as is the reading: short, and else a part of every held request.
        let end = Box::pin(answer(line, &asked, reply, keep, app.timeouts.patience())).await;
        if !matches!(end, End::Gone) {
            app.delivered(count);
        }
        end
    }

    /// What to answer; none when the peer left.
    async fn outcome(
        &mut self,
        line: &mut Line,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Option<Result<Batch, Refusal>> {
        let mut last = self.deadline <= Instant::now() || self.feed.closing();
        loop {
            // Boxed: it is short, and would take room in every held request.
            match Box::pin(self.feed.read(self.limit)).await {
                Ok(batch) if batch.messages.is_empty() && !batch.more && !last => {}
                batch => return Some(batch.map_err(Refusal::Hub)),
            }
            self.work.iter_mut().for_each(InProgress::pause);
            last = tokio::select! {
                biased;
                () = self.feed.wait() => self.feed.closing(),
                () = left(line) => return None,
                () = stopped(shutdown) => true,
                () = sleep_until(self.deadline) => true,
            };
        }
    }
}
