//! Random pushes, joins, leaves, reads and restarts against a model in memory: what the hub says must be what
//! the model says, whatever happens to sled in between.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use halley::error::Error;
use halley::hub::{Caches, Durability, Feed, GroupChange, HistoryMode, Hub, Options, WindowSize};
use halley::model::{
    After, Body, Bound, ConversationEntry, Cursor, Draft, GroupName, HistoryPage, IdempotencyKey,
    Message, PageLimit, Receipt, Receiver, Sequence, Transport, UserName,
};
use proptest::prelude::*;
use serde_json::value::RawValue;

const USERS: u8 = 5;
const GROUPS: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(10);
/// The user and the group that stand for icomet.
const ICOMET: u8 = 99;

#[derive(Clone, Debug)]
enum Op {
    Direct {
        from: u8,
        to: u8,
        key: Option<u8>,
        by_user: bool,
    },
    Group {
        from: u8,
        group: u8,
        key: Option<u8>,
        by_user: bool,
    },
    Set {
        group: u8,
        members: BTreeSet<u8>,
        all: Option<bool>,
    },
    Change {
        group: u8,
        add: BTreeSet<u8>,
        remove: BTreeSet<u8>,
    },
    Delete {
        group: u8,
    },
    Read {
        user: u8,
        limit: usize,
    },
    Open {
        user: u8,
    },
    Close {
        user: u8,
    },
    Broadcast,
    Restart(Restart),
}

#[derive(Clone, Copy, Debug)]
enum Restart {
    Clean,
    /// As after a kill: sled is there, but unmarked.
    Unmarked,
    SledGone,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let user = || 0..USERS;
    let group = || 0..GROUPS;
    let some = || proptest::collection::btree_set(0..USERS, 0..4);
    let key = || proptest::option::weighted(0.3, 0..6u8);
    let op = prop_oneof![
        8 => (user(), user(), key(), any::<bool>())
            .prop_map(|(from, to, key, by_user)| Op::Direct { from, to, key, by_user }),
        8 => (user(), group(), key(), any::<bool>())
            .prop_map(|(from, group, key, by_user)| Op::Group { from, group, key, by_user }),
        3 => (group(), some(), proptest::option::of(any::<bool>()))
            .prop_map(|(group, members, all)| Op::Set { group, members, all }),
        3 => (group(), some(), some()).prop_map(|(group, add, remove)| Op::Change { group, add, remove }),
        1 => group().prop_map(|group| Op::Delete { group }),
        1 => user().prop_map(|user| Op::Open { user }),
        1 => user().prop_map(|user| Op::Close { user }),
        3 => Just(Op::Broadcast),
        6 => (user(), 1..6usize).prop_map(|(user, limit)| Op::Read { user, limit }),
        1 => prop_oneof![Just(Restart::Clean), Just(Restart::Unmarked), Just(Restart::SledGone)]
            .prop_map(Op::Restart),
    ];
    proptest::collection::vec(op, 1..70)
}

fn user(number: u8) -> UserName {
    if number == ICOMET {
        return halley::hub::icomet_user();
    }
    UserName::parse(&format!("user-{number}")).unwrap()
}

fn group(number: u8) -> GroupName {
    if number == ICOMET {
        return halley::hub::icomet_group();
    }
    GroupName::parse(&format!("group-{number}")).unwrap()
}

/// The number at the end of a name.
fn number(of: &Receiver) -> u8 {
    let name = match of {
        Receiver::User(name) => name.as_str(),
        Receiver::Group(name) => name.as_str(),
    };
    name.rsplit('-').next().unwrap().parse().unwrap()
}

#[derive(Clone, Debug)]
struct Interval {
    from: u64,
    until: Option<u64>,
    all: bool,
}

#[derive(Debug, Default)]
struct ModelGroup {
    alive: bool,
    all: bool,
    /// Of each user, oldest first.
    intervals: BTreeMap<u8, Vec<Interval>>,
}

