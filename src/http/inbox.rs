//! `GET /v1/inbox`: classic and long polling, for users and for the backend.

use std::time::Duration;

use tokio::time::Instant;
use warp::http::StatusCode;

use super::app::{App, Face};
use super::call::Call;
use super::hold::Ticket;
use super::json::Writer;
use super::poll::Poll;
use super::query::PageForm;
use super::reply::{HELD, Outcome, Refusal, Reply};
use crate::model::{Batch, Transport};

/// How long a client's poll is held when it does not say.
const WAIT_USUAL: Duration = Duration::from_secs(30);

/// Checks the request; reading and waiting are done outside of hyper, whose buffers would be many if
/// many clients came back at once.
pub(super) async fn poll(call: Call) -> Result<Outcome, Refusal> {
    let user = call.reader()?;
    let after = call.query.after()?;
    let limit = call.page(PageForm::Reply)?;
    let deadline = Instant::now() + wait(&call)?;
    // At its end the token is no longer good for what comes.
    let deadline = match &call.caller {
        Some(caller) => deadline.min(caller.ends),
        None => deadline,
    };
    let mut feed = match call.face {
        Face::Client => call.app.hub.feed(user, after, Transport::Poll)?,
        Face::Admin => call.app.hub.backend_feed(user, after)?,
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
    Ok(Outcome::Reply(page(&call.app, &batch)))
}

fn wait(call: &Call) -> Result<Duration, Refusal> {
    let most = call.app.limits.poll_wait_max;
    let given = call.query.number("wait", 0..=most.as_secs())?;
    Ok(match (given, call.face) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Face::Client) => WAIT_USUAL.min(most),
        // The backend asks for what is there, as it does everywhere else.
        (None, Face::Admin) => Duration::ZERO,
    })
}

/// The reply that carries a batch.
pub(super) fn page(app: &App, batch: &Batch) -> Reply {
    let mut out = Writer::default();
    write(app, &mut out, batch);
    Reply {
        cache: HELD,
        ..Reply::parts(StatusCode::OK, out.finish())
    }
}

/// A batch as JSON: the same object by every transport.
pub(super) fn write(app: &App, out: &mut Writer, batch: &Batch) {
    out.page_of(app.hub.log());
    out.raw("\"messages\":[");
    for (index, message) in batch.messages.iter().enumerate() {
        if index > 0 {
            out.raw(",");
        }
        app.shared().rendered.write(out, message);
    }
    out.raw("],");
    out.cursor(batch.next);
    out.raw(if batch.more {
        ",\"more\":true}"
    } else {
        ",\"more\":false}"
    });
}
