//! Pushing: one message, or many at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use warp::http::StatusCode;

use crate::config::Limits;
use crate::http::api::shapes::{self, AnyJson, Name};
use crate::http::context::App;
use crate::http::request::call::{Call, Caller};
use crate::http::request::json::parse;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::model::{
    Body, Draft, GroupName, IdempotencyKey, LogId, Receipt, Receiver, Sequence, UserName,
};

/// What a request may hold around one message's body.
pub(in crate::http) const AROUND_BODY_BYTES: usize = 16 * 1024;
/// Most messages of one request.
pub(in crate::http) const BATCH_MAX: usize = 1000;

/// One message, whose receiver is in the path.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct OneIn<'a> {
    #[serde(borrow)]
    #[schemars(with = "AnyJson")]
    body: &'a RawValue,
    #[schemars(with = "Name")]
    from: Option<String>,
    #[schemars(with = "Option<shapes::IdempotencyKey>")]
    idempotency_key: Option<String>,
}

/// One of many messages, or what a user sends on a socket.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ItemIn<'a> {
    #[schemars(with = "Name")]
    to: Option<String>,
    #[schemars(with = "Name")]
    group: Option<String>,
    #[schemars(with = "Name")]
    from: Option<String>,
    #[serde(borrow)]
    #[schemars(with = "AnyJson")]
    body: &'a RawValue,
    #[schemars(with = "Option<shapes::IdempotencyKey>")]
    idempotency_key: Option<String>,
}

/// What became of a push.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Receipt")]
pub(in crate::http) struct ReceiptOut {
    sequence: Sequence,
    #[schemars(range(min = 1))]
    id: u64,
    /// The id before it in the same conversation or group; 0 for the first.
    prev: u64,
    /// Commit time, Unix milliseconds.
    at: u64,
    /// Whether it was stored before, under the same idempotency key.
    duplicate: bool,
}

impl From<Receipt> for ReceiptOut {
    fn from(receipt: Receipt) -> Self {
        let Receipt {
            sequence,
            id,
            prev,
            at_ms,
            duplicate,
        } = receipt;
        Self {
            sequence,
            id,
            prev,
            at: at_ms,
            duplicate,
        }
    }
}

/// What became of one of many messages.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "PushResult")]
enum ResultOut {
    Stored(ReceiptOut),
    Refused(RefusedOut),
}

/// Why it was refused.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PushRefusal")]
struct RefusedOut {
    #[schemars(with = "shapes::Problem")]
    error: serde_json::Value,
}

/// What became of each of many messages, in their order.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PushResults")]
pub(in crate::http) struct ResultsOut {
    results: Vec<ResultOut>,
}

/// To one user.
pub(in crate::http) async fn direct(call: Call) -> Result<Reply, Problem> {
    let parameter = if call.caller.is_some() { "peer" } else { "to" };
    let to = Receiver::User(call.user(parameter)?);
    push_one(call, to).await
}

/// To a group.
pub(in crate::http) async fn group(call: Call) -> Result<Reply, Problem> {
    let to = Receiver::Group(call.group()?);
    push_one(call, to).await
}

async fn push_one(mut call: Call, to: Receiver) -> Result<Reply, Problem> {
    // Refused before the body is read.
    call.caller.as_ref().map_or(Ok(()), may_send)?;
    let key = header_key(&call)?;
    let text = call.read_body(one_bytes_max(&call.app.limits)).await?;
    let given: OneIn<'_> = parse(&text)?;
    let draft = Draft {
        key: one_key(key, own_key(given.idempotency_key)?)?,
        from: sender(call.caller.as_ref(), given.from)?,
        body: body(&call.app, given.body)?,
        to,
        by_user: call.caller.is_some(),
    };
    let receipt = push_draft(&call.app, draft).await?;
    let status = if receipt.duplicate {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok(Reply::json(status, &ReceiptOut::from(receipt)))
}

/// What a request with one message may hold.
fn one_bytes_max(limits: &Limits) -> usize {
    let body = limits.body_bytes_max.saturating_add(AROUND_BODY_BYTES);
    limits.request_bytes_max.min(body)
}

/// The key of a message, by the header or by itself.
fn one_key(
    header: Option<IdempotencyKey>,
    own: Option<IdempotencyKey>,
) -> Result<Option<IdempotencyKey>, Problem> {
    match (header, own) {
        (Some(header), Some(own)) if header != own => Err(Problem::BadJson(
            "`idempotency_key` and the header `Idempotency-Key` differ: give one of them"
                .to_owned(),
        )),
        (header, own) => Ok(own.or(header)),
    }
}

/// Pushes one message.
pub(in crate::http) async fn push_draft(app: &App, draft: Draft) -> Result<Receipt, Problem> {
    let receipts = app.hub.push(vec![draft]).await?;
    Ok(receipts.into_iter().next().ok_or(Problem::Internal)??)
}

fn may_send(caller: &Caller) -> Result<(), Problem> {
    if caller.may_send {
        Ok(())
    } else {
        Err(Problem::Forbidden(
            "the token does not allow to send: it needs the claim `send`",
        ))
    }
}

/// Many, each with its own outcome.
pub(in crate::http) async fn batch(mut call: Call) -> Result<Reply, Problem> {
    let key = header_key(&call)?;
    let text = call.read_body(call.app.limits.request_bytes_max).await?;
    let items: Vec<&RawValue> = parse(&text)?;
    if items.len() > BATCH_MAX {
        return Err(Problem::TooLarge {
            what: "the array",
            limit: BATCH_MAX,
            unit: " messages",
        });
    }
    let (drafts, problems) = drafts(&call.app, &items, key.as_ref());
    // The drafts own copies of their bodies, and the request may be megabytes.
    drop(text);
    let receipts = if drafts.is_empty() {
        Vec::new()
    } else {
        call.app.hub.push(drafts).await?
    };
    let receipts = receipts.into_iter().map(|outcome| Ok(outcome?)).collect();
    Ok(Reply::ok(&results(receipts, problems, call.app.hub.log())))
}

/// The drafts of the items that are right, and what is wrong with the rest, by their index.
fn drafts(
    app: &App,
    items: &[&RawValue],
    key: Option<&IdempotencyKey>,
) -> (Vec<Draft>, Vec<(usize, Problem)>) {
    let mut drafts = Vec::with_capacity(items.len());
    let mut problems = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match draft(app, item, key.map(|key| key.item(index))) {
            Ok(draft) => drafts.push(draft),
            Err(problem) => problems.push((index, problem)),
        }
    }
    (drafts, problems)
}