impl ModelGroup {
    fn is_member(&self, user: u8) -> bool {
        self.intervals
            .get(&user)
            .and_then(|all| all.last())
            .is_some_and(|last| last.until.is_none())
    }

    fn leave(&mut self, user: u8, last: u64) -> u64 {
        if !self.is_member(user) {
            return 0;
        }
        let intervals = self.intervals.get_mut(&user).unwrap();
        let interval = intervals.last_mut().unwrap();
        interval.until = Some(last);
        // Who could read nothing was never there.
        if interval.from == last && !(interval.all && last > 0) {
            intervals.pop();
        }
        1
    }

    fn join(&mut self, user: u8, last: u64) -> u64 {
        if self.is_member(user) {
            return 0;
        }
        let intervals = self.intervals.entry(user).or_default();
        // A user who rejoins where they left keeps what they could read.
        let back = intervals.pop_if(|interval| interval.from == last);
        intervals.push(Interval {
            from: last,
            until: None,
            all: self.all || back.is_some(),
        });
        1
    }

    fn sees(&self, user: u8, id: u64, history: bool) -> bool {
        self.intervals
            .get(&user)
            .into_iter()
            .flatten()
            .any(|interval| {
                let from = if history && interval.all {
                    0
                } else {
                    interval.from
                };
                from < id && interval.until.is_none_or(|until| id <= until)
            })
    }
}

#[derive(Debug, Default)]
struct Model {
    messages: Vec<(Sequence, u64, u64, u8, u8, String)>,
    groups: BTreeMap<u8, ModelGroup>,
    keys: HashMap<String, (Receipt, String)>,
    channels: BTreeMap<u8, Vec<(Sequence, u64)>>,
    /// How many messages there were when a channel was opened.
    opened: BTreeMap<u8, usize>,
    /// How many numbers of a channel were forgotten.
    forgotten: BTreeMap<u8, usize>,
}

impl Model {
    fn last_of_group(&self, group: u8) -> u64 {
        let of_group =
            |m: &&(Sequence, u64, u64, u8, u8, String)| m.0 == Sequence::Group && m.4 == group;
        self.messages.iter().rev().find(of_group).map_or(0, |m| m.1)
    }

    fn last_of_pair(&self, one: u8, other: u8) -> u64 {
        let of_pair = |m: &&(Sequence, u64, u64, u8, u8, String)| {
            m.0 == Sequence::Direct && ((m.3, m.4) == (one, other) || (m.3, m.4) == (other, one))
        };
        self.messages.iter().rev().find(of_pair).map_or(0, |m| m.1)
    }

    /// Ids with their numbers: how many messages its conversation or group had with each.
    fn numbered(&self, sequence: Sequence, ids: &[u64]) -> Vec<(u64, u64)> {
        let chain = |m: &(Sequence, u64, u64, u8, u8, String)| match sequence {
            Sequence::Direct => (m.3.min(m.4), m.3.max(m.4)),
            Sequence::Group => (m.4, m.4),
        };
        let own = || self.messages.iter().filter(|m| m.0 == sequence);
        let number = |id: &u64| {
            let message = own().find(|m| m.1 == *id).unwrap();
            let before = own().filter(|m| m.1 <= *id && chain(m) == chain(message));
            (*id, u64::try_from(before.count()).unwrap())
        };
        ids.iter().map(number).collect()
    }

    fn head(&self, sequence: Sequence) -> u64 {
        self.messages
            .iter()
            .filter(|m| m.0 == sequence)
            .map(|_| 1)
            .sum()
    }

    fn open(&mut self, user: u8) {
        if self.channels.contains_key(&user) {
            return;
        }
        self.channels.insert(user, Vec::new());
        self.opened.insert(user, self.messages.len());
        let last = self.last_of_group(ICOMET);
        let group = self.groups.entry(ICOMET).or_default();
        group.alive = true;
        group.join(user, last);
    }

