//! Peers that read slowly, or not at all.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use halley::http::ListenerKind;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::crowd::process::{Process, ask};
use crate::support::{Http, PATIENCE, Reader, TestServer, Way, eventually, poll_request};

const SHORT: Duration = Duration::from_millis(250);

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut() {
    let server = TestServer::with(|parts| {
        parts.timeouts.write = SHORT;
        parts.limits.body_bytes_max = 8 << 20;
    })
    .await;
    // More than the kernel keeps for a connection.
    let long = format!("\"{}\"", "x".repeat(7 << 20));
    server.push("alice", "bob", &long).await;
    let mut through_hyper = Http::connect_narrow(server.client).await;
    let history = poll_request("bob", "").replacen("inbox?", "direct/alice/messages", 1);
    through_hyper.send(&history).await;
    let mut past_hyper = Http::connect_narrow(server.client).await;
    let poll = poll_request("bob", "after=now&wait=60");
    past_hyper.send(&poll).await;
    server.wait_held("bob", 1).await;
    server.push("alice", "bob", &long).await;
    eventually("both are cut", || async {
        server.app.connections(ListenerKind::Client) == 0
    })
    .await;
    assert_eq!(server.held("bob").await, 0);
    assert_eq!(past_hyper.head().await.status, 200);
    assert_eq!(through_hyper.head().await.status, 200);
    for mut http in [past_hyper, through_hyper] {
        // The rest was thrown away: the kernel does not keep it until it is read.
        let rest = http.stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(rest.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn who_is_being_answered_does_not_wait_any_more() {
    let server = TestServer::with(|parts| {
        parts.timeouts.write = 10 * PATIENCE;
        parts.limits.body_bytes_max = 8 << 20;
    })
    .await;
    let mut http = Http::connect_narrow(server.client).await;
    http.send(&poll_request("bob", "after=now&wait=60")).await;
    server.wait_held("bob", 1).await;
    // More than the kernel keeps for a connection.
    let long = format!("\"{}\"", "x".repeat(7 << 20));
    server.push("alice", "bob", &long).await;
    server.wait_held("bob", 0).await;
    assert_eq!(server.app.connections(ListenerKind::Client), 1);
    assert_eq!(http.head().await.status, 200);
}

#[tokio::test]
async fn a_slow_reader_that_goes_on_reading_gets_all() {
    let server = TestServer::with(|parts| parts.timeouts.write = Duration::from_secs(5)).await;
    let mut http = server.poll_held("bob").await;
    let long = "x".repeat(60_000);
    let items: Vec<_> = (0..100)
        .map(|_| json!({ "to": "bob", "from": "alice", "body": long }))
        .collect();
    let items = serde_json::to_string(&items).unwrap();
    assert_eq!(
        server.as_admin("POST", "/v1/messages", &items).await.status,
        200
    );
    assert!(!http.reply().await.bodies().is_empty());
    assert!(http.request("GET", "/healthz", &[], "").await.status == 200);
}

/// Neither its time nor its token is prolonged by reading slowly.
#[tokio::test]
async fn a_stream_that_is_behind_ends_in_time() {
    const COUNT: usize = 400;
    /// Long enough for a busy machine to begin.
    const LIFE: Duration = Duration::from_secs(1);
    let server = TestServer::with(|parts| parts.timeouts.stream = LIFE).await;
    // More than the kernel keeps for a connection.
    let item = json!({ "to": "bob", "from": "alice", "body": "x".repeat(60_000) });
    for _ in 0..COUNT / 100 {
        let items = json!(vec![&item; 100]).to_string();
        let reply = server.as_admin("POST", "/v1/messages", &items).await;
        assert_eq!(reply.status, 200);
    }
    for (path, mark) in [("sse", "event: end"), ("stream", "{\"end\":")] {
        let mut http = Http::connect_narrow(server.client).await;
        let request = poll_request("bob", "").replace("inbox?", &format!("inbox/{path}"));
        http.send(&request).await;
        server.wait_held("bob", 1).await;
        // Its time passes while the server waits for room.
        tokio::time::sleep(2 * LIFE).await;
        let mut text = Vec::new();
        http.stream.read_to_end(&mut text).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let got = text.matches("\"sequence\"").count();
        assert!((1..COUNT).contains(&got), "{path}: {got} messages");
        assert!(
            text.contains(mark) && text.contains("stream_over"),
            "{path}"
        );
    }
}

/// However little at a time it takes, it never takes nothing.
#[tokio::test]
async fn a_reader_that_trickles_is_cut() {
    const PAUSE: Duration = Duration::from_secs(1);
    let server = TestServer::with(|parts| {
        parts.timeouts.write = PAUSE;
        parts.timeouts.write_bytes_per_s = u64::MAX;
        parts.limits.body_bytes_max = 8 << 20;
    })
    .await;
    let long = format!("\"{}\"", "x".repeat(7 << 20));
    server.push("alice", "bob", &long).await;
    for request in replies() {
        let mut http = Http::connect_narrow(server.client).await;
        http.send(&request).await;
        let begin = Instant::now();
        let mut piece = [0; 8192];
        let mut got = 0;
        loop {
            match http.stream.read(&mut piece).await {
                Ok(length @ 1..) => got += length,
                Ok(0) => panic!("{request}: it is given {got} bytes"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                    break;
                }
            }
            assert!(got < 7 << 20, "{request}: it is given all");
            tokio::time::sleep(PAUSE / 100).await;
        }
        assert!(begin.elapsed() > PAUSE, "a pause was not allowed");
    }
}

/// Long replies, each by another way.
fn replies() -> [String; 4] {
    [
        "inbox?",
        "direct/alice/messages?",
        "conversations?",
        "inbox/stream?",
    ]
    .map(|path| poll_request("bob", "").replacen("inbox?", path, 1))
}

/// The time for the next request's head begins when the reply is written.
#[tokio::test]
async fn a_reply_may_be_read_for_longer_than_a_head_may_take() {
    let server = TestServer::with(|parts| {
        parts.timeouts.head = SHORT;
        parts.limits.body_bytes_max = 8 << 20;
    })
    .await;
    let long = format!("\"{}\"", "x".repeat(7 << 20));
    server.push("alice", "bob", &long).await;
    for request in replies().into_iter().take(3) {
        let mut http = Http::connect_narrow(server.client).await;
        http.send(&request).await;
        let head = http.head().await;
        assert_eq!(head.status, 200);
        tokio::time::sleep(4 * SHORT).await;
        let mut head = head;
        http.body_of(&mut head).await;
        assert!(head.body.len() > 7 << 20, "{request}");
        assert_eq!(http.request("GET", "/healthz", &[], "").await.status, 200);
    }
}

#[tokio::test]
async fn a_user_has_so_many_requests_in_work_and_no_more() {
    const MOST: usize = 4;
    let server = TestServer::with(|parts| {
        parts.timeouts.write = 10 * PATIENCE;
        parts.timeouts.crowd = SHORT;
        parts.limits.requests_per_user_max = MOST;
        parts.limits.body_bytes_max = 8 << 20;
    })
    .await;
    // Those that wait are not in work.
    let mut held = Vec::new();
    for _ in 0..2 * MOST {
        held.push(server.poll_held("bob").await);
    }
    let long = format!("\"{}\"", "x".repeat(7 << 20));
    server.push("alice", "bob", &long).await;
    for mut http in held {
        assert_eq!(http.reply().await.status, 200);
    }
    let (token, mut open) = (TestServer::token("bob"), Vec::new());
    for way in Way::OPEN {
        for _ in 0..MOST {
            let opened = Reader::open(server.client, way, &token, "now").await;
            open.push(opened.unwrap());
        }
    }
    for request in replies().into_iter().take(3) {
        let mut slow = Vec::new();
        for _ in 0..MOST {
            let mut http = Http::connect_narrow(server.client).await;
            http.send(&request).await;
            assert_eq!(http.head().await.status, 200, "{request}");
            slow.push(http);
        }
        for other in replies() {
            let mut http = server.connect().await;
            http.send(&other).await;
            let reply = http.reply().await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (429, "too_many_requests"),
                "{other}"
            );
            assert_eq!(reply.header("retry-after"), Some("1"));
            assert_eq!(reply.json()["limit"], MOST);
        }
        let others = server.as_user("carol", "GET", "/v1/conversations", "");
        assert_eq!(others.await.status, 200);
        // Who is gone, or has read, makes room.
        drop(slow);
        eventually("there is room", || async {
            let reply = server.as_user("bob", "GET", "/v1/conversations?limit=1", "");
            reply.await.status == 200
        })
        .await;
    }
    for _ in 0..2 * MOST {
        let mut http = server.connect().await;
        http.send(&replies()[1]).await;
        assert_eq!(http.reply().await.status, 200, "what is read is over");
    }
}

/// Only those that last are too many.
#[tokio::test]
async fn a_burst_of_one_user_is_served() {
    const BURST: usize = 40;
    let server = TestServer::with(|parts| {
        parts.timeouts.crowd = 10 * PATIENCE;
        parts.limits.requests_per_user_max = 4;
    })
    .await;
    server.push("alice", "bob", "1").await;
    let bearer = format!("authorization: Bearer {}", TestServer::token("bob"));
    for (method, path, body, status) in [
        ("POST", "/v1/direct/carol/messages", "{\"body\":1}", 201),
        ("GET", "/v1/direct/alice/messages", "", 200),
        ("GET", "/v1/conversations", "", 200),
        ("GET", "/v1/inbox", "", 200),
    ] {
        let length = body.len();
        let mut burst = Vec::new();
        for _ in 0..BURST {
            let mut http = server.connect().await;
            http.send(&format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\n{bearer}\r\ncontent-length: {length}\r\n\r\n{body}"
            ))
            .await;
            burst.push(http);
        }
        for mut http in burst {
            assert_eq!(http.reply().await.status, status, "{path}");
        }
    }
}

/// Each asks for a page of a megabyte, by any way, and reads nothing of it.
#[tokio::test]
async fn many_readers_of_one_user_that_do_not_read_take_little_memory() {
    const READERS: usize = 300;
    const GROWTH_KIB_MAX: u64 = 150 * 1024;
    let server = Process::start().await;
    let mut backend = Http::connect(server.admin).await;
    let item = json!({ "to": "bob", "from": "alice", "body": "x".repeat(60_000) });
    for _ in 0..2 {
        let items = json!(vec![&item; 20]).to_string();
        ask(&mut backend, "POST", "/v1/messages", &items).await;
    }
    let before = server.resident_kib();
    let mut readers = Vec::new();
    for number in 0..READERS {
        let path = ["inbox?", "direct/alice/messages?", "conversations?"][number % 3];
        let mut http = Http::connect_narrow(server.client).await;
        let token = Process::token("bob");
        http.send(&format!(
            "GET /v1/{path}limit=100 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
        readers.push(http);
    }
    let mut answered = 0;
    for http in &mut readers {
        answered += usize::from(http.head().await.status == 200);
    }
    assert!((1..=READERS / 2).contains(&answered), "{answered} replies");
    let growth = server.resident_kib().saturating_sub(before);
    assert!(
        growth < GROWTH_KIB_MAX,
        "{growth} KiB for {answered} replies"
    );
    let token = Process::token("carol");
    let bearer = format!("authorization: Bearer {token}");
    let mut other = Http::connect(server.client).await;
    let reply = other
        .request("GET", "/v1/conversations", &[&bearer], "")
        .await;
    assert_eq!(reply.status, 200);
}

/// Replies that nobody reads must not pile up.
#[tokio::test]
async fn who_does_not_read_is_not_read_on() {
    const MOST: usize = 32 << 20;
    let server = TestServer::with(|parts| parts.timeouts.write = 10 * PATIENCE).await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        let http = Http::connect_narrow(server.client).await;
        let request = format!("{method} /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
        let piece = request.repeat((64 << 10) / request.len()).into_bytes();
        let mut sent = 0;
        while let Ok(ready) = tokio::time::timeout(4 * SHORT, http.stream.writable()).await {
            ready.unwrap();
            // A piece that is cut makes a wrong request, which ends nothing of the test.
            if let Ok(length) = http.stream.try_write(&piece[sent % piece.len()..]) {
                sent += length;
            }
            assert!(sent < MOST, "{method}: {sent} bytes are read");
        }
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let server = TestServer::with(|parts| {
        parts.limits.connections_per_address_max = Some(2);
    })
    .await;
    let healthy = async |http: &mut Http| http.request("GET", "/healthz", &[], "").await.status;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    assert_eq!(
        (healthy(&mut one).await, healthy(&mut two).await),
        (200, 200)
    );
    let mut third = server.connect().await;
    let reply = third.reply().await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "too_many_connections")
    );
    assert!(third.ends().await);
    for _ in 0..3 {
        assert_eq!(healthy(&mut server.connect_admin().await).await, 200);
    }
    drop(one);
    eventually("there is room", || async {
        let mut http = server.connect().await;
        http.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        http.head_if_any()
            .await
            .is_some_and(|head| head.status == 200)
    })
    .await;
}
