//! Which of icomet's channels are in use at this moment, as icomet knows it: in memory, and gone some time after the last
//! request. Numbers and messages are not kept here. There are no more than may be opened, as only what is open is used.

mod rate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use self::rate::Rate;
use crate::model::UserName;

/// The longest time a channel stays in use without a request.
const IDLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How often those that have ended are looked for, at most.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

#[cfg(not(test))]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
use tests::now;

/// The channels in use.
#[derive(Debug)]
pub(in crate::http) struct ChannelsInUse {
    state: Mutex<State>,
    /// Counts changes, so that who watches looks again.
    changed: watch::Sender<u64>,
    /// How long a channel is in use after its last request.
    idle: Duration,
    /// Of new channels that clients open without a token.
    pub(in crate::http) opened: Rate,
}

#[derive(Debug)]
struct State {
    channels: HashMap<UserName, Channel>,
    /// Numbers below which nothing is given again.
    cleared: HashMap<UserName, u64>,
    begun: u64,
    swept: Instant,
}

#[derive(Debug)]
struct Channel {
    /// Tells it from one that was closed and begun again.
    life: u64,
    /// Requests that are open: while there are any, the channel is in use.
    subscribers: usize,
    /// Those of them that have been told what there was, and wait for more.
    waiting: usize,
    /// What is left of its time; counts down only while nobody waits.
    left: Duration,
    since: Instant,
    closed: watch::Sender<bool>,
}

impl Channel {
    fn over(&self, now: Instant) -> bool {
        self.subscribers == 0 && now.saturating_duration_since(self.since) >= self.left
    }

    /// Gives it at least so long from now on.
    fn raise(&mut self, idle: Duration, now: Instant) {
        let spent = match self.subscribers {
            0 => now.saturating_duration_since(self.since),
            _ => Duration::ZERO,
        };
        self.left = self.left.saturating_sub(spent).max(idle);
        self.since = now;
    }
}

/// A live subscription of a channel; unsubscribes on drop.
#[derive(Debug)]
pub(in crate::http) struct Subscribed {
    channels: Arc<ChannelsInUse>,
    user: UserName,
    life: u64,
    waits: bool,
    closed: watch::Receiver<bool>,
}

impl Subscribed {
    /// From here on the request waits, and is counted as icomet counts.
    pub(in crate::http) fn waits(&mut self) {
        if !std::mem::replace(&mut self.waits, true) {
            self.channels
                .change(&self.user, self.life, |channel| channel.waiting += 1);
        }
    }

    /// Resolves when the channel is closed.
    pub(in crate::http) async fn closed(&mut self) {
        // An error is the end of the channel, too.
        drop(self.closed.wait_for(|closed| *closed).await);
    }

    pub(in crate::http) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        let waited = usize::from(self.waits);
        self.channels.change(&self.user, self.life, |channel| {
            channel.subscribers = channel.subscribers.saturating_sub(1);
            channel.waiting = channel.waiting.saturating_sub(waited);
            channel.since = now();
        });
    }
}

/// Channels in use by name, with their lives.
pub(in crate::http) type Lives = HashMap<UserName, u64>;

