//! The apply stage: follows the journal, plans each entry, writes the view, raises the watermark, answers the
//! pushers, wakes the readers. In this order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::Inner;
use super::flush::Flusher;
use super::journal::Pending;
use super::plan::{Outcome, Plan, Receivers, plan};
use super::state::State;
use crate::error::Error;
use crate::model::Sequence;
use crate::store::{self, Entry, Follower, View, Written};

/// How often long work says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Ids granted at once.
const IDS_GRANTED: u64 = 8192;

/// Plans an entry and writes it to the view.
fn apply(
    state: &mut State,
    view: &View,
    offset: u64,
    entry: &Entry,
) -> Result<(Plan, Written), store::Error> {
    state.prepare(view, entry)?;
    let plan = plan(state, offset, entry);
    for sequence in Sequence::ALL {
        let head = state.applied.heads.of(sequence);
        if head > view.granted().of(sequence) {
            view.grant(sequence, head + IDS_GRANTED)?;
        }
    }
    let mut written = Written::default();
    let mut step = |more: Written| {
        written.rows += more.rows;
        written.bytes += more.bytes;
        Ok(())
    };
    view.write(&plan.writes, &state.applied, &mut step)?;
    state.forget_keys();
    for delivery in &plan.deliveries {
        if let Receivers::Members(group, _) = &delivery.receivers {
            group.last.store(delivery.message.id, Ordering::Release);
        }
    }
    Ok((plan, written))
}

/// Applies what is on disk and not yet in the view. Says how far it is when it takes long.
pub(super) fn catch_up(
    state: &mut State,
    view: &View,
    flusher: &Flusher,
    follower: &mut Follower,
) -> Result<(), store::Error> {
    let (from, end) = (state.applied.offset, follower.end());
    let mut said = Instant::now();
    while !follower.caught_up() {
        let Some((offset, entry)) = follower.next_entry()? else {
            break;
        };
        let (_, written) = apply(state, view, offset, &entry)?;
        flusher.wrote(written)?;
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

/// Applies entries as they are committed, until there will be no more.
pub(super) struct ApplyStage {
    pub(super) inner: Arc<Inner>,
    pub(super) view: Arc<View>,
    pub(super) state: State,
    pub(super) follower: Follower,
    pub(super) flusher: Arc<Flusher>,
}

/// Ends the stage's promises also when it panics: nobody may wait for ever.
struct Ending<'a>(&'a Inner);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.progress.end();
        if std::thread::panicking() {
            self.0.refuse_after_panic();
        }
        self.0.pending.give_up();
    }
}

impl ApplyStage {
    /// The thread's work. The last applied entry.
    pub(super) fn run(mut self) -> u64 {
        let inner = Arc::clone(&self.inner);
        let _ending = Ending(&inner);
        loop {
            let next = match self.follower.next_entry() {
                Ok(Some((offset, entry))) => self.step(offset, &entry),
                Ok(None) => break,
                Err(e) => Err(e),
            };
            if let Err(e) = next {
                error!(
                    error = e.cause(),
                    "the readable view failed: writes are refused until a restart"
                );
                self.inner.refuse_writes(&e);
                break;
            }
        }
        self.state.applied.offset
    }

    fn step(&mut self, offset: u64, entry: &Entry) -> Result<(), store::Error> {
        let (plan, written) = apply(&mut self.state, &self.view, offset, entry)?;
        let Plan {
            outcomes,
            deliveries,
            changed,
            moved,
            channels,
            ..
        } = plan;
        self.inner.memberships.moved(changed, moved);
        self.inner.channels.changed(channels);
        self.inner.recent.took(&deliveries);
        let heads = self.state.applied.heads;
        self.inner.visible.raise(heads);
        self.inner.progress.applied(offset, heads);
        if entry.proposer == self.inner.proposer {
            answer(&self.inner.pending, entry.n, outcomes);
        }
        let mut wakers = Vec::new();
        let waiters = &self.inner.waiters;
        if waiters.any() {
            for delivery in &deliveries {
                match &delivery.receivers {
                    Receivers::Pair(from, to) => {
                        waiters.put(from, &delivery.message, &mut wakers);
                        if from != to {
                            waiters.put(to, &delivery.message, &mut wakers);
                        }
                    }
                    Receivers::Members(_, members) => {
                        for member in members.keys() {
                            waiters.put(member, &delivery.message, &mut wakers);
                        }
                    }
                }
            }
        }
        self.inner.woken.raise(heads);
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.flusher.wrote(written)
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
