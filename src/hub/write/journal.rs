//! The journal stage: what is queued becomes one entry, one append, one sync. What arrives meanwhile is the
//! next entry; there is no timer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::apply::Applier;
use super::times::{Stamp, Times};
use crate::error::Error;
use crate::hub::Inner;
use crate::hub::proposal::Proposal;
use crate::store::{self, Command, Entry, Journal, Room};

/// An entry is closed when it holds this many commands; one proposal is never divided.
const ENTRY_COMMANDS: usize = 256;
/// An entry is closed when its commands weigh this much.
const ENTRY_BYTES: usize = 1 << 20;
/// How long what was acknowledged may be unsynced with `--durability interval`.
const SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// How often the free disk space is asked for while there is enough.
const DISK_CHECKED_EVERY: Duration = Duration::from_millis(50);
/// How often the log says that pushes are refused for want of space.
const FULL_TOLD_EVERY: Duration = Duration::from_secs(60);

/// What the queue has.
enum Next {
    Proposal(Proposal),
    /// Nothing yet, and it is time to sync.
    NotYet,
    /// It is closed and empty.
    End,
}

/// Runs until the queue is closed and empty.
pub(in crate::hub) struct JournalStage {
    inner: Arc<Inner>,
    journal: Journal,
    queue: Receiver<Proposal>,
    /// Taken out of the queue to see whether there is more: a queue cannot be looked into.
    next: Option<Proposal>,
    applier: Arc<Applier>,
    times: Times,
    /// When there was enough free disk space, if there was the last time.
    roomy_at: Option<Instant>,
    /// When the log said that there is not.
    told_full_at: Option<Instant>,
}

