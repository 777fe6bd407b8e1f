//! Who waits: one mailbox for each open feed, found by user, and by the groups that the user is in. A mailbox says only
//! that something has come; what it is, the feed reads from the tail.
//!
//! A mailbox is registered before its feed reads, and the apply stage tells mailboxes after it has added to the tail;
//! so a message is either read or told, never missed. In groups it is registered once its feed waits, with those that the
//! feed saw; from the beginning on, those that its user joins are added. One group too many does no harm.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::iter::once;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::clock;
use crate::error::Error;
use crate::model::{Device, Message, Position, Sequence, Transport, UserName};

const SHARDS: usize = 16;

/// What has come for one feed.
#[derive(Debug)]
pub(in crate::hub) struct Mailbox {
    inside: Mutex<Inside>,
    /// Under which groups it is registered, rising; `None` once it is gone.
    groups: Mutex<Option<Vec<u32>>>,
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
            groups: Mutex::new(Some(Vec::new())),
            device: Device {
                transport,
                since: clock::now_ms(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, Option<Vec<u32>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
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
/// Each by its address: there may be many, and each comes and goes.
type GroupShard = HashMap<u32, HashMap<usize, Arc<Mailbox>>>;

/// All mailboxes, by user and by group.
#[derive(Debug)]
pub(in crate::hub) struct Waiters {
    shards: [Mutex<Shard>; SHARDS],
    groups: [Mutex<GroupShard>; SHARDS],
    hasher: RandomState,
    /// By transport.
    counts: [AtomicUsize; Transport::ALL.len()],
}

impl Waiters {
    pub(in crate::hub) fn new() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self {
            shards,
            groups: std::array::from_fn(|_| Mutex::default()),
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
        // Pairs with the one in `any`: this feed reads the tail only now.
        fence(Ordering::SeqCst);
        Ok(mailbox)
    }

    fn group_shard(&self, group: u32) -> MutexGuard<'_, GroupShard> {
        let number = usize::try_from(group).expect("it is small") % SHARDS;
        let shard = self.groups.get(number);
        let shard = shard.expect("the remainder is within");
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a mailbox under groups, too.
    pub(in crate::hub) fn enter(&self, mailbox: &Arc<Mailbox>, groups: impl Iterator<Item = u32>) {
        for group in groups {
            // One who left is gone: whoever adds to it here and there does so with its lock.
            if let Some(entered) = &mut *mailbox.groups()
                && let Err(place) = entered.binary_search(&group)
            {
                entered.insert(place, group);
                let mut shard = self.group_shard(group);
                let waiting = shard.entry(group).or_default();
                waiting.insert(Arc::as_ptr(mailbox).addr(), Arc::clone(mailbox));
            }
        }
    }

    fn leave_group(&self, mailbox: &Arc<Mailbox>, group: u32) {
        let mut shard = self.group_shard(group);
        let Some(waiting) = shard.get_mut(&group) else {
            return;
        };
        waiting.remove(&Arc::as_ptr(mailbox).addr());
        if waiting.is_empty() {
            shard.remove(&group);
        } else if waiting.len() * 4 < waiting.capacity() {
            waiting.shrink_to_fit();
        }
        if shard.len() * 4 < shard.capacity() {
            shard.shrink_to_fit();
        }
    }

    /// A user is in a group from here on.
    pub(in crate::hub) fn joined(&self, user: &UserName, group: u32) {
        for mailbox in self.shard(user).get(user).into_iter().flatten() {
            self.enter(mailbox, once(group));
        }
    }

    /// A user is no longer in a group.
    pub(in crate::hub) fn left(&self, user: &UserName, group: u32) {
        for mailbox in self.shard(user).get(user).into_iter().flatten() {
            if let Some(entered) = &mut *mailbox.groups()
                && let Ok(place) = entered.binary_search(&group)
            {
                entered.remove(place);
                self.leave_group(mailbox, group);
            }
        }
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
        drop(shard);
        let counter = self.counter(mailbox.device.transport);
        counter.fetch_sub(1, Ordering::Relaxed);
        let entered = mailbox.groups().take();
        for group in entered.into_iter().flatten() {
            self.leave_group(mailbox, group);
        }
    }

    /// Tells the mailboxes of a user of a message, and collects whom to wake.
    pub(in crate::hub) fn tell(&self, user: &UserName, message: &Message, wakers: &mut Vec<Waker>) {
        tell(
            self.shard(user).get(user).into_iter().flatten(),
            message,
            wakers,
        );
    }

    /// The same for all who are in a group. Nobody else is looked at.
    pub(in crate::hub) fn tell_group(
        &self,
        group: u32,
        message: &Message,
        wakers: &mut Vec<Waker>,
    ) {
        let shard = self.group_shard(group);
        let waiting = shard.get(&group).into_iter().flat_map(HashMap::values);
        tell(waiting, message, wakers);
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

    /// Whether any feed is open. What is new must be in the tail before: a feed that is not counted here then reads
    /// it. Without the fences both sides could miss each other.
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

fn tell<'a>(
    waiting: impl Iterator<Item = &'a Arc<Mailbox>>,
    message: &Message,
    wakers: &mut Vec<Waker>,
) {
    let (sequence, id) = (message.sequence(), message.id);
    wakers.extend(waiting.filter_map(|mailbox| mailbox.tell(sequence, id)));
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_group_s_message_is_told_to_feeds_of_its_members_and_to_nobody_else() {
        let waiters = Waiters::new();
        let names = ["ann", "bob", "cyd"];
        let feeds = names.map(|name| waiters.register(&user(name), Transport::Sse, 9).unwrap());
        let [ann, bob, _] = &feeds;
        let (team, other) = (7, 7 + u32::try_from(SHARDS).unwrap());
        let told = |id| {
            waiters.tell_group(team, &message(id), &mut Vec::new());
            let reached = |feed: &Arc<Mailbox>| feed.lock().last == at(id);
            feeds.each_ref().map(reached)
        };
        assert_eq!(told(1), [false; 3]);
        waiters.enter(bob, [other, team].into_iter());
        waiters.joined(&user("cyd"), team);
        waiters.joined(&user("dan"), team);
        // Twice is once.
        waiters.joined(&user("bob"), team);
        assert_eq!(told(2), [false, true, true]);
        waiters.left(&user("cyd"), team);
        waiters.left(&user("ann"), team);
        waiters.left(&user("bob"), other);
        assert_eq!(told(3), [false, true, false]);
        waiters.unregister(&user("bob"), bob);
        // As a reading does that was given up with its feed.
        waiters.enter(bob, once(team));
        waiters.joined(&user("bob"), team);
        waiters.enter(ann, once(team));
        waiters.unregister(&user("ann"), ann);
        assert_eq!(told(4), [false; 3]);
        assert!(
            waiters
                .groups
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }
}
