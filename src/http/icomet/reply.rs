//! What all of icomet's replies have: its headers, and text that is whole.

use warp::http::{HeaderName, HeaderValue, StatusCode};

use super::text::Form;
use crate::http::response::reply::{HELD, Reply};

/// Headers of their own.
type ExtraHeaders = &'static [(&'static str, &'static str)];

/// With every reply to a client.
const CLIENT_HEADERS: ExtraHeaders = &[("expires", "0")];
/// With events, which pages of any origin may read: a token is in the address, nothing is in a cookie.
const EVENT_HEADERS: ExtraHeaders = &[("expires", "0"), ("access-control-allow-origin", "*")];
/// With every reply to a backend.
pub(super) const BACKEND_HEADERS: ExtraHeaders = &[("server", "icomet 0.2.5")];

pub(super) fn headers(extra: ExtraHeaders) -> Vec<(HeaderName, HeaderValue)> {
    let fixed = |(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    extra.iter().copied().map(fixed).collect()
}

/// A reply that is whole.
pub(super) fn whole(form: &Form, text: String) -> Reply {
    Reply {
        more: extra(form),
        cache: HELD,
        ..text_reply(form.content_type(), text)
    }
}

/// The headers that go with this form.
pub(super) fn extra(form: &Form) -> Vec<(HeaderName, HeaderValue)> {
    headers(match form {
        Form::Events => EVENT_HEADERS,
        Form::Poll(_) | Form::Stream | Form::Frame => CLIENT_HEADERS,
    })
}

/// A reply of text that is there.
pub(super) fn text_reply(content_type: &'static str, text: String) -> Reply {
    Reply {
        content_type: Some(content_type),
        ..Reply::parts(StatusCode::OK, vec![text.into()])
    }
}

pub(super) fn method_not_allowed(allowed: &[&str]) -> Reply {
    Reply {
        allow: Some(allowed.join(", ")),
        content_type: None,
        ..Reply::parts(StatusCode::METHOD_NOT_ALLOWED, Vec::new())
    }
}
