//! The thin layer between hyper and the routes.
//!
//! It answers what is no route's business (OPTIONS, HEAD, a GET with a body, a target without a path), dresses replies with the
//! common headers, and hands a held request to the connection loop: then it stays pending, and the loop
//! takes the socket away from hyper.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::vec;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use warp::http::{HeaderValue, Method, Request, Response, Version, header};

use crate::http::context::App;
use crate::http::context::in_progress::InProgress;
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::Held;
use crate::http::request::body;
use crate::http::request::host;
use crate::http::response::head::Asked;
use crate::http::response::reply::{Outcome, Refusal, Reply};
use crate::http::routing::routes::{self, Carried, Counted, Route};

/// What all connections of one listener share.
pub(in crate::http) struct Listener {
    pub(in crate::http) app: App,
    pub(in crate::http) kind: ListenerKind,
    pub(in crate::http) routes: Route,
}

/// Where one request stands, seen from the connection loop.
#[derive(Debug, Default)]
pub(in crate::http) struct Exchange {
    request_done: AtomicBool,
    reply_done: AtomicBool,
    blocked: AtomicBool,
    /// A request has begun since the last write.
    begun: AtomicBool,
    held: Mutex<Option<Held>>,
    /// Counts the request until its reply is written.
    work: Mutex<Option<InProgress>>,
}

impl Exchange {
    fn begin(&self, without_body: bool) {
        self.reply_done.store(false, Ordering::Relaxed);
        self.request_done.store(without_body, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        self.set_work(None);
    }

    /// Whether a request has begun since this was last asked.
    pub(in crate::http) fn take_begun(&self) -> bool {
        self.begun.swap(false, Ordering::Relaxed)
    }

    fn set_work(&self, work: Option<InProgress>) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = work;
    }

    pub(in crate::http) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether the last request was read to its end and its reply is written. Then it is not in work any more.
    pub(in crate::http) fn is_over(&self) -> bool {
        let over = self.reply_done.load(Ordering::Relaxed)
            && self.request_done.load(Ordering::Relaxed)
            && !self.blocked.load(Ordering::Relaxed);
        if over {
            self.set_work(None);
        }
        over
    }

    /// Whether the last write waits for the peer.
    pub(in crate::http) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// The request that is to be held, once what was to be written before it is written.
    pub(in crate::http) fn take_held(&self) -> Option<Held> {
        if self.blocked.load(Ordering::Relaxed) {
            return None;
        }
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn hold(&self, held: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }
}

/// Serves the requests of one connection.
pub(in crate::http) struct Front {
    pub(in crate::http) listener: Arc<Listener>,
    pub(in crate::http) exchange: Arc<Exchange>,
    /// Who asks: a proxy, perhaps.
    pub(in crate::http) peer: Option<IpAddr>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, Infallible>> + Send>>;

impl Service<Request<Incoming>> for Front {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let without_body = request.body().is_end_stream();
        self.exchange.begin(without_body);
        let Listener { app, kind, .. } = &*self.listener;
        let cors = (*kind == ListenerKind::Client).then(|| &app.shared().cors);
        let asked = Asked::of(&request, cors);
        let (listener, exchange) = (self.listener.clone(), self.exchange.clone());
        let mut request = request;
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(routes::Peer(peer));
        }
        Box::pin(async move {
            let (outcome, work) = match answer_early(&request, &listener) {
                Some(Ok(reply)) => (Outcome::Reply(reply), None),
                Some(Err(refusal)) => {
                    let reply = Reply::refusal(&refusal, listener.app.hub.log());
                    (Outcome::Reply(reply), None)
                }
                None => ask_routes(&listener, &exchange, request).await,
            };
            match outcome {
                Outcome::Reply(reply) => {
                    exchange.set_work(work);
                    Ok(dress(reply, &asked, exchange))
                }
                Outcome::Held(ticket) => {
                    exchange.hold(Held {
                        ticket,
                        asked,
                        work,
                    });
                    std::future::pending().await
                }
            }
        })
    }
}

fn answer_early(
    request: &Request<Incoming>,
    listener: &Listener,
) -> Option<Result<Reply, Refusal>> {
    if let Err(refusal) = host::check(request, &listener.app, listener.kind) {
        return Some(Err(refusal));
    }
    if !request.body().is_end_stream()
        && let Err(refusal) = body::plain(request.headers())
    {
        return Some(Err(refusal));
    }
    let path = request.uri().path();
    if request.uri().path_and_query().is_none() {
        // As a proxy is asked to CONNECT. warp would panic over it.
        return Some(Err(Refusal::BadRequest(
            "the target of a request must be a path".to_owned(),
        )));
    }
    match *request.method() {
        Method::OPTIONS => {
            let allow = routes::methods_of(&listener.app, listener.kind, path);
            let unknown = allow.is_none() && path != "*";
            Some(if unknown {
                Err(Refusal::NoRoute)
            } else {
                Ok(Reply::options(allow))
            })
        }
        Method::GET | Method::HEAD if !request.body().is_end_stream() => {
            let allow = routes::methods_of(&listener.app, listener.kind, path);
            Some(Err(match allow {
                None => Refusal::NoRoute,
                Some(allow) if !allow.contains("GET") => Refusal::WrongMethod { allow },
                Some(_) => Refusal::BadRequest("a GET or HEAD request has no body".to_owned()),
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
        .remove::<Carried>()
        .and_then(|carried| carried.take())
        .unwrap_or_else(|| {
            let reply = Reply::refusal(&Refusal::Internal, listener.app.hub.log());
            (Outcome::Reply(reply), None)
        })
}

fn dress(reply: Reply, asked: &Asked, exchange: Arc<Exchange>) -> Response<ReplyBody> {
    let unread = !exchange.request_done.load(Ordering::Relaxed);
    let left = u64::try_from(reply.body_bytes()).unwrap_or(u64::MAX);
    let mut response = Response::new(ReplyBody {
        parts: Vec::new().into_iter(),
        left,
        exchange,
    });
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    asked.headers(&reply, |name, value| {
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
            self.exchange.request_done.store(true, Ordering::Relaxed);
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
pub(in crate::http) struct ReplyBody {
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
        self.exchange.reply_done.store(true, Ordering::Relaxed);
    }
}
