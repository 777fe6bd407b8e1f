//! A poll that comes again on its connection is answered by what is remembered of its head: never otherwise than a
//! connection that remembers nothing answers the same bytes.

use std::time::{Duration, Instant};

use crate::support::{Http, TestServer, poll_request};
use crate::support::{Random, rounds};
use halley::clock;
use halley::token::Claims;

async fn server() -> TestServer {
    server_with(Duration::from_secs(1)).await
}

async fn server_with(poll_wait_max: Duration) -> TestServer {
    let server = TestServer::with(|parts| {
        // Wrong tokens are many here.
        parts.timeouts.refusal = Duration::from_millis(1);
        parts.timeouts.crowd = Duration::from_millis(1);
        parts.limits.poll_wait_max = poll_wait_max;
        // For what remains half a request.
        parts.timeouts.head = Duration::from_secs(1);
        parts.timeouts.body = Duration::from_millis(200);
    })
    .await;
    for n in 1..=3 {
        server.push("alice", "bob", &n.to_string()).await;
        server.push("alice", "carol", &n.to_string()).await;
    }
    server
}

/// A connection by which this poll has been answered until it is remembered.
async fn warm(server: &TestServer, poll: &str) -> Http {
    let mut http = server.connect().await;
    for _ in 0..3 {
        http.ask(poll).await.expect(200);
    }
    http
}

