//! Wrong keys and tokens: logged with the address they came from, and refused late.
//!
//! Only a refusal is delayed, never a request with a right key or token, because all clients behind a proxy share one
//! address. A bounded number of refusals wait at once, so a flood holds no more than that; the rest are sent at once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::http::address::network;
use crate::http::listener_kind::ListenerKind;

/// The first ones are answered at once: a backend that starts with an old key, a typing error.
const FREE: u32 = 3;
/// The delay after them, doubled with each one more.
const DELAY_FIRST: Duration = Duration::from_millis(50);
/// After so long without a wrong one, an address starts afresh.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Addresses that are known at once.
const ADDRESSES_MAX: usize = 1024;
/// Refusals that wait at once.
const WAITING_MAX: usize = 64;
/// An address is logged once in such a time; and all addresses together so many times.
const LOG_PERIOD: Duration = Duration::from_secs(60);
const LOG_LINES_MAX: u32 = 20;

/// The addresses that wrong keys and tokens came from.
#[derive(Debug)]
pub(in crate::http) struct Attempts {
    log: Mutex<AttemptLog>,
    waiting: Semaphore,
    delay_max: Duration,
}

#[derive(Debug, Default)]
struct AttemptLog {
    addresses: HashMap<Source, Seen>,
    /// When the lines of this period began, and how many there were.
    period: Option<Instant>,
    lines: u32,
}

#[derive(Debug)]
struct Seen {
    count: u32,
    last: Instant,
    /// When a line was last written, and how many wrong ones came since.
    logged: Option<Instant>,
    unlogged: u32,
}

/// An address, and the listener: keys and tokens are told apart.
type Source = (IpAddr, ListenerKind);

/// What one wrong key or token leads to.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    delay: Duration,
    /// A line for the log, with how many wrong ones it stands for.
    line: Option<u32>,
}

impl Attempts {
    /// No refusal waits longer than `delay_max`.
    pub(in crate::http) fn new(delay_max: Duration) -> Self {
        Self {
            log: Mutex::default(),
            waiting: Semaphore::new(WAITING_MAX),
            delay_max,
        }
    }

    /// Logs a wrong key or token, and waits before it is refused.
    pub(in crate::http) async fn refused(&self, peer: Option<IpAddr>, kind: ListenerKind) {
        let Some(peer) = peer.map(network) else {
            return;
        };
        let now = Instant::now();
        let verdict = self
            .log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note((peer, kind), now);
        if let Some(count) = verdict.line {
            let what = match kind {
                ListenerKind::Client => "invalid token refused",
                ListenerKind::Admin => "wrong admin key refused",
            };
            tracing::warn!(address = %peer, listener = kind.name(), count, "{what}");
        }
        let delay = verdict.delay.min(self.delay_max);
        if delay.is_zero() {
            return;
        }
        if let Ok(_place) = self.waiting.try_acquire() {
            sleep(delay).await;
        }
    }
}

impl AttemptLog {
    fn note(&mut self, peer: Source, now: Instant) -> Verdict {
        self.make_room(peer, now);
        let seen = self.addresses.entry(peer).or_insert(Seen {
            count: 0,
            last: now,
            logged: None,
            unlogged: 0,
        });
        if now - seen.last > FORGOTTEN {
            seen.count = 0;
        }
        seen.last = now;
        seen.count = seen.count.saturating_add(1);
        seen.unlogged = seen.unlogged.saturating_add(1);
        let delay = match seen.count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(more) => DELAY_FIRST.saturating_mul(2_u32.saturating_pow(more)),
        };
        let due = seen.logged.is_none_or(|last| now - last >= LOG_PERIOD);
        if self.period.is_none_or(|begin| now - begin >= LOG_PERIOD) {
            (self.period, self.lines) = (Some(now), 0);
        }
        let line = (due && self.lines < LOG_LINES_MAX).then(|| {
            self.lines += 1;
            seen.logged = Some(now);
            std::mem::take(&mut seen.unlogged)
        });
        Verdict { delay, line }
    }

    /// Forgets who has been quiet, or else who has been so the longest.
    fn make_room(&mut self, peer: Source, now: Instant) {
        if self.addresses.len() < ADDRESSES_MAX || self.addresses.contains_key(&peer) {
            return;
        }
        self.addresses
            .retain(|_, seen| now - seen.last <= FORGOTTEN);
        if self.addresses.len() < ADDRESSES_MAX {
            return;
        }
        let oldest = self.addresses.iter().min_by_key(|(_, seen)| seen.last);
        if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
            self.addresses.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(text: &str) -> Source {
        (ip(text), ListenerKind::Client)
    }

    #[test]
    fn the_delay_grows_for_one_address_and_is_forgotten() {
        let mut log = AttemptLog::default();
        let begin = Instant::now();
        let mut delays = Vec::new();
        for n in 0..7 {
            delays.push(
                log.note(client("10.0.0.1"), begin + Duration::from_millis(n))
                    .delay,
            );
        }
        let ms: Vec<u128> = delays.iter().map(Duration::as_millis).collect();
        assert_eq!(ms, [0, 0, 0, 50, 100, 200, 400]);
        assert_eq!(log.note(client("10.0.0.2"), begin).delay, Duration::ZERO);
        let admin = (ip("10.0.0.1"), ListenerKind::Admin);
        assert_eq!(log.note(admin, begin).delay, Duration::ZERO);
        let later = begin + FORGOTTEN + Duration::from_secs(1);
        assert_eq!(log.note(client("10.0.0.1"), later).delay, Duration::ZERO);
        for _ in 0..100 {
            log.note(client("10.0.0.1"), later);
        }
        assert!(log.note(client("10.0.0.1"), later).delay > Duration::from_secs(1000));
    }

    #[test]
    fn a_line_a_minute_for_an_address_says_how_many_it_stands_for() {
        let mut log = AttemptLog::default();
        let begin = Instant::now();
        assert_eq!(log.note(client("10.0.0.1"), begin).line, Some(1));
        for _ in 0..4 {
            assert_eq!(log.note(client("10.0.0.1"), begin).line, None);
        }
        assert_eq!(
            log.note(client("10.0.0.1"), begin + LOG_PERIOD).line,
            Some(5)
        );
    }

    #[test]
    fn many_addresses_take_bounded_memory_and_lines() {
        let mut log = AttemptLog::default();
        let begin = Instant::now();
        let mut lines = 0;
        for n in 0..5000_u32 {
            let peer = (IpAddr::V4((0x0a00_0000 + n).into()), ListenerKind::Client);
            lines += u32::from(
                log.note(peer, begin + Duration::from_micros(n.into()))
                    .line
                    .is_some(),
            );
        }
        assert_eq!((log.addresses.len(), lines), (ADDRESSES_MAX, LOG_LINES_MAX));
        let last = (
            IpAddr::V4((0x0a00_0000_u32 + 4999).into()),
            ListenerKind::Client,
        );
        assert!(log.addresses.contains_key(&last), "the newest are known");
    }
}
