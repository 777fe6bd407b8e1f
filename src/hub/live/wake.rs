//! Who waits: one mailbox for each open feed, found by user. A mailbox says only that something has come; what it is,
//! the feed reads from the tail.
//!
//! A mailbox is registered before its feed reads, and the apply stage tells mailboxes after it has added to the tail;
//! so a message is either read or told, never missed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::clock;
use crate::error::Error;
use crate::hub::state::Members;
use crate::model::{Device, Message, Position, Sequence, Transport, UserName};

const SHARDS: usize = 16;

/// What has come for one feed.
#[derive(Debug)]
pub(in crate::hub) struct Mailbox {
    inside: Mutex<Inside>,
    device: Device,
}

#[derive(Debug, Default)]
struct Inside {
    /// The first ids that came since [`Mailbox::first`] was asked; 0: none.
    first: Position,
    /// The last ids that came.
    last: Position,
    closed: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    fn new(transport: Transport) -> Self {
        Self {
            inside: Mutex::default(),
            device: Device {
                transport,
                since: clock::now_ms(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a message. Returns the waiting feed's waker, if any; the caller wakes it after telling every mailbox.
    fn tell(&self, sequence: Sequence, id: u64) -> Option<Waker> {
        let mut inside = self.lock();
        *inside.last.of_mut(sequence) = id;
        let first = inside.first.of_mut(sequence);
        if *first == 0 {
            *first = id;
        }
        inside.waker.take()
    }

    /// The first ids that came since this was last asked; 0: none of that sequence.
    pub(in crate::hub) fn first(&self) -> Position {
        std::mem::take(&mut self.lock().first)
    }

    /// Whether something beyond a position has come, or nothing will come any longer.
    pub(in crate::hub) fn poll(&self, beyond: Position, context: &Context<'_>) -> Poll<()> {
        let mut inside = self.lock();
        if inside.closed || !inside.last.within(beyond) {
            return Poll::Ready(());
        }
        match &mut inside.waker {
            Some(waker) => waker.clone_from(context.waker()),
            empty => *empty = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether nothing will come any longer.
    pub(in crate::hub) fn closed(&self) -> bool {
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
pub(in crate::hub) struct Waiters {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    /// By transport.
    counts: [AtomicUsize; Transport::ALL.len()],
}

impl Waiters {
    pub(in crate::hub) fn new() -> Self {
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
    pub(in crate::hub) fn register(
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
    pub(in crate::hub) fn unregister(&self, user: &UserName, mailbox: &Arc<Mailbox>) {
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

    /// Tells the mailboxes of a user of a message, and collects whom to wake.
    pub(in crate::hub) fn tell(&self, user: &UserName, message: &Message, wakers: &mut Vec<Waker>) {
        tell(self.shard(user).get(user), message, wakers);
    }

    /// The same for all members of a group: goes through the members or through those with a feed, whichever are
    /// fewer.
    pub(in crate::hub) fn tell_all(
        &self,
        members: &Members,
        message: &Message,
        wakers: &mut Vec<Waker>,
    ) {
        if members.len() <= self.count() {
            for member in members.keys() {
                self.tell(member, message, wakers);
            }
            return;
        }
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (user, waiting) in &*shard {
                if members.contains_key(user) {
                    tell(Some(waiting), message, wakers);
                }
            }
        }
    }

    /// The open feeds of a user.
    pub(in crate::hub) fn of(&self, user: &UserName) -> Vec<Device> {
        let shard = self.shard(user);
        let waiting = shard.get(user).into_iter().flatten();
        waiting.map(|mailbox| mailbox.device).collect()
    }

    /// How many feeds are open by one transport.
    pub(in crate::hub) fn by(&self, transport: Transport) -> usize {
        self.counter(transport).load(Ordering::Relaxed)
    }

    /// How many feeds are open.
    pub(in crate::hub) fn count(&self) -> usize {
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
    pub(in crate::hub) fn any(&self) -> bool {
        fence(Ordering::SeqCst);
        self.count() > 0
    }

    /// Tells all feeds that nothing will come any longer.
    pub(in crate::hub) fn close(&self) {
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

fn tell(waiting: Option<&Vec<Arc<Mailbox>>>, message: &Message, wakers: &mut Vec<Waker>) {
    let (sequence, id) = (message.sequence(), message.id);
    let waiting = waiting.into_iter().flatten();
    wakers.extend(waiting.filter_map(|mailbox| mailbox.tell(sequence, id)));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hub::state::Member;
    use crate::model::{Body, Receiver};

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn bob() -> UserName {
        user("bob")
    }

    fn message(id: u64) -> Message {
        Message {
            id,
            prev: 0,
            n: 1,
            at_ms: 0,
            from: bob(),
            to: Receiver::User(bob()),
            body: Body::from(b"1".to_vec()),
        }
    }

    fn at(direct: u64) -> Position {
        Position { direct, group: 0 }
    }

    #[test]
    fn a_mailbox_tells_the_first_of_what_came_since_it_was_asked() {
        let mailbox = Mailbox::new(Transport::Poll);
        assert_eq!(mailbox.first(), at(0));
        for id in 3..=5 {
            mailbox.tell(Sequence::Direct, id);
        }
        assert_eq!(mailbox.first(), at(3));
        assert_eq!(mailbox.first(), at(0));
        mailbox.tell(Sequence::Direct, 6);
        mailbox.tell(Sequence::Group, 2);
        let both = Position {
            direct: 6,
            group: 2,
        };
        assert_eq!(mailbox.first(), both);
    }

    #[test]
    fn who_waits_is_woken_by_what_is_beyond_his_position_and_by_the_end() {
        let waiters = Waiters::new();
        let mailbox = waiters.register(&bob(), Transport::Poll, 1).unwrap();
        assert!(waiters.any());
        assert!(waiters.register(&bob(), Transport::Poll, 1).is_err());
        let mut context = Context::from_waker(Waker::noop());
        assert!(mailbox.poll(at(0), &context).is_pending());
        let mut wakers = Vec::new();
        waiters.tell(&bob(), &message(1), &mut wakers);
        assert_eq!(wakers.len(), 1);
        assert!(mailbox.poll(at(1), &context).is_pending());
        assert!(mailbox.poll(at(0), &context).is_ready());
        waiters.close();
        context = Context::from_waker(Waker::noop());
        assert!(mailbox.poll(at(1), &context).is_ready());
        waiters.unregister(&bob(), &mailbox);
        waiters.unregister(&bob(), &mailbox);
        assert_eq!((waiters.count(), waiters.of(&bob()).len()), (0, 0));
    }

    #[test]
    fn a_group_s_message_is_told_to_members_with_a_feed_and_to_nobody_else() {
        let waiters = Waiters::new();
        let names = ["ann", "bob", "cyd"];
        let feeds = names.map(|name| waiters.register(&user(name), Transport::Sse, 9).unwrap());
        let mut wakers = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        // Fewer members than feeds, and more.
        for (id, others) in [(1, 0), (2, 50)] {
            let others = (0..others).map(|n| format!("other-{n}"));
            let members = others.chain(["bob".to_owned(), "cyd".to_owned()]);
            let member = Member {
                number: 1,
                from: 0,
                all: false,
                joined_ms: 0,
            };
            let members = members.map(|name| (user(&name), member));
            let members = Arc::new(members.collect::<BTreeMap<_, _>>());
            waiters.tell_all(&members, &message(id), &mut wakers);
            let told = feeds
                .each_ref()
                .map(|feed| feed.poll(at(id - 1), &context).is_ready());
            assert_eq!(told, [false, true, true]);
            context = Context::from_waker(Waker::noop());
        }
    }
}
