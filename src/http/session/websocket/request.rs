//! What a client says on its socket: send a message, or take a fresh token.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::http::api::push::{self, ItemIn, ReceiptOut};
use crate::http::context::App;
use crate::http::listener_kind::ListenerKind;
use crate::http::request::auth;
use crate::http::request::call::Caller;
use crate::http::request::json::parse;
use crate::http::response::problem::Problem;
use crate::model::Draft;

/// The longest `ref`.
const REF_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestIn<'a> {
    #[serde(borrow)]
    send: Option<&'a RawValue>,
    token: Option<String>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
}

/// What a request comes to, before it is done.
pub(super) enum Doing {
    /// To be pushed.
    Send(Draft),
    /// Done: the fresh token's end, Unix seconds.
    Renewed(u64),
}

/// Reads one request, and takes up the token if there is one. The first of both is the client's own mark, which
/// stands in the answer too.
pub(super) fn take(
    app: &App,
    caller: &mut Caller,
    text: &str,
) -> (Option<Box<RawValue>>, Result<Doing, Problem>) {
    let request: RequestIn<'_> = match parse(text.as_bytes()) {
        Ok(request) => request,
        Err(problem) => return (None, Err(problem)),
    };
    let reference = match request.reference.map(reference).transpose() {
        Ok(reference) => reference,
        Err(problem) => return (None, Err(problem)),
    };
    (reference, doing(app, caller, &request))
}

fn doing(app: &App, caller: &mut Caller, request: &RequestIn<'_>) -> Result<Doing, Problem> {
    match (request.send, &request.token) {
        (Some(send), None) => {
            let send: ItemIn<'_> = parse(send.get().as_bytes())?;
            Ok(Doing::Send(push::draft_of_user(app, caller, send)?))
        }
        (None, Some(token)) => {
            let fresh = auth::bearer_of(app, token)?;
            if fresh.user != caller.user {
                return Err(Problem::Forbidden(
                    "the token is another user's: open a socket of its own for it",
                ));
            }
            *caller = fresh;
            Ok(Doing::Renewed(caller.expires_at))
        }
        _ => Err(Problem::BadJson(
            "exactly one of `send` and `token` is needed".to_owned(),
        )),
    }
}

/// As it was written: a number may have more digits than any type of ours.
fn reference(raw: &RawValue) -> Result<Box<RawValue>, Problem> {
    let value: Value = parse(raw.get().as_bytes())?;
    let short = raw.get().len() <= REF_BYTES_MAX;
    match value {
        Value::Number(_) | Value::String(_) if short => Ok(raw.to_owned()),
        _ => Err(Problem::BadJson(format!(
            "`ref` must be a text or a number of at most {REF_BYTES_MAX} bytes"
        ))),
    }
}

/// What a client is told.
pub(super) struct Answer {
    pub(super) text: String,
    /// Nothing was stored, by no fault of the server's.
    pub(super) useless: bool,
}

/// Does it.
pub(super) async fn answer(
    app: App,
    peer: Option<IpAddr>,
    reference: Option<Box<RawValue>>,
    doing: Result<Doing, Problem>,
) -> Answer {
    let done = match auth::late(&app, peer, ListenerKind::Client, doing).await {
        Ok(Doing::Send(draft)) => push::push_draft(&app, draft)
            .await
            .map(|receipt| ("receipt", json!(ReceiptOut::from(receipt)))),
        Ok(Doing::Renewed(expires_at)) => Ok(("token", json!({ "expires_at": expires_at }))),
        Err(problem) => Err(problem),
    };
    let useless = match &done {
        Ok((name, _)) => *name == "token",
        Err(problem) => problem.code().status().is_client_error(),
    };
    let (name, value) = done.unwrap_or_else(|problem| ("error", problem.to_json(app.hub.log())));
    let value = to_raw_value(&value).expect("a value is always JSON");
    let mut answer = BTreeMap::from([(name, value)]);
    answer.extend(reference.map(|reference| ("ref", reference)));
    let text = serde_json::to_string(&answer);
    Answer {
        text: text.expect("values with texts as keys are always JSON"),
        useless,
    }
}
