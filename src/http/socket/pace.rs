//! The lowest rate at which a peer must send or take something long: no pause longer than a limit, and no trickle.

use std::time::Duration;

use tokio::time::Instant;

/// How many of the longest pauses all may last, beside the time that its bytes take at the lowest rate.
const PAUSES: u32 = 3;

/// How slow a peer may be.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Patience {
    /// The longest time between two pieces.
    pub(in crate::http) pause: Duration,
    /// The lowest rate of what is long.
    pub(in crate::http) bytes_per_s: u64,
}

impl Patience {
    pub(in crate::http) fn begin(self) -> Pace {
        Pace {
            begin: Instant::now(),
            bytes: 0,
            patience: self,
        }
    }
}

/// One body, or one reply, that is under way.
#[derive(Debug)]
pub(in crate::http) struct Pace {
    begin: Instant,
    bytes: u64,
    patience: Patience,
}

impl Pace {
    /// Counts bytes that came or went.
    pub(in crate::http) fn add(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// When the next piece must have come or gone.
    pub(in crate::http) fn due(&self) -> Instant {
        self.due_after(Instant::now())
    }

    fn due_after(&self, now: Instant) -> Instant {
        let Patience { pause, bytes_per_s } = self.patience;
        let paid = Duration::from_secs(self.bytes / bytes_per_s.max(1));
        let all = self.begin + pause * PAUSES + paid;
        all.min(now + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pay_for_time_but_not_for_a_pause() {
        const PAUSE: Duration = Duration::from_secs(10);
        let patience = Patience {
            pause: PAUSE,
            bytes_per_s: 1024,
        };
        let mut pace = patience.begin();
        let begin = pace.begin;
        let later = begin + Duration::from_secs(25);
        assert_eq!(pace.due_after(begin), begin + PAUSE);
        assert_eq!(pace.due_after(later), begin + 3 * PAUSE);
        pace.add(4 * 1024);
        let paid = Duration::from_secs(4);
        assert_eq!(pace.due_after(later), begin + 3 * PAUSE + paid);
        pace.add(1 << 20);
        assert_eq!(pace.due_after(later), later + PAUSE);
    }
}
