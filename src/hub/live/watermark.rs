//! How far mailboxes have been told, and how far the apply stage is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::model::Position;

/// A position that only rises. Each sequence is read for itself: cursors never compare one with the other.
#[derive(Debug, Default)]
pub(in crate::hub) struct Watermark {
    direct: AtomicU64,
    group: AtomicU64,
}

impl Watermark {
    /// The present position.
    pub(in crate::hub) fn get(&self) -> Position {
        Position {
            direct: self.direct.load(Ordering::Acquire),
            group: self.group.load(Ordering::Acquire),
        }
    }

    /// Raises it.
    pub(in crate::hub) fn raise(&self, to: Position) {
        let direct = self.direct.swap(to.direct, Ordering::AcqRel);
        let group = self.group.swap(to.group, Ordering::AcqRel);
        assert!(
            direct <= to.direct && group <= to.group,
            "a watermark falls"
        );
    }
}

/// Which entry has been applied; the journal stage waits for it when a segment begins.
#[derive(Debug, Default)]
pub(in crate::hub) struct Progress {
    state: Mutex<Applied>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Applied {
    /// The last applied entry.
    offset: u64,
    /// The ids given up to it.
    heads: Position,
    /// Nothing more will be applied.
    ended: bool,
}

impl Progress {
    /// An entry was applied.
    pub(in crate::hub) fn applied(&self, offset: u64, heads: Position) {
        let mut state = self.lock();
        (state.offset, state.heads) = (offset, heads);
        self.moved.notify_all();
    }

    /// Nothing more will be applied.
    pub(in crate::hub) fn end(&self) {
        self.lock().ended = true;
        self.moved.notify_all();
    }

    /// Whether nothing more will be applied.
    pub(in crate::hub) fn ended(&self) -> bool {
        self.lock().ended
    }

    /// The last applied entry.
    pub(in crate::hub) fn offset(&self) -> u64 {
        self.lock().offset
    }

    /// Waits until an entry has been applied; the ids given up to it, or `None` if it never will be.
    pub(in crate::hub) fn heads_at(&self, offset: u64) -> Option<Position> {
        let waits = |state: &mut Applied| state.offset < offset && !state.ended;
        let waited = self.moved.wait_while(self.lock(), waits);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        (state.offset >= offset).then_some(state.heads)
    }

    fn lock(&self) -> MutexGuard<'_, Applied> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn direct(direct: u64) -> Position {
        Position { direct, group: 0 }
    }

    #[test]
    fn who_needs_the_ids_up_to_an_entry_waits_until_it_is_applied() {
        let progress = Progress::default();
        progress.applied(1, direct(10));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The other one waits by then; if not, nothing is proved, but nothing fails.
                std::thread::park_timeout(Duration::from_millis(20));
                progress.applied(2, direct(20));
            });
            assert_eq!(progress.heads_at(2), Some(direct(20)));
            scope.spawn(|| {
                std::thread::park_timeout(Duration::from_millis(20));
                progress.end();
            });
            assert_eq!(progress.heads_at(3), None);
        });
        assert_eq!(progress.heads_at(2), Some(direct(20)));
    }
}
