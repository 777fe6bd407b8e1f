//! The apply stage: follows the journal, plans each entry, adds it to the tail, which makes it visible, answers the
//! pushers, wakes the readers. In this order. sled is only read here, for what is not in memory.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::thread::Thread;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::error::Error;
use crate::hub::Inner;
use crate::hub::channel::Channels;
use crate::hub::membership::{Memberships, Moved};
use crate::hub::plan::{Delivery, Event, Outcome, Plan, Receivers, plan};
use crate::hub::proposal::Pending;
use crate::hub::state::State;
use crate::hub::tail::{Sealer, Tail, grant};
use crate::store::{self, Command, Entry, Follower, TryNext, View};

/// How often long work says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// What an entry weighs besides its commands: a window ends also where entries have none.
const ENTRY_WEIGHT: usize = 64;

/// Plans an entry, with what the view has of it; the state is behind it then.
fn plan_entry(
    state: &mut State,
    (view, tail): (&View, &Tail),
    offset: u64,
    entry: &Entry,
) -> Result<Plan, store::Error> {
    state.forget(tail.sealed_offset());
    state.prepare(view, entry)?;
    let plan = plan(state, offset, entry);
    // An id that was not granted is never given.
    grant(view, state.applied.heads, 0)?;
    // Before it is visible: who sees it looks here for whether the group has anything new.
    for event in &plan.events {
        if let Event::Message(Delivery { message, receivers }) = event
            && let Receivers::Group(group) = receivers
        {
            group.last.store(message.id, Ordering::Release);
        }
    }
    Ok(plan)
}

/// Who joined and left, in order.
fn moved(events: &[Event]) -> impl Iterator<Item = &Moved> {
    events.iter().filter_map(|event| match event {
        Event::Moved(moved) => Some(moved),
        Event::Message(_) => None,
    })
}

fn weight(entry: &Entry) -> u64 {
    let commands = entry.commands.iter().map(Command::weight).sum::<usize>();
    u64::try_from(ENTRY_WEIGHT + commands).expect("a length fits 64 bits")
}

/// Applies what is on disk and not yet in the view, before anybody reads, and seals windows while the tail has no room.
/// Says how far it is when it takes long. A journal that ends before what the view holds is refused.
pub(in crate::hub) fn catch_up(
    state: &mut State,
    sealer: &Sealer,
    follower: &mut Follower,
    (memberships, channels): (&Memberships, &Channels),
) -> Result<(), store::Error> {
    let (view, tail) = (&*sealer.view, &*sealer.tail);
    let (from, end) = (state.applied.offset, follower.end());
    let mut said = Instant::now();
    while !follower.caught_up() {
        let Some((offset, entry)) = follower.next_entry()? else {
            break;
        };
        let plan = plan_entry(state, (view, tail), offset, &entry)?;
        channels.changed(plan.channels);
        let seen = || memberships.changed(plan.changed, moved(&plan.events));
        tail.add(plan.writes, state.applied, weight(&entry), seen);
        // The rest is sealed behind the start.
        while !tail.has_room()
            && let Some(window) = tail.oldest()
        {
            sealer.seal(&window)?;
        }
        if said.elapsed() >= PROGRESS_EVERY {
            let percent = (offset - from) * 100 / (end - from).max(1);
            info!(
                entry = offset,
                of = end,
                percent,
                direct = state.applied.heads.direct,
                group = state.applied.heads.group,
                "applying the journal to the readable view"
            );
            said = Instant::now();
        }
    }
    if state.applied.offset < end {
        let (journal, applied) = (state.applied.offset, end);
        let data = view.directory().to_owned();
        return Err(store::Error::JournalBehind {
            journal,
            applied,
            data,
        });
    }
    Ok(())
}

/// Applies entries as they are committed. By the thread that appends them while nothing more is queued, which saves a
/// change of threads before each answer; else by a thread of its own, so that the next entry is on its way to the disk
/// meanwhile. Whichever has the lock applies all that is there, in order.
pub(in crate::hub) struct Applier {
    stage: Mutex<ApplyStage>,
    inner: Arc<Inner>,
    /// The thread of its own.
    thread: OnceLock<Thread>,
}

/// What applying needs.
pub(in crate::hub) struct ApplyStage {
    pub(in crate::hub) inner: Arc<Inner>,
    pub(in crate::hub) view: Arc<View>,
    pub(in crate::hub) state: State,
    /// `None`: an entry could not be applied, and none behind it can. The journal must not wait for its follower then.
    pub(in crate::hub) follower: Option<Follower>,
}

/// Ends the stage's promises when its thread ends, also by a panic: nobody may wait for ever.
struct Ending<'a>(&'a Applier);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let inner = &self.0.inner;
        if std::thread::panicking() {
            // First, so that the cause is the panic, and not what becomes of it elsewhere.
            inner.refuse_after_panic();
            // Nobody follows any longer, and the journal must not wait until somebody does.
            let stage = self.0.stage.lock();
            stage.unwrap_or_else(PoisonError::into_inner).follower = None;
        }
        inner.progress.end();
        inner.pending.give_up();
    }
}

