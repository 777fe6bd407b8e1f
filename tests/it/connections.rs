//! Connections: slow, broken, gone, too many, and the server's end.

use std::time::{Duration, Instant};

use halley::http::ListenerKind;

use crate::support::{Http, KEY, PATIENCE, TestServer, eventually, poll_request};

const SHORT: Duration = Duration::from_millis(250);

fn push_head(length: &str) -> String {
    format!(
        "POST /v1/direct/bob/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\
         {length}\r\n\r\n"
    )
}

async fn healthy(http: &mut Http) -> bool {
    http.request("GET", "/healthz", &[], "").await.status == 200
}

#[tokio::test]
async fn silent_idle_and_slow_connections_are_cut() {
    let server = TestServer::with(|parts| {
        parts.timeouts.idle = SHORT;
        parts.timeouts.head = SHORT;
    })
    .await;
    let mut silent = server.connect().await;
    assert!(silent.ends().await);
    let mut slow = server.connect().await;
    slow.send("GET /healthz HTT").await;
    assert!(slow.ends().await);
    let mut idle = server.connect().await;
    assert!(healthy(&mut idle).await);
    assert!(idle.ends().await);
    eventually("all are gone", || async {
        server.app.connections(ListenerKind::Client) == 0
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_limit_for_heads() {
    let server = TestServer::with(|parts| parts.timeouts.head = SHORT).await;
    let mut client = server.connect().await;
    let mut backend = server.connect_admin().await;
    for _ in 0..2 {
        assert!(healthy(&mut client).await);
        let bearer = format!("authorization: Bearer {KEY}");
        let push = "{\"from\":\"a\",\"body\":1}";
        let reply = backend
            .request("POST", "/v1/direct/b/messages", &[&bearer], push)
            .await;
        assert_eq!(reply.status, 201);
        assert!(!client.ends_within(3 * SHORT).await);
        assert!(!backend.ends_within(SHORT).await);
    }
}

#[tokio::test]
async fn a_poll_outlives_every_limit_of_idle_connections() {
    let server = TestServer::with(|parts| {
        parts.timeouts.idle = SHORT;
        parts.timeouts.head = SHORT;
        parts.timeouts.write = SHORT;
    })
    .await;
    let mut http = server.poll_held("bob").await;
    assert!(!http.ends_within(4 * SHORT).await);
    server.push("alice", "bob", "1").await;
    assert_eq!(http.reply().await.bodies(), [1]);
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_told_so() {
    let server = TestServer::with(|parts| parts.timeouts.body = SHORT).await;
    let mut http = server.connect_admin().await;
    http.send(&(push_head("content-length: 100") + "{\"from\":"))
        .await;
    let reply = http.reply().await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (408, "request_timeout")
    );
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(http.ends().await);
}

#[tokio::test]
async fn a_body_that_trickles_is_told_so() {
    const PAUSE: Duration = Duration::from_secs(1);
    let server = TestServer::with(|parts| parts.timeouts.body = PAUSE).await;
    let mut http = server.connect_admin().await;
    http.send(&push_head("content-length: 50000")).await;
    let begin = Instant::now();
    while !http.ready_within(SHORT / 5).await {
        assert!(begin.elapsed() < PATIENCE, "nobody cuts it");
        http.send(" ").await;
    }
    assert!(begin.elapsed() >= 2 * PAUSE, "longer than one pause");
    let reply = http.reply().await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (408, "request_timeout")
    );
}

/// Three pauses are over, and what came since pays for the rest.
#[tokio::test]
async fn a_long_body_on_a_slow_line_is_taken() {
    const PAUSE: Duration = Duration::from_secs(1);
    let server = TestServer::with(|parts| parts.timeouts.body = PAUSE).await;
    let mut http = server.connect_admin().await;
    let body = format!("{{\"from\":\"a\",\"body\":\"{}\"}}", "x".repeat(20_000));
    http.send(&push_head(&format!("content-length: {}", body.len())))
        .await;
    for part in body.as_bytes().chunks(2_000) {
        http.send(std::str::from_utf8(part).unwrap()).await;
        tokio::time::sleep(PAUSE * 2 / 5).await;
    }
    assert_eq!(http.reply().await.status, 201);
}

#[tokio::test]
async fn a_peer_that_leaves_frees_its_waiter_at_once() {
    let server = TestServer::start().await;
    for leave in ["close", "reset", "half", "after another request"] {
        let mut http = server.poll_held("bob").await;
        match leave {
            "close" => drop(http),
            "reset" => {
                http.stream.set_zero_linger().unwrap();
                drop(http);
            }
            "half" => {
                tokio::io::AsyncWriteExt::shutdown(&mut http.stream)
                    .await
                    .unwrap();
                assert!(http.ends().await);
            }
            _ => {
                http.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
                assert!(!http.ends_within(SHORT).await);
                drop(http);
            }
        }
        let begin = Instant::now();
        server.wait_held("bob", 0).await;
        assert!(begin.elapsed() < PATIENCE / 4, "{leave}");
    }
    eventually("all are gone", || async {
        server.app.connections(ListenerKind::Client) == 0
    })
    .await;
}

#[tokio::test]
async fn what_is_sent_behind_a_held_poll_is_limited() {
    let server = TestServer::start().await;
    let behind = |length: usize| {
        let request = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: \r\n\r\n";
        request.replace(
            "long: ",
            &("long: ".to_owned() + &"y".repeat(length - request.len())),
        )
    };
    let mut http = server.poll_held("bob").await;
    http.send(&behind(4095)).await;
    assert!(!http.ends_within(SHORT).await);
    server.push("alice", "bob", "1").await;
    assert_eq!(http.reply().await.bodies(), [1]);
    assert_eq!(http.reply().await.status, 200, "what was sent behind it");

    let mut http = server.poll_held("bob").await;
    http.send(&behind(4096)).await;
    assert!(http.ends().await);
    server.wait_held("bob", 0).await;
}

#[tokio::test]
async fn a_pusher_that_ends_its_side_still_gets_the_receipt() {
    let server = TestServer::start().await;
    let mut http = server.connect_admin().await;
    let body = "{\"from\":\"a\",\"body\":1}";
    http.send(&(push_head(&format!("content-length: {}", body.len())) + body))
        .await;
    tokio::io::AsyncWriteExt::shutdown(&mut http.stream)
        .await
        .unwrap();
    assert_eq!(http.reply().await.status, 201);
    assert!(http.ends().await);
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let server = TestServer::start().await;
    let mut http = server.connect().await;
    let long = format!("x-long: {}", "y".repeat(17 * 1024));
    assert_eq!(
        http.request("GET", "/healthz", &[&long], "").await.status,
        431
    );
    assert!(http.ends().await);
    let mut http = server.connect().await;
    let fits = format!("x-long: {}", "y".repeat(14 * 1024));
    assert_eq!(
        http.request("GET", "/healthz", &[&fits], "").await.status,
        200
    );
}

#[tokio::test]
async fn what_is_not_taken_for_http_is_refused_without_a_body() {
    let server = TestServer::start().await;
    let fields = |count: usize| "x: y\r\n".repeat(count - 1);
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\nhost\r\n\r\n".to_owned(), 400),
        ("hello\r\n\r\n".to_owned(), 400),
        (
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n", fields(101)),
            431,
        ),
        (
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(17 << 10)),
            431,
        ),
    ] {
        let mut http = server.connect().await;
        http.send(&request).await;
        let reply = http.reply().await;
        assert_eq!((reply.status, reply.body.len()), (status, 0), "{reply:?}");
        assert_eq!(reply.header("content-type"), None);
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(http.ends().await);
    }
    let mut http = server.connect().await;
    http.send(&format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n",
        fields(100)
    ))
    .await;
    assert_eq!(http.reply().await.status, 200);
}

