//! Signs of life.

use std::time::{Duration, Instant};

use crate::support::{Event, Frame, Reader, Socket, TestServer, Way};

/// With heartbeats every second.
async fn lively() -> TestServer {
    TestServer::with(|parts| parts.timeouts.heartbeat_s_min = 1).await
}

#[tokio::test]
async fn a_heartbeat_comes_in_time_and_brings_the_cursor_past_what_others_got() {
    let server = lively().await;
    let token = TestServer::token("bob");
    let watch = async |way: Way| {
        let begin = Instant::now();
        let query = "after=now&heartbeat=1";
        let mut reader = Reader::asking(server.client, way, &token, query, &[])
            .await
            .unwrap();
        reader.next().await;
        let first = reader.cursor.clone();
        server.push("alice", "carol", "1").await;
        // One heartbeat may have been on its way already.
        for _ in 0..2 {
            if reader.cursor == first {
                let event = reader.next().await;
                assert!(matches!(event, Event::Page(page) if page.messages.is_empty()));
            }
        }
        // A comment has no cursor: what has moved goes with the next event.
        assert_eq!(reader.cursor == first, way == Way::Sse, "{way:?}");
        // Nine tenths of it, and a tenth less at the most.
        assert!(begin.elapsed() >= Duration::from_millis(800), "{way:?}");
        let begin = Instant::now();
        if way == Way::Socket {
            let beat = reader.socket().frame().await;
            assert_eq!(beat, Some(Frame::Ping(Vec::new())));
        } else {
            let Event::Page(page) = reader.next().await else {
                panic!("{way:?}: no heartbeat");
            };
            assert!(page.messages.is_empty() && page.next == reader.cursor);
        }
        assert!(begin.elapsed() >= Duration::from_millis(400), "{way:?}");
    };
    tokio::join!(watch(Way::Sse), watch(Way::Stream), watch(Way::Socket));
}

#[tokio::test]
async fn messages_stand_for_heartbeats_of_streams_but_not_for_pings() {
    let server = lively().await;
    let token = TestServer::token("bob");
    let query = "after=now&heartbeat=1";
    let mut socket = Socket::asking(server.client, &token, query).await;
    let mut streams = Vec::new();
    for way in [Way::Sse, Way::Stream] {
        let mut reader = Reader::asking(server.client, way, &token, query, &[])
            .await
            .unwrap();
        reader.next().await;
        streams.push(reader);
    }
    let begin = Instant::now();
    let (mut pings, mut last) = (0, begin);
    while begin.elapsed() < Duration::from_millis(2500) {
        let pushed = Instant::now();
        server.push("alice", "bob", "1").await;
        for reader in &mut streams {
            let Event::Page(page) = reader.next().await else {
                panic!("it ended");
            };
            // A busy machine may be late enough for one.
            if page.messages.is_empty() {
                assert!(
                    last.elapsed() >= Duration::from_millis(200),
                    "a needless heartbeat"
                );
                reader.messages().await;
            }
        }
        loop {
            match socket.frame().await.unwrap() {
                Frame::Ping(payload) => {
                    pings += 1;
                    socket.pong(&payload).await;
                }
                Frame::Text(text) if text.contains("\"body\":1}") => break,
                Frame::Text(_) => {}
                other => panic!("{other:?}"),
            }
        }
        last = pushed;
    }
    assert!(pings >= 1, "{pings} pings");
}

#[tokio::test]
async fn a_silent_socket_is_cut_and_one_that_only_answers_pings_is_not() {
    let server = TestServer::with(|parts| {
        parts.timeouts.heartbeat_s_min = 1;
        parts.timeouts.silence = Duration::from_millis(100);
        parts.timeouts.linger = Duration::from_secs(5);
    })
    .await;
    let token = TestServer::token("bob");
    let query = "after=now&heartbeat=1";
    let begin = Instant::now();
    let mut silent = Socket::asking(server.client, &token, query).await;
    let mut alive = Reader::asking(server.client, Way::Socket, &token, query, &[])
        .await
        .unwrap();
    alive.next().await;
    let cut = async {
        assert_eq!(silent.closed().await, (4008, "silent".to_owned()));
        begin.elapsed()
    };
    let (cut, (), ()) = tokio::join!(
        cut,
        async {
            // Answers pings until a message comes.
            assert_eq!(alive.messages().await[0].body, "1");
        },
        async {
            server.wait_held("bob", 1).await;
            server.push("alice", "bob", "1").await;
        }
    );
    assert!(cut >= Duration::from_millis(2100), "{cut:?}");
}
