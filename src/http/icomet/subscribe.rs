//! What clients ask: who may, and what they are told if they may not.

use tokio::time::Instant;

use super::params::Params;
use super::reply::{text_reply, whole};
use super::subscriber::Subscriber;
use super::text::{self, Form, Kind};
use crate::config::IcometRules;
use crate::error::Error;
use crate::http::parked::Outcome;
use crate::http::request::auth;
use crate::http::request::call::{Call, Caller};
use crate::http::request::query::{digits, wrong};
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::model::{After, Transport, UserName};

/// Checks who asks for what. Refusals that icomet knows have its shape and status 200.
pub(super) async fn open(call: Call, form: Form) -> Result<Outcome, Problem> {
    let params = Params::of_query(call.query.raw())?;
    let user = params.channel()?;
    let form = match form {
        Form::Poll(_) => Form::Poll(params.callback()?),
        endless => endless,
    };
    let wanted = wanted(&call, &params, &form)?;
    let app = &call.app;
    let refused = |kind| Ok(Outcome::Reply(refused(&form, &user, kind)));
    let channels = app.channels().ok_or(Problem::NoRoute)?;
    let expires = match app.icomet {
        // Anyone may ask for any name here.
        Some(IcometRules::Open)
            if !app.hub.has_channel(&user) && !channels.opened.admit(Instant::now()) =>
        {
            return refused(Kind::Channels);
        }
        Some(IcometRules::Open) => None,
        Some(IcometRules::Strict) => {
            let caller = shown(&call, &params);
            match auth::late(app, call.peer, call.kind, caller).await {
                Ok(caller) if caller.user == user => Some(caller.ends),
                _ => return refused(Kind::Token),
            }
        }
        None => return Err(Problem::NoRoute),
    };
    // Here a user is known only by the channel.
    let Ok(in_progress) = app.shared().in_progress.begin(&user).await else {
        return refused(Kind::Subscribers);
    };
    let feed = match app.hub.feed(user.clone(), After::Now, Transport::Icomet) {
        Err(Error::TooManyWaiters { .. }) => return refused(Kind::Subscribers),
        feed => feed?,
    };
    if !app.hub.open_channel(&user).await? {
        return refused(Kind::Channels);
    }
    let subscriber = Subscriber {
        feed,
        subscribed: channels.subscribe(&user),
        form,
        wanted,
        next: 0,
        noop: params.number("noop"),
        expires,
        in_progress: Some(in_progress),
        user,
    };
    Ok(Outcome::park(subscriber))
}

/// Whose token it is that the request shows.
fn shown(call: &Call, params: &Params) -> Result<Caller, Problem> {
    match auth::bearer(&call.headers)?.unwrap_or_else(|| params.get("token")) {
        "" => Err(Problem::Unauthorized("a user token is needed".to_owned())),
        token => auth::bearer_of(&call.app, token),
    }
}

/// The number that the client wants next. An `EventSource` that comes again says what it had, and its address is still
/// the first one.
fn wanted(call: &Call, params: &Params, form: &Form) -> Result<i64, Problem> {
    let last = match form {
        Form::Events => call.last_event_id(),
        Form::Poll(_) | Form::Stream | Form::Frame => None,
    };
    let Some(last) = last else {
        return Ok(params.number("seq"));
    };
    let number = digits(&last).and_then(|number| i64::try_from(number).ok());
    let number = number.ok_or_else(|| wrong("Last-Event-ID", &last, "the `id` of an event"))?;
    Ok(number.saturating_add(1))
}

/// `icomet_cb({"type":"ping","sub_timeout":30});`
pub(super) fn ping(call: &Call) -> Result<Reply, Problem> {
    let callback = Params::of_query(call.query.raw())?.callback()?;
    let name = callback.as_ref().map_or("icomet_cb", |name| name.as_str());
    let seconds = call.app.timeouts.noop.as_secs().max(1);
    let text = format!("{name}({{\"type\":\"ping\",\"sub_timeout\":{seconds}}});\n");
    Ok(text_reply("text/javascript; charset=utf-8", text))
}

/// The whole reply of a request that is refused.
fn refused(form: &Form, user: &UserName, kind: Kind) -> Reply {
    let object = text::sign(kind, user, 0).into();
    whole(
        form,
        format!("{}{}", form.beginning(), form.framed(&object)),
    )
}
