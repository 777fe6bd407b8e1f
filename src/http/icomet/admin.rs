//! What backends ask: to publish, to sign clients in, to close channels, and what is in use.

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use warp::http::StatusCode;

use super::params::Params;
use super::reply::text_reply;
use super::text::{call as called, page, quoted};
use crate::clock;
use crate::config::IcometRules;
use crate::http::context::App;
use crate::http::context::channels::ChannelsInUse;
use crate::http::request::auth;
use crate::http::request::call::Call;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::hub;
use crate::model::{Body, Draft, Receiver, UserName};
use crate::token::{self, Claims};

/// The types that icomet gives its replies.
const HTML: &str = "text/html; charset=utf-8";
const HTML_LATIN: &str = "text/html; charset=ISO-8859-1";
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// How long a signed token is good: a day.
const TOKEN_S: u64 = 86_400;
/// What a form may hold around its content.
const FORM_BYTES: usize = 16 * 1024;
/// `%22` for `"`: encoded, a byte is at most three.
const ENCODED: usize = 3;
/// Channels that are looked at for one list of those that are not in use.
const IDLE_LOOKED_AT: usize = 1000;
/// icomet's clients begin so many messages back at most.
const BACK_MAX: u64 = 10;

/// The parameters of a backend that may ask. The key may be among them, also in a form.
pub(super) async fn asked(call: &mut Call) -> Result<Params, Problem> {
    let mut params = Params::of_query(call.query.raw())?;
    let strict = call.app.icomet != Some(IcometRules::Open);
    // A wrong key is refused before the form is read.
    let mut shown = !strict;
    if strict && auth::bearer(&call.headers)?.is_some() {
        auth::admin(call).await?;
        shown = true;
    } else if strict && !params.get("key").is_empty() {
        auth::admin_key(call, params.get("key")).await?;
        shown = true;
    }
    let limits = &call.app.limits;
    let bytes_max = limits.body_bytes_max.saturating_mul(ENCODED) + FORM_BYTES;
    let form = call
        .read_body(bytes_max.min(limits.request_bytes_max))
        .await?;
    params.add_form(&form)?;
    match params.get("key") {
        _ if shown => Ok(params),
        "" => Err(Problem::Unauthorized(
            "the admin key is needed: `Authorization: Bearer KEY`, or the parameter `key`"
                .to_owned(),
        )),
        key => auth::admin_key(call, key).await.map(|()| params),
    }
}

/// Plain text for one channel.
pub(super) async fn push(mut call: Call) -> Result<Reply, Problem> {
    let params = asked(&mut call).await?;
    let body = Body::from(quoted(params.get("content")).into_bytes());
    send(&call.app, &params, body).await
}

/// Text that is the inside of a JSON string already, for one channel.
pub(super) async fn publish(mut call: Call) -> Result<Reply, Problem> {
    let params = asked(&mut call).await?;
    let json = format!("\"{}\"", params.get("content"));
    let raw: &RawValue = serde_json::from_str(&json).map_err(|_| {
        Problem::BadQuery(
            "`content` must be the inside of a JSON string: `/push` takes plain text".to_owned(),
        )
    })?;
    send(&call.app, &params, Body::from_json(raw)?).await
}

async fn send(app: &App, params: &Params, body: Body) -> Result<Reply, Problem> {
    let (user, callback) = (params.channel()?, params.callback()?);
    check_length(app, &body)?;
    let draft = Draft {
        from: hub::icomet_user(),
        to: Receiver::User(user.clone()),
        body,
        key: None,
        by_user: false,
    };
    if app.hub.push_to_channel(draft).await?.is_none() {
        return Ok(too_many_channels());
    }
    if let Some(channels) = app.channels() {
        channels.published(&user);
    }
    Ok(text_reply(
        SCRIPT,
        called(callback.as_ref(), "{\"type\":\"ok\"}"),
    ))
}

/// Plain text for all channels.
pub(super) async fn broadcast(mut call: Call) -> Result<Reply, Problem> {
    let params = asked(&mut call).await?;
    let body = Body::from(quoted(params.get("content")).into_bytes());
    check_length(&call.app, &body)?;
    call.app.hub.broadcast(body).await?;
    if let Some(channels) = call.app.channels() {
        channels.published_to_all();
    }
    Ok(text_reply(HTML_LATIN, "ok\n".to_owned()))
}

/// As icomet says it.
fn too_many_channels() -> Reply {
    Reply {
        content_type: None,
        ..Reply::parts(StatusCode::TOO_MANY_REQUESTS, Vec::new())
    }
}

fn check_length(app: &App, body: &Body) -> Result<(), Problem> {
    let limit = app.limits.body_bytes_max;
    if body.as_bytes().len() > limit {
        return Err(Problem::TooLarge {
            what: "the message's body",
            limit,
            unit: " bytes",
        });
    }
    Ok(())
}

