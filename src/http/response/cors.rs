//! CORS: which pages of other sites may read the replies, and what the replies say about it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use warp::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::AllowedOrigin;
use crate::http::authority::Authority;

/// Origins that the log is told of.
const LOGGED_MAX: usize = 32;
/// Longer ones are not repeated.
const ORIGIN_BYTES_MAX: usize = 300;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, last-event-id");
/// What a page may read beside the type: how long to wait before it asks again.
const EXPOSED: HeaderValue = HeaderValue::from_static("retry-after");
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The origins that may read replies, and those that the log has been told may not.
#[derive(Debug)]
pub(in crate::http) struct CorsPolicy {
    allowed: Vec<AllowedOrigin>,
    logged: Mutex<HashSet<String>>,
}

/// What a reply says to a browser about the page that asked.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// No site may call: nothing.
    Closed,
    /// Some may, but not this one: caches are told that it depends.
    Other,
    /// This one may read the reply.
    Allowed(HeaderValue),
    /// This one may, and asks what it may send.
    Preflight(HeaderValue),
}

impl CorsPolicy {
    pub(in crate::http) fn new(allowed: Vec<AllowedOrigin>) -> Self {
        Self {
            allowed,
            logged: Mutex::default(),
        }
    }

    /// Judges the origin of a request by its headers.
    pub(super) fn origin(&self, headers: &HeaderMap) -> Origin {
        let asking = headers.get(header::ORIGIN);
        match asking.and_then(|origin| self.allowed_as(origin)) {
            Some(name) if headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) => {
                Origin::Preflight(name)
            }
            Some(name) => Origin::Allowed(name),
            None => {
                if let Some(origin) = asking {
                    self.log_unlisted(origin, headers);
                }
                if self.allowed.is_empty() {
                    Origin::Closed
                } else {
                    Origin::Other
                }
            }
        }
    }

    /// What the reply names, if a page of this origin may read it.
    fn allowed_as(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let text = origin.to_str().ok()?;
        match self.allowed.iter().find(|allowed| allowed.matches(text))? {
            AllowedOrigin::Any => Some(HeaderValue::from_static("*")),
            // A copy: the request's own would keep hyper's read buffer.
            _ => HeaderValue::from_bytes(origin.as_bytes()).ok(),
        }
    }

    /// Logs each origin that may not read the replies once, and so many at most: any page can name one.
    fn log_unlisted(&self, origin: &HeaderValue, headers: &HeaderMap) {
        let Ok(origin) = origin.to_str() else {
            return;
        };
        let host = headers.get(header::HOST).and_then(Authority::of_header);
        if host.is_some_and(|host| host.is_of_origin(origin)) {
            return;
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < LOGGED_MAX && !logged.contains(origin) && origin.len() <= ORIGIN_BYTES_MAX
        {
            logged.insert(origin.to_owned());
            drop(logged);
            tracing::warn!(
                origin,
                "a page of this origin may not read the replies: if it is yours, list it in --cors-origin"
            );
        }
    }
}

impl Origin {
    pub(super) fn headers(&self, mut put: impl FnMut(HeaderName, HeaderValue)) {
        match self {
            Self::Closed => return,
            Self::Other => {}
            Self::Allowed(origin) => {
                put(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                put(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
            Self::Preflight(origin) => {
                put(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                put(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                put(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
                put(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            }
        }
        put(header::VARY, HeaderValue::from_static("Origin"));
    }
}
