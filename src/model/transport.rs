//! By what a feed reaches its reader: known to the domain only to count and to show it.

use schemars::JsonSchema;
use serde::Serialize;

/// A way to hold a request open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Long poll: one reply, then the request ends.
    Poll,
    /// `EventSource`.
    Sse,
    /// JSON lines over one response.
    Stream,
    /// WebSocket.
    Socket,
    /// icomet's protocol, by any of its ways.
    Icomet,
}

impl Transport {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 5] = [
        Self::Poll,
        Self::Sse,
        Self::Stream,
        Self::Socket,
        Self::Icomet,
    ];

    /// `poll`, `sse`, `stream`, `socket` or `icomet`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Sse => "sse",
            Self::Stream => "stream",
            Self::Socket => "socket",
            Self::Icomet => "icomet",
        }
    }
}

/// One open feed of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Device {
    /// By what it is connected.
    pub transport: Transport,
    /// Since when, Unix milliseconds. A poll counts from its own begin.
    pub since: u64,
}
