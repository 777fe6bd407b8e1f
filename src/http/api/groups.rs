//! Groups and their members: the backend's side.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use warp::http::StatusCode;

use crate::http::api::shapes::Name;
use crate::http::context::App;
use crate::http::request::call::Call;
use crate::http::request::json::parse;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::hub::{GroupChange, GroupReceipt, HistoryMode};
use crate::model::{GroupName, UserName};

/// Most names of one request.
pub(in crate::http) const NAMES_MAX: usize = 10_000;

/// A group as it is to be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "GroupSet")]
pub(in crate::http) struct SetIn {
    /// Absent, the members stay; `null` is neither.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Vec<Name>", length(max = NAMES_MAX))]
    members: Option<Vec<String>>,
    /// Absent, it stays as it is; of a new group `member`.
    history: Option<HistoryMode>,
}

fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

/// Who joins and who leaves: at most 10,000 names together. Whoever is in both leaves.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MembersChange")]
pub(in crate::http) struct MembersIn {
    #[serde(default)]
    #[schemars(with = "Vec<Name>", length(max = NAMES_MAX))]
    add: Vec<String>,
    #[serde(default)]
    #[schemars(with = "Vec<Name>", length(max = NAMES_MAX))]
    remove: Vec<String>,
}

/// What a change of a group did.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GroupReceipt")]
pub(in crate::http) struct ReceiptOut<'a> {
    #[schemars(with = "Name")]
    group: &'a str,
    history: HistoryMode,
    /// How many there are now.
    members: u64,
    added: u64,
    removed: u64,
}

/// A group that was deleted.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GroupRemoved")]
pub(in crate::http) struct RemovedOut<'a> {
    #[schemars(with = "Name")]
    group: &'a str,
    removed: u64,
}

/// A group and its members.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Group")]
pub(in crate::http) struct GroupOut<'a> {
    #[schemars(with = "Name")]
    group: &'a str,
    history: HistoryMode,
    #[schemars(with = "Vec<Name>")]
    members: Vec<&'a str>,
    /// The id of its last message; 0 without one.
    last: u64,
}

/// Makes a group, or sets its members and what those who join may read.
pub(in crate::http) async fn set(mut call: Call) -> Result<Reply, Problem> {
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
pub(in crate::http) async fn change_members(mut call: Call) -> Result<Reply, Problem> {
    let group = call.group()?;
    let text = call.read_body(call.app.limits.request_bytes_max).await?;
    let given: MembersIn = parse(&text)?;
    let add = names(&given.add, 0)?;
    let remove = names(&given.remove, add.len())?;
    change(&call.app, group, GroupChange::Members { add, remove }).await
}

/// Adds one member.
pub(in crate::http) async fn add_member(call: Call) -> Result<Reply, Problem> {
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
pub(in crate::http) async fn remove_member(call: Call) -> Result<Reply, Problem> {
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
pub(in crate::http) async fn delete(call: Call) -> Result<Reply, Problem> {
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
pub(in crate::http) async fn get(call: Call) -> Result<Reply, Problem> {
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

async fn change(app: &App, group: GroupName, change: GroupChange) -> Result<Reply, Problem> {
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

fn names(given: &[String], others: usize) -> Result<Vec<UserName>, Problem> {
    if given.len().saturating_add(others) > NAMES_MAX {
        return Err(Problem::TooLarge {
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
