//! Peers that read slowly, or not at all.

use std::io::ErrorKind;
use std::time::Duration;

use halley::http::Face;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::support::{Http, PATIENCE, TestServer, eventually, poll_request};

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
        server.app.connections(Face::Client) == 0
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
    assert_eq!(server.app.connections(Face::Client), 1);
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
