//! Seals windows of the tail: writes them into the view and makes them durable, in a thread of its own, behind
//! everything that anybody waits for. Not for safety, which the journal gives, but so that memory has a bound and
//! little is applied again at the next start.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::error;

use super::window::Window;
use super::{Tail, ToSeal};
use crate::hub::damage::Damage;
use crate::hub::disk::{Refused, UnderWay};
use crate::model::{Position, Sequence};
use crate::store::{Error, View, Written};

/// Flush when sled's log has grown by about this much: it recovers if less than one of its segments, 8 MiB, is unsynced.
const FLUSH_BYTES: usize = 4 << 20;
/// What a row takes in sled's log, roughly, besides its bytes; how many times these are in it, and how many a body.
const ROW_BYTES: usize = 256;
const ROW_TIMES: usize = 2;
const BODY_TIMES: usize = 4;

/// Ids granted at once: those of some seconds.
pub(in crate::hub) const IDS_GRANTED: u64 = 1 << 17;

/// How often the view is told how far the journal is, so that a journal that lost its end is noticed.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// Writes the windows of a tail into a view.
#[derive(Clone, Debug)]
pub(in crate::hub) struct Sealer {
    pub(in crate::hub) view: Arc<View>,
    pub(in crate::hub) tail: Arc<Tail>,
    /// Set when it fails: what sled holds on disk is not known then.
    pub(in crate::hub) refused: Arc<Refused>,
    pub(in crate::hub) under_way: Arc<UnderWay>,
    pub(in crate::hub) damage: Arc<Damage>,
}

impl Sealer {
    pub(in crate::hub) fn new(view: Arc<View>, tail: Arc<Tail>, damage: Damage) -> Self {
        Self {
            view,
            tail,
            refused: Arc::default(),
            under_way: Arc::default(),
            damage: Arc::new(damage),
        }
    }

    /// Writes the oldest window and lets the tail go of it.
    pub(in crate::hub) fn seal(&self, window: &Arc<Window>) -> Result<(), Error> {
        let mut unflushed = 0;
        let mut step = |written: Written| {
            unflushed += ROW_BYTES * written.rows + ROW_TIMES * written.row_bytes;
            unflushed += BODY_TIMES * written.body_bytes;
            if unflushed < FLUSH_BYTES {
                return Ok(());
            }
            unflushed = 0;
            self.flush()?;
            self.grant()
        };
        self.view
            .write(&window.writes, &window.applied, &mut step)?;
        self.flush()?;
        self.tail.sealed(window);
        Ok(())
    }

    /// Seals all windows that wait for it.
    pub(in crate::hub) fn seal_waiting(&self) -> Result<(), Error> {
        while let Some(window) = self.tail.oldest() {
            self.seal(&window)?;
        }
        Ok(())
    }

    /// Has ids granted ahead of need: who gives them would have to wait for the disk.
    fn grant(&self) -> Result<(), Error> {
        grant(&self.view, self.tail.heads(), IDS_GRANTED / 2)
    }

    fn flush(&self) -> Result<(), Error> {
        self.under_way.during(|| self.view.flush())
    }

    /// Starts the thread. It ends when the tail does.
    pub(in crate::hub) fn start(self) -> Result<JoinHandle<()>, Error> {
        std::thread::Builder::new()
            .name("seal".into())
            .spawn(move || self.run())
            .map_err(Error::io("start a thread for", "sled".as_ref()))
    }

    fn run(&self) {
        let _ending = Ending(self);
        // The mark says that.
        let mut noted = self.tail.sealed_offset();
        loop {
            match self.turn(&mut noted) {
                Ok(true) => {}
                Ok(false) => return,
                Err(e) => {
                    error!(
                        error = e.cause(),
                        "the readable view cannot be written: writes are refused until a restart"
                    );
                    self.fail(&e);
                    return self.damage.tell_if_damage(&e);
                }
            }
        }
    }

    /// Does what there is to do, and waits for it a while. Whether there may be more.
    fn turn(&self, noted: &mut u64) -> Result<bool, Error> {
        // Before it waits: also the first push of a server should find ids granted.
        self.grant()?;
        match self.tail.next_to_seal(NOTED_EVERY) {
            ToSeal::Window(window) => self.seal(&window)?,
            ToSeal::NotYet => self.note(noted)?,
            ToSeal::End => return Ok(false),
        }
        Ok(true)
    }

