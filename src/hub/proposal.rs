//! Proposals: what is to be committed together, who waits for it, and what it holds until it is answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, oneshot};

use super::channel::Opening;
use super::plan::Outcome;
use crate::error::Error;
use crate::store::Command;

/// Commands that are to be committed together, and who waits for them.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) commands: Vec<Command>,
    pub(super) waiting: Waiting,
}

/// Who waits for the outcomes of a proposal, and what they hold until then.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) answer: oneshot::Sender<Result<Vec<Outcome>, Error>>,
    /// How many commands it has, and so how many of an entry's outcomes.
    pub(super) commands: usize,
    pub(super) _queued: Queued,
    pub(super) _opening: Opening,
    pub(super) _turn: Option<GroupTurn>,
}

impl Waiting {
    /// Answers. Who waited may be gone; that changes nothing.
    pub(super) fn answer(self, outcomes: Result<Vec<Outcome>, Error>) {
        drop(self.answer.send(outcomes));
    }
}

/// The bytes of one proposal, counted from its acceptance to its answer.
#[derive(Debug)]
pub(super) struct Queued {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Queued {
    /// Counts them among all, unless these would then be more than there may be.
    pub(super) fn new(bytes: usize, all: &Arc<AtomicUsize>, max: usize) -> Result<Self, Error> {
        let fits = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= max);
        all.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits)
            .map_err(|_| Error::Busy)?;
        Ok(Self {
            bytes,
            all: Arc::clone(all),
        })
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Kept by a change of a group until it is answered. The journal knows no change that leaves the members alone, so
/// they are read and set again, and meanwhile no other change may be under way.
#[derive(Debug)]
#[expect(dead_code, reason = "held only to be dropped")]
pub(super) enum GroupTurn {
    Shared(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

/// What a proposer waits for.
pub(super) type Answer = oneshot::Receiver<Result<Vec<Outcome>, Error>>;

/// Who waits for the entries of this process, by the number of the entry.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) entries: Mutex<HashMap<u64, Vec<Waiting>>>,
}

impl Pending {
    pub(super) fn insert(&self, n: u64, waiting: Vec<Waiting>) {
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(n, waiting);
    }

    /// Takes those out who wait for an entry; none if they were given up.
    pub(super) fn take(&self, n: u64) -> Vec<Waiting> {
        let taken = self
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&n);
        taken.unwrap_or_default()
    }

    /// Answers all who wait that it is not known what became of their entry.
    pub(super) fn give_up(&self) {
        let all = std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner));
        for waiting in all.into_values().flatten() {
            waiting.answer(Err(Error::WritesRefused));
        }
    }
}
