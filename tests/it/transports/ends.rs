//! How what is held ends: by time, by its token, with the server.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use halley::clock;
use halley::token::Claims;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::device::push_many;
use crate::support::{End, Event, PATIENCE, Reader, TestServer, Way, eventually};

/// Tokens are taken for so long after their end.
const LEEWAY_S: u64 = 5;

/// A token that is refused in some seconds, and when that is.
pub(crate) fn token_for(user: &str, seconds: u64) -> (String, u64) {
    let expires_at = clock::now_s() + seconds - LEEWAY_S;
    let token = TestServer::token_of(&Claims {
        user: user.to_owned(),
        send: true,
        expires_at,
    });
    (token, (expires_at + LEEWAY_S) * 1000)
}

fn ended(code: &str, close: u16, way: Way) -> End {
    End {
        code: code.to_owned(),
        close: (way == Way::Socket).then_some(close),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_after_its_time_not_all_at_once_and_says_so() {
    const LASTS: Duration = Duration::from_millis(1500);
    let server = TestServer::with(|parts| parts.timeouts.stream = LASTS).await;
    let mut readers = JoinSet::new();
    for number in 0..36 {
        let way = Way::OPEN[number % 3];
        let address = server.client;
        readers.spawn(async move {
            let user = format!("user-{number}");
            let begin = Instant::now();
            let mut reader = Reader::open(address, way, &TestServer::token(&user), "now")
                .await
                .unwrap();
            let end = reader.end().await;
            assert_eq!(end, ended("stream_over", 4000, way), "{way:?}");
            begin.elapsed()
        });
    }
    let mut lasted = readers.join_all().await;
    lasted.sort_unstable();
    assert!(lasted[0] >= LASTS.mul_f64(0.9), "{lasted:?}");
    assert!(*lasted.last().unwrap() < PATIENCE, "{lasted:?}");
    assert!(
        lasted[35].saturating_sub(lasted[0]) > LASTS.mul_f64(0.05),
        "all at once: {lasted:?}"
    );
}

#[tokio::test]
async fn what_is_pushed_around_the_end_is_in_this_stream_or_the_next() {
    let server = TestServer::with(|parts| parts.timeouts.stream = Duration::from_millis(60)).await;
    for way in Way::OPEN {
        let user = way.name();
        let token = TestServer::token(user);
        let (mut cursor, mut got, mut ends, mut pushed) = ("0".to_owned(), 0_u64, 0, 0_u64);
        while ends < 8 {
            let mut reader = Reader::open(server.client, way, &token, &cursor)
                .await
                .unwrap();
            loop {
                let (event, ()) = tokio::join!(reader.next(), async {
                    server.push("alice", user, "1").await;
                    pushed += 1;
                });
                match event {
                    Event::Page(page) => got += u64::try_from(page.messages.len()).unwrap(),
                    Event::End(end) => break assert_eq!(end.code, "stream_over"),
                    Event::Cut => panic!("without a word"),
                }
            }
            ends += 1;
            cursor.clone_from(&reader.cursor);
        }
        let mut rest = Reader::open(
            server.client,
            Way::Poll,
            &token,
            &format!("{cursor}&limit=1000"),
        )
        .await
        .unwrap();
        if got < pushed {
            got += u64::try_from(rest.count(1).await.len()).unwrap();
        }
        assert_eq!(got, pushed, "{way:?}");
    }
}

#[tokio::test]
async fn a_token_that_ends_ends_what_it_has_opened() {
    let server = TestServer::start().await;
    let (token, ends_ms) = token_for("bob", 3);
    let watch = async |way: Way| {
        let mut reader = Reader::open(server.client, way, &token, "now")
            .await
            .unwrap();
        assert_eq!(
            reader.end().await,
            ended("token_expired", 4001, way),
            "{way:?}"
        );
        assert!(clock::now_ms() >= ends_ms, "{way:?}: too early");
        let refused = Reader::open(server.client, way, &token, "now")
            .await
            .err()
            .unwrap();
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (401, "token_expired")
        );
    };
    let poll = async {
        let mut reader = Reader::open(server.client, Way::Poll, &token, "now&wait=60")
            .await
            .unwrap();
        assert!(matches!(reader.next().await, Event::Page(page) if page.messages.is_empty()));
        assert!(clock::now_ms() >= ends_ms, "too early");
        let bearer = format!("authorization: Bearer {token}");
        let http = &mut reader.socket().http;
        let reply = http.request("GET", "/v1/inbox", &[&bearer], "").await;
        assert_eq!(reply.code(), "token_expired", "on the same connection");
    };
    tokio::join!(
        watch(Way::Sse),
        watch(Way::Stream),
        watch(Way::Socket),
        poll
    );
}

#[tokio::test]
async fn a_server_that_stops_says_so_to_all() {
    for by_hub in [false, true] {
        let mut server = TestServer::start().await;
        let mut readers = Vec::new();
        for way in Way::ALL {
            let token = TestServer::token(way.name());
            let after = "now&wait=60";
            let mut reader = Reader::open(server.client, way, &token, after)
                .await
                .unwrap();
            if way != Way::Poll {
                reader.next().await;
            }
            readers.push((way, reader));
        }
        for way in Way::OPEN {
            push_many(&server, ("to", way.name()), 0..3).await;
        }
        for (way, reader) in readers.iter_mut().skip(1) {
            assert_eq!(reader.count(3).await.len(), 3, "{way:?}");
        }
        let hub = server.hub.clone();
        let (_, mut polling) = readers.remove(0);
        let polled = tokio::spawn(async move {
            let event = polling.next().await;
            assert!(matches!(event, Event::Page(page) if page.messages.is_empty()));
            assert!(
                polling.socket().http.ends().await,
                "and the connection ends"
            );
        });
        server.wait_held("poll", 1).await;
        if by_hub {
            tokio::task::spawn_blocking(move || hub.close())
                .await
                .unwrap();
        } else {
            server.signal_stop();
        }
        for (way, mut reader) in readers {
            assert_eq!(reader.end().await, ended("closing", 1001, way), "{way:?}");
        }
        polled.await.unwrap();
        if !by_hub {
            server.ended().await;
        }
    }
}

/// Far more pages than the smallest cache holds.
const ROUNDS: usize = 6;
const BODIES: usize = 1_000;
const BODY: usize = 1_000;

/// What is on the disk becomes noise, under the open server.
fn spoil(data: &std::path::Path) {
    let db = data.join("sled/db");
    let length = fs::metadata(&db).unwrap().len();
    fs::write(&db, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
}

#[tokio::test]
async fn a_store_that_cannot_be_read_ends_what_is_open_with_its_reason() {
    let mut data = PathBuf::new();
    let server = TestServer::with_hub(
        |options| {
            options.cache_bytes = 1 << 20;
            data.clone_from(&options.data);
        },
        |_| {},
    )
    .await;
    let item = json!({ "to": "bob", "from": "alice", "body": "x".repeat(BODY) });
    let items = Value::Array(vec![item; BODIES]).to_string();
    for _ in 0..ROUNDS {
        let reply = server.as_admin("POST", "/v1/messages", &items).await;
        assert_eq!(reply.status, 200);
    }
    // What sled still holds back is written soon.
    eventually("a reading of noise", || async {
        spoil(&data);
        let reply = server.as_user("bob", "GET", "/v1/inbox?limit=1", "").await;
        reply.status != 200 && reply.code() == "store_damaged"
    })
    .await;
    for way in Way::OPEN {
        let token = TestServer::token("bob");
        let mut reader = Reader::open(server.client, way, &token, "0").await.unwrap();
        assert_eq!(
            reader.end().await,
            ended("store_damaged", 1011, way),
            "{way:?}"
        );
        let next = reader.cursor.clone();
        assert!(
            way == Way::Socket || next.starts_with("0.0."),
            "{way:?}: {next}"
        );
    }
    let reply = server.as_user("bob", "GET", "/readyz", "").await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "store_damaged")
    );
}