    /// Notes the last applied entry, unless it was noted.
    fn note(&self, noted: &mut u64) -> Result<(), Error> {
        let applied = self.tail.applied_offset();
        if applied > *noted {
            self.view.note(applied)?;
            *noted = applied;
        }
        Ok(())
    }

    /// A write failed, and is not tried again.
    pub(in crate::hub) fn fail(&self, cause: &Error) {
        self.refused.set(cause);
        self.tail.end(Duration::ZERO);
    }
}

/// Has ids granted, if fewer than `ahead` are left of a sequence.
pub(in crate::hub) fn grant(view: &View, heads: Position, ahead: u64) -> Result<(), Error> {
    for sequence in Sequence::ALL {
        let head = heads.of(sequence);
        if head + ahead > view.granted().of(sequence) {
            view.grant(sequence, head + IDS_GRANTED)?;
        }
    }
    Ok(())
}

/// sled may panic.
struct Ending<'a>(&'a Sealer);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&Error::View("a write of it panicked".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::error;
    use crate::hub::tail::WindowSize;
    use crate::hub::{Closed, GroupChange, Hub, Options};
    use crate::model::{
        After, Body, Bound, Draft, GroupName, Message, PageLimit, Receiver, Sequence, Transport,
        UserName,
    };
    use crate::store::{Directory, Writes};

    const PATIENCE: Duration = Duration::from_secs(60);
    const TAIL_BYTES: u64 = 20_000;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn open(data: &std::path::Path, window: WindowSize) -> Hub {
        Hub::open(Options {
            tail_bytes_max: TAIL_BYTES,
            window,
            ..Options::small(data)
        })
        .unwrap()
    }

    /// Of three ids.
    fn open_small(data: &std::path::Path) -> Hub {
        open(data, Options::small(data).window)
    }

    async fn push(hub: &Hub) -> Result<u64, error::Error> {
        let draft = Draft {
            from: user("ann"),
            to: Receiver::User(user("bob")),
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        };
        hub.push(vec![draft])
            .await?
            .remove(0)
            .map(|receipt| receipt.id)
    }

    fn ids(messages: &[Arc<Message>]) -> Vec<u64> {
        messages.iter().map(|message| message.id).collect()
    }

    /// All that bob may see, in every way, is these many messages, and no more can be read.
    async fn check(hub: &Hub, count: u64) {
        let all: Vec<_> = (1..=count).collect();
        let limit = PageLimit::count(1_000_000);
        let mut feed = hub
            .feed(user("bob"), After::START, Transport::Poll)
            .unwrap();
        assert_eq!(ids(&feed.read(limit).await.unwrap().messages), all);
        for bound in [Bound::Newest, Bound::After(0), Bound::Before(count + 1)] {
            let page = hub.direct_history(user("ann"), user("bob"), bound, limit);
            assert_eq!(ids(&page.await.unwrap().messages), all);
        }
        for id in [1, count / 2, count] {
            assert_eq!(hub.message(Sequence::Direct, id).await.unwrap().id, id);
        }
        let more = hub.message(Sequence::Direct, count + 1).await;
        assert_eq!(more.unwrap_err(), error::Error::MessageNotFound);
        assert_eq!(hub.status().watermark.direct, count);
    }

    /// Retries as long as the tail is full.
    async fn push_in_time(hub: &Hub) -> u64 {
        let begun = Instant::now();
        loop {
            match push(hub).await {
                Err(error::Error::Behind { .. }) if begun.elapsed() < PATIENCE => {
                    tokio::task::yield_now().await;
                }
                pushed => return pushed.unwrap(),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn while_sealing_cannot_keep_up_pushes_are_refused_and_what_was_accepted_is_there() {
        let data = tempfile::tempdir().unwrap();
        let hub = open_small(data.path());
        let mut count = 0;
        for _ in 0..3 {
            let slow = Arc::clone(&hub.0.disk.view);
            let held = slow.hold();
            let refused = loop {
                match tokio::task::block_in_place(|| {
                    tokio::runtime::Handle::current().block_on(push(&hub))
                }) {
                    Ok(id) => count = id,
                    Err(refused) => break refused,
                }
                assert!(hub.0.tail.bytes() < TAIL_BYTES + 2000, "{count}");
            };
            assert_eq!(refused, error::Error::Behind { limit: TAIL_BYTES });
            assert!(refused.to_string().contains("20000 bytes"), "{refused}");
            drop(held);
            count = push_in_time(&hub).await;
            check(&hub, count).await;
        }
        assert!(count > 20, "{count}");
        hub.seal_all();
        check(&hub, count).await;
        assert_eq!(hub.close(), Closed::Cleanly);
        let hub = open_small(data.path());
        check(&hub, count).await;
        hub.close();
    }

    /// The members of a group take memory, and no ids.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_window_is_full_before_the_tail_is() {
        let data = tempfile::tempdir().unwrap();
        let window = WindowSize {
            ids: 1_000_000,
            bytes: TAIL_BYTES / 2,
        };
        let hub = open(data.path(), window);
        let group = GroupName::parse("team").unwrap();
        let members: Vec<_> = (0..10).map(|n| user(&format!("member-{n}"))).collect();
        let begun = Instant::now();
        for round in 0..100 {
            let change = match round % 2 {
                0 => GroupChange::Set {
                    members: Some(members.clone()),
                    history: None,
                },
                _ => GroupChange::Delete,
            };
            loop {
                match hub.change_group(group.clone(), change.clone()).await {
                    Err(error::Error::Behind { .. }) => {
                        assert!(begun.elapsed() < PATIENCE, "refused for ever");
                        tokio::task::yield_now().await;
                    }
                    changed => {
                        changed.unwrap();
                        break;
                    }
                }
            }
        }
        hub.close();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn when_sealing_fails_writes_are_refused_reads_go_on_and_the_next_start_has_all() {
        for panics in [false, true] {
            let data = tempfile::tempdir().unwrap();
            let hub = open_small(data.path());
            for _ in 0..7 {
                push(&hub).await.unwrap();
            }
            hub.seal_all();
            {
                let slow = Arc::clone(&hub.0.disk.view);
                let held = slow.hold();
                let push = || tokio::runtime::Handle::current().block_on(push(&hub));
                tokio::task::block_in_place(|| {
                    for _ in 0..7 {
                        push().unwrap();
                    }
                });
                let running = hub.0.running.lock().unwrap();
                let sealer = &running.as_ref().unwrap().sealer;
                if panics {
                    let window = hub.0.tail.oldest().unwrap();
                    let begun = Instant::now();
                    while sealer.view.seen().unwrap() < window.applied.offset {
                        assert!(begun.elapsed() < PATIENCE, "it is not written");
                        std::thread::yield_now();
                    }
                    // What the thread is about to let go of is gone then.
                    hub.0.tail.sealed(&window);
                } else {
                    sealer.fail(&Error::View("as the disk fails".into()));
                }
                drop(held);
            }
            let begun = Instant::now();
            loop {
                match push(&hub).await {
                    // The tail may be full before it is noticed.
                    Ok(_) | Err(error::Error::Behind { .. }) => {
                        assert!(begun.elapsed() < PATIENCE, "it is not noticed");
                    }
                    Err(refused) => {
                        assert_eq!(refused, error::Error::WritesRefused);
                        break;
                    }
                }
            }
            assert!(hub.ready().is_err());
            // The one that was under way may be stored all the same.
            let count = loop {
                let status = hub.status();
                if status.applied == status.journal.offset {
                    break status.watermark.direct;
                }
                assert!(begun.elapsed() < PATIENCE, "it is not applied");
                tokio::task::yield_now().await;
            };
            check(&hub, count).await;
            assert!(matches!(hub.close(), Closed::Unmarked(_)));
            let hub = open_small(data.path());
            check(&hub, count).await;
            assert_eq!(push(&hub).await, Ok(count + 1));
            assert_eq!(hub.close(), Closed::Cleanly);
        }
    }

    #[test]
    fn the_view_learns_how_far_the_journal_is_also_of_what_came_while_it_was_written() {
        let data = tempfile::tempdir().unwrap();
        let directory = Directory::open(data.path()).unwrap();
        let (view, mut applied) = View::open(&directory, 8 << 20).unwrap();
        let (view, tail) = (
            Arc::new(view),
            Tail::after(applied, WindowSize::of(3), u64::MAX),
        );
        let tail = Arc::new(tail);
        for offset in 1..=2 {
            applied.offset = offset;
            tail.add(Writes::default(), applied, 64, || ());
            if offset == 1 {
                tail.close_window();
            }
        }
        let damage = Damage::new(directory.damage_note());
        let thread = Sealer::new(Arc::clone(&view), Arc::clone(&tail), damage).start();
        let begun = Instant::now();
        while view.seen().unwrap() < 2 {
            assert!(begun.elapsed() < PATIENCE, "it is not noted");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert_eq!(tail.sealed_offset(), 1);
        tail.end(Duration::ZERO);
        thread.unwrap().join().unwrap();
    }
}