impl Applier {
    pub(in crate::hub) fn new(stage: ApplyStage) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(&stage.inner),
            stage: Mutex::new(stage),
            thread: OnceLock::new(),
        })
    }

    /// Which thread is its own. Told before anything is appended: an entry of which that does not learn would wait.
    pub(in crate::hub) fn runs_in(&self, thread: &Thread) {
        self.thread.get_or_init(|| thread.clone());
    }

    /// The work of its own thread. The last applied entry; `None`: it panicked in another thread.
    pub(in crate::hub) fn run(&self) -> Option<u64> {
        let _ending = Ending(self);
        loop {
            // Poisoned: the other thread panicked within an entry, and half of one must not be gone on with.
            let mut stage = self.stage.lock().ok()?;
            if !stage.apply_all() {
                return Some(stage.state.applied.offset);
            }
            drop(stage);
            // Returns at once if `apply_there` was called since it last did: nothing is missed in between.
            std::thread::park();
        }
    }

    /// Applies what was appended here, unless the other thread is at it.
    pub(super) fn apply_here(&self) {
        match self.stage.try_lock() {
            Ok(mut stage) => drop(stage.apply_all()),
            // It may have looked just before the last entry came, and then looks again.
            Err(_) => self.apply_there(),
        }
    }

    /// Has the other thread apply what was appended, or see that there will be no more.
    pub(super) fn apply_there(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl ApplyStage {
    /// Applies what is there. Whether there may be more.
    fn apply_all(&mut self) -> bool {
        while let Some(follower) = &mut self.follower {
            let next = match follower.try_next_entry() {
                Ok(TryNext::Entry(offset, entry)) => self.step(offset, &entry),
                Ok(TryNext::NotYet) => return true,
                Ok(TryNext::End) => return false,
                Err(e) => Err(e),
            };
            if let Err(e) = next {
                error!(
                    error = e.cause(),
                    "the readable view failed: writes are refused until a restart"
                );
                self.follower = None;
                self.inner.refuse_writes(&e);
                // In this order: those that the journal stage adds too late to be given up here, it gives up itself, for it
                // sees then that applying has ended.
                self.inner.progress.end();
                self.inner.pending.give_up();
                self.inner.damage.tell_if_damage(&e);
            }
        }
        false
    }

    /// Applies an entry.
    fn step(&mut self, offset: u64, entry: &Entry) -> Result<(), store::Error> {
        let tail = &self.inner.tail;
        let Plan {
            writes,
            outcomes,
            events,
            changed,
            channels,
        } = plan_entry(&mut self.state, (&self.view, tail), offset, entry)?;
        let heads = self.state.applied.heads;
        // Before the entry is answered: what a proposal holds of channels is let go of then.
        let with_it = || {
            self.inner.channels.changed(channels);
            self.inner.memberships.changed(changed, moved(&events));
        };
        tail.add(writes, self.state.applied, weight(entry), with_it);
        self.inner.progress.applied(offset, heads);
        if entry.proposer == self.inner.proposer {
            answer(&self.inner.pending, entry.n, outcomes);
        }
        let wakers = self.inner.tell(&events);
        // Behind the telling, before the waking: who wakes takes all up to here for told.
        self.inner.told.raise(heads);
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }
}

impl Inner {
    /// Tells the open feeds of messages, and of the groups that their users are in from here on. Who is to be woken.
    fn tell(&self, events: &[Event]) -> Vec<Waker> {
        let mut wakers = Vec::new();
        if !self.waiters.any() {
            return wakers;
        }
        for event in events {
            let Delivery { message, receivers } = match event {
                Event::Message(delivery) => delivery,
                Event::Moved(Moved { user, interval }) => {
                    let group = interval.group.number;
                    match interval.until {
                        None => self.waiters.joined(user, group),
                        Some(_) => self.waiters.left(user, group),
                    }
                    continue;
                }
            };
            match receivers {
                Receivers::Pair(from, to) => {
                    self.waiters.tell(from, message, &mut wakers);
                    if from != to {
                        self.waiters.tell(to, message, &mut wakers);
                    }
                }
                Receivers::Group(group) => {
                    self.waiters.tell_group(group.number, message, &mut wakers);
                }
            }
        }
        wakers
    }
}

/// Answers every pusher of an entry with the outcomes of its commands.
fn answer(pending: &Pending, n: u64, outcomes: Vec<Outcome>) {
    let mut outcomes = outcomes.into_iter();
    for waiting in pending.take(n) {
        let own: Vec<_> = outcomes.by_ref().take(waiting.commands).collect();
        let complete = own.len() == waiting.commands;
        waiting.answer(if complete {
            Ok(own)
        } else {
            Err(Error::WritesRefused)
        });
    }
}
