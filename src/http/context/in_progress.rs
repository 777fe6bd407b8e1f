//! How many requests of each user are in work: being read, done or answered. Those that are held are not; they have
//! a limit of their own. Without a limit here, a user who asks for much and reads nothing could fill the memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::http::context::App;
use crate::http::response::reply::Refusal;
use crate::model::UserName;

/// How soon a request that has no place looks for one again, at first and at the latest.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(100);

/// Requests in work by user; only users who have some.
#[derive(Debug, Default)]
pub(in crate::http) struct InWork(Mutex<HashMap<UserName, usize>>);

impl InWork {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request of a user, counted while it is in work.
pub(in crate::http) struct Work {
    app: App,
    user: UserName,
    counted: bool,
}

impl Work {
    /// Begins, if the user has fewer in work than may be, or soon has: a burst is over in a moment, and only those
    /// that last are too many.
    pub(in crate::http) async fn begin(app: &App, user: &UserName) -> Result<Self, Refusal> {
        let due = Instant::now() + app.timeouts.crowd;
        let mut pause = LOOK_FIRST;
        loop {
            let begun = Self::begin_now(app, user);
            if begun.is_ok() || Instant::now() >= due {
                return begun;
            }
            sleep(pause).await;
            pause = LOOK_LAST.min(pause * 2);
        }
    }

    fn begin_now(app: &App, user: &UserName) -> Result<Self, Refusal> {
        let limit = app.limits.requests_per_user_max;
        let mut all = app.shared().in_work.lock();
        let count = all.entry(user.clone()).or_default();
        if *count >= limit {
            return Err(Refusal::TooManyRequests { limit });
        }
        *count += 1;
        drop(all);
        Ok(Self {
            app: app.clone(),
            user: user.clone(),
            counted: true,
        })
    }

    /// From here on it waits.
    pub(in crate::http) fn pause(&mut self) {
        if !std::mem::take(&mut self.counted) {
            return;
        }
        let mut all = self.app.shared().in_work.lock();
        if let Some(count) = all.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.user);
            }
        }
        if all.len() * 4 < all.capacity() {
            all.shrink_to_fit();
        }
    }

    /// It is answered. Never refused: there are no more of these than may be held, and they keep new ones out.
    pub(in crate::http) fn go_on(&mut self) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        let mut all = self.app.shared().in_work.lock();
        *all.entry(self.user.clone()).or_default() += 1;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.pause();
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("user", &self.user)
            .field("counted", &self.counted)
            .finish_non_exhaustive()
    }
}