    /// The number with which the channel goes on, if it was open: as if all messages since had been for the user.
    fn close(&mut self, user: u8) -> Option<u64> {
        self.channels.remove(&user)?;
        let forgotten = self.forgotten.entry(user).or_default();
        *forgotten += self.messages.len() - self.opened[&user];
        let next = u64::try_from(*forgotten).unwrap() + 1;
        let last = self.last_of_group(ICOMET);
        if let Some(group) = self.groups.get_mut(&ICOMET) {
            group.leave(user, last);
        }
        Some(next)
    }

    /// A new message gets its numbers.
    fn count(&mut self, sequence: Sequence, id: u64, from: u8, to: u8) {
        for (user, channel) in &mut self.channels {
            let theirs = match sequence {
                Sequence::Direct => to == *user,
                Sequence::Group => from != *user && self.groups[&to].is_member(*user),
            };
            if theirs {
                channel.push((sequence, id));
            }
        }
    }

    /// Ids of the inbox, by sequence.
    fn inbox(&self, user: u8, sequence: Sequence) -> Vec<u64> {
        let seen = |m: &&(Sequence, u64, u64, u8, u8, String)| {
            m.0 == sequence
                && match sequence {
                    Sequence::Direct => m.3 == user || m.4 == user,
                    Sequence::Group => self.groups[&m.4].sees(user, m.1, false),
                }
        };
        self.messages.iter().filter(seen).map(|m| m.1).collect()
    }

    fn group_history(&self, user: u8, group: u8) -> Vec<u64> {
        let Some(facts) = self.groups.get(&group) else {
            return Vec::new();
        };
        let seen = |m: &&(Sequence, u64, u64, u8, u8, String)| {
            m.0 == Sequence::Group && m.4 == group && facts.sees(user, m.1, true)
        };
        self.messages.iter().filter(seen).map(|m| m.1).collect()
    }

    fn pair_history(&self, one: u8, other: u8) -> Vec<u64> {
        let of_pair = |m: &&(Sequence, u64, u64, u8, u8, String)| {
            m.0 == Sequence::Direct && ((m.3, m.4) == (one, other) || (m.3, m.4) == (other, one))
        };
        self.messages.iter().filter(of_pair).map(|m| m.1).collect()
    }
}

struct World {
    hub: Hub,
    data: tempfile::TempDir,
    model: Model,
    /// What each user has read so far, and their cursor.
    readers: BTreeMap<u8, (Cursor, Vec<Message>)>,
    feeds: BTreeMap<u8, Feed>,
    pushes: u64,
}

fn open(data: &Path) -> Hub {
    Hub::open(Options {
        tail_bytes_max: 256 << 20,
        // A few messages, so that every reading crosses from the view into the tail somewhere.
        window: WindowSize {
            ids: 5,
            bytes: 1 << 20,
        },
        // Less than all users take.
        caches: Caches {
            memberships_bytes: 700,
            values: 1,
        },
        data: data.to_owned(),
        durability: Durability::Always,
        cache_bytes: 8 << 20,
        disk_free_min_bytes: 0,
        queue_bytes_max: 1 << 20,
        waiters_per_user_max: 10,
        channels_max: usize::MAX,
    })
    .unwrap()
}