#[tokio::test]
async fn chunked_bodies_are_taken_and_limited() {
    let server = TestServer::start().await;
    let mut http = server.connect_admin().await;
    let chunks = "9\r\n{\"from\":\"\r\n8\r\na\",\"body\r\n5\r\n\":42}\r\n0\r\n\r\n";
    http.send(&(push_head("transfer-encoding: chunked") + chunks))
        .await;
    assert_eq!(http.reply().await.status, 201);
    assert!(healthy(&mut http).await, "the connection goes on");

    http.send(&push_head("transfer-encoding: chunked")).await;
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(4096));
    for _ in 0..21 {
        http.send(&chunk).await;
    }
    let reply = http.reply().await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "body_too_large")
    );
    assert!(reply.json()["limit"].is_u64());
}

#[tokio::test]
async fn a_body_that_is_declared_too_long_is_refused_unread() {
    let server = TestServer::with(|parts| parts.timeouts.linger = PATIENCE).await;
    let mut http = server.connect_admin().await;
    // What comes all the same must not make the reply get lost in a reset.
    let begun = " ".repeat(100 << 10);
    http.send(&(push_head("content-length: 100000000") + &begun))
        .await;
    let reply = http.reply().await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "body_too_large")
    );
    assert_eq!(reply.header("connection"), Some("close"));
    let end = tokio::io::AsyncReadExt::read(&mut http.stream, &mut [0]).await;
    assert_eq!(end.unwrap(), 0);
}

