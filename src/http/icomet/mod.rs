//! icomet's own protocol (0.2.5), so that an app made for it moves by changing an address.
//!
//! A channel is the inbox of the user of that name, and its numbers are those of
//! [`Hub::channel_page`](crate::hub::Hub::channel_page): kept on disk, never begun again. What clients and
//! backends are told has icomet's shapes; what icomet does not protect is protected here.

mod admin;
mod params;
mod presence;
mod reply;
mod subscribe;
mod subscriber;
mod text;

use self::reply::{BACKEND_HEADERS, headers, method_not_allowed};
use self::text::Form;
use crate::http::endpoint::{Endpoint, Handling, Verb, now};
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::Outcome;
use crate::http::request::call::Call;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;

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

/// HEAD is a wrong method too: a GET changes things here.
fn wrong_method(allowed: &[&str]) -> Handling {
    now(Ok(method_not_allowed(allowed)))
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
    F: Future<Output = Result<Reply, Problem>> + Send + 'static,
{
    if !call.may_hold {
        return wrong_method(&["GET", "POST"]);
    }
    Box::pin(async move {
        let log = call.app.hub.log();
        let reply = work(call)
            .await
            .unwrap_or_else(|problem| Reply::problem(&problem, log));
        Ok(Outcome::Reply(Reply {
            more: headers(BACKEND_HEADERS),
            ..reply
        }))
    })
}
