//! Replies, before they are headers and bytes.

use bytes::Bytes;
use serde::Serialize;
use warp::http::{HeaderName, HeaderValue, StatusCode};

use super::problem::Problem;
use crate::model::LogId;

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
/// Of what may be held: a proxy that packs a reply keeps it back until it has enough of it.
pub(in crate::http) const HELD: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// An answer, before it is headers and bytes. The body is in parts, so that shared ones need no copy.
#[derive(Debug)]
pub(in crate::http) struct Reply {
    pub(in crate::http) status: StatusCode,
    /// None for a reply that has no body.
    pub(in crate::http) content_type: Option<&'static str>,
    pub(in crate::http) body: Vec<Bytes>,
    pub(in crate::http) retry_after_s: Option<u32>,
    pub(in crate::http) allow: Option<String>,
    /// What a cache may do with it: as a rule, not keep it.
    pub(in crate::http) cache: HeaderValue,
    /// Headers that only some replies have.
    pub(in crate::http) more: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    pub(in crate::http) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("plain data with text keys serialises");
        Self::parts(status, vec![body.into()])
    }

    pub(in crate::http) fn ok(value: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, value)
    }

    /// JSON that is written already.
    pub(in crate::http) fn parts(status: StatusCode, body: Vec<Bytes>) -> Self {
        Self {
            status,
            content_type: Some(JSON),
            body,
            retry_after_s: None,
            allow: None,
            cache: HeaderValue::from_static("no-store"),
            more: Vec::new(),
        }
    }

    pub(in crate::http) fn problem(problem: &Problem, log: LogId) -> Self {
        let code = problem.code();
        if code.status().is_server_error() {
            tracing::debug!(code = code.text(), "refused");
        }
        Self {
            content_type: Some(PROBLEM),
            retry_after_s: problem.retry_after_s(),
            allow: match problem {
                Problem::WrongMethod { allow } => Some(allow.clone()),
                _ => None,
            },
            ..Self::json(code.status(), &problem.to_json(log))
        }
    }

    /// What OPTIONS asks for: no content, the methods of the path.
    pub(in crate::http) fn options(allow: Option<String>) -> Self {
        Self {
            allow,
            content_type: None,
            ..Self::parts(StatusCode::NO_CONTENT, Vec::new())
        }
    }

    /// The head of a reply that is written piece by piece.
    pub(in crate::http) fn stream(content_type: &'static str) -> Self {
        Self {
            content_type: Some(content_type),
            cache: HELD,
            ..Self::parts(StatusCode::OK, Vec::new())
        }
    }

    pub(in crate::http) fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::Error;

    #[test]
    fn trouble_says_when_to_come_back() {
        for (error, status, code, retry_s) in [
            (Error::Busy, 503, "busy", Some(1)),
            (Error::Behind { limit: 9 }, 503, "busy", Some(1)),
            (Error::Closing, 503, "closing", Some(2)),
            (
                Error::DiskFull { free: 1, needed: 2 },
                503,
                "disk_full",
                Some(30),
            ),
            (Error::WritesRefused, 503, "writes_refused", Some(30)),
            (Error::StoreDamaged, 503, "store_damaged", Some(30)),
            (
                Error::TooManyWaiters { limit: 9 },
                429,
                "too_many_waiters",
                Some(1),
            ),
            (Error::GroupFull { limit: 9 }, 409, "group_full", None),
            (
                Error::IdempotencyConflict,
                422,
                "idempotency_conflict",
                None,
            ),
        ] {
            let reply = Reply::problem(&Problem::Hub(error), LogId([0; 16]));
            let problem: Value = serde_json::from_slice(&reply.body.concat()).unwrap();
            assert_eq!(
                (reply.status.as_u16(), &problem["code"]),
                (status, &json!(code))
            );
            assert_eq!(reply.retry_after_s, retry_s, "{code}");
            assert_eq!(reply.content_type, Some("application/problem+json"));
        }
    }
}
