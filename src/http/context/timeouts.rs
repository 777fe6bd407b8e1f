//! How long peers may take.

use std::time::Duration;

use crate::http::socket::pace::Patience;

/// How long a peer may take. Tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two pieces of a request's body; three times as long for a short body as a whole.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
    /// A peer that takes nothing of a reply for so long is cut; one that takes it too slowly after three times as
    /// long.
    pub write: Duration,
    /// The lowest rate of a long reply, beside that time.
    pub write_bytes_per_s: u64,
    /// How long the peer's end is awaited after ours.
    pub linger: Duration,
    /// After about so long a stream ends, and the client asks again.
    pub stream: Duration,
    /// After about so long without a message icomet's clients are told so.
    pub noop: Duration,
    /// After so long without a request icomet's channels are not in use.
    pub channel: Duration,
    /// What a WebSocket's client may be late with its pong, beyond two heartbeats.
    pub silence: Duration,
    /// How long a request waits for others of its user to be over, before it is refused as one too many.
    pub crowd: Duration,
    /// How late a wrong key or token is refused, at the most.
    pub refusal: Duration,
    /// The shortest heartbeat that a client may ask for, in whole seconds.
    pub heartbeat_s_min: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            // Less than a phone has at the edge of its network; a page of 1 MiB may take six minutes.
            write_bytes_per_s: 4 * 1024,
            linger: Duration::from_secs(1),
            stream: Duration::from_secs(600),
            noop: Duration::from_secs(30),
            channel: Duration::from_secs(30),
            silence: Duration::from_secs(10),
            crowd: Duration::from_secs(1),
            refusal: Duration::from_secs(1),
            heartbeat_s_min: 5,
        }
    }
}

impl Timeouts {
    /// With those who read.
    pub(in crate::http) fn patience(&self) -> Patience {
        Patience {
            pause: self.write,
            bytes_per_s: self.write_bytes_per_s,
        }
    }
}
