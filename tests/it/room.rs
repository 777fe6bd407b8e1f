//! More connections than there may be.

use halley::http::ListenerKind;

use crate::support::{Http, PATIENCE, TestServer, eventually, poll_request};

async fn healthy(http: &mut Http) -> bool {
    http.request("GET", "/healthz", &[], "").await.status == 200
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let server = TestServer::with(|parts| parts.limits.connections_max = 2).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert!(healthy(&mut first).await && healthy(&mut second).await);
    let mut third = server.connect().await;
    let reply = third.request("GET", "/healthz", &[], "").await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "too_many_connections")
    );
    assert_eq!(reply.header("retry-after"), Some("2"));
    assert!(third.ends().await);
    drop((first, third));
    eventually("there is room again", || async {
        server
            .connect()
            .await
            .request("GET", "/healthz", &[], "")
            .await
            .status
            == 200
    })
    .await;
}

/// Being told takes an open file for a while, and those are as few as connections: without them the journal cannot go
/// on.
#[tokio::test]
async fn only_few_are_told_at_once_however_many_the_other_listener_has() {
    const MOST: usize = 80;
    let server = TestServer::with(|parts| {
        parts.limits.connections_max = MOST;
        parts.timeouts.linger = 10 * PATIENCE;
    })
    .await;
    let mut backends = Vec::new();
    for _ in 0..MOST {
        let mut http = server.connect_admin().await;
        assert!(healthy(&mut http).await);
        backends.push(http);
    }
    let told = told_of(&server, 2 * MOST).await;
    assert_eq!(told.len(), 32);
    assert_eq!(server.app.connections(ListenerKind::Client), 0);
    drop(told);
    eventually("others are told again", || async {
        server.connect().await.head_if_any().await.is_some()
    })
    .await;
    assert!(healthy(&mut backends[0]).await);
}

/// The same where all places are taken by what is held outside of the listener's tasks.
#[tokio::test]
async fn only_few_are_told_at_once_however_many_polls_are_held() {
    const MOST: usize = 80;
    // The rest are for backends.
    const CLIENTS: usize = MOST - MOST / 8;
    let server = TestServer::with(|parts| {
        parts.limits.connections_max = MOST;
        parts.timeouts.linger = 10 * PATIENCE;
    })
    .await;
    let mut polls = Vec::new();
    for _ in 0..CLIENTS {
        let mut http = server.connect().await;
        http.send(&poll_request("bob", "after=now&wait=60")).await;
        polls.push(http);
    }
    server.wait_held("bob", CLIENTS.try_into().unwrap()).await;
    let told = told_of(&server, 2 * MOST).await;
    assert_eq!(told.len(), 32);
    drop(told);
    eventually("others are told again", || async {
        server.connect().await.head_if_any().await.is_some()
    })
    .await;
    server.push("alice", "bob", "1").await;
    for mut http in polls {
        assert_eq!(http.reply().await.bodies(), [1]);
    }
}

/// Those of so many that are told that there is no room; the others are closed.
async fn told_of(server: &TestServer, count: usize) -> Vec<Http> {
    let mut told = Vec::new();
    for _ in 0..count {
        let mut http = server.connect().await;
        if let Some(reply) = http.head_if_any().await {
            assert_eq!(reply.status, 503);
            told.push(http);
        }
    }
    told
}
