//! Operations: health, status, who is connected.

use serde::Serialize;

use super::app::Face;
use super::call::Call;
use super::reply::{Refusal, Reply};
use crate::hub::Status;

#[derive(Serialize)]
struct PresenceOut<'a> {
    user: &'a str,
    connections: usize,
}

#[derive(Serialize)]
struct HealthOut {
    status: &'static str,
}

#[derive(Serialize)]
struct ConnectionsOut {
    client: usize,
    admin: usize,
}

#[derive(Serialize)]
struct StatusOut {
    version: &'static str,
    uptime_s: u64,
    connections: ConnectionsOut,
    #[serde(flatten)]
    hub: Status,
}

/// How many requests of a user are held now.
pub(super) fn presence(call: &Call) -> Result<Reply, Refusal> {
    let user = call.user("user")?;
    let connections = call.app.hub.connections(&user);
    Ok(Reply::ok(&PresenceOut {
        user: user.as_str(),
        connections,
    }))
}

/// What the server is doing.
pub(super) fn status(call: &Call) -> Reply {
    Reply::ok(&StatusOut {
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: call.app.started.elapsed().as_secs(),
        connections: ConnectionsOut {
            client: call.app.connections(Face::Client),
            admin: call.app.connections(Face::Admin),
        },
        hub: call.app.hub.status(),
    })
}

/// The process answers.
pub(super) fn health() -> Reply {
    Reply::ok(&HealthOut { status: "ok" })
}

/// The process can do its work.
pub(super) fn ready(call: &Call) -> Result<Reply, Refusal> {
    call.app.hub.ready()?;
    Ok(health())
}
