//! `halley demo`: visitors name themselves and get a token for that name. Never in a real server.

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::http::api::tokens;
use crate::http::request::call::Call;
use crate::http::request::json::parse;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::hub::GroupChange;
use crate::model::{GroupName, UserName};
use crate::token::Claims;

/// The group that every user of the demo joins.
pub const EVERYONE: &str = "everyone";

/// A day: nobody looks at a demo for longer, and the page asks again.
const TTL_S: u64 = 86_400;
/// More than a name needs.
const REQUEST_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinIn {
    user: String,
}

#[derive(Serialize)]
struct JoinOut<'a> {
    user: &'a str,
    token: &'a str,
    expires_at: u64,
    group: &'static str,
}

/// Makes a token that may send, and lets the user into the group.
pub(in crate::http) async fn join(mut call: Call) -> Result<Reply, Problem> {
    let text = call.read_body(REQUEST_BYTES_MAX).await?;
    let given: JoinIn = parse(&text)?;
    let user = UserName::parse(&given.user)?;
    let claims = Claims {
        user: user.as_str().to_owned(),
        send: true,
        expires_at: clock::now_s() + TTL_S,
    };
    let token = tokens::sign(&call.app, &claims)?;
    let change = GroupChange::Members {
        add: vec![user],
        remove: Vec::new(),
    };
    let group = GroupName::parse(EVERYONE)?;
    call.app.hub.change_group(group, change).await?;
    Ok(Reply::ok(&JoinOut {
        user: &claims.user,
        token: &token,
        expires_at: claims.expires_at,
        group: EVERYONE,
    }))
}
