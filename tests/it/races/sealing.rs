//! Readers of every kind while windows of a few ids are sealed as fast as they are filled: what is read at the border of
//! tail and view is neither skipped nor given twice, wherever a reader begins and whenever it reads.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use halley::hub::{GroupChange, Hub, WindowSize};
use halley::model::{
    self, After, Body, Bound, ConversationEntry, Cursor, Draft, GroupName, PageLimit, Position,
    Receiver, Sequence, Transport, UserName,
};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::check::{Moved, Sent, Span, check_ids_and_chains, check_inbox, check_reader};
use super::many::STABLE;
use crate::device::{Message, ids};
use crate::support::{PATIENCE, Random, Reader, TestServer, Way};

const USERS: [&str; 4] = ["ann", "bob", "cid", "dora"];
const MOVING: [&str; 2] = ["moving-1", "moving-2"];
const WRITERS: u64 = 6;
const STEPS: u64 = 25;
const MOVES: u64 = 8;
const READERS_EACH: u64 = 32;
/// Who sends the last messages, one to each and one to all.
const END: &str = "end";

type Goal = watch::Receiver<Option<(u64, u64)>>;

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}

fn plain(message: &model::Message) -> Message {
    let (to, group) = match &message.to {
        Receiver::User(to) => (Some(to.as_str().to_owned()), None),
        Receiver::Group(group) => (None, Some(group.as_str().to_owned())),
    };
    Message {
        sequence: message.sequence().to_string(),
        id: message.id,
        prev: message.prev,
        n: message.n,
        from: message.from.as_str().to_owned(),
        to,
        group,
        at: message.at_ms,
        body: serde_json::from_slice(message.body.as_bytes()).unwrap(),
    }
}

struct Shared {
    hub: Hub,
    clock: AtomicU64,
    /// Steps done by writers.
    done: watch::Sender<u64>,
    /// Readers over connections that know where they begin: before the end, which they wait for.
    begun: watch::Sender<usize>,
    /// Where all have read everything, once that is known.
    goal: watch::Sender<Option<(u64, u64)>>,
    /// The last message of each conversation or group whose receipt was given.
    newest: Mutex<HashMap<(String, String), u64>>,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    fn over(&self) -> bool {
        self.goal.borrow().is_some()
    }

    fn heads(&self) -> Position {
        self.hub.status().watermark
    }

    async fn push(&self, drafts: Vec<(String, &'static str, &'static str, u64)>) -> Vec<Sent> {
        let began = self.tick();
        let made = drafts.iter().map(|(from, kind, to, body)| Draft {
            from: user(from),
            to: match *kind {
                "direct" => Receiver::User(user(to)),
                _ => Receiver::Group(group(to)),
            },
            body: Body::from_json(&RawValue::from_string(body.to_string()).unwrap()).unwrap(),
            key: None,
            by_user: false,
        });
        let receipts = self.hub.push(made.collect()).await.unwrap();
        let ended = self.tick();
        let sent = drafts.into_iter().zip(receipts);
        let sent = sent.map(|((from, kind, to, body), receipt)| {
            let receipt = receipt.unwrap();
            let direct = kind == "direct";
            let message = Message {
                sequence: kind.to_owned(),
                id: receipt.id,
                prev: receipt.prev,
                n: 0,
                from,
                to: direct.then(|| to.to_owned()),
                group: (!direct).then(|| to.to_owned()),
                at: receipt.at_ms,
                body: body.into(),
            };
            let mut newest = self.newest.lock().unwrap();
            let last = newest.entry(message.chain()).or_default();
            *last = message.id.max(*last);
            Sent {
                message,
                span: Span { began, ended },
            }
        });
        sent.collect()
    }
}

async fn write(shared: Arc<Shared>, mut random: Random, number: u64) -> Vec<Sent> {
    let mut sent = Vec::new();
    for step in 0..STEPS {
        let messages = if random.percent(30) {
            random.range(2, 6)
        } else {
            1
        };
        let drafts = (0..messages).map(|n| {
            let from = random.of(&USERS).to_owned();
            let body = (number * STEPS + step) * 10 + n;
            if random.percent(60) {
                (from, "direct", random.of(&USERS), body)
            } else {
                (
                    from,
                    "group",
                    random.of(&[STABLE, MOVING[0], MOVING[1]]),
                    body,
                )
            }
        });
        sent.extend(shared.push(drafts.collect()).await);
        shared.done.send_modify(|done| *done += 1);
    }
    sent
}

