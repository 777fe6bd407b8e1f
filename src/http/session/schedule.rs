//! When what is held open speaks, and when it ends.

use std::time::Duration;

use tokio::time::Instant;

use super::close_reason::CloseReason;
use crate::http::request::call::{Call, Caller};
use crate::http::request::query::Parameter;
use crate::http::response::problem::Problem;

/// Seconds between heartbeats when the client does not say.
const DEFAULT_HEARTBEAT_S: u64 = 30;
/// The longest heartbeat that a client may ask for.
pub(in crate::http) const HEARTBEAT_S_MAX: u64 = 300;
/// When what is held open speaks and when it ends; the same for streams and sockets.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Schedule {
    pub(in crate::http) heartbeat: Duration,
    /// When it has lasted long enough.
    pub(in crate::http) over: Instant,
    /// When the token ends.
    pub(in crate::http) expires: Instant,
}

impl Schedule {
    pub(in crate::http) fn of(call: &Call, caller: &Caller) -> Result<Self, Problem> {
        let least = call.app.timeouts.heartbeat_s_min;
        let heartbeat = call
            .query
            .number(Parameter::Heartbeat, least..=HEARTBEAT_S_MAX)?;
        Ok(Self {
            heartbeat: Duration::from_secs(heartbeat.unwrap_or(DEFAULT_HEARTBEAT_S)),
            over: Instant::now() + jittered(call.app.timeouts.stream),
            expires: caller.ends,
        })
    }

    /// When it ends at the latest, and why.
    pub(in crate::http) fn end(&self) -> (Instant, CloseReason) {
        if self.expires <= self.over {
            (self.expires, CloseReason::TokenExpired)
        } else {
            (self.over, CloseReason::Over)
        }
    }

    /// A moment before the heartbeat is due; not the same for all that began together.
    pub(in crate::http) fn next_heartbeat(&self) -> Instant {
        // Nine tenths: with the jitter it is never late.
        Instant::now() + jittered(self.heartbeat.mul_f64(0.9))
    }
}

/// A time at random between nine and eleven tenths of the given one, so that what began together does
/// not end together.
pub(in crate::http) fn jittered(time: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    time.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
}
