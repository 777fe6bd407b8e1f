//! The times of entries: the clock's for messages, and running time for idempotency keys.
//!
//! A clock may jump years ahead and back. A message's time follows the clock but never falls. Keys are kept for a day
//! that has really passed: their time advances only while a server runs, by a clock that nobody can set.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::clock;
use crate::store::{Error, Journal, View};

/// The clock is said to be wrong from here on: less is how clocks are usually corrected.
const BEHIND_TOLD_MS: u64 = 1000;
/// How far the clock may get ahead of what has passed until that is a jump.
const JUMP: Duration = Duration::from_secs(60);
/// How often the log says that the clock is behind.
const TOLD_EVERY: Duration = Duration::from_secs(3600);
/// No key has a later time, some 35,000 years: what is added to it in a process still fits.
const KEYS_MS_MAX: u64 = 1 << 50;

/// What [`Entry`](crate::store::Entry) holds of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The number of the entry in this process.
    pub(super) n: u64,
    pub(super) at_ms: u64,
    pub(super) keys_us: u64,
}

/// Gives entries their times.
#[derive(Debug)]
pub(in crate::hub) struct Times {
    /// How many it has stamped.
    entries: u64,
    /// The time of the last entry's messages.
    at_ms: u64,
    /// The time of the keys when this process began.
    keys_from_us: u64,
    began: Instant,
    /// The time of the last entry's keys.
    keys_us: u64,
    /// What the clock said last, and when.
    seen: Option<(u64, Instant)>,
    /// When the log said that the clock is behind.
    told: Option<Instant>,
}

impl Times {
    /// Goes on after an entry of this time, and after the last time of keys in the journal: if that fell, a key that
    /// was forgotten would live again for `halley verify`, which does not see when.
    pub(in crate::hub) fn after(at_ms: u64, view: &View, journal: &Journal) -> Result<Self, Error> {
        let last_keys_ms = view.last_key_ms()?.max(Some(journal.keys_ms_at_open()));
        Ok(Self::new(at_ms, last_keys_ms))
    }

    fn new(at_ms: u64, last_keys_ms: Option<u64>) -> Self {
        let keys_us = last_keys_ms.unwrap_or(0).min(KEYS_MS_MAX) * 1000;
        Self {
            entries: 0,
            at_ms,
            keys_from_us: keys_us,
            keys_us,
            began: Instant::now(),
            seen: None,
            told: None,
        }
    }

    /// The times of an entry that is committed now.
    pub(super) fn next(&mut self) -> Stamp {
        self.check_clock();
        self.stamp(clock::now_ms(), self.began.elapsed())
    }

    fn stamp(&mut self, clock_ms: u64, running: Duration) -> Stamp {
        let running_us = u64::try_from(running.as_micros()).unwrap_or(u64::MAX);
        let keys_us = self.keys_from_us.saturating_add(running_us);
        self.entries += 1;
        self.keys_us = self.keys_us.max(keys_us);
        self.at_ms = self.at_ms.max(clock_ms);
        Stamp {
            n: self.entries,
            at_ms: self.at_ms,
            keys_us: self.keys_us,
        }
    }

    /// Has the log tell of a clock that is wrong, or was.
    pub(super) fn check_clock(&mut self) {
        let (clock_ms, now) = (clock::now_ms(), Instant::now());
        if let Some(ahead) = self.seen.and_then(|seen| jump(seen, (clock_ms, now))) {
            warn!(
                ahead_s = ahead.as_secs(),
                "the clock jumped ahead: messages get its time, and later ones never an earlier time; if it is \
                 wrong, correct it now"
            );
        }
        self.seen = Some((clock_ms, now));
        match self.at_ms.saturating_sub(clock_ms) {
            0 => self.in_time(),
            BEHIND_TOLD_MS.. => self.behind(now),
            _ => {}
        }
    }

    fn in_time(&mut self) {
        if self.told.take().is_some() {
            info!("the clock has passed the time of the newest message");
        }
    }

    fn behind(&mut self, now: Instant) {
        let recently = |told| now.saturating_duration_since(told) < TOLD_EVERY;
        if !self.told.is_some_and(recently) {
            self.told = Some(now);
            warn!(
                newest = clock::rfc3339(self.at_ms),
                "the clock is behind the newest message: new messages get that message's time until the clock has \
                 passed it; see `The clock` in docs/operations.md"
            );
        }
    }
}

