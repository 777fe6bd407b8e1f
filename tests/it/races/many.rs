//! Many writers, many readers that come and go, and members that join and leave, all at once. Afterwards
//! every reader has exactly what it should have, and everything fits together.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Random;
use super::check::{Moved, Sent, Span, check_ids_and_chains, check_inbox, check_reader};
use super::watch::{watch_history, watch_ids, watch_inbox};
use crate::device::{Device, Message, admin, inbox, position, set_group};
use crate::support::{Http, TestServer};

const WRITERS: u64 = 64;
const STEPS: u64 = 25;
const MOVES: u64 = 12;
const READERS_EACH: u64 = 32;
/// Those with many devices.
const USERS: [&str; 4] = ["ann", "bob", "cid", "dora"];
/// All that write and are written to.
const PEOPLE: [&str; 8] = ["ann", "bob", "cid", "dora", "eve", "fay", "gil", "hal"];
/// Nobody joins or leaves it.
pub(super) const STABLE: &str = "stable";
/// All users join and leave these all the time; the watcher stays.
const MOVING: [&str; 2] = ["moving-1", "moving-2"];
pub(super) const WATCHER: &str = "watcher";

struct Shared {
    admin: SocketAddr,
    client: SocketAddr,
    clock: AtomicU64,
    /// Steps done by writers.
    done: watch::Sender<u64>,
    /// Where all have read everything, once that is known.
    goal: watch::Sender<Option<(u64, u64)>>,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_come_and_go_among_racing_writers_get_everything_once_in_order() {
    let random = Random::from_environment("many");
    let server = TestServer::start().await;
    let everybody: Vec<&str> = PEOPLE.into_iter().chain([WATCHER]).collect();
    set_group(&server, STABLE, &everybody).await;
    for group in MOVING {
        set_group(&server, group, &[WATCHER]).await;
    }
    let shared = Arc::new(Shared {
        admin: server.admin,
        client: server.client,
        clock: AtomicU64::new(0),
        done: watch::Sender::new(0),
        goal: watch::Sender::new(None),
    });

    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        writers.spawn(write(shared.clone(), random.fork(number), number));
    }
    let mut movers = JoinSet::new();
    for (group, user) in MOVING
        .iter()
        .flat_map(|group| USERS.iter().map(move |user| (*group, *user)))
    {
        let http = Http::connect(server.admin).await;
        movers.spawn(come_and_go(shared.clone(), http, group, user));
    }
    let mut readers = JoinSet::new();
    for number in 0..READERS_EACH * 4 {
        let user = USERS[usize::try_from(number % 4).unwrap()];
        readers.spawn(read(shared.clone(), random.fork(1000 + number), user));
    }
    let mut watchers = JoinSet::new();
    let goal = || shared.goal.subscribe();
    watchers.spawn(watch_history(server.client, STABLE, goal()));
    watchers.spawn(watch_ids(server.admin, "group", goal()));
    watchers.spawn(watch_ids(server.admin, "direct", goal()));
    for limit in [1, 10, 1000] {
        watchers.spawn(watch_inbox(server.client, limit, goal()));
    }

    let mut sent: Vec<Sent> = writers.join_all().await.into_iter().flatten().collect();
    let moved: Vec<Moved> = movers.join_all().await.into_iter().flatten().collect();
    let mut end = Http::connect(server.admin).await;
    for user in USERS {
        // Ends the polls that are still held.
        let item = Item {
            direct: true,
            from: "end",
            to: user,
            body: 0,
        };
        sent.extend(push(&shared, &mut end, &[item]).await);
    }
    let goal = Device::new(&server, "nobody", "now").watermark().await;
    shared.goal.send_replace(Some(goal));

    check_ids_and_chains(&mut sent, goal);
    let mut right = HashMap::new();
    for user in USERS {
        let inbox = inbox(&server, user).await;
        check_inbox(user, &inbox, &sent, &moved);
        right.insert(user, inbox);
    }
    for (user, start, got) in readers.join_all().await {
        check_reader(user, position(&start), &got, &right[user]);
    }
    watchers.join_all().await;
    for user in USERS.into_iter().chain([WATCHER]) {
        server.wait_held(user, 0).await;
    }
}

impl Device {
    async fn watermark(mut self) -> (u64, u64) {
        self.poll(1, 0).await;
        position(&self.next)
    }
}

struct Item {
    direct: bool,
    from: &'static str,
    to: &'static str,
    body: u64,
}

impl Item {
    fn any(random: &mut Random, body: u64) -> Self {
        let direct = random.below(10) < 6;
        let groups = [STABLE, MOVING[0], MOVING[1]];
        let to = if direct {
            random.of(&PEOPLE)
        } else {
            random.of(&groups)
        };
        Self {
            direct,
            from: random.of(&PEOPLE),
            to,
            body,
        }
    }
}