async fn come_and_go(
    shared: Arc<Shared>,
    name: &'static str,
    user_name: &'static str,
) -> Vec<Moved> {
    let mut moved = Vec::new();
    let mut done = shared.done.subscribe();
    for number in 0..MOVES {
        let at = number * WRITERS * STEPS / (MOVES + 1);
        done.wait_for(|done| *done >= at).await.unwrap();
        let joined = number % 2 == 0;
        let (one, none) = (vec![user(user_name)], Vec::new());
        let change = if joined {
            GroupChange::Members {
                add: one,
                remove: none,
            }
        } else {
            GroupChange::Members {
                add: none,
                remove: one,
            }
        };
        let began = shared.tick();
        let receipt = shared.hub.change_group(group(name), change).await.unwrap();
        assert_eq!(receipt.added + receipt.removed, 1);
        let span = Span {
            began,
            ended: shared.tick(),
        };
        moved.push(Moved {
            group: name,
            user: user_name,
            joined,
            span,
        });
    }
    moved
}

/// A cursor that is old, around the border of tail and view, or the newest.
fn anywhere(random: &mut Random, heads: Position) -> Position {
    let mut any = |head: u64| match random.below(4) {
        0 => 0,
        1 => head,
        2 => head - random.below(12).min(head),
        _ => random.below(head + 1),
    };
    Position {
        direct: any(heads.direct),
        group: any(heads.group),
    }
}

/// What a reader began behind, and what it got.
type Read = (&'static str, (u64, u64), Vec<Message>);

async fn read_feed(shared: Arc<Shared>, mut random: Random, name: &'static str) -> Read {
    let begin = random.below(WRITERS * STEPS * 7 / 8);
    let mut done = shared.done.subscribe();
    done.wait_for(|done| *done >= begin).await.unwrap();
    let begun = anywhere(&mut random, shared.heads());
    let (mut at, mut got) = (begun, Vec::new());
    let mut goal: Goal = shared.goal.subscribe();
    let since = Instant::now();
    loop {
        let after = After::Cursor(Cursor::new(at, shared.hub.log()));
        let mut feed = shared.hub.feed(user(name), after, Transport::Sse).unwrap();
        // It leaves and comes again now and then.
        for _ in 0..random.range(1, 20) {
            let limit = usize::try_from(random.range(1, 12)).unwrap();
            let batch = feed.read(PageLimit::count(limit)).await.unwrap();
            let mut last = at;
            for message in &batch.messages {
                let last = last.of_mut(message.sequence());
                assert!(*last < message.id, "{name}: {} behind {last}", message.id);
                *last = message.id;
                got.push(plain(message));
            }
            at = batch.next.position;
            for sequence in Sequence::ALL {
                assert!(last.of(sequence) <= at.of(sequence), "`next` is behind");
            }
            let known = *goal.borrow();
            if known == Some((at.direct, at.group)) {
                assert!(!batch.more);
                return (name, (begun.direct, begun.group), got);
            }
            if known.is_some() {
                assert!(
                    since.elapsed() < PATIENCE * 4,
                    "{name} stays at {at:?} of {known:?}"
                );
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    () = feed.wait() => {}
                    _ = goal.changed() => {}
                }
            }
        }
    }
}

async fn read_wire(
    shared: Arc<Shared>,
    mut random: Random,
    name: &'static str,
    server: SocketAddr,
    way: Way,
) -> Read {
    let begin = random.below(WRITERS * STEPS * 7 / 8);
    let mut done = shared.done.subscribe();
    done.wait_for(|done| *done >= begin).await.unwrap();
    let at = anywhere(&mut random, shared.heads());
    shared.begun.send_modify(|begun| *begun += 1);
    let after = format!("{}.{}&limit={}", at.direct, at.group, random.range(1, 12));
    let mut reader = Reader::open(server, way, &TestServer::token(name), &after)
        .await
        .unwrap();
    let mut got = Vec::new();
    loop {
        for message in reader.messages().await {
            got.push(Message {
                sequence: message.sequence,
                id: message.id,
                prev: message.prev,
                n: message.n,
                from: message.from,
                to: message.to,
                group: message.group,
                at: message.at,
                body: serde_json::from_str(&message.body).unwrap(),
            });
        }
        // The last of either sequence: which of both comes first is not said.
        let ends = got.iter().filter(|message| message.from == END);
        if ends.count() == 2 {
            return (name, (at.direct, at.group), got);
        }
    }
}

