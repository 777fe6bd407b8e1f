//! How many requests of each user are in progress: being read, done or answered. Those that are held are not; they have
//! a limit of their own. Without a limit here, a user who asks for much and reads nothing could fill the memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::http::response::problem::Problem;
use crate::model::UserName;

/// How soon a request that has no place looks for one again, at first and at the latest.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(100);

/// Requests in progress by user; only users who have some.
#[derive(Debug)]
pub(in crate::http) struct RequestsInProgress {
    counts: Mutex<HashMap<UserName, usize>>,
    limit: usize,
    /// How long a request waits for others of its user to be over.
    crowd: Duration,
}

impl RequestsInProgress {
    pub(super) fn new(limit: usize, crowd: Duration) -> Self {
        Self {
            counts: Mutex::default(),
            limit,
            crowd,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request, if the user has fewer in progress than may be, or soon has: a burst is over in a moment, and
    /// only those that last are too many.
    pub(in crate::http) async fn begin(
        self: &Arc<Self>,
        user: &UserName,
    ) -> Result<InProgress, Problem> {
        let due = Instant::now() + self.crowd;
        let mut pause = LOOK_FIRST;
        loop {
            let begun = self.begin_now(user);
            if begun.is_ok() || Instant::now() >= due {
                return begun;
            }
            sleep(pause).await;
            pause = LOOK_LAST.min(pause * 2);
        }
    }

    fn begin_now(self: &Arc<Self>, user: &UserName) -> Result<InProgress, Problem> {
        let limit = self.limit;
        let mut all = self.lock();
        let count = all.entry(user.clone()).or_default();
        if *count >= limit {
            return Err(Problem::TooManyRequests { limit });
        }
        *count += 1;
        drop(all);
        Ok(InProgress {
            all: self.clone(),
            user: user.clone(),
            counted: true,
        })
    }
}

/// One request of a user, counted while it is in progress.
pub(in crate::http) struct InProgress {
    all: Arc<RequestsInProgress>,
    user: UserName,
    counted: bool,
}

impl InProgress {
    /// From here on it waits.
    pub(in crate::http) fn pause(&mut self) {
        if !std::mem::take(&mut self.counted) {
            return;
        }
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                // Otherwise the map would keep the name of every user who ever asked.
                all.remove(&self.user);
            }
        }
        // Gives memory back after a burst of users.
        if all.len() * 4 < all.capacity() {
            all.shrink_to_fit();
        }
    }

    /// The same user's next request begins, if there is room.
    pub(in crate::http) fn begin_again(&mut self) -> bool {
        let limit = self.all.limit;
        let mut all = self.all.lock();
        let count = all.entry(self.user.clone()).or_default();
        if *count >= limit {
            return false;
        }
        *count += 1;
        self.counted = true;
        true
    }

    /// It is answered. Never refused: there are no more of these than may be held, and they keep new ones out.
    pub(in crate::http) fn resume(&mut self) {
        if std::mem::replace(&mut self.counted, true) {
            return;
        }
        let mut all = self.all.lock();
        *all.entry(self.user.clone()).or_default() += 1;
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.pause();
    }
}

impl fmt::Debug for InProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProgress")
            .field("user", &self.user)
            .field("counted", &self.counted)
            .finish_non_exhaustive()
    }
}
