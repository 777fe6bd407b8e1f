//! From the table of endpoints to warp filters.
//!
//! Each route matches its path, then its method, and then answers: a handler never rejects, as to warp
//! a rejection means "try the next route". The last route takes what no other took and says why.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::filters::path::FullPath;
use warp::reply::Response;

use crate::http::context::App;
use crate::http::context::in_progress::InProgress;
use crate::http::endpoint::{Auth, Endpoint, Verb, parameter};
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::Outcome;
use crate::http::request::auth;
use crate::http::request::body::{self, BodyStream};
use crate::http::request::call::{Call, Segment};
use crate::http::request::query::Query;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::http::routing::table;
use crate::http::session::stream;

/// A filter that answers.
pub(in crate::http) type Route = BoxedFilter<(Response,)>;

/// Marks a request whose reply will be sent without its body.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct HeadOnly;

/// An outcome, and the count of its request while it is in progress.
pub(in crate::http) type Counted = (Outcome, Option<InProgress>);
/// Who asks, as the connection knows it.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Peer(pub(in crate::http) IpAddr);

/// Takes an outcome past warp, whose replies have one body and cannot be parked. It travels as an extension of the
/// response, and extensions must be `Clone`, hence the `Arc`.
#[derive(Clone, Debug)]
pub(in crate::http) struct OutcomeSlot(Arc<Mutex<Option<Counted>>>);

impl OutcomeSlot {
    pub(in crate::http) fn take(&self) -> Option<Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn response(outcome: Outcome, in_progress: Option<InProgress>) -> Response {
        let mut response = Response::default();
        response
            .extensions_mut()
            .insert(Self(Arc::new(Mutex::new(Some((outcome, in_progress))))));
        response
    }
}

/// All routes of one listener.
pub(in crate::http) fn routes(app: &App, kind: ListenerKind) -> Route {
    table::of_app(app, kind)
        .map(|endpoint| route(app, kind, endpoint))
        .chain([unmatched(app, kind)])
        // Boxed one by one: the nested type of all of them would take twice as long to compile.
        .reduce(|above, route| above.or(route).unify().boxed())
        .expect("there is at least one route")
}

/// The methods that a path takes, as in `Allow`; none if there is no such path.
pub(in crate::http) fn methods_of(app: &App, kind: ListenerKind, path: &str) -> Option<String> {
    methods(table::of_app(app, kind), path)
}

fn methods(endpoints: impl Iterator<Item = &'static Endpoint>, path: &str) -> Option<String> {
    let mut methods = Vec::new();
    for endpoint in endpoints.filter(|endpoint| matched(endpoint.path, path).is_some()) {
        if endpoint.verb == Verb::Other {
            continue;
        }
        methods.push(endpoint.verb.name());
        if endpoint.verb == Verb::Get {
            methods.push("HEAD");
        }
    }
    if methods.is_empty() {
        return None;
    }
    methods.push("OPTIONS");
    Some(methods.join(", "))
}

fn route(app: &App, kind: ListenerKind, endpoint: &'static Endpoint) -> Route {
    let app = app.clone();
    warp::path::full()
        .and_then(move |path: FullPath| {
            let path = matched(endpoint.path, path.as_str());
            std::future::ready(path.ok_or_else(warp::reject::not_found))
        })
        .and(method(endpoint.verb))
        .and(warp::header::headers_cloned())
        // `raw` alone rejects a request without a query.
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::ext::optional::<HeadOnly>())
        .and(warp::ext::optional::<Peer>())
        .and(request_body(endpoint))
        .then(
            move |path, headers, query, head_only: Option<HeadOnly>, peer: Option<Peer>, body| {
                let call = Call {
                    app: app.clone(),
                    peer: peer.map(|Peer(peer)| peer),
                    caller: None,
                    query: Query::new(query),
                    headers,
                    may_hold: head_only.is_none(),
                    kind,
                    path,
                    body,
                };
                respond(endpoint, call)
            },
        )
        .boxed()
}

fn method(verb: Verb) -> BoxedFilter<()> {
    match verb {
        Verb::Get => warp::get().boxed(),
        Verb::Post => warp::post().boxed(),
        Verb::Put => warp::put().boxed(),
        Verb::Delete => warp::delete().boxed(),
        Verb::Other => warp::any().boxed(),
    }
}

