//! Who asks: user tokens on the client listener, the API key on the admin listener.
//!
//! Neither is ever written to a log or repeated in a reply.

use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::time::Instant;
use warp::http::{HeaderMap, header};

use super::app::App;
use super::call::Caller;
use super::query::Query;
use super::reply::Refusal;
use crate::clock;
use crate::model::UserName;
use crate::token::TokenError;

/// The user of a token in `Authorization`, or in `?token=` where a browser cannot set headers.
pub(super) fn user(app: &App, headers: &HeaderMap, query: &Query) -> Result<Caller, Refusal> {
    let in_query = query.get("token");
    let token = match bearer(headers)? {
        Some(token) => token,
        None => in_query.as_deref().ok_or_else(|| {
            Refusal::Unauthorized(
                "a user token is needed: `Authorization: Bearer TOKEN`, or `?token=`".to_owned(),
            )
        })?,
    };
    bearer_of(app, token)
}

/// The user of a token.
pub(super) fn bearer_of(app: &App, token: &str) -> Result<Caller, Refusal> {
    let claims = app
        .verifier
        .verify(token, clock::now_s())
        .map_err(|error| match error {
            TokenError::Expired => Refusal::TokenExpired,
            TokenError::Invalid(_) => Refusal::Unauthorized(error.to_string()),
        })?;
    let user = UserName::parse(&claims.user)
        .map_err(|error| Refusal::Unauthorized(format!("the token's `sub`: {error}")))?;
    Ok(Caller {
        user,
        may_send: claims.send,
        expires_at: claims.expires_at,
        ends: instant_of(claims.refused_from()),
    })
}

/// The moment of a time of day. One beyond all reason is cut to a year, which no request lasts.
fn instant_of(unix_s: u64) -> Instant {
    const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);
    let left_ms = unix_s.saturating_mul(1000).saturating_sub(clock::now_ms());
    Instant::now() + Duration::from_millis(left_ms).min(YEAR)
}

/// Checks the API key, in a time that does not tell how much of it was right.
pub(super) fn admin(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(key) = bearer(headers)? else {
        return Err(Refusal::Unauthorized(
            "the admin key is needed: `Authorization: Bearer KEY`".to_owned(),
        ));
    };
    admin_key(app, key)
}

/// Checks the API key.
pub(super) fn admin_key(app: &App, key: &str) -> Result<(), Refusal> {
    if bool::from(key.as_bytes().ct_eq(app.admin_key.expose().as_bytes())) {
        Ok(())
    } else {
        Err(Refusal::Unauthorized(
            "this is not the admin key".to_owned(),
        ))
    }
}

pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match token {
        Some(token) => Ok(Some(token)),
        None => Err(Refusal::Unauthorized(
            "`Authorization` is not `Bearer` and a token".to_owned(),
        )),
    }
}
