//! Who asks: user tokens on the client listener, the API key on the admin listener.
//!
//! Neither is ever written to a log or repeated in a reply.

use std::net::IpAddr;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::time::Instant;
use warp::http::{HeaderMap, header};

use crate::clock;
use crate::http::context::App;
use crate::http::listener_kind::ListenerKind;
use crate::http::request::call::{Call, Caller};
use crate::http::request::query::Parameter;
use crate::http::response::problem::Problem;
use crate::model::UserName;
use crate::token::TokenError;

/// The user of a token in `Authorization`, or in `?token=` where a browser cannot set headers.
pub(in crate::http) fn user(call: &Call) -> impl Future<Output = Result<Caller, Problem>> + use<> {
    late(&call.app, call.peer, call.kind, user_of(call))
}

fn user_of(call: &Call) -> Result<Caller, Problem> {
    let in_query = call.query.get(Parameter::Token);
    let token = match bearer(&call.headers)? {
        Some(token) => token,
        None => in_query.as_deref().ok_or_else(|| {
            Problem::Unauthorized(
                "a user token is needed: `Authorization: Bearer TOKEN`, or `?token=`".to_owned(),
            )
        })?,
    };
    bearer_of(&call.app, token)
}

/// Passes on what came of a key or token; one that is wrong is logged, and answered late.
pub(in crate::http) fn late<T>(
    app: &App,
    peer: Option<IpAddr>,
    kind: ListenerKind,
    outcome: Result<T, Problem>,
) -> impl Future<Output = Result<T, Problem>> + use<T> {
    let app = app.clone();
    async move {
        if let Err(Problem::WrongCredential(_)) = &outcome {
            app.shared().attempts.refused(peer, kind).await;
        }
        outcome
    }
}

/// The user of a token.
pub(in crate::http) fn bearer_of(app: &App, token: &str) -> Result<Caller, Problem> {
    let claims = app
        .verifier
        .verify(token, clock::now_s())
        .map_err(|error| match error {
            TokenError::Expired => Problem::TokenExpired,
            TokenError::Invalid(_) => Problem::WrongCredential(error.to_string()),
        })?;
    let user = UserName::parse(&claims.user)
        .map_err(|error| Problem::Unauthorized(format!("the token's `sub`: {error}")))?;
    Ok(Caller {
        user,
        may_send: claims.send,
        expires_at: claims.expires_at,
        ends: instant_of(claims.refused_from()),
        ends_s: claims.refused_from(),
    })
}

/// The moment of a time of day. One beyond all reason is cut to a year, which no request lasts.
fn instant_of(unix_s: u64) -> Instant {
    const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
    let left_ms = unix_s.saturating_mul(1000).saturating_sub(clock::now_ms());
    Instant::now() + Duration::from_millis(left_ms).min(YEAR)
}

/// Checks the API key in `Authorization`.
pub(in crate::http) fn admin(call: &Call) -> impl Future<Output = Result<(), Problem>> + use<> {
    let outcome = bearer(&call.headers).and_then(|key| match key {
        Some(key) => is_key(&call.app, key),
        None => Err(Problem::Unauthorized(
            "the admin key is needed: `Authorization: Bearer KEY`".to_owned(),
        )),
    });
    late(&call.app, call.peer, call.kind, outcome)
}

/// Checks the API key.
pub(in crate::http) fn admin_key(
    call: &Call,
    key: &str,
) -> impl Future<Output = Result<(), Problem>> + use<> {
    late(&call.app, call.peer, call.kind, is_key(&call.app, key))
}

/// Takes the same time however much of it is right.
fn is_key(app: &App, key: &str) -> Result<(), Problem> {
    let right = key.as_bytes().ct_eq(app.admin_key.expose().as_bytes());
    bool::from(right)
        .then_some(())
        .ok_or_else(|| Problem::WrongCredential("this is not the admin key".to_owned()))
}

pub(in crate::http) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match token {
        Some(token) => Ok(Some(token)),
        None => Err(Problem::Unauthorized(
            "`Authorization` is not `Bearer` and a token".to_owned(),
        )),
    }
}