/// How far the clock got ahead of what has passed, if that is much.
fn jump(before: (u64, Instant), now: (u64, Instant)) -> Option<Duration> {
    let by_clock = Duration::from_millis(now.0.saturating_sub(before.0));
    let passed = now.1.saturating_duration_since(before.1);
    by_clock.checked_sub(passed).filter(|ahead| *ahead >= JUMP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::plan::{Outcome, plan};
    use crate::hub::state::State;
    use crate::model::{Body, Draft, IdempotencyKey, Receipt, Receiver, UserName};
    use crate::store::{Command, Directory, Entry, KEYS_KEPT_MS};

    /// The clock of these tests, when it is right.
    const NOW_MS: u64 = 1_800_000_000_000;
    const YEAR_MS: u64 = 365 * DAY_MS;
    const DAY_MS: u64 = KEYS_KEPT_MS;

    /// A server that is started again and again, with any clock.
    struct Server {
        view: View,
        state: State,
        times: Times,
        folder: tempfile::TempDir,
    }

    fn open(folder: tempfile::TempDir) -> Server {
        let directory = Directory::open(folder.path()).unwrap();
        let (view, applied) = View::open(&directory, 8 << 20).unwrap();
        Server {
            state: State::load(&view, applied, usize::MAX).unwrap(),
            times: Times::new(applied.at_ms, view.last_key_ms().unwrap()),
            view,
            folder,
        }
    }

    impl Server {
        fn again(self) -> Self {
            let Self { folder, view, .. } = self;
            drop(view);
            open(folder)
        }

        /// A push under a key, so long after the start, by this clock.
        fn push(&mut self, key: &str, clock_ms: u64, running_ms: u64) -> Receipt {
            let running = Duration::from_millis(running_ms);
            let Stamp { n, at_ms, keys_us } = self.times.stamp(clock_ms, running);
            let user = |name| UserName::parse(name).unwrap();
            let draft = Draft {
                from: user("ann"),
                to: Receiver::User(user("bob")),
                body: Body::from(b"1".to_vec()),
                key: Some(IdempotencyKey::parse(key).unwrap()),
                by_user: false,
            };
            let entry = Entry {
                proposer: 1,
                n,
                at_ms,
                keys_us,
                commands: vec![Command::Message(draft)],
            };
            self.state.prepare(&self.view, &entry).unwrap();
            let offset = self.state.applied().offset + 1;
            let plan = plan(&mut self.state, offset, &entry);
            self.view
                .write(&plan.writes, self.state.applied(), &mut |_| Ok(()))
                .unwrap();
            self.view.check().unwrap();
            match plan.outcomes[0] {
                Outcome::Message(receipt) => receipt,
                ref other => panic!("{other:?}"),
            }
        }
    }

    fn server() -> Server {
        open(tempfile::tempdir().unwrap())
    }

    #[test]
    fn keys_are_kept_for_a_day_of_running_time_whatever_the_clock_does() {
        for jump_ms in [2 * DAY_MS, 10 * YEAR_MS] {
            for restarts in [false, true] {
                let mut server = server();
                let first = server.push("before", NOW_MS, 1000);
                let mut clock_ms = NOW_MS + jump_ms;
                for (key, again_ms) in [("ahead", 61_000), ("back", 62_000)] {
                    let from_ms = if restarts { 0 } else { 60_000 };
                    server = if restarts { server.again() } else { server };
                    let made = server.push(key, clock_ms, from_ms + 1);
                    assert!(!made.duplicate);
                    assert_eq!(made.at_ms, NOW_MS + jump_ms, "it never falls");
                    let again = server.push("before", clock_ms, from_ms + again_ms);
                    let expected = Receipt {
                        duplicate: true,
                        ..first
                    };
                    assert_eq!(again, expected, "{key}, {jump_ms}, {restarts}");
                    clock_ms = NOW_MS + 60_000;
                }
                // Though the newest message's time stands still.
                for key in ["before", "ahead", "back"] {
                    assert!(
                        server.push(key, clock_ms, DAY_MS - 200_000).duplicate,
                        "{key}"
                    );
                }
                for key in ["before", "ahead", "back"] {
                    let late = server.push(key, clock_ms + DAY_MS, DAY_MS + 200_000);
                    assert!(!late.duplicate, "{key}, {jump_ms}, {restarts}");
                    assert_eq!(late.at_ms, NOW_MS + jump_ms);
                }
            }
        }
    }

    #[test]
    fn a_clock_that_was_behind_and_is_set_right_forgets_no_key() {
        let mut server = server();
        let first = server.push("k", 0, 1);
        assert_eq!(first.at_ms, 0);
        assert_eq!(server.push("other", NOW_MS, 2).at_ms, NOW_MS);
        assert!(server.push("k", NOW_MS, DAY_MS).duplicate);
        assert!(!server.push("k", NOW_MS, DAY_MS + 1).duplicate);
    }

    #[test]
    fn entries_of_one_moment_have_numbers_of_their_own() {
        let mut times = Times::new(5, Some(u64::MAX));
        let stamps: Vec<_> = (0..1000).map(|_| times.stamp(3, Duration::ZERO)).collect();
        assert!(stamps.is_sorted_by(|one, next| one.n < next.n && one.keys_us <= next.keys_us));
        assert!(stamps.iter().all(|stamp| stamp.at_ms == 5));
    }

    #[test]
    fn a_jump_is_more_than_what_has_passed() {
        let now = Instant::now();
        let after = |s| now + Duration::from_secs(s);
        assert_eq!(jump((NOW_MS, now), (NOW_MS + DAY_MS, after(86_400))), None);
        assert_eq!(jump((NOW_MS, now), (NOW_MS + 59_000, now)), None);
        assert_eq!(jump((NOW_MS, now), (NOW_MS - DAY_MS, after(1))), None);
        let ahead = jump((NOW_MS, now), (NOW_MS + DAY_MS, after(60)));
        assert_eq!(ahead, Some(Duration::from_secs(86_400 - 60)));
    }
}
