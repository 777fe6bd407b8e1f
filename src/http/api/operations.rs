//! Operations: health, status, who is connected.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::http::api::shapes::Name;
use crate::http::listener_kind::ListenerKind;
use crate::http::request::call::Call;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::hub::Status;
use crate::model::{Device, Transport};

/// Which requests of a user are held now.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Presence")]
pub(in crate::http) struct PresenceOut<'a> {
    #[schemars(with = "Name")]
    user: &'a str,
    /// How many.
    connections: usize,
    devices: Vec<Device>,
}

/// All is well.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Health")]
pub(in crate::http) struct HealthOut {
    #[schemars(extend("const" = "ok"))]
    status: &'static str,
}

/// Open connections, by listener.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Connections")]
struct ConnectionsOut {
    client: usize,
    admin: usize,
}

/// What the server is doing.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Status")]
pub(in crate::http) struct StatusOut {
    version: &'static str,
    uptime_s: u64,
    connections: ConnectionsOut,
    /// Held requests by transport.
    held: BTreeMap<&'static str, usize>,
    /// Messages written to clients since the start.
    delivered: u64,
    #[serde(flatten)]
    hub: Status,
}

/// Which requests of a user are held now.
pub(in crate::http) fn presence(call: &Call) -> Result<Reply, Problem> {
    let user = call.user("user")?;
    let devices = call.app.hub.devices(&user);
    Ok(Reply::ok(&PresenceOut {
        user: user.as_str(),
        connections: devices.len(),
        devices,
    }))
}

/// What the server is doing.
pub(in crate::http) fn status(call: &Call) -> Reply {
    Reply::ok(&StatusOut {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: call.app.started.elapsed().as_secs(),
        connections: ConnectionsOut {
            client: call.app.connections(ListenerKind::Client),
            admin: call.app.connections(ListenerKind::Admin),
        },
        held: Transport::ALL
            .map(|transport| (transport.name(), call.app.hub.held(transport)))
            .into(),
        delivered: call.app.deliveries(),
        hub: call.app.hub.status(),
    })
}

/// The process answers.
pub(in crate::http) fn health() -> Reply {
    Reply::ok(&HealthOut { status: "ok" })
}

/// The process can do its work.
pub(in crate::http) fn ready(call: &Call) -> Result<Reply, Problem> {
    call.app.hub.ready()?;
    Ok(health())
}