impl World {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path());
        let (model, readers, feeds) = (Model::default(), BTreeMap::new(), BTreeMap::new());
        Self {
            hub,
            data,
            model,
            readers,
            feeds,
            pushes: 0,
        }
    }

    async fn run(&mut self, op: &Op) {
        match op {
            Op::Direct {
                from,
                to,
                key,
                by_user,
            } => {
                self.push(*from, Receiver::User(user(*to)), *key, *by_user)
                    .await;
            }
            Op::Group {
                from,
                group: g,
                key,
                by_user,
            } => {
                self.push(*from, Receiver::Group(group(*g)), *key, *by_user)
                    .await;
            }
            Op::Set {
                group: g,
                members,
                all,
            } => self.set(*g, members, *all).await,
            Op::Change {
                group: g,
                add,
                remove,
            } => self.change(*g, add, remove).await,
            Op::Delete { group: g } => self.delete(*g).await,
            Op::Open { user: number } => {
                self.hub.open_channel(&user(*number)).await.unwrap();
                self.model.open(*number);
            }
            Op::Close { user: number } => {
                let next = self.hub.close_channel(user(*number)).await.unwrap();
                assert_eq!(next, self.model.close(*number));
            }
            Op::Broadcast => self.broadcast().await,
            Op::Read { user, limit } => drop(self.read(*user, *limit).await),
            Op::Restart(how) => self.restart(*how).await,
        }
    }

    async fn broadcast(&mut self) {
        let body = Body::from(b"0".to_vec());
        let got = self.hub.broadcast(body).await.unwrap();
        let last = self.model.last_of_group(ICOMET);
        let exists = self.model.groups.contains_key(&ICOMET);
        assert_eq!(got.is_some(), exists);
        let Some(got) = got else {
            return;
        };
        let id = self.model.head(Sequence::Group) + 1;
        assert_eq!((got.id, got.prev), (id, last));
        let message = (Sequence::Group, id, last, ICOMET, ICOMET, "0".into());
        self.model.messages.push(message);
        self.model.count(Sequence::Group, id, ICOMET, ICOMET);
    }

    /// Another body for each push; few, so that a key meets both the same and another content.
    fn text(&mut self, keyed: bool) -> String {
        self.pushes += 1;
        let n = if keyed { self.pushes % 2 } else { self.pushes };
        format!("{{ \"n\" : {n} }}")
    }

    async fn push(&mut self, from: u8, to: Receiver, key: Option<u8>, by_user: bool) {
        let to_number = number(&to);
        let text = self.text(key.is_some());
        let raw: Box<RawValue> = serde_json::from_str(&text).unwrap();
        let sequence = to.sequence();
        let draft = Draft {
            from: user(from),
            to,
            body: Body::from_json(&raw).unwrap(),
            key: key.map(|key| IdempotencyKey::parse(&format!("key {key}")).unwrap()),
            by_user,
        };
        let got = self.hub.push(vec![draft]).await.unwrap().remove(0);
        if sequence == Sequence::Direct && !by_user {
            self.model.open(to_number);
        }
        let whose = if by_user {
            from.to_string()
        } else {
            String::new()
        };
        let space = key.map(|key| format!("{whose}:{key}"));
        let content = format!("{sequence}{to_number}{from}{text}");
        if let Some(known) = space.as_ref().and_then(|space| self.model.keys.get(space)) {
            let expected = if known.1 == content {
                Ok(Receipt {
                    duplicate: true,
                    ..known.0
                })
            } else {
                Err(Error::IdempotencyConflict)
            };
            assert_eq!(got, expected);
            return;
        }
        let prev = match sequence {
            Sequence::Direct => self.model.last_of_pair(from, to_number),
            Sequence::Group => {
                match self
                    .model
                    .groups
                    .get(&to_number)
                    .filter(|group| group.alive)
                {
                    None => return assert_eq!(got, Err(Error::GroupNotFound)),
                    Some(group) if by_user && !group.is_member(from) => {
                        return assert_eq!(got, Err(Error::GroupNotFound));
                    }
                    Some(_) => self.model.last_of_group(to_number),
                }
            }
        };
        let got = got.unwrap();
        let id = self.model.head(sequence) + 1;
        assert_eq!(
            (got.sequence, got.id, got.prev, got.duplicate),
            (sequence, id, prev, false)
        );
        self.model
            .messages
            .push((sequence, id, prev, from, to_number, text));
        self.model.count(sequence, id, from, to_number);
        if let Some(space) = space {
            self.model.keys.insert(space, (got, content));
        }
    }

    async fn set(&mut self, number: u8, members: &BTreeSet<u8>, all: Option<bool>) {
        let history = all.map(|all| {
            if all {
                HistoryMode::All
            } else {
                HistoryMode::Member
            }
        });
        let change = GroupChange::Set {
            members: Some(members.iter().map(|m| user(*m)).collect()),
            history,
        };
        let got = self.hub.change_group(group(number), change).await.unwrap();
        for member in members {
            self.model.open(*member);
        }
        let last = self.model.last_of_group(number);
        let known = self.model.groups.entry(number).or_default();
        assert_eq!(got.made, !known.alive);
        known.alive = true;
        known.all = all.unwrap_or(known.all);
        let removed: u64 = (0..USERS)
            .filter(|m| !members.contains(m))
            .map(|m| known.leave(m, last))
            .sum();
        let added: u64 = members.iter().map(|m| known.join(*m, last)).sum();
        assert_eq!(
            (got.added, got.removed, got.members),
            (added, removed, members.iter().map(|_| 1).sum())
        );
    }

    async fn change(&mut self, number: u8, add: &BTreeSet<u8>, remove: &BTreeSet<u8>) {
        let (joining, leaving) = (
            add.iter().map(|m| user(*m)).collect(),
            remove.iter().map(|m| user(*m)).collect(),
        );
        let change = GroupChange::Members {
            add: joining,
            remove: leaving,
        };
        let got = self.hub.change_group(group(number), change).await;
        for member in add {
            self.model.open(*member);
        }
        let last = self.model.last_of_group(number);
        let Some(known) = self
            .model
            .groups
            .get_mut(&number)
            .filter(|group| group.alive)
        else {
            return assert_eq!(got, Err(Error::GroupNotFound));
        };
        let removed: u64 = remove.iter().map(|m| known.leave(*m, last)).sum();
        let added: u64 = add.difference(remove).map(|m| known.join(*m, last)).sum();
        let got = got.unwrap();
        assert_eq!((got.made, got.added, got.removed), (false, added, removed));
    }

    async fn delete(&mut self, number: u8) {
        let got = self
            .hub
            .change_group(group(number), GroupChange::Delete)
            .await;
        let last = self.model.last_of_group(number);
        let Some(known) = self
            .model
            .groups
            .get_mut(&number)
            .filter(|group| group.alive)
        else {
            return assert_eq!(got, Err(Error::GroupNotFound));
        };
        let removed: u64 = (0..USERS).map(|m| known.leave(m, last)).sum();
        known.alive = false;
        assert_eq!(got.unwrap().removed, removed);
    }

    /// Reads one batch, by an open feed or a new one.
    async fn read(&mut self, number: u8, limit: usize) -> bool {
        let after = self
            .readers
            .get(&number)
            .map_or(After::START, |(cursor, _)| After::Cursor(*cursor));
        let mut feed = match self.feeds.remove(&number) {
            Some(feed) => feed,
            None => self.hub.feed(user(number), after, Transport::Poll).unwrap(),
        };
        let batch = feed.read(PageLimit::count(limit)).await.unwrap();
        assert!(batch.messages.len() <= limit);
        let found: Vec<Message> = batch
            .messages
            .iter()
            .map(|message| (**message).clone())
            .collect();
        let reader = self
            .readers
            .entry(number)
            .or_insert((batch.next, Vec::new()));
        reader.0 = batch.next;
        reader.1.extend(found);
        // Some feeds stay open, as a stream does; some end, as a poll does.
        if limit.is_multiple_of(2) {
            self.feeds.insert(number, feed);
        }
        batch.more
    }

    /// Reads to the end. A feed that stays open is told of a message a moment after its pusher is answered, so an
    /// empty reading is not the end; what never comes is for the check to find.
    async fn read_all(&mut self, number: u8) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while self.read(number, 3).await {}
            let wanted: usize = Sequence::ALL
                .map(|sequence| self.model.inbox(number, sequence).len())
                .iter()
                .sum();
            let (_, read) = &self.readers[&number];
            if read.len() >= wanted || Instant::now() > deadline {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn restart(&mut self, how: Restart) {
        self.feeds.clear();
        let hub = self.hub.clone();
        tokio::task::spawn_blocking(move || hub.close())
            .await
            .unwrap();
        match how {
            Restart::Clean => {}
            Restart::Unmarked => fs::remove_file(self.data.path().join("clean")).unwrap(),
            Restart::SledGone => fs::remove_dir_all(self.data.path().join("sled")).unwrap(),
        }
        let log = self.hub.log();
        self.hub = open(self.data.path());
        assert_eq!(self.hub.log(), log);
    }

    async fn check(&mut self) {
        for number in 0..USERS {
            self.read_all(number).await;
            self.check_inbox(number);
            for other in 0..USERS {
                self.check_pair(number, other).await;
            }
            for other in (0..GROUPS).chain([ICOMET]) {
                self.check_group(number, other).await;
            }
            self.check_channel(number).await;
            self.check_conversations(number).await;
        }
    }

    fn check_inbox(&self, number: u8) {
        let (_, read) = &self.readers[&number];
        for sequence in Sequence::ALL {
            let found: Vec<(u64, u64)> = read
                .iter()
                .filter(|m| m.sequence() == sequence)
                .map(|m| (m.id, m.n))
                .collect();
            let ids = self.model.inbox(number, sequence);
            assert_eq!(
                found,
                self.model.numbered(sequence, &ids),
                "{sequence} inbox of user {number}"
            );
        }
        for message in read {
            let known = self
                .model
                .messages
                .iter()
                .find(|known| known.0 == message.sequence() && known.1 == message.id)
                .unwrap();
            assert_eq!(message.body.as_bytes(), known.5.as_bytes());
            assert_eq!(message.prev, known.2);
            assert_eq!(message.from, user(known.3));
        }
    }

    async fn check_channel(&self, number: u8) {
        let expected = self.model.channels.get(&number);
        let expected = expected.map_or(&[][..], Vec::as_slice);
        let forgotten = self.model.forgotten.get(&number).copied().unwrap_or(0);
        let first = u64::try_from(forgotten).unwrap() + 1;
        let (mut found, mut from) = (Vec::new(), first);
        loop {
            // A client may still ask for what is forgotten.
            let asked = if from == first { 1 } else { from };
            let page = self.hub.channel_page(user(number), asked, 3).await.unwrap();
            let end: usize = page.next.try_into().unwrap();
            assert_eq!(end, forgotten + expected.len() + 1);
            if page.messages.is_empty() {
                break;
            }
            for (at, message) in page.messages {
                assert_eq!(at, from);
                found.push((message.sequence(), message.id));
                from += 1;
            }
        }
        assert_eq!(found, expected, "channel of user {number}");
    }

    async fn check_pair(&self, one: u8, other: u8) {
        let page = |bound, limit| {
            self.hub
                .direct_history(user(one), user(other), bound, PageLimit::count(limit))
        };
        let ids = self.model.pair_history(one, other);
        check_pages(page, &self.model.numbered(Sequence::Direct, &ids)).await;
    }

    async fn check_group(&self, number: u8, other: u8) {
        let facts = self.model.groups.get(&other);
        let intervals = facts.and_then(|facts| facts.intervals.get(&number));
        let page = |bound, limit| {
            self.hub
                .group_history(user(number), group(other), bound, PageLimit::count(limit))
        };
        if intervals.is_none_or(Vec::is_empty) {
            assert_eq!(
                page(Bound::Newest, 1).await.unwrap_err(),
                Error::GroupNotFound
            );
        } else {
            let ids = self.model.group_history(number, other);
            check_pages(page, &self.model.numbered(Sequence::Group, &ids)).await;
        }
    }

    /// A time that was not after a user joined a group: that of the group's last message then, or 0.
    async fn joined_ms(&self, number: u8, group: &GroupName) -> u64 {
        let mut groups = self.model.groups.iter();
        let (_, facts) = groups.find(|(n, _)| self::group(**n) == *group).unwrap();
        let from = facts.intervals[&number].last().unwrap().from;
        if from == 0 {
            return 0;
        }
        let message = self.hub.message(Sequence::Group, from).await;
        message.unwrap().at_ms
    }

    /// The newest come first; a group without a message is not behind what was there before the user joined.
    async fn check_order(&self, number: u8, found: &[ConversationEntry]) {
        let mut last_at = u64::MAX;
        for entry in found {
            match entry {
                ConversationEntry::Direct { last, .. }
                | ConversationEntry::Group {
                    last: Some(last), ..
                } => {
                    assert!(last.at_ms <= last_at);
                    last_at = last.at_ms;
                }
                ConversationEntry::Group { group, .. } => {
                    assert!(self.joined_ms(number, group).await <= last_at);
                }
            }
        }
    }

    async fn check_conversations(&self, number: u8) {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = self
                .hub
                .conversations(user(number), before, PageLimit::count(2))
                .await
                .unwrap();
            found.extend(page.entries);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        self.check_order(number, &found).await;
        let (mut peers, mut groups) = (BTreeMap::new(), BTreeMap::new());
        for entry in found {
            match entry {
                ConversationEntry::Direct { peer, last } => {
                    assert!(peers.insert(peer, last.id).is_none());
                }
                ConversationEntry::Group {
                    group,
                    member,
                    last,
                } => {
                    assert!(
                        groups
                            .insert(group, (member, last.map_or(0, |last| last.id)))
                            .is_none()
                    );
                }
            }
        }
        let expected: BTreeMap<_, _> = (0..USERS)
            .map(|other| (user(other), self.model.last_of_pair(number, other)))
            .filter(|(_, id)| *id > 0)
            .collect();
        assert_eq!(peers, expected);
        let expected: BTreeMap<_, _> = self
            .model
            .groups
            .iter()
            .filter(|(_, facts)| {
                facts
                    .intervals
                    .get(&number)
                    .is_some_and(|all| !all.is_empty())
            })
            .map(|(other, facts)| {
                let last = self
                    .model
                    .group_history(number, *other)
                    .last()
                    .copied()
                    .unwrap_or(0);
                (group(*other), (facts.is_member(number), last))
            })
            .collect();
        assert_eq!(groups, expected);
    }
}