/// A page of a history: whose, of which group or with which peer, what was asked for, what came.
struct Asked {
    user: &'static str,
    of: (&'static str, &'static str),
    bound: Bound,
    limit: usize,
    ids: Vec<u64>,
    more: bool,
}

async fn page_histories(shared: Arc<Shared>, mut random: Random) -> Vec<Asked> {
    let mut pages = Vec::new();
    while !shared.over() {
        let name = random.of(&USERS);
        let of = random.of(&[
            ("direct", "ann"),
            ("direct", "bob"),
            ("group", STABLE),
            ("group", MOVING[0]),
        ]);
        let sequence = if of.0 == "direct" {
            Sequence::Direct
        } else {
            Sequence::Group
        };
        let at = anywhere(&mut random, shared.heads()).of(sequence);
        let bound = random.of(&[Bound::Newest, Bound::Before(at), Bound::After(at)]);
        let limit = usize::try_from(random.range(1, 12)).unwrap();
        let most = PageLimit::count(limit);
        let page = match sequence {
            Sequence::Direct => {
                shared
                    .hub
                    .direct_history(user(name), user(of.1), bound, most)
                    .await
            }
            Sequence::Group => {
                shared
                    .hub
                    .group_history(user(name), group(of.1), bound, most)
                    .await
            }
        };
        let page = match page {
            // Not a member yet.
            Err(halley::error::Error::GroupNotFound) => continue,
            page => page.unwrap(),
        };
        pages.push(Asked {
            user: name,
            of,
            bound,
            limit,
            ids: page.messages.iter().map(|message| message.id).collect(),
            more: page.more,
        });
        tokio::task::yield_now().await;
    }
    pages
}

fn check_page(asked: &Asked, inbox: &[Message]) {
    let Asked {
        user,
        of,
        bound,
        limit,
        ids,
        more,
    } = asked;
    let own = |message: &&Message| match of {
        ("direct", peer) => {
            let both = [
                message.from.as_str(),
                message.to.as_deref().unwrap_or_default(),
            ];
            message.to.is_some() && (both == [*user, *peer] || both == [*peer, *user])
        }
        (_, group) => message.group.as_deref() == Some(group),
    };
    let all: Vec<u64> = inbox.iter().filter(own).map(|message| message.id).collect();
    let place = |id: u64| all.partition_point(|known| *known < id);
    let what = format!("{user} of {of:?} {bound:?} by {limit}: {ids:?}, {more}");
    assert!(
        ids.len() <= *limit && (!more || ids.len() == *limit),
        "{what}"
    );
    let (from, to) = match *bound {
        Bound::After(id) => (place(id + 1), place(id + 1) + ids.len()),
        Bound::Before(id) => (place(id).saturating_sub(*limit), place(id)),
        Bound::Newest => {
            let to = ids.last().map_or(0, |last| place(last + 1));
            (to.saturating_sub(*limit), to)
        }
    };
    assert_eq!(ids, &all[from..to], "{what}");
    if !matches!(bound, Bound::After(_)) {
        assert_eq!(*more, from > 0, "{what}");
    }
}

async fn ask_for_messages(shared: Arc<Shared>, mut random: Random) {
    while !shared.over() {
        let heads = shared.heads();
        for sequence in Sequence::ALL {
            let id = anywhere(&mut random, heads).of(sequence).max(1);
            if id <= heads.of(sequence) {
                let message = shared.hub.message(sequence, id).await.unwrap();
                assert_eq!((message.id, message.sequence()), (id, sequence));
            }
        }
        tokio::task::yield_now().await;
    }
}

