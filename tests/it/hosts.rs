//! Whom a request is for, how its body is coded, and who may ask at all.

use std::time::{Duration, Instant};

use halley::config::IcometRules::{Open, Strict};
use halley::http::Parts;
use serde_json::json;

use crate::device::set_group;
use crate::support::{Frame, Http, KEY, Reply, Socket, TestServer, frame};

/// Sends a head as it is, and reads the reply.
async fn ask(http: &mut Http, head: &str) -> Reply {
    http.send(&format!("{head}\r\n\r\n")).await;
    http.reply().await
}

#[tokio::test]
async fn http_1_1_wants_one_host_that_is_one() {
    let server = TestServer::start().await;
    for (head, status) in [
        ("GET /healthz HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
        ("OPTIONS /v1/inbox HTTP/1.1", 400),
        ("GET /nowhere HTTP/1.1", 400),
        ("CONNECT x:80 HTTP/1.1", 400),
        ("GET http://x/healthz HTTP/1.1", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: a", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b", 400),
        ("GET /healthz HTTP/1.0\r\nhost: a\r\nhost: b", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a b", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a, b", 400),
        ("GET /healthz HTTP/1.1\r\nhost: http://a", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a/b", 400),
        ("GET /healthz HTTP/1.1\r\nhost: u@a", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a:b", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a:65536", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a:80:80", 400),
        ("GET /healthz HTTP/1.1\r\nhost: [::1", 400),
        ("GET /healthz HTTP/1.1\r\nhost: [::1]x", 400),
        ("GET /healthz HTTP/1.1\r\nhost: [a]", 400),
        ("GET /healthz HTTP/1.1\r\nhost: ::1", 400),
        ("GET /healthz HTTP/1.1\r\nhost: \u{fc}", 400),
        ("GET /healthz HTTP/1.1\r\nhost: a?b", 400),
        ("GET /healthz HTTP/1.1\r\nhost:", 200),
        ("GET /healthz HTTP/1.1\r\nhost: push.example.com", 200),
        ("GET /healthz HTTP/1.1\r\nHOST: A_b-c.example.:8100", 200),
        ("GET /healthz HTTP/1.1\r\nhost: a:", 200),
        ("GET /healthz HTTP/1.1\r\nhost: 127.0.0.1:8100", 200),
        ("GET /healthz HTTP/1.1\r\nhost: [::1]:8100", 200),
        ("GET http://y/healthz HTTP/1.1\r\nhost: x", 200),
        ("GET /healthz HTTP/1.0", 200),
        ("GET /healthz HTTP/1.0\r\nhost: a b", 400),
    ] {
        for mut http in [server.connect().await, server.connect_admin().await] {
            let reply = ask(&mut http, head).await;
            assert_eq!(reply.status, status, "{head:?}: {reply:?}");
            if status == 400 {
                assert_eq!(reply.code(), "bad_request", "{head:?}");
            }
        }
    }
}

async fn open_server(change: impl FnOnce(&mut Parts)) -> TestServer {
    TestServer::with_hub(
        |options| options.channels_max = 100,
        |parts| {
            parts.icomet = Some(Open);
            change(parts);
        },
    )
    .await
}

/// A name that its owner points to this server (DNS rebinding) is not this server's.
#[tokio::test]
async fn a_server_that_is_open_to_all_answers_to_its_own_names_only() {
    let open = open_server(|parts| parts.allowed_hosts = vec!["push.example.com".to_owned()]).await;
    let demo = TestServer::with(|parts| {
        parts.demo = true;
        parts.allowed_hosts = vec!["push.example.com".to_owned()];
    })
    .await;
    let closed = TestServer::with(|parts| parts.icomet = Some(Strict)).await;
    for (host, own) in [
        ("localhost", true),
        ("LOCALHOST:8100", true),
        ("demo.localhost", true),
        ("127.0.0.1:8100", true),
        ("192.168.1.7", true),
        ("[::1]:8100", true),
        ("halley", true),
        ("halley.default.svc.cluster.local", true),
        ("push.corp.internal", true),
        ("push.example.com", true),
        ("Push.Example.Com.:8100", true),
        ("evil.example", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("127.0.0.1.nip.io", false),
        ("notlocal", true),
        ("evil.notlocal", false),
        ("a.push.example.com", false),
    ] {
        for (server, path) in [(&open, "/healthz"), (&demo, "/")] {
            for mut http in [server.connect().await, server.connect_admin().await] {
                let head = format!("GET {path} HTTP/1.1\r\nhost: {host}");
                let reply = ask(&mut http, &head).await;
                assert_eq!(reply.status, if own { 200 } else { 421 }, "{host}");
                if !own {
                    assert_eq!(reply.code(), "foreign_host");
                }
            }
        }
        let head = format!("GET /healthz HTTP/1.1\r\nhost: {host}");
        assert_eq!(ask(&mut closed.connect().await, &head).await.status, 200);
    }
    // The target's own host counts, not the header's.
    let head = "GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost";
    assert_eq!(ask(&mut open.connect().await, head).await.status, 421);
    let head = "GET /healthz HTTP/1.0";
    assert_eq!(ask(&mut open.connect().await, head).await.status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_do_nothing_on_a_server_that_is_open_to_all() {
    let server = open_server(|_| {}).await;
    let push = "GET /push?cname=a&content=x HTTP/1.1\r\nhost: 127.0.0.1:8000";
    let sub = "GET /sub?cname=a&seq=0 HTTP/1.1\r\nhost: 127.0.0.1:8100";
    for (headers, admin, client) in [
        ("", 200, 200),
        ("sec-fetch-site: none", 200, 200),
        ("sec-fetch-site: same-origin", 200, 200),
        ("origin: http://127.0.0.1:8000", 200, 403),
        ("origin: http://127.0.0.1:8100", 403, 200),
        ("origin: http://127.0.0.1", 403, 403),
        ("origin: https://evil.example", 403, 403),
        ("origin: null", 403, 403),
        ("referer: https://evil.example/page?x#y", 403, 403),
        ("referer: http://127.0.0.1:8100/page", 403, 200),
        ("sec-fetch-site: cross-site", 403, 403),
        ("sec-fetch-site: same-site", 403, 403),
        (
            "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate",
            403,
            403,
        ),
        // Those that are let in are let in on the client listener.
        ("origin: https://app.example", 403, 200),
        (
            "sec-fetch-site: cross-site\r\nreferer: https://app.example/a",
            403,
            200,
        ),
    ] {
        for (request, mut http, status) in [
            (push, server.connect_admin().await, admin),
            (sub, server.connect().await, client),
        ] {
            let head = format!("{request}\r\n{headers}");
            let reply = ask(&mut http, head.trim_end()).await;
            assert_eq!(reply.status, status, "{head:?}: {reply:?}");
            if status == 403 {
                assert_eq!(reply.code(), "foreign_page", "{head:?}");
            }
        }
    }
    // A link to the page of the demo is a link.
    let demo = TestServer::with(|parts| parts.demo = true).await;
    for (path, status) in [("/", 200), ("/demo/join", 403)] {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: navigate"
        );
        assert_eq!(
            ask(&mut demo.connect().await, &head).await.status,
            status,
            "{path}"
        );
    }
    // Where keys and tokens are shown, other sites' pages have nothing to show.
    let closed = TestServer::start().await;
    let reply = ask(
        &mut closed.connect().await,
        "GET /healthz HTTP/1.1\r\nhost: evil.example\r\norigin: https://evil.example",
    )
    .await;
    assert_eq!(reply.status, 200);
}

/// Headers, whether the body comes in chunks, the status, and the code of the refusal.
#[rustfmt::skip]
const CODED: &[(&str, bool, u16, &str)] = &[
    ("content-encoding: gzip", false, 415, "content_encoding"),
    ("content-encoding: br, identity", false, 415, "content_encoding"),
    ("content-encoding: identity\r\ncontent-encoding: zstd", false, 415, "content_encoding"),
    ("content-encoding: gzip\r\ntransfer-encoding: chunked", true, 415, "content_encoding"),
    ("transfer-encoding: gzip, chunked", true, 501, "transfer_encoding"),
    ("transfer-encoding: gzip\r\ntransfer-encoding: chunked", true, 501, "transfer_encoding"),
    ("content-encoding: Identity", false, 201, ""),
    ("content-encoding:", false, 201, ""),
    ("transfer-encoding: Chunked", true, 201, ""),
    ("content-type: text/plain; charset=utf-8", false, 201, ""),
    ("content-type: application/x-www-form-urlencoded", false, 201, ""),
    ("expect: 200-ok", false, 201, ""),
];

#[tokio::test]
async fn a_body_that_is_coded_is_refused() {
    let server = TestServer::start().await;
    let push = "{\"from\":\"a\",\"body\":1}";
    let length = push.len();
    for (headers, chunked, status, code) in CODED {
        let rest = if *chunked {
            format!("{headers}\r\n\r\n{length:x}\r\n{push}\r\n0\r\n\r\n")
        } else {
            format!("{headers}\r\ncontent-length: {length}\r\n\r\n{push}")
        };
        let mut http = server.connect_admin().await;
        http.send(&format!(
            "POST /v1/direct/x/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n{rest}"
        ))
        .await;
        let reply = http.reply().await;
        assert_eq!(reply.status, *status, "{headers}: {reply:?}");
        if *status >= 400 {
            assert_eq!(reply.code(), *code, "{headers}");
            let wanted = (*status == 415).then_some("identity");
            assert_eq!(reply.header("accept-encoding"), wanted);
        }
    }
}

/// Who may not see a group is not told that it is there.
#[tokio::test]
async fn a_group_of_others_and_none_are_the_same_to_a_user() {
    let server = TestServer::start().await;
    set_group(&server, "theirs", &["alice"]).await;
    set_group(&server, "gone", &["alice"]).await;
    server.as_admin("DELETE", "/v1/groups/gone", "").await;
    server
        .as_admin(
            "PUT",
            "/v1/groups/open",
            "{\"members\":[\"alice\"],\"history\":\"all\"}",
        )
        .await;
    let mut socket = Socket::open(&server, "bob").await;
    let mut seen = Vec::new();
    for group in ["none", "theirs", "gone", "open"] {
        let path = format!("/v1/groups/{group}/messages");
        let mut replies = Vec::new();
        for (method, path, body) in [
            ("POST", path.clone(), "{\"body\":1}"),
            ("GET", path.clone(), ""),
            ("GET", format!("{path}?before=5"), ""),
            ("GET", format!("{path}?after=99"), ""),
        ] {
            let reply = server.as_user("bob", method, &path, body).await;
            replies.push((reply.status, reply.json()));
        }
        let answer = socket
            .ask(&json!({"send": {"group": group, "body": 1}}))
            .await;
        replies.push((404, answer["error"].clone()));
        seen.push(replies);
    }
    for replies in &seen {
        assert_eq!(*replies, seen[0]);
        assert_eq!(replies[0].1["code"], "group_not_found");
        assert_eq!(replies[4].1["code"], "group_not_found");
    }
    // A member who left is as the others.
    server
        .as_admin("DELETE", "/v1/groups/theirs/members/alice", "")
        .await;
    let reply = server
        .as_user(
            "alice",
            "POST",
            "/v1/groups/theirs/messages",
            "{\"body\":1}",
        )
        .await;
    assert_eq!((reply.status, reply.json()), seen[0][0]);
}

async fn timed(server: &TestServer, key: &str) -> (u16, Duration) {
    let header = format!("authorization: Bearer {key}");
    let mut http = server.connect_admin().await;
    let begin = Instant::now();
    let reply = http.request("GET", "/v1/status", &[&header], "").await;
    (reply.status, begin.elapsed())
}

/// The first few are answered at once, then each later than the one before; right ones never wait.
#[tokio::test]
async fn wrong_keys_are_answered_late_and_right_ones_are_not() {
    let server = TestServer::with(|parts| parts.timeouts.refusal = Duration::from_secs(3600)).await;
    for n in 0..5 {
        let (status, took) = timed(&server, "not the key at all").await;
        let least = [0, 0, 0, 50, 100][n];
        assert_eq!(status, 401);
        assert!(took >= Duration::from_millis(least), "{n}: {took:?}");
    }
    for _ in 0..8 {
        server
            .connect_admin()
            .await
            .send("GET /v1/status HTTP/1.1\r\nhost: x\r\nauthorization: Bearer not the key\r\n\r\n")
            .await;
    }
    // The eight wait for up to 25 s now; one that is right and one that is expired do not.
    assert_eq!(timed(&server, KEY).await.0, 200);
    // Nor does one without any key, which is no attempt.
    let mut http = server.connect_admin().await;
    assert_eq!(http.request("GET", "/v1/status", &[], "").await.status, 401);
}

/// However many wait, the rest are answered at once: a flood of wrong ones holds no more than that.
#[tokio::test]
async fn a_flood_of_wrong_tokens_holds_a_bounded_number_of_requests() {
    let server = TestServer::with(|parts| parts.timeouts.refusal = Duration::from_secs(3600)).await;
    let request = "GET /v1/inbox HTTP/1.1\r\nhost: x\r\nauthorization: Bearer a.b.c\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut http = server.connect().await;
        http.send(request).await;
        open.push(http);
    }
    for _ in 0..100 {
        let mut http = server.connect().await;
        http.send(request).await;
        open.push(http);
    }
    // 64 wait at most.
    crate::support::eventually("the others are answered", async || {
        let mut answered = 0;
        for http in &open {
            answered += usize::from(http.ready_within(Duration::ZERO).await);
        }
        answered >= 120 - 64
    })
    .await;
    let status = server
        .as_user("bob", "GET", "/v1/inbox?wait=0", "")
        .await
        .status;
    assert_eq!(status, 200, "a right token is not held");
}

/// A wrong token on an open socket too.
#[tokio::test]
async fn a_wrong_token_on_a_socket_is_refused_and_the_socket_stays_open() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    for _ in 0..5 {
        let answer = socket.ask(&json!({"token": "a.b.c"})).await;
        assert_eq!(answer["error"]["code"], "unauthorized");
    }
    socket.put(&frame(0x89, b"x")).await;
    assert!(matches!(socket.frame().await, Some(Frame::Pong(_))));
}
