//! What clients ask: who may, and what they are told if they may not.

use tokio::time::Instant;

use super::params::Params;
use super::reply::{text_reply, whole};
use super::subscriber::Subscriber;
use super::text::{self, Form, Kind};
use crate::config::IcometRules;
use crate::error::Error;
use crate::http::context::App;
use crate::http::context::channels::Subscribed;
use crate::http::context::in_progress::InProgress;
use crate::http::parked::Outcome;
use crate::http::request::auth;
use crate::http::request::call::{Call, Caller};
use crate::http::request::query::{digits, wrong};
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::hub::Feed;
use crate::model::{After, Transport, UserName};

/// Why nobody is let in.
enum Refused {
    /// As icomet says it: with its shape and status 200.
    Kind(Kind),
    /// icomet has no word for it.
    Problem(Problem),
}

impl<E: Into<Problem>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

/// Who is let in: a feed of the channel, and until when.
struct Admitted {
    feed: Feed,
    subscribed: Subscribed,
    expires: Option<Instant>,
    in_progress: InProgress,
}

/// Subscribes to a channel.
pub(super) async fn open(call: Call, form: Form) -> Result<Outcome, Problem> {
    let params = Params::of_query(call.query.raw())?;
    let user = params.channel()?;
    let form = match form {
        Form::Poll(_) => Form::Poll(params.callback()?),
        endless => endless,
    };
    let wanted = wanted(&call, &params, &form)?;
    // Under icomet's own rules anyone may ask for any name.
    let strict = call.app.icomet == Some(IcometRules::Strict);
    let caller = strict.then(|| {
        let caller = shown(&call, &params);
        auth::late(&call.app, call.peer, call.kind, caller)
    });
    let Admitted {
        feed,
        subscribed,
        expires,
        in_progress,
    } = match admit(&call.app, &user, caller).await {
        Ok(admitted) => admitted,
        Err(Refused::Kind(kind)) => return Ok(Outcome::Reply(refused(&form, &user, kind))),
        Err(Refused::Problem(problem)) => return Err(problem),
    };
    Ok(Outcome::park(Subscriber {
        feed,
        subscribed,
        form,
        wanted,
        next: 0,
        noop: params.number("noop"),
        expires,
        in_progress: Some(in_progress),
        user,
    }))
}

/// Lets in who may, if there is room: the caller of this name, or without one anybody.
async fn admit(
    app: &App,
    user: &UserName,
    caller: Option<impl Future<Output = Result<Caller, Problem>>>,
) -> Result<Admitted, Refused> {
    let channels = app.channels().ok_or(Problem::NoRoute)?;
    let expires = match caller {
        Some(caller) => match caller.await {
            Ok(caller) if caller.user == *user => Some(caller.ends),
            _ => return Err(Refused::Kind(Kind::Token)),
        },
        None if app.hub.has_channel(user) || channels.opened.admit(Instant::now()) => None,
        None => return Err(Refused::Kind(Kind::Channels)),
    };
    // Here a user is known only by the channel.
    let Ok(in_progress) = app.shared().in_progress.begin(user).await else {
        return Err(Refused::Kind(Kind::Subscribers));
    };
    let feed = match app.hub.feed(user.clone(), After::Now, Transport::Icomet) {
        Err(Error::TooManyWaiters { .. }) => return Err(Refused::Kind(Kind::Subscribers)),
        feed => feed?,
    };
    if !app.hub.open_channel(user).await? {
        return Err(Refused::Kind(Kind::Channels));
    }
    Ok(Admitted {
        feed,
        subscribed: channels.subscribe(user),
        expires,
        in_progress,
    })
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