/// Pages through a history both ways: ids and numbers.
async fn check_pages<F>(page: impl Fn(Bound, usize) -> F, expected: &[(u64, u64)])
where
    F: Future<Output = Result<HistoryPage, Error>>,
{
    let (mut forward, mut after) = (Vec::new(), 0);
    loop {
        let page = page(Bound::After(after), 2).await.unwrap();
        forward.extend(page.messages.iter().map(|m| (m.id, m.n)));
        after = forward.last().map_or(0, |(id, _)| *id);
        if !page.more {
            break;
        }
    }
    assert_eq!(forward, expected);
    let (mut backward, mut bound) = (Vec::new(), Bound::Newest);
    loop {
        let page = page(bound, 3).await.unwrap();
        backward.extend(page.messages.iter().rev().map(|m| (m.id, m.n)));
        bound = Bound::Before(backward.last().map_or(1, |(id, _)| *id));
        if !page.more {
            break;
        }
    }
    backward.reverse();
    assert_eq!(backward, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_hub_is_the_model(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for op in &ops {
                world.run(op).await;
            }
            world.check().await;
            world.restart(Restart::Unmarked).await;
            world.check().await;
            world.restart(Restart::SledGone).await;
            world.check().await;
            let hub = world.hub.clone();
            tokio::task::spawn_blocking(move || hub.close()).await.unwrap();
            halley::hub::verify(world.data.path(), 8 << 20, &mut |_, _| {}).unwrap();
        });
    }
}