async fn write(shared: Arc<Shared>, mut random: Random, number: u64) -> Vec<Sent> {
    let mut http = Http::connect(shared.admin).await;
    let mut sent = Vec::new();
    for step in 0..STEPS {
        let count = if random.below(4) == 0 {
            2 + random.below(8)
        } else {
            1
        };
        let first = (number * STEPS + step) * 100;
        let items: Vec<Item> = (0..count)
            .map(|n| Item::any(&mut random, first + n))
            .collect();
        sent.extend(push(&shared, &mut http, &items).await);
        shared.done.send_modify(|done| *done += 1);
    }
    sent
}

async fn push(shared: &Shared, http: &mut Http, items: &[Item]) -> Vec<Sent> {
    let began = shared.tick();
    let reply = if let [
        Item {
            direct,
            from,
            to,
            body,
        },
    ] = items
    {
        let kind = if *direct { "direct" } else { "groups" };
        let body = json!({ "from": from, "body": body }).to_string();
        admin(
            http,
            "POST",
            &format!("/v1/{kind}/{to}/messages"),
            "",
            &body,
        )
        .await
    } else {
        let item = |item: &Item| {
            let to = if item.direct { "to" } else { "group" };
            json!({ to: item.to, "from": item.from, "body": item.body })
        };
        let body = items.iter().map(item).collect::<Value>().to_string();
        admin(http, "POST", "/v1/messages", "", &body).await
    };
    let span = Span {
        began,
        ended: shared.tick(),
    };
    assert!(reply.status < 300, "{reply:?}");
    let reply = reply.json();
    let receipts = reply["results"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![reply]);
    assert_eq!(receipts.len(), items.len());
    let sent = |(item, receipt): (&Item, &Value)| Sent {
        message: Message {
            sequence: receipt["sequence"].as_str().unwrap().to_owned(),
            id: receipt["id"].as_u64().unwrap(),
            prev: receipt["prev"].as_u64().unwrap(),
            n: 0,
            from: item.from.to_owned(),
            to: item.direct.then(|| item.to.to_owned()),
            group: (!item.direct).then(|| item.to.to_owned()),
            at: receipt["at"].as_u64().unwrap(),
            body: item.body.into(),
        },
        span,
    };
    items.iter().zip(&receipts).map(sent).collect()
}

async fn come_and_go(
    shared: Arc<Shared>,
    mut http: Http,
    group: &'static str,
    user: &'static str,
) -> Vec<Moved> {
    let mut moved = Vec::new();
    let path = format!("/v1/groups/{group}/members/{user}");
    let mut done = shared.done.subscribe();
    for number in 0..MOVES {
        let at = number * WRITERS * STEPS / (MOVES + 1);
        done.wait_for(|done| *done >= at).await.unwrap();
        let joined = number % 2 == 0;
        let began = shared.tick();
        let reply = admin(
            &mut http,
            if joined { "PUT" } else { "DELETE" },
            &path,
            "",
            "",
        )
        .await;
        let span = Span {
            began,
            ended: shared.tick(),
        };
        assert_eq!(
            reply.json()[if joined { "added" } else { "removed" }],
            1,
            "{reply:?}"
        );
        moved.push(Moved {
            group,
            user,
            joined,
            span,
        });
    }
    moved
}

/// One device: begins somewhere at some time, reads in pieces of any size, loses its connection at any
/// moment, goes on. Where it began, and what it got.
async fn read(
    shared: Arc<Shared>,
    mut random: Random,
    user: &'static str,
) -> (&'static str, String, Vec<Message>) {
    let begin = random.below(WRITERS * STEPS * 3 / 4);
    shared
        .done
        .subscribe()
        .wait_for(|done| *done >= begin)
        .await
        .unwrap();
    let (direct, group) = Device::at(shared.client, "nobody", "now").watermark().await;
    let start = match random.below(4) {
        0 => "0".to_owned(),
        1 => format!("{direct}.{group}"),
        _ => format!("{}.{}", random.below(direct + 1), random.below(group + 1)),
    };
    let mut device = Device::at(shared.client, user, &start);
    let goal = shared.goal.subscribe();
    loop {
        let known = *goal.borrow();
        if known == Some(position(&device.next)) {
            assert_eq!(device.poll(10, 0).await, 0);
            return (user, start, device.got);
        }
        let most = random.of(&[3, 20, 200]);
        let limit = usize::try_from(1 + random.below(most)).unwrap();
        // The last push wakes all; then nobody may wait.
        let wait_s = u64::from(known.is_none());
        if random.below(4) == 0 {
            device.ask(limit, wait_s).await;
            hang_up(&mut device, &mut random).await;
        } else {
            device.poll(limit, wait_s).await;
        }
    }
}

/// Leaves at once, after a moment, or within the reply.
async fn hang_up(device: &mut Device, random: &mut Random) {
    let Some(mut http) = device.leave() else {
        return;
    };
    if random.below(2) == 0 {
        http.stream.set_zero_linger().unwrap();
    }
    let patience = Duration::from_micros(random.below(5000));
    let mut some = vec![0; usize::try_from(1 + random.below(400)).unwrap()];
    let read = tokio::io::AsyncReadExt::read_exact(&mut http.stream, &mut some);
    // Late or cut short, both are welcome.
    drop(tokio::time::timeout(patience, read).await);
}
