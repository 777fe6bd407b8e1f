//! Promise 15: the messages of one conversation or group are numbered 1, 2, 3, however they are written and wherever
//! they are read. What kills and power losses do to it: the `durability` tests.

use std::collections::HashMap;
use std::fs;

use serde_json::{Value, json};

use crate::device::{Device, Folder, Message, Page, admin, inbox, push_group, set_group};
use crate::support::{Http, Reader, TestServer, Way};

const READER: &str = "bob";
const WRITERS: [&str; 4] = ["ann", "cy", "dan", "eve"];
const GROUPS: [&str; 2] = ["team", "hall"];
/// Requests of each writer, each with a message to every conversation and group of theirs.
const ROUNDS: usize = 8;
/// The messages that one round of all brings the reader.
const ROUND_MESSAGES: usize = WRITERS.len() * 5;

/// A message's id, the one before it, and its number.
type Place = (u64, u64, u64);
/// What a reader has of each conversation and group.
type Chains = HashMap<String, Vec<Place>>;

fn add(chains: &mut Chains, (from, to, group): Names<'_>, place: Place) {
    let name = match (to, group) {
        (Some(to), None) => format!("direct/{}", if from == READER { to } else { from }),
        (None, Some(group)) => format!("groups/{group}"),
        other => panic!("a message is for a user or for a group: {other:?}"),
    };
    chains.entry(name).or_default().push(place);
}

/// Sender, receiver, group.
type Names<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

fn places(messages: &[Message]) -> Vec<Place> {
    let place = |message: &Message| (message.id, message.prev, message.n);
    messages.iter().map(place).collect()
}

/// 1, 2, 3, and each behind the one that its `prev` names.
#[track_caller]
fn assert_whole(chains: &Chains, rounds: usize) {
    assert_eq!(chains.len(), WRITERS.len() + 1 + GROUPS.len());
    for (name, places) in chains {
        let mut last = 0;
        for (number, (id, prev, n)) in (1..).zip(places) {
            assert_eq!((*prev, *n), (last, number), "{name}: {places:?}");
            last = *id;
        }
    }
    let all: usize = chains.values().map(Vec::len).sum();
    assert_eq!(all, rounds * ROUND_MESSAGES);
}

/// One request of a writer: to the reader, from the reader, from the reader to themselves, and to both groups.
async fn write(http: &mut Http, writer: &str) {
    let items = json!([
        { "to": READER, "from": writer, "body": 1 },
        { "group": GROUPS[0], "from": writer, "body": 1 },
        { "to": writer, "from": READER, "body": 1 },
        { "to": READER, "from": READER, "body": 1 },
        { "group": GROUPS[1], "from": writer, "body": 1 },
    ]);
    let reply = admin(http, "POST", "/v1/messages", "", &items.to_string()).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    for receipt in reply.json()["results"].as_array().unwrap() {
        assert!(receipt["id"].is_u64(), "{reply:?}");
        assert_eq!(receipt.get("n"), None, "a receipt has none");
    }
}

/// All that comes to a reader by one transport, until there are so many.
async fn read(mut reader: Reader, count: usize) -> Chains {
    let mut chains = Chains::new();
    for message in reader.count(count).await {
        let names = (
            &*message.from,
            message.to.as_deref(),
            message.group.as_deref(),
        );
        add(&mut chains, names, (message.id, message.prev, message.n));
    }
    chains
}

async fn read_inbox(server: &TestServer) -> Chains {
    let mut chains = Chains::new();
    for message in inbox(server, READER).await {
        let names = (
            &*message.from,
            message.to.as_deref(),
            message.group.as_deref(),
        );
        add(&mut chains, names, (message.id, message.prev, message.n));
    }
    chains
}

async fn page(server: &TestServer, user: &str, path: &str) -> Page {
    Page::of(&server.as_user(user, "GET", path, "").await)
}

/// A history read from its beginning, and from its end.
async fn histories(server: &TestServer, user: &str, name: &str) -> [Vec<Place>; 2] {
    let mut forward: Vec<Place> = Vec::new();
    loop {
        let after = forward.last().map_or(0, |(id, ..)| *id);
        let path = format!("/v1/{name}/messages?after={after}&limit=7");
        let page = page(server, user, &path).await;
        forward.extend(places(&page.messages));
        if !page.more {
            break;
        }
    }
    let mut backward: Vec<Place> = Vec::new();
    loop {
        let bound = backward.first().map(|(id, ..)| format!("before={id}&"));
        let bound = bound.unwrap_or_default();
        let path = format!("/v1/{name}/messages?{bound}limit=5");
        let page = page(server, user, &path).await;
        backward.splice(..0, places(&page.messages));
        if !page.more {
            break;
        }
    }
    [forward, backward]
}

async fn conversations(server: &TestServer, user: &str) -> Vec<Value> {
    let reply = server.as_user(user, "GET", "/v1/conversations", "").await;
    let list = reply.json()["conversations"].as_array().unwrap().clone();
    list.into_iter()
        .map(|entry| entry["last"].clone())
        .collect()
}

