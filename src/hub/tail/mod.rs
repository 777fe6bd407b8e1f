//! The tail: what is applied and not yet sealed into the view, in memory. Readers read it and, below its beginning,
//! the view.
//!
//! It is a row of windows. Entries are added to the open one; when that is full, it is closed and waits to be sealed.
//! Where windows end follows from the journal alone, so that every machine seals the same. A window is let go of only
//! when all of it is in the view: a reader that notes where the tail begins, and then reads the view up to there,
//! misses nothing, whatever is sealed meanwhile.

mod seal;
mod window;

use std::collections::VecDeque;
use std::iter::once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::model::{Message, Position, Sequence, UserName};
use crate::store::{Applied, Error, Membership, Writes};
pub(super) use seal::{Sealer, grant};
pub(super) use window::Contact;
use window::Window;

/// When a window is full: with whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Ids of both sequences. The more, the fewer rows each message costs.
    pub ids: u64,
    /// What it takes in memory, roughly, bytes.
    pub bytes: u64,
}

impl WindowSize {
    /// As many ids, unless what is kept of them takes much.
    pub fn of(ids: u64) -> Self {
        Self {
            ids,
            bytes: WINDOW_BYTES,
        }
    }
}

/// What a window may take: two fit into the least memory that a tail may have, one that grows while the other is written.
/// One that could take more than the tail may would never be full, and nothing would be accepted any more.
const WINDOW_BYTES: u64 = 32 << 20;

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
    /// What it takes in memory, roughly, and what it may.
    bytes: AtomicU64,
    bytes_max: u64,
    /// Told when there is room again.
    room: Notify,
    /// When sealing ends, if it is to; told when a window is closed.
    ended: Mutex<Option<Instant>>,
    moved: Condvar,
}

#[derive(Debug)]
struct Inside {
    /// The last sealed entry, and the ids up to it.
    sealed: (u64, Position),
    heads: Position,
    closed: VecDeque<Arc<Window>>,
    open: Window,
}

