//! How many frames that bring nothing a client may send: pings, pongs, fresh tokens, and messages that are refused.

use std::time::Duration;

use tokio::time::Instant;

/// So many at once: what a page that was offline may have to say, all of it refused. They take some milliseconds.
const AT_ONCE: u32 = 1024;
/// One more after each of these: 64 a second, where a ping in some seconds is usual.
const EACH: Duration = Duration::from_micros(15_625);

/// What one client has left.
#[derive(Debug)]
pub(super) struct Allowance {
    /// When all that was taken is given back.
    whole: Instant,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self {
            whole: Instant::now(),
        }
    }

    /// Takes one; false if there is none.
    pub(super) fn take(&mut self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&mut self, now: Instant) -> bool {
        let whole = self.whole.max(now) + EACH;
        if whole > now + EACH * AT_ONCE {
            return false;
        }
        self.whole = whole;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_with_time() {
        let mut allowance = Allowance::new();
        let begin = allowance.whole;
        let mut taken = |after: u32| {
            let now = begin + after * EACH;
            (0..2000).take_while(|_| allowance.take_at(now)).count()
        };
        assert_eq!(taken(0), 1024);
        assert_eq!(taken(10), 10);
        assert_eq!(taken(2000), 1024);
    }
}