/// What became of each item, in their order.
fn results(
    mut outcomes: Vec<Result<Receipt, Problem>>,
    problems: Vec<(usize, Problem)>,
    log: LogId,
) -> ResultsOut {
    for (index, problem) in problems {
        // In rising order, so each lands at its own place among the outcomes.
        outcomes.insert(index.min(outcomes.len()), Err(problem));
    }
    let results = outcomes.into_iter().map(|outcome| match outcome {
        Ok(receipt) => ResultOut::Stored(receipt.into()),
        Err(problem) => ResultOut::Refused(RefusedOut {
            error: problem.to_json(log),
        }),
    });
    ResultsOut {
        results: results.collect(),
    }
}

fn draft(app: &App, item: &RawValue, key: Option<IdempotencyKey>) -> Result<Draft, Problem> {
    let item: ItemIn<'_> = parse(item.get().as_bytes())?;
    let to = receiver(item.to, item.group)?;
    let key = own_key(item.idempotency_key)?.or(key);
    Ok(Draft {
        from: sender(None, item.from)?,
        to,
        body: body(app, item.body)?,
        key,
        by_user: false,
    })
}

/// What a user sends, checked.
pub(in crate::http) fn draft_of_user(
    app: &App,
    caller: &Caller,
    send: ItemIn<'_>,
) -> Result<Draft, Problem> {
    may_send(caller)?;
    Ok(Draft {
        from: sender(Some(caller), send.from)?,
        to: receiver(send.to, send.group)?,
        body: body(app, send.body)?,
        key: own_key(send.idempotency_key)?,
        by_user: true,
    })
}

/// A user sends as the token's user, the backend as whom it names.
fn sender(caller: Option<&Caller>, named: Option<String>) -> Result<UserName, Problem> {
    match (caller, named) {
        (Some(caller), None) => Ok(caller.user.clone()),
        (None, Some(from)) => Ok(UserName::parse(&from)?),
        (Some(_), Some(_)) => Err(Problem::BadJson(
            "`from` is the token's user: leave it out, or send by the admin listener".to_owned(),
        )),
        (None, None) => Err(Problem::BadJson("`from` is missing".to_owned())),
    }
}

fn receiver(user: Option<String>, group: Option<String>) -> Result<Receiver, Problem> {
    match (user, group) {
        (Some(user), None) => Ok(Receiver::User(UserName::parse(&user)?)),
        (None, Some(group)) => Ok(Receiver::Group(GroupName::parse(&group)?)),
        _ => Err(Problem::BadJson(
            "exactly one of `to` and `group` is needed".to_owned(),
        )),
    }
}

fn own_key(key: Option<String>) -> Result<Option<IdempotencyKey>, Problem> {
    key.map(|key| IdempotencyKey::parse(&key))
        .transpose()
        .map_err(|rule| Problem::BadJson(format!("`idempotency_key`: {rule}")))
}

fn body(app: &App, raw: &RawValue) -> Result<Body, Problem> {
    let limit = app.limits.body_bytes_max;
    if raw.get().len() > limit {
        return Err(Problem::TooLarge {
            what: "the message's body",
            limit,
            unit: " bytes",
        });
    }
    Ok(Body::from_json(raw)?)
}

fn header_key(call: &Call) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = call.headers.get("idempotency-key") else {
        return Ok(None);
    };
    IdempotencyKey::parse(value.to_str().unwrap_or_default())
        .map(Some)
        .map_err(|rule| Problem::BadRequest(format!("`Idempotency-Key`: {rule}")))
}