/// All that is answered to these bytes and a last request behind them, without the time of day.
async fn answers(mut http: Http, pieces: &[&[u8]]) -> String {
    const LAST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for piece in pieces {
        if http.try_send(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    // Whether it comes with them or behind the reply makes no difference to what is answered.
    http.ready_within(Duration::from_millis(10)).await;
    drop(http.try_send(LAST).await);
    let text = String::from_utf8_lossy(&http.rest().await).into_owned();
    let lines = text.split_inclusive('\n');
    lines.filter(|line| !line.starts_with("date: ")).collect()
}

/// Both ways must answer the same.
async fn compare(server: &TestServer, poll: &str, pieces: &[&[u8]]) -> String {
    let remembering = answers(warm(server, poll).await, pieces).await;
    let fresh = answers(server.connect().await, pieces).await;
    let shown: Vec<_> = pieces
        .iter()
        .map(|one| String::from_utf8_lossy(one))
        .collect();
    assert_eq!(remembering, fresh, "{shown:#?}");
    fresh
}

fn other_cursor(poll: &str, cursor: &str) -> String {
    poll.replace("after=0.0", &format!("after={cursor}"))
}

/// What comes instead of a poll, in pieces.
fn cases(poll: &str) -> Vec<Vec<Vec<u8>>> {
    let whole = |text: String| vec![text.into_bytes()];
    let mut cases = Vec::new();
    for cursor in [
        "0.0",
        "1.0",
        "6.0",
        "0",
        "now",
        "00000001.0",
        "1.0.00000000",
        "9.0",
        "",
        "1",
        "+1.0",
        "-1.0",
        " 1.0",
        "1 .0",
        "1.0%20",
        "%31.0",
        "99999999999999999999.0",
        "1.0&after=5.0",
        "1.0#",
        "1.0&limit=1",
        "1.0 HTTP/1.1\r\nx: y",
        "1.0\0",
        "1.0\t",
        "1.0.0.0",
    ] {
        cases.push(whole(other_cursor(poll, cursor)));
    }
    let token = |user| poll_request(user, "wait=0&after=1.0&limit=2");
    cases.push(whole(token("carol")));
    cases.push(whole(poll.replace("Bearer ", "Bearer x")));
    cases.push(whole(poll.replace("GET", "HEAD")));
    cases.push(whole(poll.replace("GET", "POST")));
    cases.push(whole(poll.replace("GET", "get")));
    cases.push(whole(poll.replace("HTTP/1.1", "HTTP/1.0")));
    cases.push(whole(poll.replace("host: x\r\n", "")));
    cases.push(whole(poll.replace("host: x", "host: x\r\nhost: x")));
    cases.push(whole(
        poll.replace("host: x", "connection: close\r\nhost: x"),
    ));
    cases.push(whole(
        poll.replace("host: x", "content-length: 2\r\nhost: x") + "{}",
    ));
    cases.push(whole(
        poll.replace("host: x", "origin: https://app.example\r\nhost: x"),
    ));
    cases.push(whole(poll.replace("limit=2", "limit=1")));
    cases.push(whole(poll.replace("limit=2", "limit=0")));
    cases.push(whole(poll.replace("wait=0&after=0.0", "after=0.0&wait=0")));
    cases.push(whole(poll.replace("\r\n", "\n")));
    cases.push(whole(format!("\r\n{poll}")));
    cases.push(whole(format!("{poll}x")));
    cases.push(whole(format!("{poll}{}", other_cursor(poll, "2.0"))));
    cases.push(whole(format!("{}{poll}{poll}", token("carol"))));
    for at in [1, 20, 60, poll.len() - 2, poll.len() - 1] {
        let (begin, rest) = poll.as_bytes().split_at(at);
        cases.push(vec![begin.to_vec(), rest.to_vec()]);
        cases.push(vec![begin.to_vec()]);
    }
    cases
}

#[tokio::test]
async fn a_head_that_differs_in_more_than_its_cursor_is_answered_as_if_it_came_first() {
    let server = server().await;
    let poll = poll_request("bob", "wait=0&after=0.0&limit=2");
    let cases = cases(&poll);
    for case in cases {
        let pieces: Vec<_> = case.iter().map(|piece| &piece[..]).collect();
        compare(&server, &poll, &pieces).await;
    }
    let other = other_cursor(&poll, "2.0");
    let page = compare(&server, &poll, &[other.as_bytes()]).await;
    assert!(
        page.contains("\"id\":3") && !page.contains("\"id\":2"),
        "{page}"
    );
}

fn mutated(random: &mut Random, head: &[u8]) -> Vec<u8> {
    let mut head = head.to_vec();
    for _ in 0..random.range(1, 3) {
        let at = random.index(head.len());
        let end = head.len().min(at + random.index(12));
        match random.below(6) {
            0 => head[at] = random.of(b" \r\n.:0189azAZ%&=?#/+-\0\xff"),
            1 => head.insert(at, random.of(b" \r\n.:019azA%&=?#/")),
            2 => drop(head.drain(at..end)),
            3 => {
                let part = head[at..end].to_vec();
                head.splice(at..at, part);
            }
            4 => head[at] ^= 1 << random.below(8),
            _ => {
                let other = random.index(head.len());
                head.swap(at, other);
            }
        }
        if head.is_empty() {
            return b"\r\n".to_vec();
        }
    }
    head
}

#[tokio::test]
async fn any_mutation_of_a_head_is_answered_as_by_a_connection_that_remembers_nothing() {
    let mut random = Random::from_environment("heads");
    let server = server().await;
    for _ in 0..rounds(200) {
        let poll = poll_request("bob", "wait=0&after=0.0&limit=2");
        let head = mutated(&mut random, poll.as_bytes());
        let cut = random.index(head.len());
        let (begin, rest) = head.split_at(cut);
        let again = [&head[..], poll.as_bytes()].concat();
        let pieces: &[&[u8]] = match random.below(4) {
            0 => &[begin, rest],
            1 => &[&again],
            _ => &[&head],
        };
        compare(&server, &poll, pieces).await;
    }
}

#[tokio::test]
async fn a_remembered_head_is_refused_from_the_moment_its_token_ends() {
    let server = server().await;
    let token = TestServer::token_of(&Claims {
        user: "bob".to_owned(),
        send: false,
        expires_at: clock::now_s() + 2,
    });
    let poll = format!(
        "GET /v1/inbox?wait=0&after=0.0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let mut http = warm(&server, &poll).await;
    let begin = Instant::now();
    loop {
        let reply = http.ask(&poll).await;
        if reply.status == 401 {
            assert_eq!(reply.code(), "token_expired");
            break;
        }
        assert_eq!(reply.bodies(), [1, 2, 3]);
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "it is good for ever"
        );
    }
    http.ask(&poll).await.expect(401);
}

#[tokio::test]
async fn polls_that_return_are_held_woken_and_counted_like_the_first() {
    let server = server_with(Duration::from_secs(300)).await;
    let mut http = warm(&server, &poll_request("bob", "after=0.0&wait=300")).await;
    let mut after = 5;
    for n in 0..20 {
        let poll = poll_request("bob", &format!("after={after}.0&wait=300"));
        http.send(&poll).await;
        server.wait_held("bob", 1).await;
        server.push("alice", "bob", &n.to_string()).await;
        let reply = http.reply().await;
        assert_eq!(reply.bodies(), [n]);
        server.wait_held("bob", 0).await;
        after = reply.json()["messages"][0]["id"].as_u64().unwrap();
    }
    assert_eq!(server.app.deliveries(), 3 * 3 + 20);
    // Somebody who leaves meanwhile is not a waiter any longer.
    http.send(&poll_request("bob", &format!("after={after}.0&wait=300")))
        .await;
    server.wait_held("bob", 1).await;
    drop(http);
    server.wait_held("bob", 0).await;
}
