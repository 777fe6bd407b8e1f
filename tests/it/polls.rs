//! Polls: answered at once, held, woken, and the connection after them.

use std::time::{Duration, Instant};

use crate::support::{Http, KEY, Reply, TestServer, poll_request};

fn next(reply: &Reply) -> String {
    reply.json()["next"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_there_is_given_at_once_and_what_comes_wakes_the_poll() {
    let server = TestServer::start().await;
    server.push("alice", "bob", "{ \"n\" : 1.0 }").await;
    let mut http = server.connect().await;
    http.send(&poll_request("bob", "wait=60")).await;
    let first = http.reply().await;
    assert_eq!(first.status, 200);
    assert!(
        first.text().contains("\"body\":{ \"n\" : 1.0 }}"),
        "{}",
        first.text()
    );

    http.send(&poll_request(
        "bob",
        &format!("after={}&wait=60", next(&first)),
    ))
    .await;
    server.wait_held("bob", 1).await;
    server.push("alice", "bob", "2").await;
    let second = http.reply().await;
    assert_eq!(second.bodies(), [2]);
    server.wait_held("bob", 0).await;

    http.send(&poll_request(
        "bob",
        &format!("after={}&wait=0", next(&second)),
    ))
    .await;
    let third = http.reply().await;
    assert!(third.bodies().is_empty());
    assert_eq!(next(&third), next(&second));
}

#[tokio::test]
async fn a_poll_without_news_ends_by_time_with_an_advanced_cursor() {
    let server = TestServer::start().await;
    let mut http = server.connect().await;
    let begin = Instant::now();
    http.send(&poll_request("bob", "after=0&wait=1")).await;
    server.wait_held("bob", 1).await;
    server.push("alice", "carol", "1").await;
    let reply = http.reply().await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(reply.bodies().is_empty());
    assert!(next(&reply).starts_with("1.0."), "{}", next(&reply));
}

#[tokio::test]
async fn a_held_reply_has_every_header_of_one_by_hyper() {
    let server = TestServer::start().await;
    let origin = "Origin: https://app.example\r\n\r\n";
    let with_origin =
        |query: &str| poll_request("bob", query).replacen("\r\n\r\n", &format!("\r\n{origin}"), 1);
    let mut http = server.connect().await;
    http.send(&with_origin("wait=0").replacen("GET", "HEAD", 1))
        .await;
    let direct = http.head().await;
    http.send(&with_origin("wait=60")).await;
    server.wait_held("bob", 1).await;
    server.push("alice", "bob", "1").await;
    let held = http.reply().await;

    let names = |reply: &Reply| {
        let mut names: Vec<String> = reply
            .headers()
            .filter(|(name, _)| !["content-length", "date"].contains(name))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&held), names(&direct));
    assert_eq!(
        held.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(held.header("vary"), Some("Origin"));
    assert_eq!(held.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(held.header("x-content-type-options"), Some("nosniff"));
    let (ours, hypers) = (held.header("date").unwrap(), direct.header("date").unwrap());
    assert_eq!(ours.len(), hypers.len());
    assert!(
        ours.ends_with(" GMT") && hypers.ends_with(" GMT"),
        "{ours}, {hypers}"
    );
}

#[tokio::test]
async fn old_clients_get_one_reply_and_the_end_unless_they_ask() {
    let server = TestServer::start().await;
    let old = |more: &str| {
        poll_request("bob", "after=now&wait=60")
            .replace("HTTP/1.1", "HTTP/1.0")
            .replacen("host: x", &format!("host: x{more}"), 1)
    };
    for (more, connection) in [("", "close"), ("\r\nconnection: keep-alive", "keep-alive")] {
        let mut http = server.connect().await;
        http.send(&old(more)).await;
        server.wait_held("bob", 1).await;
        server.push("alice", "bob", "1").await;
        let reply = http.reply().await;
        assert_eq!((reply.status, reply.version()), (200, "HTTP/1.0"));
        assert_eq!(reply.header("connection"), Some(connection));
        if connection == "close" {
            assert!(http.ends().await);
        } else {
            http.send(&poll_request("bob", "wait=0")).await;
            assert_eq!(http.reply().await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_for_the_end_gets_it() {
    let server = TestServer::start().await;
    let mut http = server.connect().await;
    let request = poll_request("bob", "after=now&wait=60");
    http.send(&request.replacen("host: x", "host: x\r\nConnection: foo, Close", 1))
        .await;
    server.wait_held("bob", 1).await;
    server.push("alice", "bob", "1").await;
    assert_eq!(http.reply().await.header("connection"), Some("close"));
    assert!(http.ends().await);
}

#[tokio::test]
async fn a_request_sent_behind_a_held_one_is_answered_after_it() {
    let server = TestServer::start().await;
    let mut http = server.connect().await;
    http.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let both = poll_request("bob", "after=now&wait=60") + "GET /healthz HTTP/1.1\r\nho";
    http.send(&both).await;
    assert_eq!(http.reply().await.text(), "{\"status\":\"ok\"}");
    server.wait_held("bob", 1).await;
    http.send("st: x\r\n\r\n").await;
    server.push("alice", "bob", "1").await;
    assert_eq!(http.reply().await.bodies(), [1]);
    assert_eq!(http.reply().await.text(), "{\"status\":\"ok\"}");
}

#[tokio::test]
async fn head_of_an_inbox_is_answered_at_once() {
    let server = TestServer::start().await;
    let bearer = format!("authorization: Bearer {}", TestServer::token("bob"));
    let mut http = server.connect().await;
    let reply = http
        .request("HEAD", "/v1/inbox?wait=60", &[&bearer], "")
        .await;
    assert_eq!(reply.status, 200);
    assert!(
        reply
            .header("content-length")
            .is_some_and(|length| length != "0")
    );
    let reply = http.request("GET", "/healthz", &[], "").await;
    assert_eq!(reply.status, 200, "no body stood between");
}

#[tokio::test]
async fn the_backend_polls_for_a_user_and_does_not_wait_unless_it_says_so() {
    let server = TestServer::start().await;
    let reply = server.as_admin("GET", "/v1/users/bob/inbox", "").await;
    assert!(reply.bodies().is_empty());
    let mut http = server.connect_admin().await;
    http.send(&format!(
        "GET /v1/users/bob/inbox?wait=60 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\r\n"
    ))
    .await;
    server.wait_held("bob", 1).await;
    server.push("alice", "bob", "1").await;
    assert_eq!(http.reply().await.bodies(), [1]);
}

#[tokio::test]
async fn a_group_message_wakes_all_its_many_waiters() {
    let server = TestServer::start().await;
    let users: Vec<String> = (0..200).map(|n| format!("user{n}")).collect();
    let members = serde_json::json!({ "members": users }).to_string();
    assert_eq!(
        server
            .as_admin("PUT", "/v1/groups/team", &members)
            .await
            .status,
        201
    );
    let mut polls: Vec<Http> = Vec::new();
    for user in &users {
        let mut http = server.connect().await;
        http.send(&poll_request(user, "after=now&wait=60")).await;
        polls.push(http);
    }
    for user in &users {
        server.wait_held(user, 1).await;
    }
    let long = "x".repeat(5000);
    let push = format!("{{\"from\":\"alice\",\"body\":\"{long}\"}}");
    assert_eq!(
        server
            .as_admin("POST", "/v1/groups/team/messages", &push)
            .await
            .status,
        201
    );
    for mut http in polls {
        let reply = http.reply().await;
        assert_eq!(reply.bodies(), [long.as_str()]);
        assert_eq!(reply.json()["messages"][0]["group"], "team");
    }
}

#[tokio::test]
async fn more_held_requests_than_a_user_may_have_are_refused() {
    let server = TestServer::start().await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut http = server.connect().await;
        http.send(&poll_request("bob", "after=now&wait=60")).await;
        held.push(http);
    }
    server.wait_held("bob", 100).await;
    let reply = server.as_user("bob", "GET", "/v1/inbox", "").await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (429, "too_many_waiters")
    );
    assert!(reply.header("retry-after").is_some());
    assert_eq!(reply.json()["limit"], 100);
}

#[tokio::test]
async fn the_backend_reads_and_waits_however_much_the_user_holds() {
    let server = TestServer::with_hub(|hub| hub.waiters_per_user_max = 2, |_| {}).await;
    let _held = [server.poll_held("bob").await, server.poll_held("bob").await];
    let third = server.as_user("bob", "GET", "/v1/inbox?wait=0", "").await;
    assert_eq!(
        (third.status, third.code().as_str()),
        (429, "too_many_waiters")
    );
    for path in ["/v1/users/bob/inbox", "/v1/users/bob/inbox?wait=1"] {
        let reply = server.as_admin("GET", path, "").await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
    }
}
