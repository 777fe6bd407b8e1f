//! Turns for expensive reads: one at a time for each user, a few at a time for all.
//!
//! A list of conversations goes through everything that its user has. One user who asks for many lists at once
//! must not take the turns of the others: the second waits for the first, without a place among the few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;
use crate::model::UserName;

/// Who reads now, and who waits for it.
#[derive(Debug)]
pub(in crate::hub) struct Turns {
    /// Shared by all users; in the order of asking.
    all: Arc<Semaphore>,
    users: Mutex<HashMap<UserName, Own>>,
}

/// One user's turn, as long as anybody has it or waits for it.
#[derive(Debug)]
struct Own {
    turn: Arc<Semaphore>,
    asking: usize,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(in crate::hub) struct Turn {
    _all: OwnedSemaphorePermit,
    // Dropped in this order: the next of the same user is woken when there is a place for it.
    _own: OwnedSemaphorePermit,
    _asking: Asking,
}

/// Somebody who has a user's turn or waits for it.
#[derive(Debug)]
struct Asking {
    turns: Arc<Turns>,
    user: UserName,
}

impl Turns {
    /// So many turns at once for all users together.
    pub(in crate::hub) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(most)),
            users: Mutex::default(),
        })
    }

    /// Waits for a turn of this user.
    pub(in crate::hub) async fn take(self: &Arc<Self>, user: &UserName) -> Result<Turn, Error> {
        let (asking, own) = self.ask(user);
        // The user's own first: who waits for that keeps nobody else from a place.
        let own = own.acquire_owned().await.map_err(|_| Error::Closing)?;
        let all = Arc::clone(&self.all).acquire_owned().await;
        Ok(Turn {
            _all: all.map_err(|_| Error::Closing)?,
            _own: own,
            _asking: asking,
        })
    }

    fn ask(self: &Arc<Self>, user: &UserName) -> (Asking, Arc<Semaphore>) {
        let mut users = self.lock();
        let own = users.entry(user.clone()).or_insert_with(|| Own {
            turn: Arc::new(Semaphore::new(1)),
            asking: 0,
        });
        own.asking += 1;
        let asking = Asking {
            turns: Arc::clone(self),
            user: user.clone(),
        };
        (asking, Arc::clone(&own.turn))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, Own>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut users = self.turns.lock();
        if let Some(own) = users.get_mut(&self.user) {
            own.asking -= 1;
            if own.asking == 0 {
                users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Turns {
        /// Turns that nobody has.
        pub(in crate::hub) fn free(&self) -> usize {
            self.all.available_permits()
        }

        /// Users of whom somebody has a turn or waits for one.
        pub(in crate::hub) fn users(&self) -> usize {
            self.lock().len()
        }
    }
}
