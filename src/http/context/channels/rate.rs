//! How fast new channels may be opened where nobody shows who they are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// New channels at once, for example of all clients of an app that has just moved.
const AT_ONCE: u32 = 1000;
/// Afterwards one in this time.
const EACH: Duration = Duration::from_millis(100);

/// What has been opened lately. A channel is for ever, so made-up names must not take them all in a minute.
#[derive(Debug)]
pub(in crate::http) struct Rate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Time that must pass until nothing counts any longer.
    debt: Duration,
    since: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        let state = State {
            debt: Duration::ZERO,
            since: now,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Whether one more may be opened now; counts it.
    pub(in crate::http) fn admit(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(state.since);
        state.debt = state.debt.saturating_sub(passed);
        state.since = now;
        let admitted = state.debt < EACH * AT_ONCE;
        if admitted {
            state.debt += EACH;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_then_ten_a_second_and_many_again_after_a_pause() {
        let mut now = Instant::now();
        let rate = Rate::new(now);
        let admitted = |now| (0..3000).filter(|_| rate.admit(now)).count();
        assert_eq!(admitted(now), 1000);
        for _ in 0..3 {
            now += Duration::from_secs(1);
            assert_eq!(admitted(now), 10);
        }
        now += Duration::from_secs(3600);
        assert_eq!(admitted(now), 1000);
    }
}