/// The last messages of all that a user has, by chain, newest first.
async fn list(hub: &Hub, name: &str, limit: usize) -> Vec<Message> {
    let (mut lasts, mut before) = (Vec::new(), None);
    loop {
        let page = hub
            .conversations(user(name), before, PageLimit::count(limit))
            .await
            .unwrap();
        lasts.extend(page.entries.iter().filter_map(|entry| match entry {
            ConversationEntry::Direct { last, .. } => Some(plain(last)),
            ConversationEntry::Group { last, .. } => last.as_deref().map(plain),
        }));
        before = page.next;
        if before.is_none() {
            return lasts;
        }
    }
}

async fn list_conversations(shared: Arc<Shared>, name: &'static str) {
    while !shared.over() {
        let known = shared.newest.lock().unwrap().clone();
        let lasts = list(&shared.hub, name, 1000).await;
        let listed: HashMap<_, _> = lasts.iter().map(|last| (last.chain(), last.id)).collect();
        assert_eq!(
            listed.len(),
            lasts.len(),
            "{name}: one stands twice in {lasts:?}"
        );
        assert!(
            lasts.is_sorted_by(|one, next| one.at >= next.at),
            "{name}: {lasts:?}"
        );
        for (chain, id) in known {
            let own = chain.0 == name || chain.1 == name || chain.1 == STABLE;
            if own {
                assert!(
                    listed.get(&chain).is_some_and(|last| *last >= id),
                    "{name}: {chain:?} {id}"
                );
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn read_channel(
    shared: Arc<Shared>,
    mut random: Random,
    name: &'static str,
) -> (&'static str, Vec<Message>) {
    let (mut next, mut got) = (1, Vec::new());
    loop {
        let over = shared.over();
        let limit = usize::try_from(random.range(1, 12)).unwrap();
        // Old pages are read again, too.
        let again = random.percent(30);
        let from = if again { random.range(1, next) } else { next };
        let page = shared
            .hub
            .channel_page(user(name), from, limit)
            .await
            .unwrap();
        assert_eq!(page.first, 1);
        assert!(page.next >= next && page.messages.len() <= limit);
        let numbers: Vec<u64> = page.messages.iter().map(|(number, _)| *number).collect();
        let most = limit.min(usize::try_from(page.next - from).unwrap());
        assert_eq!(
            numbers,
            (from..from + count(most)).collect::<Vec<_>>(),
            "{name} from {from}"
        );
        for (number, message) in &page.messages {
            let message = plain(message);
            match got.get(usize::try_from(number - 1).unwrap()) {
                Some(known) => assert_eq!(known, &message),
                None => got.push(message),
            }
        }
        next = count(got.len()) + 1;
        if over && !again && page.messages.is_empty() {
            return (name, got);
        }
        tokio::task::yield_now().await;
    }
}

/// A channel has what came for its user: not what they sent themselves.
fn check_channel(name: &str, got: &[Message], inbox: &[Message]) {
    let own = |message: &&Message| match message.to.as_deref() {
        Some(to) => to == name,
        None => message.from != name,
    };
    let expected: Vec<Message> = inbox.iter().filter(own).cloned().collect();
    for sequence in ["direct", "group"] {
        assert_eq!(
            ids(got, sequence),
            ids(&expected, sequence),
            "{sequence} of {name}"
        );
    }
}

/// A server with windows of so many ids, groups and channels.
async fn begin(window: u64) -> (TestServer, Arc<Shared>) {
    let server = TestServer::with_hub(
        |options| {
            options.window = WindowSize::of(window);
            options.channels_max = 100;
        },
        |_| {},
    )
    .await;
    let hub = server.hub.clone();
    for (name, members) in [
        (STABLE, USERS.as_slice()),
        (MOVING[0], &[]),
        (MOVING[1], &[]),
    ] {
        let members = members.iter().map(|name| user(name)).collect();
        let change = GroupChange::Set {
            members: Some(members),
            history: None,
        };
        hub.change_group(group(name), change).await.unwrap();
    }
    for name in USERS {
        assert!(hub.open_channel(&user(name)).await.unwrap());
    }
    let shared = Shared {
        hub,
        clock: AtomicU64::new(0),
        done: watch::Sender::new(0),
        begun: watch::Sender::new(0),
        goal: watch::Sender::new(None),
        newest: Mutex::default(),
    };
    (server, Arc::new(shared))
}

/// All who read.
#[derive(Default)]
struct Reading {
    readers: JoinSet<Read>,
    pagers: JoinSet<Vec<Asked>>,
    channels: JoinSet<(&'static str, Vec<Message>)>,
    /// They check all by themselves.
    watchers: JoinSet<()>,
}

impl Reading {
    fn begin(shared: &Arc<Shared>, client: SocketAddr, random: &Random) -> Self {
        let mut reading = Self::default();
        let of = |number| (shared.clone(), random.fork(number));
        for (number, name) in (10..).step_by(10).zip(USERS) {
            for reader in 0..READERS_EACH {
                let (shared, random) = of(number * 100 + reader);
                reading.readers.spawn(read_feed(shared, random, name));
            }
            for (reader, way) in (number..).zip(Way::ALL) {
                let (shared, random) = of(reader);
                let read = read_wire(shared, random, name, client, way);
                reading.readers.spawn(read);
            }
            let (shared, random) = of(number + 5);
            let watch = list_conversations(shared.clone(), name);
            reading.watchers.spawn(watch);
            reading.channels.spawn(read_channel(shared, random, name));
        }
        for number in 0..3 {
            let (shared, random) = of(number);
            reading.pagers.spawn(page_histories(shared, random));
            let (shared, random) = of(5 + number);
            reading.watchers.spawn(ask_for_messages(shared, random));
        }
        reading
    }

    async fn check(self, right: &HashMap<&'static str, Vec<Message>>) {
        for (name, start, got) in self.readers.join_all().await {
            check_reader(name, start, &got, &right[name]);
        }
        for asked in self.pagers.join_all().await.into_iter().flatten() {
            check_page(&asked, &right[asked.user]);
        }
        for (name, got) in self.channels.join_all().await {
            check_channel(name, &got, &right[name]);
        }
        self.watchers.join_all().await;
    }
}

async fn race(window: u64) {
    let random = Random::from_environment("sealing");
    let (server, shared) = begin(window).await;
    let (mut writers, mut movers) = (JoinSet::new(), JoinSet::new());
    for number in 0..WRITERS {
        let random = random.fork(10_000 + number);
        writers.spawn(write(shared.clone(), random, number));
    }
    for name in USERS {
        for moving in MOVING {
            movers.spawn(come_and_go(shared.clone(), moving, name));
        }
    }
    let reading = Reading::begin(&shared, server.client, &random);
    let mut sent: Vec<Sent> = writers.join_all().await.into_iter().flatten().collect();
    let moved: Vec<Moved> = movers.join_all().await.into_iter().flatten().collect();
    let mut begun = shared.begun.subscribe();
    let all = USERS.len() * Way::ALL.len();
    begun.wait_for(|begun| *begun == all).await.unwrap();
    for (kind, to) in USERS
        .map(|name| ("direct", name))
        .into_iter()
        .chain([("group", STABLE)])
    {
        sent.extend(shared.push(vec![(END.to_owned(), kind, to, 0)]).await);
    }
    let heads = shared.heads();
    let goal = (heads.direct, heads.group);
    shared.goal.send_replace(Some(goal));
    check_ids_and_chains(&mut sent, goal);
    let mut right = HashMap::new();
    for name in USERS {
        let inbox = crate::device::inbox(&server, name).await;
        check_inbox(name, &inbox, &sent, &moved);
        right.insert(name, inbox);
    }
    reading.check(&right).await;
    for (name, inbox) in right {
        let newest = |messages: &[Message]| -> HashMap<_, _> {
            messages.iter().map(|m| (m.chain(), m.clone())).collect()
        };
        for limit in [2, 1000] {
            let listed = list(&server.hub, name, limit).await;
            assert_eq!(newest(&listed), newest(&inbox), "{name} by {limit}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_every_kind_see_no_border_where_each_message_is_sealed() {
    race(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_every_kind_see_no_border_of_windows_of_two() {
    race(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_every_kind_see_no_border_of_windows_of_three() {
    race(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_every_kind_see_no_border_of_windows_of_seven() {
    race(7).await;
}
