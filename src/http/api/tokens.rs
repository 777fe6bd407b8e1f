//! User tokens, made for the backend.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use warp::http::StatusCode;

use crate::clock;
use crate::http::api::shapes::Name;
use crate::http::context::App;
use crate::http::request::call::Call;
use crate::http::request::json::parse;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::model::UserName;
use crate::token::{self, Claims};

/// A day.
const DEFAULT_TTL_S: u64 = 86_400;
/// A year.
const TTL_MAX_S: u64 = 31_536_000;
/// More than a name and two numbers need.
const REQUEST_BYTES_MAX: usize = 4096;

/// A token to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TokenRequest")]
pub(in crate::http) struct TokenIn {
    #[schemars(with = "Name")]
    user: String,
    /// For how long it is good.
    #[serde(default = "default_ttl_s", deserialize_with = "whole")]
    #[schemars(range(min = 1, max = TTL_MAX_S))]
    ttl_s: u64,
    /// Whether its user may send.
    #[serde(default)]
    send: bool,
}

fn default_ttl_s() -> u64 {
    DEFAULT_TTL_S
}

/// A whole number, also as `3600.0` or `3.6e3`: JSON has one kind of numbers, and some languages write all of them
/// that way.
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
            // Without a fraction it is written as digits alone.
            let digits = number.to_string();
            let refused = || E::invalid_value(de::Unexpected::Float(number), &self);
            digits.parse().map_err(|_| refused())
        }
    }

    from.deserialize_any(Whole)
}

/// A token for an app's client.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub(in crate::http) struct TokenOut<'a> {
    /// A JWT, for `Authorization: Bearer`.
    token: &'a str,
    #[schemars(with = "Name")]
    user: &'a str,
    /// Unix seconds.
    expires_at: u64,
}

/// Signs claims, where the secret is known.
pub(in crate::http) fn sign(app: &App, claims: &Claims) -> Result<String, Problem> {
    let Some(secret) = &app.token_secret else {
        return Err(Problem::Forbidden(
            "this server only knows a public key: tokens are made where the private key is",
        ));
    };
    Ok(token::mint(secret.expose().as_bytes(), claims))
}

/// Makes a token for the backend.
pub(in crate::http) async fn make(mut call: Call) -> Result<Reply, Problem> {
    let text = call.read_body(REQUEST_BYTES_MAX).await?;
    let given: TokenIn = parse(&text)?;
    let user = UserName::parse(&given.user)?;
    if !(1..=TTL_MAX_S).contains(&given.ttl_s) {
        let ttl_s = given.ttl_s;
        return Err(Problem::BadJson(format!(
            "`ttl_s` is {ttl_s}, but must be a whole number from 1 to {TTL_MAX_S}"
        )));
    }
    let expires_at = clock::now_s() + given.ttl_s;
    let claims = Claims {
        user: user.as_str().to_owned(),
        send: given.send,
        expires_at,
    };
    let token = sign(&call.app, &claims)?;
    let out = TokenOut {
        token: &token,
        user: user.as_str(),
        expires_at,
    };
    Ok(Reply::json(StatusCode::CREATED, &out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_taken_however_they_are_written() {
        let ttl_s = |text: &str| {
            let body = format!("{{\"user\":\"bob\",\"ttl_s\":{text}}}");
            parse::<TokenIn>(body.as_bytes()).map(|given| given.ttl_s)
        };
        for text in ["3600", "3600.0", "3.6e3", "36E+2", "3600.000"] {
            assert_eq!(ttl_s(text), Ok(3600), "{text}");
        }
        for text in [
            "3600.5", "-1", "-1.0", "1e30", "\"3600\"", "null", "true", "[1]",
        ] {
            let refused = ttl_s(text).unwrap_err().to_string();
            assert!(refused.contains("ttl_s"), "{text}: {refused}");
        }
    }
}