fn request_body(endpoint: &Endpoint) -> BoxedFilter<(BodyStream,)> {
    if endpoint.takes.is_some() {
        warp::body::stream().map(body::pieces).boxed()
    } else {
        warp::any().map(body::none).boxed()
    }
}

fn unmatched(app: &App, kind: ListenerKind) -> Route {
    let app = app.clone();
    warp::path::full()
        .map(move |path: FullPath| {
            let problem = match methods_of(&app, kind, path.as_str()) {
                Some(allow) => Problem::WrongMethod { allow },
                None => Problem::NoRoute,
            };
            let reply = Reply::problem(&problem, app.hub.log());
            OutcomeSlot::response(Outcome::Reply(reply), None)
        })
        .boxed()
}

async fn respond(endpoint: &'static Endpoint, call: Call) -> Response {
    let log = call.app.hub.log();
    let as_event = endpoint.events && stream::tells_refusals(&call.query);
    // A fault in one handler is that request's, not the connection's.
    let outcome = AssertUnwindSafe(answer(endpoint, call))
        .catch_unwind()
        .await;
    let told = |problem| {
        let reply = if as_event {
            stream::problem_event(&problem, log)
        } else {
            Reply::problem(&problem, log)
        };
        (Outcome::Reply(reply), None)
    };
    let (outcome, in_progress) = outcome
        .unwrap_or(Err(Problem::Internal))
        .unwrap_or_else(told);
    OutcomeSlot::response(outcome, in_progress)
}

async fn answer(endpoint: &'static Endpoint, mut call: Call) -> Result<Counted, Problem> {
    if matches!(endpoint.verb, Verb::Put | Verb::Delete)
        && endpoint.takes.is_none()
        && body::is_announced(&call.headers)
    {
        return Err(Problem::BadRequest(
            "this path takes no body: send the request without one".to_owned(),
        ));
    }
    match endpoint.auth {
        Auth::Nobody => {}
        Auth::User => call.caller = Some(auth::user(&call).await?),
        Auth::Key => auth::admin(&call).await?,
    }
    // After authentication, or anyone could use up a user's places.
    let in_progress = match &call.caller {
        Some(caller) => Some(call.app.shared().in_progress.begin(&caller.user).await?),
        None => None,
    };
    let outcome = (endpoint.handler)(call).await?;
    Ok((outcome, in_progress))
}

/// The parameters of a path, if it is of this form. Segments are compared before they are decoded, so
/// that a name may hold a `/`.
fn matched(form: &'static str, path: &str) -> Option<Vec<Segment>> {
    let mut segments = path.split('/');
    let mut parameters = Vec::new();
    for part in form.split('/') {
        let segment = segments.next()?;
        match parameter(part) {
            Some(name) if !segment.is_empty() => {
                parameters.push(Segment {
                    name,
                    raw: segment.to_owned(),
                });
            }
            None if part == segment => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_their_form_only() {
        let form = "/v1/direct/{peer}/messages";
        let found = matched(form, "/v1/direct/a%2Fb/messages").unwrap();
        assert_eq!(
            found,
            [Segment {
                name: "peer",
                raw: "a%2Fb".to_owned()
            }]
        );
        for other in [
            "/v1/direct//messages",
            "/v1/direct/a/messages/",
            "/v1/direct/a/b/messages",
            "/v1/direct/a",
            "/v1/group/a/messages",
            "v1/direct/a/messages",
        ] {
            assert_eq!(matched(form, other), None, "{other}");
        }
    }

    #[test]
    fn allowed_methods_are_those_of_the_table() {
        let path = "/v1/direct/bob/messages";
        assert_eq!(
            methods(table::of(ListenerKind::Client), path).as_deref(),
            Some("POST, GET, HEAD, OPTIONS")
        );
        assert_eq!(
            methods(table::of(ListenerKind::Admin), path).as_deref(),
            Some("POST, OPTIONS")
        );
        assert_eq!(methods(table::of(ListenerKind::Client), "/v1/tokens"), None);
    }
}
