//! Every endpoint in one table: the router, `Allow` and the `OpenAPI` document are made from it, so none
//! of them can know more or less than the others.

mod backend;
mod shared;
mod users;

use crate::http::api::operations;
use crate::http::context::App;
use crate::http::endpoint::{Endpoint, Verb, now};
use crate::http::icomet;
use crate::http::listener_kind::ListenerKind;
use crate::http::pages;
use crate::http::response::problem::Code;
use crate::http::routing::openapi;

/// The endpoints of one listener of this app: it has pages, and may speak icomet's protocol.
pub(in crate::http) fn of_app(
    app: &App,
    kind: ListenerKind,
) -> impl Iterator<Item = &'static Endpoint> {
    let more: &[Endpoint] = match app.channels() {
        Some(_) => icomet::endpoints(kind),
        None => &[],
    };
    of(kind).chain(more).chain(pages::of(app, kind))
}

/// The endpoints of one listener: Halley's own.
pub(in crate::http) fn of(kind: ListenerKind) -> impl Iterator<Item = &'static Endpoint> {
    let own: &[Endpoint] = match kind {
        ListenerKind::Client => users::CLIENT,
        ListenerKind::Admin => backend::ADMIN,
    };
    own.iter().chain(BOTH)
}

/// For anyone, on both listeners.
const BOTH: &[Endpoint] = &[
    Endpoint::new(
        Verb::Get,
        "/healthz",
        |_| now(Ok(operations::health())),
        "The process answers",
    )
    .named("getHealth")
    .gives(&[(200, "Health")]),
    Endpoint::new(
        Verb::Get,
        "/readyz",
        |call| now(operations::ready(&call)),
        "The server can do all its work",
    )
    .named("getReadiness")
    .gives(&[(200, "Health")])
    .refuses(&[
        Code::WritesRefused,
        Code::DiskFull,
        Code::DiskStalled,
        Code::Closing,
        Code::StoreDamaged,
    ]),
    Endpoint::new(
        Verb::Get,
        "/openapi.json",
        |call| now(Ok(openapi::reply(&call.app, call.kind, of(call.kind)))),
        "This document",
    )
    .named("getOpenApi")
    .gives(&[(200, "OpenApiDocument")]),
];
