//! User tokens, made for the backend.

use serde::{Deserialize, Serialize};
use warp::http::StatusCode;

use super::app::App;
use super::call::Call;
use super::push::parse;
use super::reply::{Refusal, Reply};
use crate::clock;
use crate::model::UserName;
use crate::token::{self, Claims};

/// A day.
const TTL_USUAL_S: u64 = 86_400;
/// A year.
const TTL_MAX_S: u64 = 31_536_000;
/// More than a name and two numbers need.
const REQUEST_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenIn {
    user: String,
    #[serde(default = "ttl_usual_s")]
    ttl_s: u64,
    #[serde(default)]
    send: bool,
}

fn ttl_usual_s() -> u64 {
    TTL_USUAL_S
}

#[derive(Serialize)]
struct TokenOut<'a> {
    token: &'a str,
    user: &'a str,
    expires_at: u64,
}

/// Signs claims, where the secret is known.
pub(super) fn sign(app: &App, claims: &Claims) -> Result<String, Refusal> {
    let Some(secret) = &app.token_secret else {
        return Err(Refusal::Forbidden(
            "this server only knows a public key: tokens are made where the private key is",
        ));
    };
    Ok(token::mint(secret.expose().as_bytes(), claims))
}

/// Makes a token for the backend.
pub(super) async fn make(mut call: Call) -> Result<Reply, Refusal> {
    let text = call.read_body(REQUEST_BYTES_MAX).await?;
    let given: TokenIn = parse(&text)?;
    let user = UserName::parse(&given.user)?;
    if !(1..=TTL_MAX_S).contains(&given.ttl_s) {
        let ttl_s = given.ttl_s;
        return Err(Refusal::BadJson(format!(
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
