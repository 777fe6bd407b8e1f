//! What happens at the same moment: readers and writers, joins and leaves, connections that end in between.
//!
//! The large race is in `many`, its watchers are in `watch`; the one around the border of tail and view is in `sealing`. Random tests print their seed and take it back
//! from `HALLEY_TEST_SEED`.

mod check;
mod many;
mod sealing;
mod watch;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use halley::http::ListenerKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::device::{Device, admin, inbox, push_group, push_many, set_group};
use crate::support::{Http, KEY, PATIENCE, Random, TestServer, eventually, poll_request};

/// Keeps the thread busy for a moment too short to sleep.
fn spin(limit: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        std::hint::spin_loop();
    }
}

fn push_text(to: &str, body: &str) -> String {
    let body = format!("{{\"from\":\"alice\",\"body\":{body}}}");
    format!(
        "POST /v1/direct/{to}/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_between_read_and_wait_is_delivered() {
    let mut random = Random::from_environment("races");
    let server = TestServer::start().await;
    let mut device = Device::new(&server, "bob", "0");
    let mut pusher = server.connect_admin().await;
    for round in 1..=500_u64 {
        let text = push_text("bob", &round.to_string());
        let (mine, its) = (random.below(300), random.below(300));
        let pushed = tokio::spawn(async move {
            spin(Duration::from_micros(mine));
            pusher.send(&text).await;
            let status = pusher.reply().await.status;
            (pusher, status)
        });
        spin(Duration::from_micros(its));
        // The reply would come after the patience if only the end of the poll brought it.
        assert_eq!(device.poll(100, 60).await, 1, "round {round}");
        assert_eq!(device.got.last().unwrap().body, round);
        let status;
        (pusher, status) = pushed.await.unwrap();
        assert_eq!(status, 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_whose_pusher_left_wakes_held_polls_at_once() {
    let server = TestServer::start().await;
    let mut device = Device::new(&server, "bob", "0");
    for round in 1..=40_u64 {
        device.ask(100, 60).await;
        server.wait_held("bob", 1).await;
        let mut pusher = server.connect_admin().await;
        pusher.send(&push_text("bob", &round.to_string())).await;
        drop(pusher);
        // No other push helps it out.
        assert_eq!(device.answered().await, 1, "round {round}");
        assert_eq!(device.got.last().unwrap().body, round);
        let path = format!("/v1/messages/direct/{round}");
        assert_eq!(
            server.as_admin("GET", &path, "").await.json()["body"],
            round
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pusher_that_leaves_at_any_moment_has_pushed_all_or_nothing() {
    let mut random = Random::from_environment("races");
    let server = TestServer::start().await;
    let mut device = Device::new(&server, "bob", "0");
    let mut outcomes = HashSet::new();
    let mut flush = server.connect_admin().await;
    let mut held = false;
    let connections = async |count| {
        let what = format!("{count} connections of backends");
        eventually(&what, || async {
            server.app.connections(ListenerKind::Admin) == count
        })
        .await;
    };
    for round in 1..=80_u64 {
        if !held {
            device.ask(100, 60).await;
            server.wait_held("bob", 1).await;
        }
        let text = push_text("bob", &round.to_string());
        let whole = random.below(4) > 0;
        let sent = if whole {
            text.len()
        } else {
            text.len() - 1 - usize::try_from(random.below(40)).unwrap()
        };
        connections(1).await;
        let mut pusher = server.connect_admin().await;
        // Else it might be gone before the server has seen it.
        connections(2).await;
        pusher
            .stream
            .write_all(&text.as_bytes()[..sent])
            .await
            .unwrap();
        spin(Duration::from_micros(random.below(400)));
        pusher.stream.set_zero_linger().unwrap();
        drop(pusher);
        connections(1).await;
        // What was accepted is committed before this, which wakes nobody.
        let path = "/v1/direct/carol/messages";
        let reply = admin(
            &mut flush,
            "POST",
            path,
            "",
            "{\"from\":\"dave\",\"body\":0}",
        )
        .await;
        let id = reply.json()["id"].as_u64().unwrap() - 1;
        let last = admin(
            &mut flush,
            "GET",
            &format!("/v1/messages/direct/{id}"),
            "",
            "",
        )
        .await;
        let stored = last.status == 200 && last.json()["body"] == round;
        assert!(whole || !stored, "half a request was stored");
        held = !stored;
        if stored {
            assert_eq!(device.answered().await, 1, "round {round}");
            assert_eq!(device.got.last().unwrap().body, round);
        }
        outcomes.insert((whole, stored));
    }
    assert!(
        outcomes.contains(&(true, true)) && outcomes.contains(&(false, false)),
        "{outcomes:?}"
    );
    let all = inbox(&server, "bob").await;
    assert_eq!(all, device.got);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_push_to_a_group_of_2000_answers_its_300_held_polls_and_is_stored_once() {
    let server = TestServer::start().await;
    let members: Vec<String> = (0..2000).map(|n| format!("member-{n}")).collect();
    set_group(
        &server,
        "large",
        &members.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    let mut devices = Vec::new();
    for member in members
        .iter()
        .step_by(7)
        .chain(members.iter().skip(1).step_by(7))
        .take(300)
    {
        let mut device = Device::new(&server, member, "now");
        device.ask(10, 60).await;
        devices.push(device);
    }
    eventually("all polls are held", || async {
        server.hub.status().waiters == 300
    })
    .await;
    let before = server.hub.status().journal;
    let body = format!("\"{}\"", "x".repeat(5000));
    let id = push_group(&server, "large", &body).await;
    assert_eq!(id, 1);
    for mut device in devices {
        assert_eq!(device.answered().await, 1);
        assert_eq!(device.got[0].body.as_str().unwrap().len(), 5000);
        assert_eq!(device.next.split('.').nth(1), Some("1"));
    }
    eventually("the entry is counted", || async {
        server.hub.status().journal.offset == before.offset + 1
    })
    .await;
    let after = server.hub.status().journal;
    assert!(
        after.bytes - before.bytes < 6000,
        "one body: {before:?}, {after:?}"
    );
    for member in [&members[5], &members[1999]] {
        assert_eq!(inbox(&server, member).await.len(), 1, "{member}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_of_big_pages_disturb_nobody() {
    let server = TestServer::start().await;
    let long = "x".repeat(60_000);
    let item = serde_json::json!({ "to": "slow", "from": "alice", "body": long });
    let items = serde_json::Value::from(vec![item; 20]).to_string();
    assert_eq!(
        server.as_admin("POST", "/v1/messages", &items).await.status,
        200
    );
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut http = server.connect().await;
        // More than the sockets take: the server is stuck in its writes.
        http.send(&poll_request("slow", "after=0&limit=1000&wait=0").repeat(12))
            .await;
        http.stream.peek(&mut [0]).await.unwrap();
        slow.push(http);
    }
    let mut device = Device::new(&server, "bob", "0");
    for round in 1..=50_u64 {
        device.ask(10, 60).await;
        server.wait_held("bob", 1).await;
        let begin = Instant::now();
        server.push("alice", "bob", &round.to_string()).await;
        assert_eq!(device.answered().await, 1);
        assert!(
            begin.elapsed() < PATIENCE / 4,
            "late: {:?}",
            begin.elapsed()
        );
    }
    assert_eq!(
        server.held("slow").await,
        0,
        "who is being answered does not wait"
    );
    for mut http in slow {
        for _ in 0..12 {
            let reply = http.reply().await;
            assert_eq!(reply.bodies().len(), 17, "a page ends within 1 MiB");
            assert_eq!(reply.json()["more"], true);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_whose_client_leaves_frees_its_place_at_once() {
    let server = TestServer::with_hub(|hub| hub.waiters_per_user_max = 3, |_| {}).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(server.poll_held("bob").await);
    }
    for round in 0..30 {
        let refused = server.as_user("bob", "GET", "/v1/inbox?wait=0", "").await;
        assert_eq!(refused.code(), "too_many_waiters");
        let mut leaver: Http = held.remove(round % 3);
        if round % 2 == 0 {
            leaver.stream.set_zero_linger().unwrap();
        } else {
            leaver.stream.shutdown().await.unwrap();
        }
        drop(leaver);
        server.wait_held("bob", 2).await;
        held.push(server.poll_held("bob").await);
    }
    let leavers = std::mem::take(&mut held);
    // They leave while they are being answered.
    let bodies = push_many(&server, ("to", "bob"), 0..1);
    let ((), ids) = tokio::join!(async { drop(leavers) }, bodies);
    assert_eq!(ids, [1]);
    server.wait_held("bob", 0).await;
    assert_eq!(server.hub.status().waiters, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_was_cut_off_is_given_again() {
    let server = TestServer::start().await;
    let ids = push_many(&server, ("to", "bob"), 0..300).await;
    let mut device = Device::new(&server, "bob", "0");
    for cut in [1, 20, 200, 2000, 9000] {
        device.ask(100, 0).await;
        let mut http = device.leave().unwrap();
        let mut some = vec![0; cut];
        http.stream.read_exact(&mut some).await.unwrap();
    }
    let rest = device.rest(100).await;
    assert_eq!(crate::device::ids(&rest, "direct"), ids);
}
