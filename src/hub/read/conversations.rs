//! The list of a user's conversations and groups, newest first.
//!
//! Within a sequence ids rise with time. Conversations are kept in the order of their last ids: no more are read than
//! the page has lines, and those before it. Groups are gone through, but for the last id of each there is seldom
//! anything to read. Messages are read for the page alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::list_tail::GroupTail;
use crate::error::Error;
use crate::hub::{Failure, Hub, Inner};
use crate::model::{
    ConversationEntry, ConversationPage, ConversationToken, GroupName, Message, PageLimit,
    Position, Sequence, UserName,
};
use crate::store::View;

/// Lists that are made at once, one for each user: one may go through all that its user has, and other reads need
/// threads, too.
pub(in crate::hub) const LISTS_MAX: usize = 4;

/// What an entry takes beside its name and its last message.
const AROUND_ENTRY_BYTES: usize = 64;

/// Behind which all lines stand.
const FIRST: ConversationToken = ConversationToken {
    at_ms: u64::MAX,
    sequence: Sequence::Group,
    id: u64::MAX,
};

/// A line of the list, and its place.
type Line = Result<(ConversationToken, ConversationEntry), Failure>;

/// A group of the list. Lines sort by the first member.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct GroupLine<P> {
    /// The last message that the user may see; or, where there is none, the place in the list.
    place: P,
    group: GroupName,
    /// Whether the user is in it.
    member: bool,
}

/// The ids at the places of groups without a message are the groups' numbers and this: no message has one.
const NO_MESSAGE: u64 = 1 << 63;

impl<P> GroupLine<P> {
    fn entry(self, last: Option<Arc<Message>>) -> ConversationEntry {
        let Self { group, member, .. } = self;
        ConversationEntry::Group {
            group,
            member,
            last,
        }
    }
}

impl Hub {
    /// Part of a user's conversations and groups, newest first, up to a limit. Waits for its turn: a user has one
    /// list made at a time.
    pub async fn conversations(
        &self,
        user: UserName,
        before: Option<ConversationToken>,
        limit: PageLimit,
    ) -> Result<ConversationPage, Error> {
        let turn = self.0.lists.take(&user).await?;
        self.blocking(move |inner, view| {
            // Kept until the read ends, also when its caller has gone: it goes on without them.
            let _turn = turn;
            inner.conversations(view, &user, before.unwrap_or(FIRST), limit)
        })
        .await
    }
}

/// What may be on a page, newest first.
struct Lines {
    /// Ids of the last messages.
    direct: Vec<u64>,
    groups: Newest<GroupLine<u64>>,
    silent: Newest<GroupLine<ConversationToken>>,
}

impl Inner {
    fn conversations(
        &self,
        view: &View,
        user: &UserName,
        before: ConversationToken,
        limit: PageLimit,
    ) -> Result<ConversationPage, Failure> {
        let tail = self.list_tail(view, user)?;
        let (base, heads) = (tail.base, tail.heads);
        let mut upto = Position::default();
        for sequence in Sequence::ALL {
            *upto.of_mut(sequence) = self.last_behind(view, before, sequence, heads)?;
        }
        // One more than the page has, to know whether it is the last.
        let most = limit.messages + 1;
        let direct = tail.last_direct(view, user, upto.direct, most)?;
        let mut groups = Newest::new(most);
        let mut silent = Newest::new(most);
        for tail in tail.groups {
            let last = tail.last(view, base.group)?;
            let GroupTail {
                group,
                member,
                joined_ms,
                ..
            } = tail;
            let number = group.number;
            let group = group.name.clone();
            match last {
                Some(place) if place <= upto.group => groups.add(GroupLine {
                    place,
                    group,
                    member,
                }),
                Some(_) => {}
                None => {
                    let place = place(Sequence::Group, joined_ms, NO_MESSAGE | u64::from(number));
                    if place < before {
                        silent.add(GroupLine {
                            place,
                            group,
                            member,
                        });
                    }
                }
            }
        }
        let lines = Lines {
            direct,
            groups,
            silent,
        };
        self.page(view, user, lines, limit)
    }

    /// The last id of a sequence whose message stands behind a place in the list.
    fn last_behind(
        &self,
        view: &View,
        before: ConversationToken,
        sequence: Sequence,
        heads: Position,
    ) -> Result<u64, Failure> {
        let (mut behind, mut last) = (self.floor.of(sequence), heads.of(sequence));
        if before == FIRST {
            return Ok(last);
        }
        while behind < last {
            let id = last - (last - behind) / 2;
            let at_ms = self.message(view, sequence, id)?.at_ms;
            if place(sequence, at_ms, id) < before {
                behind = id;
            } else {
                last = id - 1;
            }
        }
        Ok(behind)
    }
}