/// As a proxy is asked to open a tunnel.
#[tokio::test]
async fn a_target_without_a_path_is_refused() {
    let server = TestServer::start().await;
    for address in [server.client, server.admin] {
        for request in [
            "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
            "GET a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
            "OPTIONS a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n",
            "POST a:1 HTTP/1.1\r\nhost: a:1\r\ncontent-length: 2\r\n\r\n{}",
        ] {
            let mut http = Http::connect(address).await;
            http.send(request).await;
            let reply = http.reply().await;
            assert_eq!((reply.status, reply.code().as_str()), (400, "bad_request"));
        }
    }
}

/// A body left unread must never be taken for the next request.
#[tokio::test]
async fn an_unread_body_is_never_a_request() {
    let server = TestServer::start().await;
    let inner = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (method, path) in [
        ("POST", "/v1/direct/b/messages"),
        ("POST", "/nowhere"),
        ("GET", "/healthz"),
    ] {
        let mut http = server.connect().await;
        http.send(&format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{inner}",
            inner.len()
        ))
        .await;
        assert!(http.reply().await.status >= 400);
        assert!(http.ends().await, "{method} {path}");
    }
}

#[tokio::test]
async fn two_lengths_of_a_body_do_not_confuse() {
    let server = TestServer::start().await;
    let mut http = server.connect_admin().await;
    let head = push_head("content-length: 5\r\ntransfer-encoding: chunked");
    http.send(&(head + "15\r\n{\"from\":\"a\",\"body\":42}\r\n0\r\n\r\n"))
        .await;
    let status = http.reply().await.status;
    assert!(status == 201 || status == 400, "{status}");
    if status == 201 {
        assert!(http.ends_within(SHORT).await || healthy(&mut http).await);
    }
    let mut http = server.connect_admin().await;
    http.send(&push_head("content-length: 5\r\ncontent-length: 6"))
        .await;
    assert_eq!(http.reply().await.status, 400);
}

#[tokio::test]
async fn the_end_answers_held_polls_and_closes_idle_connections() {
    let mut server = TestServer::start().await;
    let mut held = server.poll_held("bob").await;
    let mut idle = server.connect().await;
    assert!(healthy(&mut idle).await);
    let mut fresh = server.connect().await;
    let mut busy = server.connect_admin().await;
    let body = "{\"from\":\"a\",\"body\":1}";
    busy.send(&(push_head(&format!("content-length: {}", body.len())) + "{\"from\""))
        .await;
    eventually("the push is under way", || async {
        server.app.connections(ListenerKind::Admin) == 1
    })
    .await;

    let begin = Instant::now();
    server.signal_stop();
    let reply = held.reply().await;
    assert_eq!(reply.status, 200);
    assert!(reply.bodies().is_empty());
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(held.ends().await && idle.ends().await && fresh.ends().await);
    busy.send(body.trim_start_matches("{\"from\"")).await;
    assert_eq!(
        busy.reply().await.status,
        201,
        "a request under way is finished"
    );
    drop((held, idle, fresh, busy));
    server.ended().await;
    assert!(begin.elapsed() < PATIENCE / 2);
}

#[tokio::test]
async fn a_hub_that_closes_answers_held_polls() {
    let server = TestServer::start().await;
    let mut held = server.poll_held("bob").await;
    server.hub.begin_close();
    let reply = held.reply().await;
    assert_eq!(
        (reply.status, reply.header("connection")),
        (200, Some("close"))
    );
    assert!(held.ends().await);
}

#[tokio::test]
async fn noise_is_refused_and_the_server_goes_on() {
    let server = TestServer::start().await;
    for noise in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}",
        "hello\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\r\n\r\n\r\n",
    ] {
        let mut http = server.connect().await;
        http.send(noise).await;
        tokio::io::AsyncWriteExt::shutdown(&mut http.stream)
            .await
            .unwrap();
        let mut rest = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut http.stream, &mut rest);
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("the connection ends")
            .ok();
    }
    assert!(healthy(&mut server.connect().await).await);
}

/// Its turn may come together with the stop, or behind it.
#[tokio::test]
async fn a_request_that_has_come_before_the_stop_is_answered_on_connections_of_polls() {
    const POLLS: usize = 20;
    for query in ["after=1.0&wait=60", "after=now&wait=59"] {
        let mut server = TestServer::start().await;
        let mut polls = Vec::new();
        for _ in 0..POLLS {
            let mut http = server.connect().await;
            http.send(&poll_request("bob", "after=now&wait=60")).await;
            polls.push(http);
        }
        server.wait_held("bob", POLLS.try_into().unwrap()).await;
        server.push("alice", "bob", "1").await;
        for http in &mut polls {
            assert_eq!(http.reply().await.bodies(), [1]);
        }
        for http in &mut polls {
            http.send(&poll_request("bob", query)).await;
        }
        server.signal_stop();
        for http in &mut polls {
            let reply = http.reply().await;
            assert_eq!(
                (reply.status, reply.header("connection")),
                (200, Some("close"))
            );
            assert!(http.ends().await);
        }
        drop(polls);
        server.ended().await;
    }
}