impl JournalStage {
    pub(in crate::hub) fn new(
        inner: &Arc<Inner>,
        journal: Journal,
        queue: Receiver<Proposal>,
        times: Times,
        applier: &Arc<Applier>,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            journal,
            queue,
            next: None,
            applier: Arc::clone(applier),
            times,
            roomy_at: None,
            told_full_at: None,
        }
    }

    /// The thread's work.
    pub(in crate::hub) fn run(self) {
        let (inner, applier) = (Arc::clone(&self.inner), Arc::clone(&self.applier));
        // Dropped when the journal is gone, also by a panic: only then does who applies see that there will be no more.
        let _ending = Ending(&inner, &applier);
        self.commit_all();
    }

    fn commit_all(mut self) {
        // For the log only: whoever starts the server should not learn it from the first push.
        drop(self.check_disk());
        self.times.check_clock();
        let mut synced = Instant::now();
        loop {
            match self.next_proposal(synced.elapsed()) {
                Next::Proposal(first) => {
                    let proposals = self.proposals_of_entry(first);
                    self.commit(proposals);
                    self.next = self.queue.try_recv().ok();
                    match self.next {
                        Some(_) => self.applier.apply_there(),
                        None => self.applier.apply_here(),
                    }
                }
                Next::NotYet => {}
                Next::End => break,
            }
            // Where each entry is synced by itself, this finds nothing to sync.
            if synced.elapsed() >= SYNC_INTERVAL {
                self.sync();
                synced = Instant::now();
            }
        }
        self.close();
    }

    /// Waits for a proposal; while something is unsynced, no longer than until it is time to sync, so long after the last
    /// time.
    fn next_proposal(&mut self, since: Duration) -> Next {
        if let Some(next) = self.next.take() {
            return Next::Proposal(next);
        }
        if self.journal.is_synced() {
            return self.queue.recv().map_or(Next::End, Next::Proposal);
        }
        match self.queue.recv_timeout(SYNC_INTERVAL.saturating_sub(since)) {
            Ok(next) => Next::Proposal(next),
            Err(RecvTimeoutError::Timeout) => Next::NotYet,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// With the first one, what is queued, up to the size of an entry.
    fn proposals_of_entry(&self, first: Proposal) -> Vec<Proposal> {
        let (mut commands, mut bytes) = (first.commands.len(), weight(&first));
        let mut proposals = vec![first];
        while commands < ENTRY_COMMANDS && bytes < ENTRY_BYTES {
            match self.queue.try_recv() {
                Ok(proposal) => {
                    commands += proposal.commands.len();
                    bytes += weight(&proposal);
                    proposals.push(proposal);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        proposals
    }

    fn commit(&mut self, proposals: Vec<Proposal>) {
        let (commands, waiting): (Vec<_>, Vec<_>) = proposals
            .into_iter()
            .map(|proposal| (proposal.commands, proposal.waiting))
            .unzip();
        if let Err(refused) = self.inner.not_refused().and_then(|()| self.check_disk()) {
            for waiting in waiting {
                waiting.answer(Err(refused.clone()));
            }
            return;
        }
        let Stamp { n, at_ms, keys_us } = self.times.next();
        self.inner.at_ms.store(at_ms, Ordering::Relaxed);
        let commands = commands.into_iter().flatten().collect();
        let entry = Entry {
            proposer: self.inner.proposer,
            n,
            at_ms,
            keys_us,
            commands,
        };
        self.inner.pending.insert(n, waiting);
        let progress = &self.inner.progress;
        // Waits for the other thread: what was appended before was given to it, unless it is applied.
        let heads = |offset| {
            let stopped = || store::Error::View("applying has stopped".into());
            progress.heads_at(offset).ok_or_else(stopped)
        };
        let journal = &mut self.journal;
        let appended = (self.inner.disk.journal).during(|| journal.append(entry, heads));
        if let Err(e) = appended {
            fail(&self.inner, &e);
        }
        // If applying ended meanwhile, it may have given up those who wait before these were among them. If only sealing
        // did, they are applied and answered: what is stored is not called refused.
        if self.inner.progress.ended() {
            self.inner.pending.give_up();
        }
    }

    /// Whether the disk may be written. Asks the system now and then: between two questions less is written than is
    /// kept free.
    fn check_disk(&mut self) -> Result<(), Error> {
        let disk = &self.inner.disk;
        let recently = |at: Instant| at.elapsed() < DISK_CHECKED_EVERY;
        if self.roomy_at.is_some_and(recently) && !disk.is_moved() {
            return Ok(());
        }
        self.roomy_at = None;
        disk.in_place()?;
        if let Err(full) = disk.roomy() {
            let told = &mut self.told_full_at;
            if told.is_none_or(|told| told.elapsed() >= FULL_TOLD_EVERY) {
                *told = Some(Instant::now());
                let Room { path, bytes, .. } = disk.room().unwrap_or_default();
                let needed = self.inner.options.disk_free_min_bytes;
                warn!(path = %path.display(), free = bytes, needed,
                    "the disk is nearly full: pushes are refused until there is space");
            }
            return Err(full);
        }
        self.roomy_at = Some(Instant::now());
        Ok(())
    }

    /// Leaves the journal as a stop should.
    fn close(self) {
        // What failed, or is no longer where it was, is left as it is.
        if self.inner.refused.cause().is_some() || self.inner.disk.in_place().is_err() {
            return;
        }
        let Self { inner, journal, .. } = self;
        if let Err(e) = inner.disk.journal.during(|| journal.close()) {
            fail(&inner, &e);
        }
    }

    fn sync(&mut self) {
        let journal = &mut self.journal;
        if let Err(e) = (self.inner.disk.journal).during(|| journal.sync()) {
            fail(&self.inner, &e);
        }
    }
}

/// After a failed write or sync nothing is known of what is on disk: nothing more is written.
fn fail(inner: &Inner, e: &store::Error) {
    error!(
        error = e.cause(),
        "the journal failed: writes are refused until a restart"
    );
    // Of a segment that is gone the directories may say more.
    match inner.disk.in_place() {
        Err(moved) => inner.refuse_writes(&moved),
        Ok(()) => inner.refuse_writes(e),
    }
    inner.pending.give_up();
}

/// Ends the stage's promises, also when it panics.
struct Ending<'a>(&'a Inner, &'a Applier);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Self(inner, applier) = self;
        if std::thread::panicking() {
            inner.refuse_after_panic();
            inner.pending.give_up();
        }
        applier.apply_there();
    }
}

fn weight(proposal: &Proposal) -> usize {
    proposal.commands.iter().map(Command::weight).sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::accept::QUEUE_PROPOSALS;
    use super::*;
    use crate::clock;
    use crate::hub::{Closed, Durability, Hub, Options};
    use crate::model::{After, Body, Draft, Message, PageLimit, Receiver, Transport, UserName};
    use crate::store::{Addition, Applied, Directory, Writes};

    /// A push, which is queued when this returns, or refused.
    fn queue(hub: &Hub) -> impl Future<Output = Result<(), Error>> + use<> {
        queue_many(hub, 1)
    }

    /// The same with so many messages.
    fn queue_many(hub: &Hub, messages: usize) -> impl Future<Output = Result<(), Error>> + use<> {
        let user = |name| UserName::parse(name).unwrap();
        let message = Command::Message(Draft {
            from: user("ann"),
            to: Receiver::User(user("bob")),
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        });
        let opening = hub.0.channels.to_open(&[]);
        let answer = hub.0.new_proposal(opening, vec![message; messages], None);
        let answer = answer.and_then(|(proposal, answer)| {
            hub.0.enqueue(proposal)?;
            Ok(answer)
        });
        async move {
            answer?
                .await
                .map_or(Err(Error::Closing), |done| done.map(drop))
        }
    }

    fn open(data: &Path) -> Hub {
        Hub::open(Options {
            durability: Durability::Interval,
            queue_bytes_max: 64 << 20,
            ..Options::small(data)
        })
        .unwrap()
    }

    #[test]
    fn who_was_answered_finds_his_entry_counted() {
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let held = hub.0.journal_size.lock().unwrap();
        let mut answer = Box::pin(queue(&hub));
        let early = runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(100), &mut answer).await
        });
        assert!(early.is_err(), "answered before it is counted");
        drop(held);
        runtime.block_on(answer).unwrap();
        assert_eq!(hub.status().journal.offset, 1);
        hub.close();
    }

    /// Whatever becomes of sealing meanwhile, what is in the journal, applied and visible is not called refused.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_stored_while_sealing_fails_is_answered_as_stored() {
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path());
        queue(&hub).await.unwrap();
        let answer = {
            // The stage stops here, behind its look at what is refused: it has given the entry its time by then.
            let held = hub.0.pending.entries.lock().unwrap();
            let before = hub.0.at_ms.swap(0, Ordering::Relaxed);
            let answer = queue(&hub);
            let begun = Instant::now();
            while hub.0.at_ms.load(Ordering::Relaxed) < before {
                assert!(begun.elapsed().as_secs() < 30, "it is not committed");
                std::thread::yield_now();
            }
            let failed = store::Error::View("as the disk fails".into());
            hub.0.refuse_writes(&failed);
            drop(held);
            answer
        };
        assert_eq!(answer.await, Ok(()));
        assert_eq!(hub.status().watermark.direct, 2);
        assert_eq!(queue(&hub).await, Err(Error::WritesRefused));
        assert_eq!(hub.status().watermark.direct, 2);
        hub.close();
    }

    #[tokio::test]
    async fn time_never_falls_though_the_clock_does() {
        const AHEAD_MS: u64 = 9_000_000_000_000;
        let data = tempfile::tempdir().unwrap();
        let directory = Directory::open(data.path()).unwrap();
        let mut journal = Journal::open(&directory, true).unwrap();
        let entry = Entry {
            proposer: 1,
            n: 1,
            at_ms: AHEAD_MS,
            keys_us: AHEAD_MS * 1000,
            commands: Vec::new(),
        };
        journal.append(entry, |_| unreachable!()).unwrap();
        drop((journal, directory));
        let hub = open(data.path());
        // Said before anybody pushes.
        let ahead_ms = AHEAD_MS - clock::now_ms();
        let behind_ms = hub.status().clock_behind_ms;
        assert!(
            (ahead_ms - 60_000..=ahead_ms).contains(&behind_ms),
            "{behind_ms}"
        );
        queue(&hub).await.unwrap();
        assert_eq!(hub.status().watermark.direct, 1);
        assert!(hub.status().clock_behind_ms > 0);
        hub.close();
    }

    #[tokio::test]
    async fn the_queue_has_room_for_so_many_pushes_then_it_is_busy() {
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path());
        let mut queued = Vec::new();
        // The stage stops where it notes who waits.
        let held = hub.0.pending.entries.lock().unwrap();
        for _ in 0..QUEUE_PROPOSALS {
            queued.push(queue(&hub));
        }
        // What it had taken before makes room for as much again.
        let more = (0..=ENTRY_COMMANDS).map(|_| queue(&hub));
        queued.extend(more);
        drop(held);
        let mut busy = 0;
        for (number, answer) in queued.into_iter().enumerate() {
            match answer.await {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error, Error::Busy);
                    assert!(number >= QUEUE_PROPOSALS, "{number}");
                    busy += 1;
                }
            }
        }
        assert!(busy > 0, "one more than the queue and an entry hold");
        queue(&hub).await.unwrap();
        hub.close();
    }

    /// Applying a message panics from here on, in the one thread or the other.
    fn break_applying(hub: &Hub) {
        let mut applied = Applied::nothing(hub.log());
        applied.heads = hub.0.tail.heads();
        applied.heads.direct += 1;
        let message = Message {
            id: applied.heads.direct,
            prev: 0,
            n: 1,
            at_ms: 0,
            from: UserName::parse("ann").unwrap(),
            to: Receiver::User(UserName::parse("bob").unwrap()),
            body: Body::from(b"1".to_vec()),
        };
        let (message, from, to) = (Arc::new(message), 1, 2);
        let writes = Writes {
            additions: vec![Addition::DirectMessage {
                message,
                from,
                to,
                group_head: 0,
            }],
            ..Writes::default()
        };
        hub.0.tail.add(writes, applied, 1, || ());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn when_applying_panics_in_either_thread_nobody_waits_for_ever() {
        const PATIENCE: Duration = Duration::from_secs(60);
        for queued in [1, 2, 1000] {
            let data = tempfile::tempdir().unwrap();
            let hub = open(data.path());
            queue(&hub).await.unwrap();
            let feed = |after| hub.feed(UserName::parse("bob").unwrap(), after, Transport::Poll);
            let mut waiting = feed(After::START).unwrap();
            let limit = PageLimit::count(9);
            assert_eq!(waiting.read(limit).await.unwrap().messages.len(), 1);
            // With many in the queue it is not the thread that appends.
            let answers: Vec<_> = {
                let _held = hub.0.pending.entries.lock().unwrap();
                break_applying(&hub);
                (0..queued).map(|_| queue(&hub)).collect()
            };
            for answer in answers {
                let answer = tokio::time::timeout(PATIENCE, answer);
                assert!(answer.await.expect("it is answered").is_err());
            }
            let begun = Instant::now();
            while hub.ready().is_ok() {
                assert!(begun.elapsed() < PATIENCE, "writes are not refused");
                tokio::task::yield_now().await;
            }
            let refused = tokio::time::timeout(PATIENCE, queue(&hub)).await;
            assert_eq!(refused.unwrap(), Err(Error::WritesRefused));
            let closing = hub.clone();
            let closed = tokio::task::spawn_blocking(move || closing.close());
            tokio::time::timeout(PATIENCE, waiting.wait())
                .await
                .unwrap();
            let closed = tokio::time::timeout(PATIENCE, closed).await.unwrap();
            assert!(matches!(closed.unwrap(), Closed::Unmarked(_)));
            drop(waiting);
            let hub = open(data.path());
            queue(&hub).await.unwrap();
            hub.close();
        }
    }

    /// The journal hands on no more entries than so many that are not applied. When applying ends, nobody takes them.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_journal_does_not_wait_for_who_failed_to_apply() {
        const PATIENCE: Duration = Duration::from_secs(60);
        const ENTRIES: usize = 80;
        /// The first one, one that is being applied, 64 that are handed on, and one that waits to be.
        const FULL: u64 = 1 + 1 + 64 + 1;
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path());
        queue(&hub).await.unwrap();
        let (answers, applying) = {
            let held = hub.0.pending.entries.lock().unwrap();
            break_applying(&hub);
            // Each is an entry: a proposal is never divided.
            let answers = (0..ENTRIES).map(|_| queue_many(&hub, ENTRY_COMMANDS));
            let answers: Vec<_> = answers.collect();
            // Whoever applies stops here.
            let applying = hub.0.tail.read();
            drop(held);
            let begun = Instant::now();
            while hub.0.journal_size.lock().unwrap().offset < FULL {
                assert!(begun.elapsed() < PATIENCE, "the journal does not go on");
                std::thread::yield_now();
            }
            (answers, applying)
        };
        drop(applying);
        for answer in answers {
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            assert!(answer.expect("it is answered").is_err());
        }
        let closed = tokio::task::spawn_blocking(move || hub.close());
        let closed = tokio::time::timeout(PATIENCE, closed).await;
        assert!(matches!(
            closed.expect("it ends").unwrap(),
            Closed::Unmarked(_)
        ));
    }
}
