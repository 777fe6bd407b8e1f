//! Headers of replies: the same for those that hyper writes and those that we write ourselves.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use warp::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use warp::http::{Request, StatusCode, Version};

use crate::clock;
use crate::http::response::cors::{CorsPolicy, Origin};
use crate::http::response::reply::Reply;

/// In every reply: no proxy gathers it, no browser guesses its type.
const COMMON: [(HeaderName, HeaderValue); 2] = [
    (
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
];

/// What a reply must know of its request. Small: it is kept while a request is parked.
#[derive(Clone, Debug)]
pub(in crate::http) struct ResponseContext {
    /// HTTP/1.0 asks for one reply a connection, unless it says otherwise.
    http10: bool,
    /// Whether the client wants to go on with this connection.
    pub(in crate::http) keep_alive: bool,
    origin: Origin,
}

impl ResponseContext {
    /// Of a request; without `cors` no page of another site may read the reply.
    pub(in crate::http) fn of<B>(request: &Request<B>, cors: Option<&CorsPolicy>) -> Self {
        let http10 = request.version() < Version::HTTP_11;
        let headers = request.headers();
        let keep_alive = if http10 {
            header_has_token(headers, header::CONNECTION, "keep-alive")
        } else {
            !header_has_token(headers, header::CONNECTION, "close")
        };
        let origin = cors.map_or(Origin::Closed, |cors| cors.origin(headers));
        Self {
            http10,
            keep_alive,
            origin,
        }
    }

    /// Of a request that was not read.
    pub(in crate::http) fn unknown() -> Self {
        Self {
            http10: false,
            keep_alive: false,
            origin: Origin::Closed,
        }
    }

    /// Gives every header of the reply but those of the connection and the body's length.
    pub(in crate::http) fn headers(
        &self,
        reply: &Reply,
        mut put: impl FnMut(HeaderName, HeaderValue),
    ) {
        if let Some(content_type) = reply.content_type {
            put(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        put(header::CACHE_CONTROL, reply.cache.clone());
        for (name, value) in COMMON {
            put(name, value);
        }
        for (name, value) in &reply.more {
            put(name.clone(), value.clone());
        }
        if let Some(seconds) = reply.retry_after_s {
            put(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = reply.allow.as_ref().and_then(|allow| allow.parse().ok()) {
            put(header::ALLOW, allow);
        }
        match reply.status {
            StatusCode::UNAUTHORIZED => {
                put(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::UPGRADE_REQUIRED => {
                put(header::CONNECTION, HeaderValue::from_static("upgrade"));
                put(header::UPGRADE, HeaderValue::from_static("websocket"));
                put(
                    header::SEC_WEBSOCKET_VERSION,
                    HeaderValue::from_static("13"),
                );
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                put(
                    header::ACCEPT_ENCODING,
                    HeaderValue::from_static("identity"),
                );
            }
            _ => {}
        }
        // icomet's events are for pages of any origin, and say so themselves.
        let own = header::ACCESS_CONTROL_ALLOW_ORIGIN;
        if !reply.more.iter().any(|(name, _)| *name == own) {
            self.origin.headers(put);
        }
    }

    /// Whether the client knows replies in chunks; to others the end of the connection is the end of the reply.
    pub(in crate::http) fn knows_chunks(&self) -> bool {
        !self.http10
    }

    /// The head of a reply that does not go through hyper: all that hyper would write.
    pub(in crate::http) fn head(&self, reply: &Reply, keep_alive: bool) -> Bytes {
        let mut head = Head::new(self.http10, reply.status);
        self.headers(reply, |name, value| {
            head.line(name.as_str(), value.as_bytes());
        });
        head.line("content-length", reply.body_bytes().to_string().as_bytes());
        match (self.http10, keep_alive) {
            (_, false) => head.line("connection", b"close"),
            (true, true) => head.line("connection", b"keep-alive"),
            (false, true) => {}
        }
        head.finish()
    }

    /// The head of a reply whose length nobody knows; the connection ends with it.
    pub(in crate::http) fn endless_head(&self, reply: &Reply) -> Bytes {
        let mut head = Head::new(self.http10, reply.status);
        self.headers(reply, |name, value| {
            head.line(name.as_str(), value.as_bytes());
        });
        if self.knows_chunks() {
            head.line("transfer-encoding", b"chunked");
        }
        head.line("connection", b"close");
        head.finish()
    }

    /// The head after which the connection is a WebSocket; `accept` answers the client's key.
    pub(in crate::http) fn switching_head(accept: &str) -> Bytes {
        let mut head = Head::new(false, StatusCode::SWITCHING_PROTOCOLS);
        head.line("connection", b"Upgrade");
        head.line("upgrade", b"websocket");
        head.line("sec-websocket-accept", accept.as_bytes());
        head.finish()
    }
}

/// A head in the making.
struct Head(Vec<u8>);

impl Head {
    fn new(http10: bool, status: StatusCode) -> Self {
        // More than most heads have, so that it is allocated once.
        let mut head = Vec::with_capacity(320);
        head.extend_from_slice(if http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        head.extend_from_slice(status.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        head.extend_from_slice(b"\r\n");
        Self(head)
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.0.extend_from_slice(part);
        }
    }

    fn finish(mut self) -> Bytes {
        self.line("date", date().as_bytes());
        self.0.extend_from_slice(b"\r\n");
        self.0.into()
    }
}

/// Whether the headers of a name, which are lists, hold this word.
pub(in crate::http) fn header_has_token(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// The time of day as HTTP writes it, made once a second.
fn date() -> String {
    static LAST: Mutex<(u64, String)> = Mutex::new((0, String::new()));
    let now = clock::now_s();
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.0 != now {
        *last = (
            now,
            httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now)),
        );
    }
    last.1.clone()
}