fn place(sequence: Sequence, at_ms: u64, id: u64) -> ConversationToken {
    ConversationToken {
        at_ms,
        sequence,
        id,
    }
}

impl Inner {
    /// Reads the messages of a page, the newest first, until it is full.
    fn page(
        &self,
        view: &View,
        user: &UserName,
        lines: Lines,
        limit: PageLimit,
    ) -> Result<ConversationPage, Failure> {
        let Lines {
            direct,
            groups,
            silent,
        } = lines;
        let mut direct = direct
            .into_iter()
            .map(|id| -> Line {
                let last = self.message(view, Sequence::Direct, id)?;
                let to = last.recipient().filter(|_| last.from == *user);
                let peer = to.unwrap_or(&last.from).clone();
                let place = place(Sequence::Direct, last.at_ms, id);
                Ok((place, ConversationEntry::Direct { peer, last }))
            })
            .peekable();
        let mut spoken = groups
            .sorted()
            .map(|line| -> Line {
                let last = self.message(view, Sequence::Group, line.place)?;
                let place = place(Sequence::Group, last.at_ms, last.id);
                Ok((place, line.entry(Some(last))))
            })
            .peekable();
        let mut silent = silent
            .sorted()
            .map(|line| -> Line { Ok((line.place, line.entry(None))) })
            .peekable();
        let (mut entries, mut next, mut room) = (Vec::new(), None, limit.page());
        loop {
            let places = [
                place_of(direct.peek()),
                place_of(spoken.peek()),
                place_of(silent.peek()),
            ];
            let newest = places.iter().max();
            let line = if Some(&places[0]) == newest {
                direct.next()
            } else if Some(&places[1]) == newest {
                spoken.next()
            } else {
                silent.next()
            };
            let Some(line) = line else {
                return Ok(ConversationPage {
                    entries,
                    next: None,
                });
            };
            let (place, entry) = line?;
            if !room.take(bytes_of(&entry, limit)) {
                return Ok(ConversationPage { entries, next });
            }
            next = Some(place);
            entries.push(entry);
        }
    }
}

/// What cannot be read comes first, so that it is not passed over.
fn place_of(line: Option<&Line>) -> Option<ConversationToken> {
    line.map(|line| line.as_ref().map_or(FIRST, |(place, _)| *place))
}

/// The most bytes that an entry takes: every character of its name may be written as an escape of two.
fn bytes_of(entry: &ConversationEntry, limit: PageLimit) -> usize {
    let (name, last) = match entry {
        ConversationEntry::Direct { peer, last } => (peer.as_str(), Some(last)),
        ConversationEntry::Group { group, last, .. } => (group.as_str(), last.as_ref()),
    };
    AROUND_ENTRY_BYTES + 2 * name.len() + last.map_or(0, |last| (limit.size_of)(last))
}

/// The greatest of all that is added, no more than a number of them.
struct Newest<T> {
    most: usize,
    kept: BinaryHeap<Reverse<T>>,
}

impl<T: Ord> Newest<T> {
    fn new(most: usize) -> Self {
        let kept = BinaryHeap::new();
        Self { most, kept }
    }

    fn add(&mut self, line: T) {
        self.kept.push(Reverse(line));
        if self.kept.len() > self.most {
            self.kept.pop();
        }
    }