impl Tail {
    /// Nothing yet, behind what is in the view.
    pub(super) fn after(applied: Applied, size: WindowSize, bytes_max: u64) -> Self {
        let inside = Inside {
            sealed: (applied.offset, applied.heads),
            heads: applied.heads,
            closed: VecDeque::new(),
            open: Window::after(applied),
        };
        Self {
            inside: RwLock::new(inside),
            size,
            bytes: AtomicU64::new(0),
            bytes_max,
            room: Notify::new(),
            ended: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    /// Adds an entry: from here on it is seen. What else is to be seen with it is done before anybody reads. A window that
    /// is full with it ends.
    pub(super) fn add(
        &self,
        writes: Writes,
        applied: Applied,
        weight: u64,
        with_it: impl FnOnce(),
    ) {
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        let Inside { heads, open, .. } = &mut *inside;
        let before = open.bytes;
        open.add(writes, applied, weight);
        self.bytes.fetch_add(open.bytes - before, Ordering::Relaxed);
        *heads = applied.heads;
        with_it();
        let Position { direct, group } = open.ids();
        let full = direct + group >= self.size.ids || open.bytes >= self.size.bytes;
        drop(inside);
        if full {
            self.close_window();
        }
    }

    /// Ends the open window here, unless it is empty.
    pub(super) fn close_window(&self) {
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        if inside.open.bytes == 0 {
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
        let nothing = |ended: &mut Option<Instant>| ended.is_none() && self.oldest().is_none();
        let waited = self
            .moved
            .wait_timeout_while(self.ended(), patience, nothing);
        let (ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let over = ended.is_some_and(|ended| Instant::now() >= ended);
        match self.oldest() {
            Some(window) if !over => ToSeal::Window(window),
            None if ended.is_none() => ToSeal::NotYet,
            _ => ToSeal::End,
        }
    }

    /// There will be no more windows. Those that wait are sealed for a while yet; the journal has the others.
    pub(super) fn end(&self, patience: Duration) {
        self.ended().get_or_insert(Instant::now() + patience);
        self.moved.notify_all();
    }

    fn ended(&self) -> MutexGuard<'_, Option<Instant>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest window is in the view: it is let go of.
    pub(super) fn sealed(&self, window: &Arc<Window>) {
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        let oldest = inside.closed.front();
        assert!(
            oldest.is_some_and(|oldest| Arc::ptr_eq(oldest, window)),
            "windows are sealed in order"
        );
        inside.closed.pop_front();
        inside.sealed = (window.applied.offset, window.applied.heads);
        drop(inside);
        self.bytes.fetch_sub(window.bytes, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    /// Whether it takes less memory than it may.
    pub(super) fn has_room(&self) -> bool {
        self.bytes() <= self.bytes_max
    }

    /// Waits while it takes more memory than it may, at most for a time. Whether there is room.
    pub(super) async fn room_within(&self, patience: Duration) -> bool {
        let room = async {
            loop {
                // Before the look: who lets go of a window behind it tells this.
                let told = self.room.notified();
                if self.has_room() {
                    return;
                }
                told.await;
            }
        };
        tokio::time::timeout(patience, room).await.is_ok()
    }

    /// The last entry that is in it.
    pub(super) fn applied_offset(&self) -> u64 {
        self.read().applied_offset()
    }

    /// The last entry that is in the view.
    pub(super) fn sealed_offset(&self) -> u64 {
        self.read().sealed_offset()
    }

    /// Something that changes as the view has it, and how it was changed since: behind all of this it is as at the moment
    /// of the reading that is returned.
    pub(super) fn with_below<T, C>(
        &self,
        below: impl Fn() -> Result<T, Error>,
        changes: impl Fn(&Reading<'_>) -> Vec<C>,
    ) -> Result<(Reading<'_>, T, Vec<C>), Error> {
        loop {
            let (applied, mut since) = {
                let tail = self.read();
                (tail.applied_offset(), changes(&tail))
            };
            let found = below()?;
            let tail = self.read();
            // Else there may be some that were sealed behind what was read, and are not in the tail any longer.
            if tail.sealed_offset() <= applied {
                since.extend(changes(&tail));
                return Ok((tail, found, since));
            }
        }
    }

    /// What it takes in memory, roughly, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
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

    /// The last entry that is seen.
    pub(super) fn applied_offset(&self) -> u64 {
        self.0.open.applied.offset
    }

    /// The last entry that is in the view.
    pub(super) fn sealed_offset(&self) -> u64 {
        self.0.sealed.0
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

    /// The same as [`Contact`]s.
    pub(in crate::hub) fn contacts(
        &self,
        user: &UserName,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = Contact> {
        let windows = self.windows();
        windows.flat_map(move |window| window.contacts(user, after, upto))
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

    /// The direct messages that a user got, within `after < id <= upto`, each with the last group message before it.
    pub(super) fn received(
        &self,
        user: &UserName,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = (&Arc<Message>, u64)> {
        let windows = self.windows();
        windows.flat_map(move |window| window.received(user, after, upto))
    }

    /// The last group message before a direct one, if this is in the tail.
    pub(super) fn group_head(&self, id: u64) -> Option<u64> {
        self.windows().find_map(|window| window.group_head(id))
    }

    /// How many messages of the tail up to an id a user with a channel sent to a group.
    pub(super) fn sent(&self, group: u32, user: u32, upto: u64) -> u64 {
        let windows = self.windows();
        let sent: usize = windows.map(|window| window.sent(group, user, upto)).sum();
        u64::try_from(sent).expect("a length fits 64 bits")
    }

    /// How the intervals of a user were changed in the tail, in order: group, the id after which each begins, and what it
    /// is now, if there is one.
    pub(super) fn moves_of(&self, user: &UserName) -> Vec<((u32, u64), Option<Membership>)> {
        let moves = self.windows().flat_map(|window| window.moves_of(user));
        moves.collect()
    }

    /// Who joined a group and left it in the tail, in order: their numbers, and the names of those who joined.
    pub(super) fn moves_in(&self, group: u32) -> Vec<(u32, Option<UserName>)> {
        let moves = self.windows().flat_map(|window| window.moves_in(group));
        moves.collect()
    }

    /// The last number of a user's channel that was forgotten, if it was closed.
    pub(super) fn forgotten(&self, user: u32) -> Option<u64> {
        let mut windows = self.windows().rev();
        windows.find_map(|window| window.forgotten(user))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::scope;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Body, GroupName, LogId, Receiver};
    use crate::store::{Addition, Change};

    /// Only for what must not happen.
    const PATIENCE: Duration = Duration::from_secs(60);
    const USERS: u32 = 4;
    /// Those with a channel.
    const LISTENERS: [u32; 2] = [1, 2];
    /// Numbers from here on are those of groups.
    const GROUPS: u32 = 6;

    fn user(number: u32) -> UserName {
        UserName::parse(&format!("user-{number}")).unwrap()
    }

    /// A tail, and the same as plain lists.
    struct Story {
        tail: Tail,
        applied: Applied,
        messages: Vec<Arc<Message>>,
        windows: u64,
    }

    impl Story {
        fn new(size: WindowSize) -> Self {
            let mut applied = Applied::nothing(LogId([1; 16]));
            // Behind what is in the view.
            applied.offset = 5;
            applied.heads = Position {
                direct: 10,
                group: 7,
            };
            Self {
                tail: Tail::after(applied, size, u64::MAX),
                applied,
                messages: Vec::new(),
                windows: 0,
            }
        }

        fn of_ids(ids: u64) -> Self {
            Self::new(WindowSize::of(ids))
        }

        fn message(&mut self, from: u32, to: u32) -> Addition {
            let receiver = if to < GROUPS {
                Receiver::User(user(to))
            } else {
                Receiver::Group(GroupName::parse(&format!("group-{to}")).unwrap())
            };
            let head = self.applied.heads.of_mut(receiver.sequence());
            *head += 1;
            let message = Arc::new(Message {
                id: *head,
                prev: 0,
                n: 1,
                at_ms: 1,
                from: user(from),
                to: receiver,
                body: Body::from(b"1".to_vec()),
            });
            self.messages.push(Arc::clone(&message));
            if to < GROUPS {
                let group_head = self.applied.heads.group;
                Addition::DirectMessage {
                    message,
                    from,
                    to,
                    group_head,
                }
            } else {
                let listener = LISTENERS.contains(&from).then_some(from);
                Addition::GroupMessage {
                    message,
                    group: to,
                    listener,
                }
            }
        }

        /// An entry with these messages.
        fn entry(&mut self, messages: &[(u32, u32)]) {
            let additions = messages.iter().map(|(from, to)| self.message(*from, *to));
            let additions = additions.collect();
            self.write(Writes {
                additions,
                ..Writes::default()
            });
        }

        fn write(&mut self, writes: Writes) {
            self.applied.offset += 1;
            self.tail.add(writes, self.applied, 64, || ());
        }

        /// Lets go of the oldest window, if one waits.
        fn seal(&mut self) {
            if let Some(window) = self.tail.oldest() {
                self.tail.sealed(&window);
                self.windows += 1;
            }
        }

        /// Ids in the tail of messages that are wanted, within bounds.
        fn expected(
            &self,
            sequence: Sequence,
            (after, upto): (u64, u64),
            wanted: impl Fn(&Message) -> bool,
        ) -> Vec<u64> {
            let after = after.max(self.tail.read().base().of(sequence));
            let messages = self.messages.iter().filter(|m| m.sequence() == sequence);
            let within = messages.filter(|m| after < m.id && m.id <= upto && wanted(m));
            within.map(|message| message.id).collect()
        }

        fn check(&self, bounds: (u64, u64), ends: u64) {
            let (after, upto) = bounds;
            let tail = self.tail.read();
            for one in 0..USERS {
                let name = user(one);
                let own = |m: &Message| m.from == name || m.recipient() == Some(&name);
                let expected = self.expected(Sequence::Direct, bounds, own);
                assert_eq!(taken(tail.inbox(&name, after, upto), ends), expected);
                let contacts = tail.contacts(&name, after, upto);
                assert_eq!(contacts.map(|one| one.id).collect::<Vec<_>>(), expected);
                let received = |m: &Message| m.recipient() == Some(&name);
                let expected = self.expected(Sequence::Direct, bounds, received);
                let found = tail.received(&name, after, upto);
                assert_eq!(taken(found.map(|(message, _)| message), ends), expected);
                for group in GROUPS..GROUPS + 2 {
                    let own = |m: &Message| {
                        m.from == name
                            && m.to
                                == Receiver::Group(
                                    GroupName::parse(&format!("group-{group}")).unwrap(),
                                )
                    };
                    let sent = self.expected(Sequence::Group, (0, upto), own).len();
                    let sent = if LISTENERS.contains(&one) { sent } else { 0 };
                    assert_eq!(tail.sent(group, one, upto), u64::try_from(sent).unwrap());
                }
                for other in 0..USERS {
                    let peer = user(other);
                    let between = |m: &Message| {
                        m.recipient().is_some_and(|to| {
                            (&m.from, to) == (&name, &peer) || (&m.from, to) == (&peer, &name)
                        })
                    };
                    let expected = self.expected(Sequence::Direct, bounds, between);
                    let found = tail.conversation((&name, &peer), after, upto);
                    assert_eq!(taken(found, ends), expected, "{one} and {other}");
                }
            }
            for group in GROUPS..GROUPS + 2 {
                let name = format!("group-{group}");
                let to = |m: &Message| matches!(&m.to, Receiver::Group(to) if to.as_str() == name);
                let expected = self.expected(Sequence::Group, bounds, to);
                assert_eq!(taken(tail.group(group, after, upto), ends), expected);
            }
            for sequence in Sequence::ALL {
                for id in [after, upto] {
                    let there = tail.base().of(sequence) < id && id <= tail.heads().of(sequence);
                    let found = tail.message(sequence, id).map(|message| message.id);
                    assert_eq!(found, there.then_some(id), "{sequence} {id}");
                }
            }
        }
    }

    /// Ids, taken from both ends as the bits say.
    fn taken<'a>(
        mut messages: impl DoubleEndedIterator<Item = &'a Arc<Message>>,
        ends: u64,
    ) -> Vec<u64> {
        let (mut front, mut back) = (Vec::new(), Vec::new());
        for turn in 0.. {
            let from_back = ends >> (turn % 64) & 1 == 1;
            let next = if from_back {
                messages.next_back()
            } else {
                messages.next()
            };
            let Some(message) = next else { break };
            if from_back { &mut back } else { &mut front }.push(message.id);
        }
        back.reverse();
        front.extend(back);
        front
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn reads_between_all_ids_and_both_ways_are_those_of_plain_lists(
            entries in prop::collection::vec(
                (prop::collection::vec((0..USERS, prop_oneof![0..USERS, GROUPS..GROUPS + 2]), 0..5), 0..3_u8, any::<bool>()),
                1..12,
            ),
            ids in 1..8_u64,
            ends in any::<u64>(),
        ) {
            let mut story = Story::of_ids(ids);
            for (messages, seals, close) in entries {
                story.entry(&messages);
                if close {
                    story.tail.close_window();
                }
                for _ in 0..seals {
                    story.seal();
                }
                story.check((0, u64::MAX), ends);
            }
            let heads = story.applied.heads;
            prop_assert_eq!(story.tail.heads(), heads);
            let last = heads.direct.max(heads.group) + 2;
            for after in 5..last {
                for upto in 5..last {
                    story.check((after, upto), ends);
                }
            }
            story.tail.close_window();
            while story.tail.oldest().is_some() {
                story.seal();
            }
            prop_assert_eq!(story.tail.bytes(), 0);
            prop_assert_eq!(story.tail.read().base(), heads);
            prop_assert_eq!(story.tail.sealed_offset(), story.applied.offset);
            story.check((0, u64::MAX), ends);
        }
    }

    #[test]
    fn a_window_ends_with_its_ids_or_with_what_it_takes_and_never_without_anything() {
        let mut story = Story::of_ids(3);
        story.tail.close_window();
        assert!(story.tail.oldest().is_none(), "it was empty");
        story.entry(&[(1, 2), (1, GROUPS)]);
        assert!(story.tail.oldest().is_none());
        // An entry is not divided.
        story.entry(&[(1, 2), (2, 1), (1, 1)]);
        let window = story.tail.oldest().unwrap();
        let ids = window.ids();
        assert_eq!((ids.direct, ids.group), (4, 1));
        assert_eq!(window.applied, story.applied);
        story.seal();
        story.tail.close_window();
        assert!(story.tail.oldest().is_none(), "it was empty");

        // What has no ids takes memory, too.
        let bytes = 1000;
        let size = WindowSize { ids: 1000, bytes };
        let mut story = Story::new(size);
        for entry in 1..=100_u64 {
            story.entry(&[]);
            assert_eq!(story.tail.oldest().is_some(), entry * 64 >= bytes);
        }
        let change = || Change::ChannelClosed { user: 1, last: 1 };
        let name = |number| Addition::User {
            name: user(number),
            number,
        };
        for (additions, changes) in [(9, 0), (0, 9)] {
            let mut story = Story::new(size);
            story.write(Writes {
                additions: (1..=additions).map(name).collect(),
                changes: (0..changes).map(|_| change()).collect(),
                keys_ms: 0,
            });
            assert!(story.tail.oldest().is_some());
            assert!(story.tail.bytes() >= bytes);
            story.seal();
            assert_eq!(story.tail.bytes(), 0);
        }
    }

    #[test]
    fn names_are_found_in_all_windows_and_the_last_closing_of_a_channel_counts() {
        let mut story = Story::of_ids(1);
        for number in 1..=9 {
            let message = story.message(0, 1);
            let name = Addition::User {
                name: user(u32::try_from(number).unwrap()),
                number: 1,
            };
            let closed = Change::ChannelClosed {
                user: 1,
                last: number,
            };
            story.write(Writes {
                additions: vec![name, message],
                changes: (number % 3 == 1).then_some(closed).into_iter().collect(),
                keys_ms: 0,
            });
        }
        let check = |sealed: u64, tail: &Reading<'_>| {
            // 7 is the last that was closed.
            assert_eq!(tail.forgotten(1), (sealed < 7).then_some(7));
            assert_eq!(tail.forgotten(2), None);
            for number in 0..=10_u32 {
                let there = sealed < u64::from(number) && number < 10;
                assert_eq!(tail.user(&user(number)), there.then_some(1));
            }
        };
        for sealed in 0..9 {
            check(sealed, &story.tail.read());
            story.seal();
        }
        check(9, &story.tail.read());
    }

    #[test]
    fn who_waits_for_a_window_gets_it_and_learns_of_the_end() {
        let mut story = Story::of_ids(2);
        let now = Duration::ZERO;
        assert!(matches!(story.tail.next_to_seal(now), ToSeal::NotYet));
        let tail = Arc::new(std::mem::replace(&mut story.tail, Story::of_ids(2).tail));
        let other = Arc::clone(&tail);
        scope(|scope| {
            let window = scope.spawn(|| other.next_to_seal(PATIENCE));
            let addition = story.message(1, 2);
            let writes = Writes {
                additions: vec![addition],
                ..Writes::default()
            };
            tail.add(writes, story.applied, 1, || ());
            tail.close_window();
            let window = window.join().unwrap();
            assert!(matches!(window, ToSeal::Window(window) if window.ids().direct == 1));
        });
        let window = tail.oldest().unwrap();
        tail.sealed(&window);
        scope(|scope| {
            let end = scope.spawn(|| other.next_to_seal(PATIENCE));
            tail.end(Duration::ZERO);
            assert!(matches!(end.join().unwrap(), ToSeal::End));
        });
        let addition = story.message(1, 2);
        let writes = Writes {
            additions: vec![addition],
            ..Writes::default()
        };
        tail.add(writes, story.applied, 1, || ());
        tail.close_window();
        assert!(matches!(tail.next_to_seal(PATIENCE), ToSeal::End));
        assert!(tail.oldest().is_some(), "it is still read");
    }

    /// Whatever is added and let go of meanwhile.
    #[test]
    fn a_reading_has_all_that_is_between_where_it_begins_and_ends() {
        for ids in [1, 2, 3, 7] {
            let Story {
                tail, mut applied, ..
            } = Story::of_ids(ids);
            let done = AtomicBool::new(false);
            scope(|scope| {
                scope.spawn(|| {
                    for number in 0..2000_u32 {
                        let (from, to) = (number % 2, number % 3);
                        applied.heads.direct += 1;
                        let message = Arc::new(Message {
                            id: applied.heads.direct,
                            prev: 0,
                            n: 1,
                            at_ms: 1,
                            from: user(from),
                            to: Receiver::User(user(to)),
                            body: Body::from(b"1".to_vec()),
                        });
                        applied.offset += 1;
                        let writes = Writes {
                            additions: vec![Addition::DirectMessage {
                                message,
                                from,
                                to,
                                group_head: 0,
                            }],
                            ..Writes::default()
                        };
                        tail.add(writes, applied, 1, || ());
                    }
                    done.store(true, Ordering::Release);
                });
                scope.spawn(|| {
                    while !done.load(Ordering::Acquire) || tail.oldest().is_some() {
                        if let ToSeal::Window(window) = tail.next_to_seal(Duration::ZERO) {
                            tail.sealed(&window);
                        }
                    }
                });
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !done.load(Ordering::Acquire) {
                            let reading = tail.read();
                            let (base, heads) = (reading.base().direct, reading.heads().direct);
                            let there = |id: &u64| reading.message(Sequence::Direct, *id).is_some();
                            assert!((base + 1..=heads).all(|id| there(&id)), "{base} {heads}");
                            assert!(!there(&base) && !there(&(heads + 1)));
                            let name = user(0);
                            let own = reading.inbox(&name, base, heads);
                            let expected = (base + 1..=heads).filter(|id| {
                                let number = id - 11;
                                number % 2 == 0 || number % 3 == 0
                            });
                            assert!(own.map(|message| message.id).eq(expected));
                        }
                    });
                }
            });
            tail.close_window();
            while let Some(window) = tail.oldest() {
                tail.sealed(&window);
            }
            assert_eq!(tail.bytes(), 0);
        }
    }
}
