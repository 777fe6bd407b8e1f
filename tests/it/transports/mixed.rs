//! Random traffic that all transports give alike, also to clients that change from one to the other and hang up in
//! the middle of anything.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::device::{admin, set_group};
use crate::support::{Event, Http, Message, Random, Reader, Socket, TestServer, Way, rounds};

const WRITERS: u64 = 8;
const STEPS: u64 = 30;
const WANDERERS: u64 = 6;
const USERS: [&str; 2] = ["ann", "bob"];
const PEOPLE: [&str; 4] = ["ann", "bob", "eve", "zoë \"z\" \\"];
/// Nobody joins or leaves it.
const STABLE: &str = "stable";
/// The users come and go.
const MOVING: &str = "moving 🚪";
/// The last body of all.
const END: &str = "\"the end\"";

/// What was sent, by sequence and id.
type Sent = Arc<Mutex<HashMap<(String, u64), (String, String)>>>;

/// A body of any kind and length, as JSON text.
fn body(random: &mut Random) -> String {
    let length = match random.below(20) {
        0 => 20_000 + random.below(45_000),
        1..=4 => random.below(3000),
        _ => random.below(60),
    };
    let pieces = [
        "a",
        "ü",
        "日本",
        "😀",
        "\\n",
        "\\r\\n",
        "\\u2028",
        "\\\"",
        "\\\\",
        "\\u0000",
        "\\ud83d\\ude00",
        "\u{2028}",
        "\u{2029}",
        "\u{85}",
        "\u{feff}",
        "data: ",
        "id: 1.1",
        "event: end",
        ": ",
        "\\n\\n",
        "{\\\"end\\\":",
        "0\\r\\n",
    ];
    let mut text = String::new();
    while text.len() < usize::try_from(length).unwrap() {
        text.push_str(random.of(&pieces));
    }
    match random.below(8) {
        0 => format!("{{ \"t\" :\n\t\"{text}\",\r\n\r\n \"n\":[1,\r2\n\n]}}"),
        1 => random
            .of(&[
                "null",
                "-0.0",
                "1e308",
                "[]",
                "\"\"",
                "{\"end\":1}",
                "[\n\n\n]",
            ])
            .to_owned(),
        _ => format!("\"{text}\""),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_transport_and_every_change_between_them_gives_the_same_once_and_in_order() {
    let random = Random::from_environment("mixed");
    for round in 0..rounds(3) {
        race(random.fork(round)).await;
    }
}

async fn race(random: Random) {
    let server = TestServer::with(|parts| parts.timeouts.stream = Duration::from_millis(150)).await;
    set_group(&server, STABLE, &PEOPLE).await;
    set_group(&server, &encoded(MOVING), &["eve"]).await;
    let sent = Sent::default();
    let mut readers = JoinSet::new();
    for user in USERS {
        for (number, way) in (1..).zip(Way::ALL) {
            readers.spawn(wander(
                server.client,
                user,
                random.fork(100 + number),
                Some(way),
            ));
        }
        for number in 0..WANDERERS {
            readers.spawn(wander(server.client, user, random.fork(200 + number), None));
        }
    }
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let sent = sent.clone();
        let (admin, client) = (server.admin, server.client);
        let random = random.fork(number);
        if number % 4 == 0 {
            writers.spawn(write_on_a_socket(
                client,
                random,
                sent,
                PEOPLE[usize::try_from(number / 4).unwrap()],
            ));
        } else {
            writers.spawn(write(admin, random, sent));
        }
    }
    writers.spawn(come_and_go(server.admin, random.fork(50)));
    writers.join_all().await;
    let mut last = server.connect_admin().await;
    for user in USERS {
        push(&mut last, &sent, "eve", ("direct", user), END).await;
    }
    push(&mut last, &sent, "eve", ("groups", STABLE), END).await;

    let mut right = HashMap::new();
    for user in USERS {
        // Nothing is written any more: one reading is the truth about who may see what.
        let random = random.fork(0);
        let (_, _, inbox) = wander(server.client, user, random, Some(Way::Poll)).await;
        check(&inbox, &sent.lock().unwrap());
        right.insert(user, inbox);
    }
    for (user, way, got) in readers.join_all().await {
        let what = format!("{user} by {way:?}");
        compare(&what, got, right[user].clone());
    }
}

/// Each once, and in order of its sequence.
fn compare(what: &str, mut got: Vec<Message>, mut right: Vec<Message>) {
    // Within a sequence nothing is sorted: the reader itself must have it in order.
    got.sort_by_key(|message| message.sequence.clone());
    right.sort_by_key(|message| (message.sequence.clone(), message.id));
    for message in got.iter_mut().chain(&mut right) {
        message.body = on_one_line(&message.body);
    }
    assert_eq!(got.len(), right.len(), "{what}");
    for (got, right) in got.iter().zip(&right) {
        assert_eq!(got, right, "{what}");
    }
}

/// As a text of lines has it.
fn on_one_line(body: &str) -> String {
    body.replace(['\r', '\n'], " ")
        .replace('\u{85}', "\\u0085")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn encoded(name: &str) -> String {
    let mut path = String::new();
    for byte in name.bytes() {
        write!(path, "%{byte:02X}").unwrap();
    }
    path
}

/// What was read is what was sent, and its chains are whole.
fn check(inbox: &[Message], sent: &HashMap<(String, u64), (String, String)>) {
    let mut chains: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let seen: HashSet<(&str, u64)> = inbox.iter().map(|m| (m.sequence.as_str(), m.id)).collect();
    let mut sorted: Vec<&Message> = inbox.iter().collect();
    sorted.sort_by_key(|m| (&m.sequence, m.id));
    for message in sorted {
        let (from, body) = &sent[&(message.sequence.clone(), message.id)];
        assert_eq!((&message.from, &message.body), (from, body));
        let chain = match (&message.to, &message.group) {
            (Some(to), None) => format!("{:?}", (from.min(to), from.max(to))),
            (None, Some(group)) => group.clone(),
            _ => panic!("{message:?}"),
        };
        let end = (message.id, message.n);
        let (before, n) = chains.insert(chain, end).unwrap_or((0, 0));
        let moved = message.group.as_deref() == Some(MOVING)
            && message.prev > before
            && message.n > n + 1
            && !seen.contains(&(message.sequence.as_str(), message.prev));
        assert!(
            (message.prev, message.n) == (before, n + 1) || moved,
            "{message:?} after {before}, number {n}"
        );
    }
}

async fn push(http: &mut Http, sent: &Sent, from: &str, (kind, to): (&str, &str), body: &str) {
    let text = format!("{{\"from\":{},\"body\":{body}}}", json!(from));
    let path = format!("/v1/{kind}/{}/messages", encoded(to));
    let reply = admin(http, "POST", &path, "", &text).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    note(sent, &reply.json(), from, body);
}

fn note(sent: &Sent, receipt: &serde_json::Value, from: &str, body: &str) {
    let key = (
        receipt["sequence"].as_str().unwrap().to_owned(),
        receipt["id"].as_u64().unwrap(),
    );
    let before = sent
        .lock()
        .unwrap()
        .insert(key, (from.to_owned(), body.to_owned()));
    assert!(before.is_none(), "an id was given twice: {receipt}");
}

fn any_receiver(random: &mut Random) -> (&'static str, &'static str) {
    match random.below(10) {
        0..5 => ("direct", random.of(&PEOPLE)),
        5..8 => ("groups", STABLE),
        _ => ("groups", MOVING),
    }
}

async fn write(address: SocketAddr, mut random: Random, sent: Sent) {
    let mut http = Http::connect(address).await;
    for _ in 0..STEPS {
        let from = random.of(&PEOPLE);
        let to = any_receiver(&mut random);
        let body = body(&mut random);
        push(&mut http, &sent, from, to, &body).await;
    }
}

/// A user who sends on a socket, some at a time, and reads their own messages there.
async fn write_on_a_socket(
    address: SocketAddr,
    mut random: Random,
    sent: Sent,
    user: &'static str,
) {
    let token = TestServer::token(user);
    let mut step = 0;
    while step < STEPS {
        let mut socket = Socket::asking(address, &token, "after=now").await;
        let many = 1 + random.below(6);
        let mut bodies = Vec::new();
        for reference in 0..many {
            let (kind, to) = match any_receiver(&mut random) {
                ("groups", _) => ("group", STABLE),
                (_, to) => ("to", to),
            };
            let body = body(&mut random);
            let text = format!(
                "{{\"send\":{{\"{kind}\":{},\"body\":{body}}},\"ref\":{reference}}}",
                json!(to)
            );
            socket
                .put(&crate::support::frame(0x81, text.as_bytes()))
                .await;
            bodies.push(body);
        }
        for (reference, body) in (0..many).zip(&bodies) {
            let mut answer = socket.frame().await;
            while matches!(&answer, Some(crate::support::Frame::Text(text)) if text.starts_with("{\"log\""))
            {
                answer = socket.frame().await;
            }
            let answer = match answer {
                Some(crate::support::Frame::Text(answer)) => answer,
                // The socket has lasted long enough: what is not answered was not read.
                Some(crate::support::Frame::Close(4000, _)) => break,
                other => panic!("{other:?}"),
            };
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["ref"], reference, "{answer}");
            note(&sent, &answer["receipt"], user, body);
        }
        step += many;
    }
}

async fn come_and_go(address: SocketAddr, mut random: Random) {
    let mut http = Http::connect(address).await;
    for _ in 0..STEPS / 2 {
        let user = random.of(&USERS);
        let path = format!("/v1/groups/{}/members/{user}", encoded(MOVING));
        let method = random.of(&["PUT", "DELETE"]);
        let reply = admin(&mut http, method, &path, "", "").await;
        assert!(reply.status < 300, "{reply:?}");
    }
}

/// Reads until the end has come in both sequences. Without a way it changes and hangs up as it likes.
async fn wander(
    address: SocketAddr,
    user: &'static str,
    mut random: Random,
    way: Option<Way>,
) -> (&'static str, Option<Way>, Vec<Message>) {
    let token = TestServer::token(user);
    let (mut cursor, mut got, mut ends) = ("0".to_owned(), Vec::new(), 0);
    while ends < 2 {
        let now = way.unwrap_or_else(|| random.of(&Way::ALL));
        let after = format!("{cursor}&wait=1&limit={}", 1 + random.below(200));
        let mut reader = Reader::open(address, now, &token, &after).await.unwrap();
        if way.is_none() && random.below(3) > 0 {
            let most = 1 << (6 + random.below(12));
            reader.stop_after(usize::try_from(random.below(most)).unwrap());
        }
        while ends < 2 {
            let Event::Page(page) = reader.next().await else {
                break;
            };
            ends += page
                .messages
                .iter()
                .filter(|message| message.body == END)
                .count();
            got.extend(page.messages);
        }
        if !reader.cursor.is_empty() {
            cursor.clone_from(&reader.cursor);
        }
    }
    (user, way, got)
}