/// Everything else that shows messages agrees with what the inbox has.
async fn assert_same_everywhere(server: &TestServer, chains: &Chains) {
    for (name, places) in chains {
        for history in histories(server, READER, name).await {
            assert_eq!(history, *places, "{name}");
        }
    }
    let mut ends: Vec<_> = chains
        .values()
        .map(|places| places.last().copied())
        .collect();
    let place = |message: &Value| {
        let [id, prev, n] = ["id", "prev", "n"].map(|field| message[field].as_u64().unwrap());
        (id, prev, n)
    };
    let last = conversations(server, READER).await;
    let mut found: Vec<_> = last.iter().map(|last| Some(place(last))).collect();
    ends.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, ends, "the last messages of the conversations");
    for last in last {
        let path = format!(
            "/v1/messages/{}/{}",
            last["sequence"].as_str().unwrap(),
            last["id"]
        );
        let one = server.as_admin("GET", &path, "").await.json();
        assert_eq!(place(&one), place(&last));
    }
}

#[tokio::test]
async fn numbers_have_no_gap_however_writers_race_and_whatever_happens_to_the_view() {
    let folder = Folder::new();
    let mut server = folder.serve().await;
    for group in GROUPS {
        set_group(&server, group, &[READER]).await;
    }
    let mut readers = Vec::new();
    for way in Way::ALL {
        let reader = Reader::open(server.client, way, &TestServer::token(READER), "0").await;
        let reader = reader.unwrap_or_else(|reply| panic!("{reply:?}"));
        readers.push(tokio::spawn(read(reader, ROUNDS * ROUND_MESSAGES)));
    }
    let mut writers = Vec::new();
    for writer in WRITERS {
        let mut http = server.connect_admin().await;
        writers.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                write(&mut http, writer).await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut before = read_inbox(&server).await;
    assert_whole(&before, ROUNDS);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), before);
    }
    assert_same_everywhere(&server, &before).await;
    for (round, lost) in (ROUNDS + 1..).zip(["", "clean", "sled"]) {
        drop(server);
        match lost {
            "clean" => fs::remove_file(folder.path().join(lost)).unwrap(),
            "sled" => fs::remove_dir_all(folder.path().join(lost)).unwrap(),
            _ => {}
        }
        server = folder.serve().await;
        assert_eq!(read_inbox(&server).await, before, "without {lost}");
        let mut http = server.connect_admin().await;
        for writer in WRITERS {
            write(&mut http, writer).await;
        }
        before = read_inbox(&server).await;
        assert_whole(&before, round);
        assert_same_everywhere(&server, &before).await;
    }
}

/// The numbers are those of the group, whoever reads them.
#[tokio::test]
async fn who_joins_a_group_later_begins_with_its_number() {
    let server = TestServer::start().await;
    set_group(&server, "some", &["ann"]).await;
    let all = json!({ "members": ["ann"], "history": "all" }).to_string();
    let reply = server.as_admin("PUT", "/v1/groups/all", &all).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    for _ in 0..3 {
        push_group(&server, "some", "1").await;
        push_group(&server, "all", "1").await;
    }
    let mut dan = Device::new(&server, "dan", "0");
    for (group, member) in [("some", true), ("all", true)] {
        move_dan(&server, group, member).await;
        push_group(&server, group, "1").await;
    }
    push_group(&server, "some", "1").await;
    // What is said while they are away has numbers, too.
    move_dan(&server, "some", false).await;
    push_group(&server, "some", "0").await;
    move_dan(&server, "some", true).await;
    push_group(&server, "some", "1").await;
    let got = dan.rest(100).await;
    let of_group = |group: &str| {
        let own = got.iter().filter(|m| m.group.as_deref() == Some(group));
        own.map(|m| m.n).collect::<Vec<_>>()
    };
    assert_eq!(
        (of_group("some"), of_group("all")),
        (vec![4, 5, 7], vec![4])
    );
    for (group, expected) in [("some", &[4, 5, 7][..]), ("all", &[1, 2, 3, 4])] {
        for history in histories(&server, "dan", &format!("groups/{group}")).await {
            let numbers: Vec<u64> = history.iter().map(|(.., n)| *n).collect();
            assert_eq!(numbers, expected, "{group}");
        }
    }
    let last = conversations(&server, "dan").await;
    let last: Vec<_> = last.iter().map(|last| last["n"].as_u64()).collect();
    assert_eq!(last, [Some(7), Some(4)]);
}

async fn move_dan(server: &TestServer, group: &str, member: bool) {
    let method = if member { "PUT" } else { "DELETE" };
    let path = format!("/v1/groups/{group}/members/dan");
    let reply = server.as_admin(method, &path, "").await;
    assert!(reply.status < 300, "{reply:?}");
}
