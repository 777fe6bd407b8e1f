//! Groups and their members: the backend's side.

use serde::{Deserialize, Deserializer, Serialize};
use warp::http::StatusCode;

use super::app::App;
use super::call::Call;
use super::push::parse;
use super::reply::{Refusal, Reply};
use crate::hub::{GroupChange, GroupReceipt, HistoryMode};
use crate::model::{GroupName, UserName};

/// Most names of one request.
pub(super) const NAMES_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetIn {
    /// Absent, the members stay; `null` is neither.
    #[serde(default, deserialize_with = "given")]
    members: Option<Vec<String>>,
    history: Option<HistoryMode>,
}

fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MembersIn {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

#[derive(Serialize)]
struct ReceiptOut<'a> {
    group: &'a str,
    history: HistoryMode,
    members: u64,
    added: u64,
    removed: u64,
}

#[derive(Serialize)]
struct RemovedOut<'a> {
    group: &'a str,
    removed: u64,
}

#[derive(Serialize)]
struct GroupOut<'a> {
    group: &'a str,
    history: HistoryMode,
    members: Vec<&'a str>,
    last: u64,
}

/// Makes a group, or sets its members and what those who join may read.
pub(super) async fn set(mut call: Call) -> Result<Reply, Refusal> {
    let group = call.group()?;
    let text = call.read_body(call.app.limits.request_bytes_max).await?;
    let given: SetIn = parse(&text)?;
    let members = given
        .members
        .map(|members| names(&members, 0))
        .transpose()?;
    change(
        &call.app,
        group,
        GroupChange::Set {
            members,
            history: given.history,
        },
    )
    .await
}

/// Adds and removes members.
pub(super) async fn change_members(mut call: Call) -> Result<Reply, Refusal> {
    let group = call.group()?;
    let text = call.read_body(call.app.limits.request_bytes_max).await?;
    let given: MembersIn = parse(&text)?;
    let add = names(&given.add, 0)?;
    let remove = names(&given.remove, add.len())?;
    change(&call.app, group, GroupChange::Members { add, remove }).await
}

/// Adds one member.
pub(super) async fn add_member(call: Call) -> Result<Reply, Refusal> {
    let (group, user) = (call.group()?, call.user("user")?);
    change(
        &call.app,
        group,
        GroupChange::Members {
            add: vec![user],
            remove: Vec::new(),
        },
    )
    .await
}

/// Removes one member.
pub(super) async fn remove_member(call: Call) -> Result<Reply, Refusal> {
    let (group, user) = (call.group()?, call.user("user")?);
    change(
        &call.app,
        group,
        GroupChange::Members {
            add: Vec::new(),
            remove: vec![user],
        },
    )
    .await
}

/// Lets everybody leave; the history stays.
pub(super) async fn delete(call: Call) -> Result<Reply, Refusal> {
    let group = call.group()?;
    let receipt = call
        .app
        .hub
        .change_group(group.clone(), GroupChange::Delete)
        .await?;
    Ok(Reply::ok(&RemovedOut {
        group: group.as_str(),
        removed: receipt.removed,
    }))
}

/// Who is in a group.
pub(super) async fn get(call: Call) -> Result<Reply, Refusal> {
    let group = call.group()?;
    let info = call.app.hub.group(group.clone()).await?;
    let mut members: Vec<&str> = info.members.iter().map(UserName::as_str).collect();
    members.sort_unstable();
    let (history, last) = (info.history, info.last);
    Ok(Reply::ok(&GroupOut {
        group: group.as_str(),
        history,
        members,
        last,
    }))
}

async fn change(app: &App, group: GroupName, change: GroupChange) -> Result<Reply, Refusal> {
    let GroupReceipt {
        made,
        history,
        members,
        added,
        removed,
    } = app.hub.change_group(group.clone(), change).await?;
    let status = if made {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let group = group.as_str();
    Ok(Reply::json(
        status,
        &ReceiptOut {
            group,
            history,
            members,
            added,
            removed,
        },
    ))
}

fn names(given: &[String], others: usize) -> Result<Vec<UserName>, Refusal> {
    if given.len().saturating_add(others) > NAMES_MAX {
        return Err(Refusal::TooLarge {
            what: "the list",
            limit: NAMES_MAX,
            unit: " names",
        });
    }
    given
        .iter()
        .map(|name| Ok(UserName::parse(name)?))
        .collect()
}