    /// The greatest first.
    fn sorted(self) -> impl Iterator<Item = T> {
        let lines = self.kept.into_sorted_vec().into_iter();
        lines.map(|Reverse(line)| line)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::clock;
    use crate::hub::{Durability, GroupChange, Options, WindowSize};
    use crate::model::{Body, Bound, Draft, Receiver};

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    /// Pushes in a millisecond of its own.
    async fn push(hub: &Hub, from: &str, to: Receiver) {
        let draft = Draft {
            from: user(from),
            to,
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        };
        let receipt = hub.push(vec![draft]).await.unwrap().remove(0).unwrap();
        while clock::now_ms() <= receipt.at_ms {
            tokio::task::yield_now().await;
        }
    }

    /// Joins in a millisecond of its own.
    async fn join(hub: &Hub, name: &str, group: GroupName) {
        let change = GroupChange::Members {
            add: vec![user(name)],
            remove: Vec::new(),
        };
        hub.change_group(group, change).await.unwrap();
        let joined_ms = clock::now_ms();
        while clock::now_ms() <= joined_ms {
            tokio::task::yield_now().await;
        }
    }

    async fn make(hub: &Hub, group: GroupName) {
        let change = GroupChange::Set {
            members: Some(vec![user("ann")]),
            history: None,
        };
        hub.change_group(group, change).await.unwrap();
    }

    /// The names in a whole list, read in pages of so many lines; those without a message in brackets.
    async fn names(hub: &Hub, limit: usize) -> Vec<String> {
        let (mut names, mut before) = (Vec::new(), None);
        loop {
            let limit = PageLimit::count(limit);
            let page = hub.conversations(user("bob"), before, limit).await.unwrap();
            names.extend(page.entries.into_iter().map(|entry| match entry {
                ConversationEntry::Direct { peer, .. } => peer.as_str().to_owned(),
                ConversationEntry::Group { group, last, .. } => match last {
                    Some(_) => group.as_str().to_owned(),
                    None => format!("({})", group.as_str()),
                },
            }));
            before = page.next;
            if before.is_none() {
                return names;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_group_without_a_message_stands_where_the_user_joined() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::open(Options::small(folder.path())).unwrap();
        let to_bob = || Receiver::User(user("bob"));
        for name in ["empty-1", "empty-2"] {
            make(&hub, group(name)).await;
            join(&hub, "bob", group(name)).await;
        }
        for (name, peer) in [("early", "cyd"), ("late", "dan"), ("again", "eve")] {
            make(&hub, group(name)).await;
            if name != "late" {
                push(&hub, "ann", Receiver::Group(group(name))).await;
            }
            push(&hub, "fay", to_bob()).await;
            join(&hub, "bob", group(name)).await;
            push(&hub, peer, to_bob()).await;
        }
        let joined = ["eve", "(again)", "fay", "dan", "(late)", "cyd", "(early)"];
        let empty = ["(empty-2)", "(empty-1)"];
        let expected = [&joined[..], &empty[..]].concat();
        for limit in 1..=9 {
            assert_eq!(names(&hub, limit).await, expected, "by {limit}");
        }
        // Leaving and joining again is joining; a message that may be seen counts more.
        let left = GroupChange::Members {
            add: Vec::new(),
            remove: vec![user("bob")],
        };
        hub.change_group(group("early"), left).await.unwrap();
        push(&hub, "ann", Receiver::Group(group("early"))).await;
        join(&hub, "bob", group("early")).await;
        push(&hub, "ann", Receiver::Group(group("late"))).await;
        hub.close();
        let hub = Hub::open(Options::small(folder.path())).unwrap();
        let joined = ["late", "(early)", "eve", "(again)", "fay", "dan", "cyd"];
        let expected = [&joined[..], &empty[..]].concat();
        for limit in 1..=9 {
            assert_eq!(names(&hub, limit).await, expected, "by {limit}");
        }
        hub.close();
    }

    #[tokio::test]
    async fn lists_wait_for_their_turn_hold_up_no_other_reading_and_may_be_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::open(Options::small(folder.path())).unwrap();
        let ten = PageLimit::count(10);
        let list = || hub.conversations(user("bob"), None, ten);
        let mut taken = Vec::new();
        for n in 0..LISTS_MAX {
            taken.push(hub.0.lists.take(&user(&format!("user-{n}"))).await);
        }
        let soon = Duration::from_millis(20);
        for _ in 0..10 {
            // Each of them hangs up.
            assert!(timeout(soon, list()).await.is_err());
        }
        let history = hub.direct_history(user("bob"), user("ann"), Bound::Newest, ten);
        assert!(history.await.unwrap().messages.is_empty());
        drop(taken);
        for _ in 0..10 {
            assert!(list().await.unwrap().entries.is_empty());
        }
        assert_eq!(hub.0.lists.free(), LISTS_MAX);
        hub.close();
    }

    #[test]
    fn however_many_lists_a_user_asks_for_one_is_made_at_a_time() {
        const LISTS: usize = 20;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::open(Options::small(folder.path())).unwrap();
        // No reading gets on as long as this has the only thread for them.
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let stalled = runtime.spawn_blocking(move || wait.recv());
        let ask = |name| {
            let hub = hub.clone();
            runtime.spawn(async move {
                hub.conversations(user(name), None, PageLimit::count(10))
                    .await
            })
        };
        let bobs: Vec<_> = (0..LISTS).map(|_| ask("bob")).collect();
        let others = ["ann", "cyd"].map(ask);
        runtime.block_on(async {
            // Each task gets as far as it can.
            for _ in 0..LISTS * 10 {
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(hub.0.lists.free(), LISTS_MAX - 3, "one turn a user");
        go_on.send(()).unwrap();
        runtime.block_on(async {
            stalled.await.unwrap().unwrap();
            for list in bobs.into_iter().chain(others) {
                assert!(list.await.unwrap().unwrap().entries.is_empty());
            }
        });
        assert_eq!((hub.0.lists.free(), hub.0.lists.users()), (LISTS_MAX, 0));
        hub.close();
    }

    /// Those whom the list names, and what they said last, against a plain model: some write often and some once, so
    /// that all of them are spread over the tail and all kinds of rows.
    #[tokio::test]
    async fn a_long_list_is_in_the_order_of_the_last_messages_wherever_they_are() {
        const MESSAGES: u64 = 3000;
        let folder = tempfile::tempdir().unwrap();
        let options = || Options {
            durability: Durability::Interval,
            window: WindowSize::of(150),
            ..Options::small(folder.path())
        };
        let mut hub = Hub::open(options()).unwrap();
        let mut last: HashMap<String, u64> = HashMap::new();
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        for batch in 1..=MESSAGES / 50 {
            let mut drafts = Vec::new();
            let rare = batch * 4;
            let mut peers = Vec::new();
            for _ in 0..50 {
                let peer = match next(3) {
                    0 => next(5),
                    1 => next(rare),
                    _ => rare,
                };
                let peer = format!("peer-{peer}");
                let (from, to) = if next(2) == 0 {
                    ("bob", &*peer)
                } else {
                    (&*peer, "bob")
                };
                drafts.push(Draft {
                    from: user(from),
                    to: Receiver::User(user(to)),
                    body: Body::from(b"1".to_vec()),
                    key: None,
                    by_user: false,
                });
                peers.push(peer);
            }
            for (peer, receipt) in peers.into_iter().zip(hub.push(drafts).await.unwrap()) {
                last.insert(peer, receipt.unwrap().id);
            }
            if batch % 13 == 0 {
                hub.close();
                hub = Hub::open(options()).unwrap();
            }
            let limit = 1 + usize::try_from(next(60)).unwrap();
            let mut expected: Vec<_> = last.iter().map(|(peer, id)| (*id, peer.clone())).collect();
            expected.sort_unstable_by(|one, other| other.cmp(one));
            let (mut found, mut before) = (Vec::new(), None);
            loop {
                let page = PageLimit::count(limit);
                let page = hub.conversations(user("bob"), before, page).await.unwrap();
                for entry in page.entries {
                    let ConversationEntry::Direct { peer, last } = entry else {
                        panic!("there is no group");
                    };
                    found.push((last.id, peer.as_str().to_owned()));
                }
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "by {limit}");
        }
        assert!(last.len() > 200, "more than a row of any kind holds");
        hub.close();
    }

    /// What is sealed behind the look at the tail has taken the place of what was before in the view.
    #[tokio::test]
    async fn a_list_that_is_overtaken_by_what_is_sealed_is_as_it_was() {
        const PEERS: u64 = 300;
        let folder = tempfile::tempdir().unwrap();
        let hub = Hub::open(Options::small(folder.path())).unwrap();
        let all = || async {
            let draft = |n| Draft {
                from: user(&format!("peer-{n}")),
                to: Receiver::User(user("bob")),
                body: Body::from(b"1".to_vec()),
                key: None,
                by_user: false,
            };
            let drafts = (0..PEERS).map(draft).collect();
            hub.push(drafts).await.unwrap();
            hub.seal_all();
        };
        all().await;
        let view = hub.0.view.read().unwrap().clone().unwrap();
        let tail = hub.0.list_tail(&view, &user("bob")).unwrap();
        let read = || tail.last_direct(&view, &user("bob"), PEERS, 400).unwrap();
        let expected: Vec<_> = (1..=PEERS).rev().collect();
        assert_eq!(read(), expected);
        // The same peers again: each has a later message in the rows.
        all().await;
        assert_eq!(read(), expected);
        drop(view);
        hub.close();
    }

    #[test]
    fn the_newest_are_kept_and_no_more() {
        let mut newest = Newest::new(3);
        for line in [5, 1, 9, 7, 3] {
            newest.add(line);
        }
        assert_eq!(newest.kept.len(), 3);
        assert_eq!(newest.sorted().collect::<Vec<_>>(), [9, 7, 5]);
    }
}
