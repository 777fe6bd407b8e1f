//! The tail: what is applied and not yet sealed into the view, in memory. Readers read it and, below its beginning,
//! the view.
//!
//! It is a row of windows. Entries are added to the open one; when that is full, it is closed and waits to be sealed.
//! Where windows end follows from the journal alone, so that every machine seals the same. A window is let go of only
//! when all of it is in the view: a reader that notes where the tail begins, and then reads the view up to there,
//! misses nothing, whatever is sealed meanwhile.

use std::collections::VecDeque;
use std::iter::once;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::window::Window;
use crate::model::{Message, Position, Sequence, UserName};
use crate::store::{Applied, Numbered, Writes};

/// When a window is full: with whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Ids of both sequences. The more, the fewer rows each message costs.
    pub ids: u64,
    /// What its commands weigh, roughly bytes.
    pub bytes: u64,
}

impl WindowSize {
    /// As many ids, unless what they weigh is much.
    pub fn of(ids: u64) -> Self {
        Self {
            ids,
            bytes: WINDOW_BYTES,
        }
    }
}

/// What the commands of a window may weigh: four such windows fit into the least memory that a tail may have.
const WINDOW_BYTES: u64 = 16 << 20;

/// What the sealer finds.
pub(super) enum ToSeal {
    Window(Arc<Window>),
    NotYet,
    /// No more windows are sealed.
    End,
}

/// The windows.
#[derive(Debug)]
pub(super) struct Tail {
    inside: RwLock<Inside>,
    size: WindowSize,
    /// Whether sealing has ended; told when a window is closed.
    ended: Mutex<bool>,
    moved: Condvar,
}

#[derive(Debug)]
struct Inside {
    /// The last sealed entry, and the ids up to it.
    sealed: (u64, Position),
    heads: Position,
    closed: VecDeque<Arc<Window>>,
    open: Window,
    bytes: u64,
}

impl Tail {
    /// Nothing yet, behind what is in the view.
    pub(super) fn after(applied: Applied, size: WindowSize) -> Self {
        let inside = Inside {
            sealed: (applied.offset, applied.heads),
            heads: applied.heads,
            closed: VecDeque::new(),
            open: Window::after(applied),
            bytes: 0,
        };
        Self {
            inside: RwLock::new(inside),
            size,
            ended: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    /// Adds an entry: from here on it is seen. A window that is full with it ends.
    pub(super) fn add(&self, writes: Writes, applied: Applied, weight: u64) {
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        let Inside {
            heads, open, bytes, ..
        } = &mut *inside;
        let before = open.bytes;
        open.add(writes, applied, weight);
        *bytes += open.bytes - before;
        *heads = applied.heads;
        let Position { direct, group } = open.ids();
        let full = direct + group >= self.size.ids || open.weight >= self.size.bytes;
        drop(inside);
        if full {
            self.close_window();
        }
    }

    /// Ends the open window here, unless it is empty.
    pub(super) fn close_window(&self) {
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        if inside.open.weight == 0 {
            return;
        }
        let next = Window::after(inside.open.applied);
        let window = std::mem::replace(&mut inside.open, next);
        inside.closed.push_back(Arc::new(window));
        drop(inside);
        // Under its lock: who looked just before for a window waits already.
        drop(self.ended());
        self.moved.notify_all();
    }

    /// The oldest window that waits to be sealed.
    pub(super) fn oldest(&self) -> Option<Arc<Window>> {
        let inside = self.inside.read().unwrap_or_else(PoisonError::into_inner);
        inside.closed.front().cloned()
    }

    /// Waits for a window to seal, at most for a time.
    pub(super) fn next_to_seal(&self, patience: Duration) -> ToSeal {
        let nothing = |ended: &mut bool| !*ended && self.oldest().is_none();
        let waited = self
            .moved
            .wait_timeout_while(self.ended(), patience, nothing);
        let (ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match self.oldest() {
            _ if *ended => ToSeal::End,
            Some(window) => ToSeal::Window(window),
            None => ToSeal::NotYet,
        }
    }

    /// No more windows are sealed, also none of those that wait: the journal has them.
    pub(super) fn end(&self) {
        *self.ended() = true;
        self.moved.notify_all();
    }

    fn ended(&self) -> MutexGuard<'_, bool> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest window is in the view: it is let go of.
    pub(super) fn sealed(&self, window: &Arc<Window>) {
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        let oldest = inside.closed.pop_front();
        assert!(
            oldest.is_some_and(|oldest| Arc::ptr_eq(&oldest, window)),
            "windows are sealed in order"
        );
        inside.sealed = (window.applied.offset, window.applied.heads);
        inside.bytes -= window.bytes;
    }

    /// The last entry that is in it.
    pub(super) fn applied_offset(&self) -> u64 {
        self.read().0.open.applied.offset
    }

    /// The last entry that is in the view.
    pub(super) fn sealed_offset(&self) -> u64 {
        self.read().0.sealed.0
    }

    /// What it takes in memory, roughly, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.read().0.bytes
    }

    /// The last ids that readers may see, both of one entry.
    pub(super) fn heads(&self) -> Position {
        self.read().heads()
    }

    /// The tail as it is now. Must be let go of before anything slow, such as a reading of the view.
    pub(super) fn read(&self) -> Reading<'_> {
        Reading(self.inside.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The tail at one moment.
#[derive(Debug)]
pub(super) struct Reading<'a>(RwLockReadGuard<'a, Inside>);

impl Reading<'_> {
    /// The last ids that readers may see.
    pub(super) fn heads(&self) -> Position {
        self.0.heads
    }

    /// The ids before the tail's first: the view has all up to here.
    pub(super) fn base(&self) -> Position {
        self.0.sealed.1
    }

    fn windows(&self) -> impl DoubleEndedIterator<Item = &Window> {
        let closed = self.0.closed.iter().map(|window| &**window);
        closed.chain(once(&self.0.open))
    }

    /// A message by its id, if it is in the tail.
    pub(super) fn message(&self, sequence: Sequence, id: u64) -> Option<&Arc<Message>> {
        self.windows()
            .find_map(|window| window.message(sequence, id))
    }

    /// The direct messages that a user may see, within `after < id <= upto`.
    pub(super) fn inbox(
        &self,
        user: &UserName,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        let windows = self.windows();
        windows.flat_map(move |window| window.inbox(user, after, upto))
    }

    /// The messages of two users with each other, within `after < id <= upto`.
    pub(super) fn conversation<'a>(
        &'a self,
        users: (&'a UserName, &'a UserName),
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Message>> {
        let windows = self.windows();
        windows.flat_map(move |window| window.conversation(users, after, upto))
    }

    /// The messages of a group, by its number, within `after < id <= upto`.
    pub(super) fn group(
        &self,
        group: u32,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = &Arc<Message>> {
        let windows = self.windows();
        windows.flat_map(move |window| window.group(group, after, upto))
    }

    /// The number of a user who was named for the first time in the tail.
    pub(super) fn user(&self, name: &UserName) -> Option<u32> {
        self.windows().find_map(|window| window.user(name))
    }

    /// The numbers that were given in a user's channel, with what has them.
    pub(super) fn channel(&self, user: u32) -> impl DoubleEndedIterator<Item = Numbered> {
        let windows = self.windows();
        windows
            .flat_map(move |window| window.channel(user))
            .copied()
    }

    /// The last number of a user's channel that was forgotten, if it was closed.
    pub(super) fn forgotten(&self, user: u32) -> Option<u64> {
        let mut windows = self.windows().rev();
        windows.find_map(|window| window.forgotten(user))
    }
}
