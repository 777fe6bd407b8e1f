//! Why a request is not done, and the one place that turns errors into status codes.
//!
//! A problem is told as `application/problem+json` with a stable code. What went wrong inside the server stays in the
//! log; the reply says what the caller can do.

use serde_json::{Map, Value, json};
use warp::http::StatusCode;

use crate::error::Error;
use crate::model::{CursorError, LogId, NameError, NotPortable};

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum Problem {
    #[error(transparent)]
    Hub(#[from] Error),
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    BadQuery(String),
    #[error("{0}")]
    BadJson(String),
    #[error(transparent)]
    BadName(#[from] NameError),
    #[error(transparent)]
    NotPortable(#[from] NotPortable),
    #[error(transparent)]
    BadCursor(#[from] CursorError),
    #[error("{0}")]
    Unauthorized(String),
    /// A key or token that was shown and is wrong; the one above was not shown.
    #[error("{0}")]
    WrongCredential(String),
    #[error("the token has expired: ask the app's backend for another")]
    TokenExpired,
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("{0}")]
    ForeignHost(String),
    #[error("{0}")]
    ForeignPage(String),
    #[error("the body is compressed (`Content-Encoding`): send it as it is")]
    ContentCoding,
    #[error("the body has a transfer coding other than `chunked` (`Transfer-Encoding`)")]
    TransferCoding,
    #[error("there is nothing at this path: /openapi.json lists what there is")]
    NoRoute,
    #[error("this path takes {allow}")]
    WrongMethod { allow: String },
    #[error("the request's body stopped arriving, or came too slowly: nothing was stored")]
    Timeout,
    #[error("{what} exceeds {limit}{unit}")]
    TooLarge {
        what: &'static str,
        limit: usize,
        unit: &'static str,
    },
    #[error("connection limit of {limit} reached; retry shortly")]
    TooManyConnections { limit: usize },
    #[error("limit of {limit} connections from one address reached: close some")]
    TooManyOfAddress { limit: usize },
    #[error(
        "limit of {limit} requests of one user in progress reached: read their replies, then retry"
    )]
    TooManyRequests { limit: usize },
    #[error("this path is for WebSockets: ask with `Upgrade: websocket`, version 13, and a key")]
    UpgradeRequired,
    #[error("internal error; see the server log")]
    Internal,
}

impl Problem {
    pub(in crate::http) fn code(&self) -> Code {
        match self {
            Self::Hub(error) => match error {
                Error::CursorAhead { .. } | Error::AfterAhead { .. } => Code::CursorAhead,
                Error::LogUnknown { .. } => Code::LogUnknown,
                Error::CursorGone { .. } => Code::CursorGone,
                Error::GroupNotFound => Code::GroupNotFound,
                Error::MessageNotFound => Code::MessageNotFound,
                Error::BackendsOnly => Code::Forbidden,
                Error::IdempotencyConflict => Code::IdempotencyConflict,
                Error::GroupFull { .. } => Code::GroupFull,
                Error::TooManyWaiters { .. } => Code::TooManyWaiters,
                Error::Busy | Error::Behind { .. } => Code::Busy,
                Error::Closing => Code::Closing,
                Error::DiskFull { .. } => Code::DiskFull,
                Error::WritesRefused | Error::DataMoved { .. } => Code::WritesRefused,
                Error::DiskStalled { .. } => Code::DiskStalled,
                Error::StoreDamaged => Code::StoreDamaged,
            },
            Self::BadRequest(_) => Code::BadRequest,
            Self::BadQuery(_) => Code::BadQuery,
            Self::BadJson(_) => Code::BadJson,
            Self::BadName(_) => Code::BadName,
            Self::NotPortable(_) => Code::BodyNotPortable,
            Self::BadCursor(_) => Code::BadCursor,
            Self::Unauthorized(_) | Self::WrongCredential(_) => Code::Unauthorized,
            Self::TokenExpired => Code::TokenExpired,
            Self::Forbidden(_) => Code::Forbidden,
            Self::ForeignHost(_) => Code::ForeignHost,
            Self::ForeignPage(_) => Code::ForeignPage,
            Self::ContentCoding => Code::ContentCoding,
            Self::TransferCoding => Code::TransferCoding,
            Self::NoRoute => Code::NotFound,
            Self::WrongMethod { .. } => Code::MethodNotAllowed,
            Self::Timeout => Code::RequestTimeout,
            Self::TooLarge { .. } => Code::BodyTooLarge,
            Self::TooManyConnections { .. } | Self::TooManyOfAddress { .. } => {
                Code::TooManyConnections
            }
            Self::TooManyRequests { .. } => Code::TooManyRequests,
            Self::UpgradeRequired => Code::UpgradeRequired,
            Self::Internal => Code::Internal,
        }
    }

    /// The problem object, as it also stands in the results of a batch.
    pub(in crate::http) fn to_json(&self, log: LogId) -> Value {
        let code = self.code();
        let (status, text, title) = code.about();
        let mut problem = Map::new();
        problem.insert("type".into(), format!("urn:halley:error:{text}").into());
        problem.insert("title".into(), title.into());
        problem.insert("status".into(), status.as_u16().into());
        problem.insert("code".into(), text.into());
        problem.insert("detail".into(), self.to_string().into());
        match self {
            Self::Hub(Error::CursorAhead { restart } | Error::LogUnknown { restart }) => {
                problem.insert("restart".into(), restart.to_string().into());
                problem.insert("log".into(), log.to_string().into());
            }
            Self::Hub(Error::CursorGone { first }) => {
                problem.insert("first".into(), first.to_string().into());
            }
            Self::Hub(Error::AfterAhead { last, .. }) => {
                problem.insert("last".into(), json!(last));
                problem.insert("log".into(), log.to_string().into());
            }
            Self::Hub(Error::TooManyWaiters { limit } | Error::GroupFull { limit })
            | Self::TooLarge { limit, .. }
            | Self::TooManyRequests { limit } => {
                problem.insert("limit".into(), json!(limit));
            }
            Self::Hub(Error::Behind { limit }) => {
                problem.insert("limit".into(), json!(limit));
            }
            Self::NotPortable(fault) => {
                problem.extend(
                    fault
                        .limit()
                        .map(|limit| ("limit".to_owned(), json!(limit))),
                );
            }
            _ => {}
        }
        Value::Object(problem)
    }

    pub(super) fn retry_after_s(&self) -> Option<u32> {
        match self.code() {
            Code::Busy | Code::TooManyWaiters | Code::TooManyRequests => Some(1),
            Code::Closing | Code::TooManyConnections => Some(2),
            Code::DiskFull | Code::DiskStalled | Code::WritesRefused | Code::StoreDamaged => {
                Some(30)
            }
            _ => None,
        }
    }
}

// One row a code: none can be without a status, a text or a title, and `ALL` knows every one.
macro_rules! codes {
    ($($name:ident $status:ident $text:literal $title:literal;)*) => {
        /// The stable codes of refusals.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(in crate::http) enum Code { $($name),* }

        impl Code {
            /// All of them, in the order of their status.
            pub(in crate::http) const ALL: &[Self] = &[$(Self::$name),*];

            /// Status, code and title.
            fn about(self) -> (StatusCode, &'static str, &'static str) {
                match self { $(Self::$name => (StatusCode::$status, $text, $title)),* }
            }
        }
    };
}

codes! {
    BadRequest BAD_REQUEST "bad_request" "The request is malformed";
    BadQuery BAD_REQUEST "bad_query" "A query parameter is wrong";
    BadJson BAD_REQUEST "bad_json" "The body is not the JSON asked for";
    BadName BAD_REQUEST "bad_name" "A name breaks the rule for names";
    BodyNotPortable BAD_REQUEST "body_not_portable" "Some clients could not read the message's body";
    BadCursor BAD_REQUEST "bad_cursor" "This is not a cursor";
    Unauthorized UNAUTHORIZED "unauthorized" "A valid token or key is needed";
    TokenExpired UNAUTHORIZED "token_expired" "The token has expired";
    Forbidden FORBIDDEN "forbidden" "This is not allowed";
    ForeignPage FORBIDDEN "foreign_page" "A page of another site may not do this";
    NotFound NOT_FOUND "not_found" "There is no such path";
    GroupNotFound NOT_FOUND "group_not_found" "There is no such group";
    MessageNotFound NOT_FOUND "message_not_found" "There is no such message";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "The path takes other methods";
    RequestTimeout REQUEST_TIMEOUT "request_timeout" "The request took too long";
    CursorAhead CONFLICT "cursor_ahead" "The cursor is beyond this log";
    LogUnknown CONFLICT "log_unknown" "The cursor is from another log";
    GroupFull CONFLICT "group_full" "The group has no room";
    CursorGone GONE "cursor_gone" "The cursor is before what is kept";
    BodyTooLarge PAYLOAD_TOO_LARGE "body_too_large" "The body is too large";
    ContentCoding UNSUPPORTED_MEDIA_TYPE "content_encoding" "A compressed body is not taken";
    ForeignHost MISDIRECTED_REQUEST "foreign_host" "The request is for another host";
    IdempotencyConflict UNPROCESSABLE_ENTITY "idempotency_conflict" "The key stands for another message";
    UpgradeRequired UPGRADE_REQUIRED "upgrade_required" "The path is for WebSockets";
    TooManyWaiters TOO_MANY_REQUESTS "too_many_waiters" "The user holds too many requests";
    TooManyRequests TOO_MANY_REQUESTS "too_many_requests" "The user has too many requests in progress";
    Internal INTERNAL_SERVER_ERROR "internal" "A fault of the server";
    TransferCoding NOT_IMPLEMENTED "transfer_encoding" "Only the transfer coding chunked is known";
    Busy SERVICE_UNAVAILABLE "busy" "The server is busy";
    Closing SERVICE_UNAVAILABLE "closing" "The server is stopping";
    DiskFull SERVICE_UNAVAILABLE "disk_full" "The disk is nearly full";
    DiskStalled SERVICE_UNAVAILABLE "disk_stalled" "The disk does not answer";
    WritesRefused SERVICE_UNAVAILABLE "writes_refused" "The server refuses writes";
    StoreDamaged SERVICE_UNAVAILABLE "store_damaged" "The readable view is damaged";
    TooManyConnections SERVICE_UNAVAILABLE "too_many_connections" "All connections are taken";
}

impl Code {
    /// The HTTP status that goes with it.
    pub(in crate::http) fn status(self) -> StatusCode {
        self.about().0
    }

    /// As in the replies.
    pub(in crate::http) fn text(self) -> &'static str {
        self.about().1
    }

    /// The problem's title.
    pub(in crate::http) fn title(self) -> &'static str {
        self.about().2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_once_and_in_the_order_of_status() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.text()).collect();
        assert!(Code::ALL.is_sorted_by_key(|code| code.status()));
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
    }

    #[test]
    fn a_problem_says_what_to_do() {
        let log = LogId([0xab; 16]);
        let problem = Problem::TooLarge {
            what: "the message's body",
            limit: 65536,
            unit: " bytes",
        };
        let problem = problem.to_json(log);
        assert_eq!(problem["type"], "urn:halley:error:body_too_large");
        assert_eq!(problem["status"], 413);
        assert_eq!(problem["limit"], 65536);
        assert_eq!(problem["detail"], "the message's body exceeds 65536 bytes");
    }
}
