//! The request as a handler sees it: caller, path parameters, query, headers, body.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use warp::http::HeaderMap;

use crate::http::context::App;
use crate::http::listener_kind::ListenerKind;
use crate::http::request::body::{self, BodyStream};
use crate::http::request::query::{PageForm, Parameter, Query};
use crate::http::response::problem::Problem;
use crate::model::{GroupName, PageLimit, UserName};

/// A request whose path, method and bearer have been found right.
pub(in crate::http) struct Call {
    pub(in crate::http) app: App,
    /// The token's user; none on the admin listener and where no token is needed.
    pub(in crate::http) caller: Option<Caller>,
    pub(in crate::http) query: Query,
    pub(in crate::http) headers: HeaderMap,
    /// Whether the request may be held: HEAD asks for headers only.
    pub(in crate::http) may_hold: bool,
    pub(in crate::http) kind: ListenerKind,
    pub(in crate::http) peer: Option<IpAddr>,
    pub(in crate::http) path: Vec<Segment>,
    pub(in crate::http) body: BodyStream,
}

/// A user, by token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Caller {
    pub(in crate::http) user: UserName,
    pub(in crate::http) may_send: bool,
    /// The token's `exp`, Unix seconds.
    pub(in crate::http) expires_at: u64,
    /// When the token is refused.
    pub(in crate::http) ends: Instant,
    /// The same by the clock, Unix seconds.
    pub(in crate::http) ends_s: u64,
}

/// A parameter of the path, as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Segment {
    pub(in crate::http) name: &'static str,
    pub(in crate::http) raw: String,
}

impl fmt::Debug for Call {
    /// Without headers and query: they may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("caller", &self.caller)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// The user whose messages are read: the token's, or on the admin listener the one in the path.
    pub(in crate::http) fn reader(&self) -> Result<UserName, Problem> {
        match &self.caller {
            Some(caller) => Ok(caller.user.clone()),
            None => self.user("user"),
        }
    }

    /// The token's user, where the route asks for one.
    pub(in crate::http) fn caller(&self) -> Result<&Caller, Problem> {
        self.caller.as_ref().ok_or(Problem::Internal)
    }

    /// How much a page may hold.
    pub(in crate::http) fn page(&self, form: PageForm) -> Result<PageLimit, Problem> {
        self.query.page(self.app.limits.page_messages_max, form)
    }

    /// The id with which an `EventSource` connects again: its header, or else the query parameter by which others
    /// than browsers say it. Wins over the rest of the query, which is still the first one.
    pub(in crate::http) fn last_event_id(&self) -> Option<Cow<'_, str>> {
        let header = self.headers.get("last-event-id");
        header
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .filter(|id| !id.is_empty())
            .or_else(|| self.query.get(Parameter::LastEventId))
    }

    /// A user named in the path.
    pub(in crate::http) fn user(&self, parameter: &'static str) -> Result<UserName, Problem> {
        Ok(UserName::parse(&self.text(parameter)?)?)
    }

    /// The group named in the path.
    pub(in crate::http) fn group(&self) -> Result<GroupName, Problem> {
        Ok(GroupName::parse(&self.text("group")?)?)
    }

    /// A parameter of the path, percent-decoded.
    pub(in crate::http) fn text(&self, parameter: &'static str) -> Result<String, Problem> {
        let raw = self
            .path
            .iter()
            .find(|segment| segment.name == parameter)
            .map(|segment| segment.raw.as_str())
            .expect("the route's path has this parameter");
        decode(raw).ok_or_else(|| {
            Problem::BadRequest(format!(
                "`{parameter}` in the path is not percent-encoded UTF-8"
            ))
        })
    }

    /// Reads the body, at most so many bytes of it.
    pub(in crate::http) async fn read_body(
        &mut self,
        bytes_max: usize,
    ) -> Result<Vec<u8>, Problem> {
        body::read(
            &mut self.body,
            &self.headers,
            bytes_max,
            self.app.timeouts.body,
        )
        .await
    }
}

/// Stricter than the usual decoders, which let a lone `%` stand for itself.
fn decode(raw: &str) -> Option<String> {
    let mut rest = raw.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let (_, escape) = rest.split_at(at);
        let [_, high, low, after @ ..] = escape else {
            return None;
        };
        if !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit() {
            return None;
        }
        rest = after;
    }
    let text = percent_decode_str(raw).decode_utf8().ok()?;
    Some(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_strictly() {
        assert_eq!(decode("a%2Fb%20c"), Some("a/b c".to_owned()));
        assert_eq!(decode("%E6%97%A5"), Some("日".to_owned()));
        assert_eq!(decode("a+b"), Some("a+b".to_owned()));
        for wrong in ["%", "%2", "%zz", "a%F", "%ff", "%c3%28"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