/// A token for a client, and where it may begin.
pub(super) async fn sign(mut call: Call) -> Result<Reply, Problem> {
    let params = asked(&mut call).await?;
    let (user, callback) = (params.channel()?, params.callback()?);
    let app = &call.app;
    let token = token_for(app, &user)?;
    let channels = app.channels().ok_or(Problem::NoRoute)?;
    if !app.hub.open_channel(&user).await? {
        return Ok(too_many_channels());
    }
    let expires = channels.signed(&user, params.number("expires"));
    let held = app.hub.channel_page(user.clone(), 1, 0).await?;
    let back = held.next.saturating_sub(BACK_MAX);
    let seq = back.max(held.first).max(channels.first(&user));
    let json = format!(
        "{{\"type\":\"sign\",\"cname\":{},\"seq\":{seq},\"token\":{},\"expires\":{},\"sub_timeout\":{}}}",
        quoted(user.as_str()),
        quoted(&token),
        expires.as_secs(),
        app.timeouts.noop.as_secs().max(1),
    );
    let content_type = if callback.is_some() { SCRIPT } else { HTML };
    Ok(text_reply(
        content_type,
        called(callback.as_ref(), &page(&json)),
    ))
}

/// A user token; under icomet's own rules, where nobody asks for it, what looks like icomet's: not a key to
/// anything else.
fn token_for(app: &App, user: &UserName) -> Result<String, Problem> {
    if app.icomet == Some(IcometRules::Open) {
        let hash = Sha256::digest(user.as_str().as_bytes());
        let [half, _] = hash.as_chunks::<16>().0 else {
            return Err(Problem::Internal);
        };
        return Ok(format!("{:032x}", u128::from_be_bytes(*half)));
    }
    let Some(secret) = &app.token_secret else {
        return Err(Problem::Forbidden(
            "this server only knows a public key: tokens are made where the private key is",
        ));
    };
    let claims = Claims {
        user: user.as_str().to_owned(),
        send: false,
        expires_at: clock::now_s() + TOKEN_S,
    };
    Ok(token::mint(secret.expose().as_bytes(), &claims))
}

async fn next(app: &App, user: &UserName) -> Result<u64, Problem> {
    Ok(app.hub.channel_page(user.clone(), 1, 0).await?.next)
}

/// Ends the requests that wait for a channel; with `forget=1` also the channel, which then takes no place.
pub(super) async fn close(mut call: Call) -> Result<Reply, Problem> {
    let params = asked(&mut call).await?;
    let (user, forget) = (params.channel()?, params.flag("forget")?);
    let channels = call.app.channels().ok_or(Problem::NoRoute)?;
    if forget {
        // Before the requests end: who waits for what is closed finds that out, whoever of two is first.
        let next = call.app.hub.close_channel(user.clone()).await?;
        channels.close(&user);
        return Ok(numbered(next.is_some(), &user, next.unwrap_or(1)));
    }
    let next = next(&call.app, &user).await?;
    Ok(numbered(channels.close(&user), &user, next))
}

/// Hides what is there; the numbers go on.
pub(super) async fn clear(mut call: Call) -> Result<Reply, Problem> {
    let user = asked(&mut call).await?.channel()?;
    let next = next(&call.app, &user).await?;
    let channels = call.app.channels().ok_or(Problem::NoRoute)?;
    Ok(numbered(channels.clear(&user, next), &user, next))
}

fn numbered(used: bool, user: &UserName, next: u64) -> Reply {
    if used {
        return text_reply(HTML, format!("ok {next}\n"));
    }
    // As a page would show it: the type says that it is one.
    let name = user.as_str().replace('&', "&amp;").replace('<', "&lt;");
    Reply {
        status: StatusCode::NOT_FOUND,
        ..text_reply(HTML, format!("channel[{name}] not connected\n"))
    }
}

/// How many channels are in use, or how many requests wait for one; with `idle=1` which are open and not in use.
pub(super) async fn info(mut call: Call) -> Result<Reply, Problem> {
    let params = asked(&mut call).await?;
    let channels = call.app.channels().ok_or(Problem::NoRoute)?;
    if params.flag("idle")? {
        return Ok(text_reply(
            HTML,
            idle(&call.app, channels, params.after()?.as_ref()),
        ));
    }
    if params.get("cname").is_empty() {
        let (channels, subscribers) = channels.counts();
        let json = format!(
            "{{\"version\": \"0.2.5\", \"channels\": {channels}, \"subscribers\": {subscribers}}}\n"
        );
        return Ok(text_reply(HTML, json));
    }
    let user = params.channel()?;
    let (name, subscribers) = (quoted(user.as_str()), channels.waiting(&user));
    let json = format!(
        "{{\"cname\": {}, \"subscribers\": {subscribers}}}\n",
        page(&name)
    );
    Ok(text_reply(HTML, json))
}

/// Part of the open channels that are not in use, and after which of them to go on.
fn idle(app: &App, channels: &ChannelsInUse, after: Option<&UserName>) -> String {
    let open = app.hub.open_channels(after, IDLE_LOOKED_AT);
    let more = open.last().filter(|_| open.len() == IDLE_LOOKED_AT);
    let next = more.map_or("null".to_owned(), |last| quoted(last.as_str()));
    let idle = open.iter().filter(|user| !channels.contains(user));
    let idle: Vec<_> = idle.map(|user| quoted(user.as_str())).collect();
    let json = format!("{{\"idle\": [{}], \"next\": {next}}}\n", idle.join(", "));
    page(&json)
}

/// Whether a channel is in use.
pub(super) async fn check(mut call: Call) -> Result<Reply, Problem> {
    let user = asked(&mut call).await?.channel()?;
    let channels = call.app.channels().ok_or(Problem::NoRoute)?;
    let json = if channels.contains(&user) {
        format!("{{{}: 1}}\n", page(&quoted(user.as_str())))
    } else {
        "{}\n".to_owned()
    };
    Ok(text_reply(HTML, json))
}
