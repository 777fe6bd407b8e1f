//! Who waits for what: one mailbox for each open feed, found by user.
//!
//! A mailbox is registered before its feed reads, and the apply stage fills mailboxes after it has raised
//! the watermark; so a message is either read or found in the mailbox, never missed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::clock;
use crate::error::Error;
use crate::model::{Device, Message, PageLimit, Position, Transport, UserName};

/// Messages that wait in one mailbox; a reader that is further behind reads the view again.
const WAITING_MAX: usize = 64;
/// Bytes of bodies that wait in one mailbox.
const WAITING_BYTES_MAX: usize = 256 << 10;
const SHARDS: usize = 16;

/// What has come for one feed since it last read.
#[derive(Debug)]
pub(super) struct Mailbox {
    inside: Mutex<Inside>,
    device: Device,
}

#[derive(Debug, Default)]
struct Inside {
    waiting: Vec<Arc<Message>>,
    bytes: usize,
    /// What came is not all in `waiting`: the view must be read.
    behind: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// What a feed finds in its mailbox.
pub(super) enum Found {
    /// Nothing has come.
    Nothing,
    /// These have come, and nothing else.
    Messages(Vec<Arc<Message>>),
    /// Read the view.
    Behind,
}

impl Mailbox {
    /// Empty, but behind: the view is read first.
    fn new(transport: Transport) -> Self {
        let inside = Inside {
            behind: true,
            ..Inside::default()
        };
        Self {
            inside: Mutex::new(inside),
            device: Device {
                transport,
                since: clock::now_ms(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message. Returns the waiting feed's waker, if any; the caller wakes it after filling every mailbox.
    fn put(&self, message: &Arc<Message>) -> Option<Waker> {
        let mut inside = self.lock();
        inside.bytes += message.body.as_bytes().len();
        if inside.behind || inside.waiting.len() >= WAITING_MAX || inside.bytes > WAITING_BYTES_MAX
        {
            inside.behind = true;
            inside.waiting = Vec::new();
        } else {
            inside.waiting.push(Arc::clone(message));
        }
        inside.waker.take()
    }

    /// Empties it before the view is read.
    pub(super) fn clear(&self) {
        let mut inside = self.lock();
        (inside.behind, inside.bytes, inside.waiting) = (false, 0, Vec::new());
    }

    /// The view must be read again: a reading of it stopped at a limit.
    pub(super) fn fall_behind(&self) {
        let mut inside = self.lock();
        (inside.behind, inside.waiting) = (true, Vec::new());
    }

    /// Takes messages beyond a position out, as many as the page has room for.
    pub(super) fn take(&self, beyond: Position, limit: PageLimit) -> Found {
        let mut inside = self.lock();
        if inside.behind {
            return Found::Behind;
        }
        inside
            .waiting
            .retain(|message| message.id > beyond.of(message.sequence()));
        if inside.waiting.is_empty() {
            inside.bytes = 0;
            inside.waiting = Vec::new();
            return Found::Nothing;
        }
        // As a reading of the view gives them; each sequence is in order already.
        inside
            .waiting
            .sort_by_key(|message| (message.at_ms, message.sequence()));
        let mut room = limit.page();
        let fitting = inside.waiting.iter();
        let count = fitting
            .take_while(|message| room.take((limit.size_of)(message)))
            .count();
        let taken: Vec<_> = inside.waiting.drain(..count).collect();
        inside.bytes = inside
            .waiting
            .iter()
            .map(|message| message.body.as_bytes().len())
            .sum();
        Found::Messages(taken)
    }

    /// Whether there is something beyond a position, or nothing will come any longer.
    pub(super) fn poll(&self, beyond: Position, context: &Context<'_>) -> Poll<()> {
        let mut inside = self.lock();
        let fresh = |message: &Arc<Message>| message.id > beyond.of(message.sequence());
        if inside.behind || inside.closed || inside.waiting.iter().any(fresh) {
            return Poll::Ready(());
        }
        match &mut inside.waker {
            Some(waker) => waker.clone_from(context.waker()),
            empty => *empty = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether nothing will come any longer.
    pub(super) fn closed(&self) -> bool {
        self.lock().closed
    }

    fn close(&self) -> Option<Waker> {
        let mut inside = self.lock();
        inside.closed = true;
        inside.waker.take()
    }
}

type Shard = HashMap<UserName, Vec<Arc<Mailbox>>>;

/// All mailboxes, by user.
#[derive(Debug)]
pub(super) struct Waiters {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// By transport.
    counts: [AtomicUsize; Transport::ALL.len()],
}

impl Waiters {
    pub(super) fn new() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self {
            shards,
            hasher: RandomState::new(),
            counts: Default::default(),
        }
    }

    fn shard(&self, user: &UserName) -> MutexGuard<'_, Shard> {
        let shards = u64::try_from(SHARDS).expect("it is small");
        let number = usize::try_from(self.hasher.hash_one(user) % shards).expect("it is small");
        let shard = self.shards.get(number).expect("the remainder is within");
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a mailbox for one feed of a user who has fewer than `most`.
    pub(super) fn register(
        &self,
        user: &UserName,
        transport: Transport,
        most: usize,
    ) -> Result<Arc<Mailbox>, Error> {
        let mailbox = Arc::new(Mailbox::new(transport));
        let mut shard = self.shard(user);
        let waiting = shard.entry(user.clone()).or_default();
        if waiting.len() >= most {
            return Err(Error::TooManyWaiters { limit: most });
        }
        waiting.push(Arc::clone(&mailbox));
        self.counter(transport).fetch_add(1, Ordering::Relaxed);
        // Pairs with the one in `any`: this feed reads the watermark only now.
        fence(Ordering::SeqCst);
        Ok(mailbox)
    }

    /// Removes a mailbox, and only this one.
    pub(super) fn unregister(&self, user: &UserName, mailbox: &Arc<Mailbox>) {
        let mut shard = self.shard(user);
        let Some(waiting) = shard.get_mut(user) else {
            return;
        };
        let Some(index) = waiting.iter().position(|known| Arc::ptr_eq(known, mailbox)) else {
            return;
        };
        waiting.swap_remove(index);
        if waiting.is_empty() {
            shard.remove(user);
        }
        if shard.len() * 4 < shard.capacity() {
            shard.shrink_to_fit();
        }
        let counter = self.counter(mailbox.device.transport);
        counter.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts a message into the mailboxes of a user, and collects whom to wake.
    pub(super) fn put(&self, user: &UserName, message: &Arc<Message>, wakers: &mut Vec<Waker>) {
        if let Some(waiting) = self.shard(user).get(user) {
            wakers.extend(waiting.iter().filter_map(|mailbox| mailbox.put(message)));
        }
    }

    /// The open feeds of a user.
    pub(super) fn of(&self, user: &UserName) -> Vec<Device> {
        let shard = self.shard(user);
        let waiting = shard.get(user).into_iter().flatten();
        waiting.map(|mailbox| mailbox.device).collect()
    }

    /// How many feeds are open by one transport.
    pub(super) fn by(&self, transport: Transport) -> usize {
        self.counter(transport).load(Ordering::Relaxed)
    }

    /// How many feeds are open.
    pub(super) fn count(&self) -> usize {
        Transport::ALL
            .map(|transport| self.by(transport))
            .iter()
            .sum()
    }

    fn counter(&self, transport: Transport) -> &AtomicUsize {
        let [poll, sse, stream, socket, icomet] = &self.counts;
        match transport {
            Transport::Poll => poll,
            Transport::Sse => sse,
            Transport::Stream => stream,
            Transport::Socket => socket,
            Transport::Icomet => icomet,
        }
    }

    /// Whether any feed is open. The watermark must have been raised before: a feed that is not counted here
    /// then sees it raised. Without the fences both sides could miss each other.
    pub(super) fn any(&self) -> bool {
        fence(Ordering::SeqCst);
        self.count() > 0
    }

    /// Tells all feeds that nothing will come any longer.
    pub(super) fn close(&self) {
        for shard in &self.shards {
            let mailboxes: Vec<_> = {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.values().flatten().cloned().collect()
            };
            mailboxes
                .iter()
                .filter_map(|mailbox| mailbox.close())
                .for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, Receiver};

    fn user() -> UserName {
        UserName::parse("bob").unwrap()
    }

    fn empty() -> Mailbox {
        let mailbox = Mailbox::new(Transport::Poll);
        mailbox.clear();
        mailbox
    }

    fn message(id: u64, bytes: usize) -> Arc<Message> {
        Arc::new(Message {
            id,
            prev: 0,
            n: 1,
            at_ms: 0,
            from: user(),
            to: Receiver::User(user()),
            body: Body::from(vec![b'1'; bytes]),
        })
    }

    fn at(direct: u64) -> Position {
        Position { direct, group: 0 }
    }

    fn ids(found: Found) -> Option<Vec<u64>> {
        match found {
            Found::Nothing => Some(Vec::new()),
            Found::Messages(messages) => Some(messages.iter().map(|m| m.id).collect()),
            Found::Behind => None,
        }
    }

    #[test]
    fn a_mailbox_gives_in_order_what_is_beyond_a_position() {
        let mailbox = empty();
        for id in 1..=5 {
            mailbox.put(&message(id, 1));
        }
        assert_eq!(
            ids(mailbox.take(at(2), PageLimit::count(2))),
            Some(vec![3, 4])
        );
        assert_eq!(ids(mailbox.take(at(4), PageLimit::count(0))), Some(vec![]));
        assert!(matches!(
            mailbox.take(at(4), PageLimit::count(0)),
            Found::Messages(_)
        ));
        assert_eq!(ids(mailbox.take(at(4), PageLimit::count(9))), Some(vec![5]));
        assert!(matches!(
            mailbox.take(at(5), PageLimit::count(9)),
            Found::Nothing
        ));
    }

    #[test]
    fn a_full_mailbox_falls_behind_until_it_is_cleared() {
        for (count, bytes) in [(WAITING_MAX + 1, 1), (5, WAITING_BYTES_MAX / 4)] {
            let mailbox = empty();
            for id in (1..).take(count) {
                mailbox.put(&message(id, bytes));
            }
            mailbox.put(&message(100, 1));
            assert_eq!(ids(mailbox.take(at(0), PageLimit::count(1))), None);
            mailbox.clear();
            mailbox.put(&message(101, 1));
            assert_eq!(
                ids(mailbox.take(at(0), PageLimit::count(9))),
                Some(vec![101])
            );
        }
    }

    #[test]
    fn who_waits_is_woken_by_what_is_beyond_his_position_and_by_the_end() {
        let waiters = Waiters::new();
        let mailbox = waiters.register(&user(), Transport::Poll, 1).unwrap();
        assert!(waiters.any());
        assert!(waiters.register(&user(), Transport::Poll, 1).is_err());
        let mut context = Context::from_waker(Waker::noop());
        assert!(mailbox.poll(at(0), &context).is_ready());
        mailbox.clear();
        assert!(mailbox.poll(at(0), &context).is_pending());
        let mut wakers = Vec::new();
        waiters.put(&user(), &message(1, 1), &mut wakers);
        assert_eq!(wakers.len(), 1);
        assert!(mailbox.poll(at(1), &context).is_pending());
        assert!(mailbox.poll(at(0), &context).is_ready());
        waiters.close();
        context = Context::from_waker(Waker::noop());
        assert!(mailbox.poll(at(1), &context).is_ready());
        waiters.unregister(&user(), &mailbox);
        waiters.unregister(&user(), &mailbox);
        assert_eq!((waiters.count(), waiters.of(&user()).len()), (0, 0));
    }
}
