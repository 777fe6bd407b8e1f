//! icomet's own protocol (0.2.5), so that an app made for it moves by changing an address.
//!
//! A channel is the inbox of the user of that name, and its numbers are those of
//! [`Hub::channel_page`](crate::hub::Hub::channel_page): kept on disk, never begun again. What clients and
//! backends are told has icomet's shapes; what icomet does not protect is protected here.

mod admin;
mod out;
mod params;
mod presence;
mod subscribe;
mod subscriber;
mod text;

use std::sync::Arc;

use tokio::sync::watch;
use warp::http::{HeaderName, HeaderValue, StatusCode};

use self::presence::Watcher;
use self::subscriber::Subscriber;
use self::text::Form;
use crate::http::endpoint::{Endpoint, Handling, Verb};
use crate::http::listener::service::Listener;
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::Holding;
use crate::http::request::call::Call;
use crate::http::response::head::Asked;
use crate::http::response::reply::{Outcome, Refusal, Reply};
use crate::http::socket::Line;

/// Headers of their own.
type Extra = &'static [(&'static str, &'static str)];

/// With every reply to a client.
const FRONT: Extra = &[("expires", "0")];
/// With events, which pages of any origin may read: a token is in the address, nothing is in a cookie.
const FRONT_EVENTS: Extra = &[("expires", "0"), ("access-control-allow-origin", "*")];
/// With every reply to a backend.
const ADMIN: Extra = &[("server", "icomet 0.2.5")];

fn headers(extra: Extra) -> Vec<(HeaderName, HeaderValue)> {
    let fixed = |(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    extra.iter().copied().map(fixed).collect()
}

/// What a held request waits for.
#[derive(Debug)]
pub(super) enum Ticket {
    Subscriber(Box<Subscriber>),
    Watcher(Watcher),
}

impl Ticket {
    pub(super) fn wait<'a>(
        self,
        line: Line,
        asked: Asked,
        listener: &'a Arc<Listener>,
        shutdown: &'a mut watch::Receiver<bool>,
    ) -> Holding<'a> {
        match self {
            Self::Subscriber(one) if one.polls() => {
                Box::pin(one.poll(line, asked, listener, shutdown))
            }
            Self::Subscriber(one) => Box::pin(one.stream(line, asked, listener, shutdown)),
            Self::Watcher(watcher) => Box::pin(watcher.wait(line, asked, listener, shutdown)),
        }
    }
}

/// The endpoints of one listener.
pub(super) fn endpoints(kind: ListenerKind) -> &'static [Endpoint] {
    match kind {
        ListenerKind::Client => CLIENTS,
        ListenerKind::Admin => BACKENDS,
    }
}

const CLIENTS: &[Endpoint] = &[
    get("/sub", |call| subscriber(call, Form::Poll(None))),
    other("/sub", |_| wrong_method(&["GET"])),
    get("/poll", |call| subscriber(call, Form::Poll(None))),
    other("/poll", |_| wrong_method(&["GET"])),
    get("/stream", |call| subscriber(call, Form::Stream)),
    other("/stream", |_| wrong_method(&["GET"])),
    get("/sse", |call| subscriber(call, Form::Events)),
    other("/sse", |_| wrong_method(&["GET"])),
    get("/iframe", |call| subscriber(call, Form::Frame)),
    other("/iframe", |_| wrong_method(&["GET"])),
    get("/ping", |call| now(subscribe::ping(&call))),
    other("/ping", |call| now(subscribe::ping(&call))),
];

const BACKENDS: &[Endpoint] = &[
    get("/push", |call| backend(call, admin::push)),
    post("/push", |call| backend(call, admin::push)),
    other("/push", |_| wrong_method(&["GET", "POST"])),
    get("/pub", |call| backend(call, admin::publish)),
    post("/pub", |call| backend(call, admin::publish)),
    other("/pub", |_| wrong_method(&["GET", "POST"])),
    get("/broadcast", |call| backend(call, admin::broadcast)),
    other("/broadcast", |_| wrong_method(&["GET"])),
    get("/sign", |call| backend(call, admin::sign)),
    post("/sign", |call| backend(call, admin::sign)),
    get("/close", |call| backend(call, admin::close)),
    post("/close", |call| backend(call, admin::close)),
    get("/clear", |call| backend(call, admin::clear)),
    post("/clear", |call| backend(call, admin::clear)),
    get("/info", |call| backend(call, admin::info)),
    post("/info", |call| backend(call, admin::info)),
    get("/check", |call| backend(call, admin::check)),
    post("/check", |call| backend(call, admin::check)),
    get("/psub", |call| Box::pin(presence::open(call))),
];

const fn get(path: &'static str, handler: fn(Call) -> Handling) -> Endpoint {
    Endpoint::new(Verb::Get, path, handler, "")
}

const fn post(path: &'static str, handler: fn(Call) -> Handling) -> Endpoint {
    Endpoint::new(Verb::Post, path, handler, "").takes("")
}

const fn other(path: &'static str, handler: fn(Call) -> Handling) -> Endpoint {
    Endpoint::new(Verb::Other, path, handler, "")
}

fn now(reply: Result<Reply, Refusal>) -> Handling {
    Box::pin(std::future::ready(reply.map(Outcome::Reply)))
}

/// HEAD is a wrong method too: a GET changes things here.
fn wrong_method(allowed: &[&str]) -> Handling {
    now(Ok(not_allowed(allowed)))
}

fn not_allowed(allowed: &[&str]) -> Reply {
    Reply {
        allow: Some(allowed.join(", ")),
        content_type: None,
        ..Reply::parts(StatusCode::METHOD_NOT_ALLOWED, Vec::new())
    }
}

fn subscriber(call: Call, form: Form) -> Handling {
    if !call.may_hold {
        return wrong_method(&["GET"]);
    }
    Box::pin(subscribe::open(call, form))
}

/// Answers a backend.
fn backend<F>(call: Call, work: fn(Call) -> F) -> Handling
where
    F: Future<Output = Result<Reply, Refusal>> + Send + 'static,
{
    if !call.may_hold {
        return wrong_method(&["GET", "POST"]);
    }
    Box::pin(async move {
        let log = call.app.hub.log();
        let reply = work(call)
            .await
            .unwrap_or_else(|refusal| Reply::refusal(&refusal, log));
        Ok(Outcome::Reply(Reply {
            more: headers(ADMIN),
            ..reply
        }))
    })
}

/// A reply of text that is there.
fn said(content_type: &'static str, text: String) -> Reply {
    Reply {
        content_type: Some(content_type),
        ..Reply::parts(StatusCode::OK, vec![text.into()])
    }
}