impl ChannelsInUse {
    pub(in crate::http) fn new(idle: Duration) -> Self {
        let state = State {
            channels: HashMap::new(),
            cleared: HashMap::new(),
            begun: 0,
            swept: now(),
        };
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            idle,
            opened: Rate::new(now()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        // No timer sweeps. Whoever takes the lock does, and before that nobody sees a difference.
        if now.saturating_duration_since(state.swept) >= SWEEP_EVERY.min(self.idle / 4) {
            state.swept = now;
            let before = state.channels.len();
            state.channels.retain(|_, channel| !channel.over(now));
            if state.channels.len() < before {
                self.tell();
            }
        }
        state
    }

    fn tell(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The channel is in use: what is done with it begins.
    fn begin<T>(&self, user: &UserName, work: impl FnOnce(&mut Channel) -> T) -> T {
        let mut state = self.lock();
        let State {
            channels, begun, ..
        } = &mut *state;
        let channel = channels.entry(user.clone()).or_insert_with(|| {
            *begun += 1;
            self.tell();
            Channel {
                life: *begun,
                subscribers: 0,
                waiting: 0,
                left: Duration::ZERO,
                since: now(),
                closed: watch::Sender::new(false),
            }
        });
        channel.raise(self.idle, now());
        work(channel)
    }

    /// A request begins.
    pub(in crate::http) fn subscribe(self: &Arc<Self>, user: &UserName) -> Subscribed {
        let (life, closed) = self.begin(user, |channel| {
            channel.subscribers += 1;
            (channel.life, channel.closed.subscribe())
        });
        Subscribed {
            channels: self.clone(),
            user: user.clone(),
            life,
            waits: false,
            closed,
        }
    }

    /// Changes a channel, unless it was closed meanwhile.
    fn change(&self, user: &UserName, life: u64, change: impl FnOnce(&mut Channel)) {
        let mut state = self.lock();
        let channel = state.channels.get_mut(user);
        if let Some(channel) = channel.filter(|channel| channel.life == life) {
            change(channel);
        }
    }

    /// Something was published.
    pub(in crate::http) fn published(&self, user: &UserName) {
        self.begin(user, |_| ());
    }

    /// Something was published to all.
    pub(in crate::http) fn published_to_all(&self) {
        let mut state = self.lock();
        let now = now();
        for channel in state.channels.values_mut() {
            channel.raise(self.idle, now);
        }
    }

    /// The backend expects a client; sets how long the channel stays in use without one, which is returned.
    pub(in crate::http) fn signed(&self, user: &UserName, expires_s: i64) -> Duration {
        let left = match u64::try_from(expires_s) {
            Ok(0) | Err(_) => self.idle,
            Ok(seconds) => Duration::from_secs(seconds).min(IDLE_MAX),
        };
        self.begin(user, |channel| channel.left = left);
        left
    }

    /// Ends the requests that wait, and the channel's use. Whether it was in use.
    pub(in crate::http) fn close(&self, user: &UserName) -> bool {
        let closed = self.lock().channels.remove(user);
        if let Some(channel) = &closed {
            channel.closed.send_replace(true);
            self.tell();
        }
        closed.is_some()
    }

    /// Hides what has a lower number. Whether the channel is in use.
    pub(in crate::http) fn clear(&self, user: &UserName, next: u64) -> bool {
        let mut state = self.lock();
        let used = state.channels.contains_key(user);
        if used {
            // Of two at once, the later is the higher.
            let first = state.cleared.entry(user.clone()).or_default();
            *first = next.max(*first);
        }
        used
    }

    /// The first number that may be given.
    pub(in crate::http) fn first(&self, user: &UserName) -> u64 {
        self.lock().cleared.get(user).copied().unwrap_or(1)
    }

    pub(in crate::http) fn contains(&self, user: &UserName) -> bool {
        self.lock().channels.contains_key(user)
    }

    /// Channels in use, and requests that wait.
    pub(in crate::http) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        let waiting = state.channels.values().map(|channel| channel.waiting);
        (state.channels.len(), waiting.sum())
    }

    /// Requests that wait for one channel.
    pub(in crate::http) fn waiting(&self, user: &UserName) -> usize {
        let state = self.lock();
        state
            .channels
            .get(user)
            .map_or(0, |channel| channel.waiting)
    }

    /// All channels in use.
    pub(in crate::http) fn lives(&self) -> Lives {
        let state = self.lock();
        let lives = state.channels.iter();
        lives
            .map(|(user, channel)| (user.clone(), channel.life))
            .collect()
    }

    /// Tells when something has changed.
    pub(in crate::http) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How long a channel is in use after its last request.
    pub(in crate::http) fn idle(&self) -> Duration {
        self.idle
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static PASSED_S: Cell<u64> = const { Cell::new(0) };
    }

    /// The time, with what a test let pass.
    pub(in crate::http) fn now() -> Instant {
        Instant::now() + Duration::from_secs(PASSED_S.get())
    }

    fn pass(seconds: u64) {
        PASSED_S.set(PASSED_S.get() + seconds);
    }

    fn user() -> UserName {
        UserName::parse("bob").unwrap()
    }

    #[test]
    fn a_channel_is_in_use_until_its_time_is_over() {
        let live = ChannelsInUse::new(Duration::from_secs(30));
        live.published(&user());
        pass(29);
        assert!(live.contains(&user()));
        live.published_to_all();
        pass(29);
        assert!(live.contains(&user()));
        pass(2);
        assert!(!live.contains(&user()));
        // A signature sets the time, longer or shorter; a publishing never makes it shorter.
        assert_eq!(live.signed(&user(), 60), Duration::from_secs(60));
        live.published(&user());
        pass(59);
        assert!(live.contains(&user()));
        assert_eq!(live.signed(&user(), 5), Duration::from_secs(5));
        pass(6);
        assert_eq!(live.counts(), (0, 0));
        assert_eq!(live.signed(&user(), -1), Duration::from_secs(30));
        assert!(live.close(&user()) && !live.close(&user()));
        assert!(live.lives().is_empty());
    }

    #[test]
    fn what_was_cleared_stays_so_and_changes_are_told() {
        let live = ChannelsInUse::new(Duration::from_secs(30));
        let mut changes = live.changes();
        assert!(!live.clear(&user(), 7));
        assert_eq!(live.first(&user()), 1);
        live.published(&user());
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(live.clear(&user(), 7));
        assert!(live.close(&user()));
        assert!(changes.has_changed().unwrap());
        assert_eq!(live.first(&user()), 7);
        // Two at once may come here in any order.
        live.published(&user());
        assert!(live.clear(&user(), 6));
        assert_eq!(live.first(&user()), 7);
    }

    #[test]
    fn a_request_of_a_closed_channel_changes_nothing_of_the_next_of_that_name() {
        let live = ChannelsInUse::new(Duration::from_secs(30));
        live.published(&user());
        let life = live.lives()[&user()];
        live.change(&user(), life, |channel| channel.waiting += 1);
        assert_eq!(live.waiting(&user()), 1);
        assert!(live.close(&user()));
        live.published(&user());
        live.change(&user(), life, |channel| channel.waiting += 1);
        assert_eq!(live.waiting(&user()), 0);
    }

    #[test]
    fn all_that_are_open_may_be_in_use_and_cleared_however_many_they_are() {
        // More than icomet's own limit, and than ours by default.
        const MANY: usize = 100_001;
        let live = ChannelsInUse::new(Duration::from_secs(30));
        let name = |n: usize| UserName::parse(&format!("user-{n}")).unwrap();
        for n in 0..MANY {
            live.published(&name(n));
            assert!(live.clear(&name(n), 7));
        }
        assert_eq!(live.counts().0, MANY);
        for n in [0, MANY - 1] {
            assert!(live.close(&name(n)));
            assert_eq!(live.first(&name(n)), 7);
        }
    }
}
