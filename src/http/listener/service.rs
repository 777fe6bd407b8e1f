//! The thin layer between hyper and the routes.
//!
//! It answers what is no route's business (OPTIONS, HEAD, a GET with a body, a target without a path), adds the common
//! headers to replies, and hands a parked request to the connection loop: then it stays pending, and the loop takes the
//! socket away from hyper.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::http::{HeaderValue, Method, Request, Response, Version, header};

use super::exchange::Exchange;
use crate::http::context::App;
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::{Outcome, ParkedRequest};
use crate::http::request::body;
use crate::http::request::host;
use crate::http::response::head::ResponseContext;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::http::routing::routes::{self, Counted, OutcomeSlot, Route};

/// What all connections of one listener share.
pub(super) struct Listener {
    pub(super) app: App,
    pub(super) kind: ListenerKind,
    pub(super) routes: Route,
}

/// Serves the requests of one connection.
pub(super) struct HttpService {
    pub(super) listener: Arc<Listener>,
    pub(super) exchange: Arc<Exchange>,
    /// Who asks: a proxy, perhaps.
    pub(super) peer: Option<IpAddr>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;

impl Service<Request<Incoming>> for HttpService {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let without_body = request.body().is_end_stream();
        self.exchange.begin(without_body);
        let Listener { app, kind, .. } = &*self.listener;
        let cors = (*kind == ListenerKind::Client).then(|| &app.shared().cors);
        let context = ResponseContext::of(&request, cors);
        let (listener, exchange) = (self.listener.clone(), self.exchange.clone());
        let mut request = request;
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(routes::Peer(peer));
        }
        Box::pin(async move {
            let (outcome, in_progress) = match answer_early(&request, &listener) {
                Some(Ok(reply)) => (Outcome::Reply(reply), None),
                Some(Err(problem)) => {
                    let reply = Reply::problem(&problem, listener.app.hub.log());
                    (Outcome::Reply(reply), None)
                }
                None => ask_routes(&listener, &exchange, request).await,
            };
            match outcome {
                Outcome::Reply(reply) => {
                    exchange.set_in_progress(in_progress);
                    Ok(into_hyper_response(reply, &context, exchange))
                }
                Outcome::Park(parked) => {
                    exchange.park(ParkedRequest {
                        parked,
                        response: context,
                        in_progress,
                        head: None,
                    });
                    // The connection loop sees it, takes the socket back, and drops hyper with this future.
                    std::future::pending().await
                }
            }
        })
    }
}

fn answer_early(
    request: &Request<Incoming>,
    listener: &Listener,
) -> Option<Result<Reply, Problem>> {
    if let Err(problem) = host::check(request, &listener.app, listener.kind) {
        return Some(Err(problem));
    }
    if !request.body().is_end_stream()
        && let Err(problem) = body::plain(request.headers())
    {
        return Some(Err(problem));
    }
    let path = request.uri().path();
    if request.uri().path_and_query().is_none() {
        // As a proxy is asked to CONNECT. warp would panic over it.
        return Some(Err(Problem::BadRequest(
            "the target of a request must be a path".to_owned(),
        )));
    }
    match *request.method() {
        Method::OPTIONS => {
            let allow = routes::methods_of(&listener.app, listener.kind, path);
            let unknown = allow.is_none() && path != "*";
            Some(if unknown {
                Err(Problem::NoRoute)
            } else {
                Ok(Reply::options(allow))
            })
        }
        Method::GET | Method::HEAD if !request.body().is_end_stream() => {
            let allow = routes::methods_of(&listener.app, listener.kind, path);
            Some(Err(match allow {
                None => Problem::NoRoute,
                Some(allow) if !allow.contains("GET") => Problem::WrongMethod { allow },
                Some(_) => Problem::BadRequest("a GET or HEAD request has no body".to_owned()),
            }))
        }
        _ => None,
    }
}

async fn ask_routes(
    listener: &Listener,
    exchange: &Arc<Exchange>,
    mut request: Request<Incoming>,
) -> Counted {
    if request.version() < Version::HTTP_11 {
        // An upgrade is to be ignored there (RFC 9110, 7.8).
        request.headers_mut().remove(header::UPGRADE);
    }
    if request.method() == Method::HEAD {
        // hyper leaves the body out of the reply, as it has seen the real method.
        *request.method_mut() = Method::GET;
        request.extensions_mut().insert(routes::HeadOnly);
    }
    let request = request.map(|body| Watched {
        body,
        exchange: exchange.clone(),
    });
    let service = TowerToHyperService::new(warp::service(listener.routes.clone()));
    let Ok(mut response) = service.call(request).await;
    response
        .extensions_mut()
        .remove::<OutcomeSlot>()
        .and_then(|slot| slot.take())
        .unwrap_or_else(|| {
            let reply = Reply::problem(&Problem::Internal, listener.app.hub.log());
            (Outcome::Reply(reply), None)
        })
}

fn into_hyper_response(
    reply: Reply,
    context: &ResponseContext,
    exchange: Arc<Exchange>,
) -> Response<ReplyBody> {
    let unread = !exchange.is_request_done();
    let left = u64::try_from(reply.body_bytes()).unwrap_or(u64::MAX);
    let mut response = Response::new(ReplyBody {
        parts: Vec::new().into_iter(),
        left,
        exchange,
    });
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    context.headers(&reply, |name, value| {
        headers.insert(name, value);
    });
    if unread {
        // The rest of the request's body is not worth reading.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().parts = reply.body.into_iter();
    response
}

/// A request's body that tells when it was read to its end: only then may the socket be taken back.
struct Watched {
    body: Incoming,
    exchange: Arc<Exchange>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.exchange.set_request_done();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A reply's body: its parts as they are, and a note when hyper has taken them all.
pub(super) struct ReplyBody {
    parts: vec::IntoIter<Bytes>,
    left: u64,
    exchange: Arc<Exchange>,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(part) = self.parts.next() else {
            return Poll::Ready(None);
        };
        self.left = self
            .left
            .saturating_sub(u64::try_from(part.len()).unwrap_or(u64::MAX));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.exchange.set_reply_done();
    }
}
