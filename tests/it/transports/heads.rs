//! How each transport begins, and how it refuses to.

use serde_json::Value;

use crate::device::push_many;
use crate::support::{Event, Http, Reader, Reply, Socket, TestServer, Way};

const ORIGIN: &str = "origin: https://app.example";

fn request(method: &str, way: Way, version: &str, headers: &[&str]) -> String {
    let token = TestServer::token("bob");
    let mut text = format!(
        "{method} {}?token={token} {version}\r\nhost: x\r\n",
        way.path()
    );
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text + "\r\n"
}

async fn ask(server: &TestServer, text: &str) -> (Http, Reply) {
    let mut http = server.connect().await;
    http.send(text).await;
    let head = http.head().await;
    (http, head)
}

/// All headers but the time of day, sorted.
fn headers(reply: &Reply) -> Vec<String> {
    let all = reply.headers().filter(|(name, _)| *name != "date");
    let mut all: Vec<String> = all
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn streams_begin_with_every_header_and_an_old_client_gets_them_without_chunks() {
    let server = TestServer::start().await;
    server.push("alice", "bob", "{\r\n\"a\": [1,\n2]}").await;
    for (way, content_type) in [
        (Way::Sse, "text/event-stream; charset=utf-8"),
        (Way::Stream, "application/x-ndjson"),
    ] {
        for (version, encoding) in [
            ("HTTP/1.1", Some("transfer-encoding: chunked")),
            ("HTTP/1.0", None),
        ] {
            let text = request("GET", way, version, &[ORIGIN]);
            let (http, head) = ask(&server, &text).await;
            assert_eq!((head.status, head.version()), (200, version));
            assert!(
                head.header("date")
                    .is_some_and(|date| date.ends_with(" GMT"))
            );
            let mut expected = vec![
                "access-control-allow-origin: https://app.example".to_owned(),
                "access-control-expose-headers: retry-after".to_owned(),
                "cache-control: no-store, no-transform".to_owned(),
                "connection: close".to_owned(),
                format!("content-type: {content_type}"),
            ];
            expected.extend(encoding.map(str::to_owned));
            expected.extend([
                "vary: Origin".to_owned(),
                "x-accel-buffering: no".to_owned(),
                "x-content-type-options: nosniff".to_owned(),
            ]);
            assert_eq!(headers(&head), expected, "{way:?} {version}");
            let mut reader = Reader::on(http, way, &head);
            let messages = reader.messages().await;
            assert_eq!(messages[0].body, "{  \"a\": [1, 2]}", "{way:?} {version}");
            server.push("alice", "bob", "2").await;
            assert_eq!(reader.messages().await[0].body, "2");
        }
    }
}

#[tokio::test]
async fn head_of_a_stream_has_its_headers_and_says_what_a_get_would_refuse() {
    let server = TestServer::start().await;
    for way in [Way::Sse, Way::Stream] {
        let (_, get) = ask(&server, &request("GET", way, "HTTP/1.1", &[ORIGIN])).await;
        let (mut http, head) = ask(&server, &request("HEAD", way, "HTTP/1.1", &[ORIGIN])).await;
        assert_eq!(head.status, 200);
        let of_body =
            |line: &String| line.starts_with("connection") || line.starts_with("transfer-encoding");
        let mut expected = headers(&get);
        expected.retain(|line| !of_body(line));
        let mut got = headers(&head);
        got.retain(|line| !of_body(line));
        assert_eq!(got, expected, "{way:?}");
        // No body stands between, and the connection goes on.
        assert_eq!(http.request("GET", "/healthz", &[], "").await.status, 200);

        let ahead = request("HEAD", way, "HTTP/1.1", &[]).replacen('?', "?after=9.9&", 1);
        assert_eq!(ask(&server, &ahead).await.1.status, 409);
    }
    let (_, head) = ask(&server, &request("HEAD", Way::Socket, "HTTP/1.1", &[])).await;
    assert_eq!(head.status, 426);
}

#[tokio::test]
async fn what_cannot_begin_is_refused_before_it_does_by_every_transport_alike() {
    let server = TestServer::start().await;
    push_many(&server, ("to", "bob"), 0..3).await;
    let token = TestServer::token("bob");
    let expired = TestServer::token_of(&halley::token::Claims {
        user: "bob".to_owned(),
        send: true,
        expires_at: halley::clock::now_s() - 60,
    });
    for way in Way::ALL {
        let open = way != Way::Poll;
        for (token, query, status, code, extra) in [
            ("x.y.z", "after=0", 401, "unauthorized", None),
            (&expired, "after=0", 401, "token_expired", None),
            (&token, "after=yesterday", 400, "bad_cursor", None),
            (&token, "after=4.0", 409, "cursor_ahead", Some("restart")),
            (
                &token,
                "after=1.0.00000000",
                409,
                "log_unknown",
                Some("restart"),
            ),
            (&token, "after=now&heartbeat=4", 400, "bad_query", None),
            (&token, "after=now&heartbeat=301", 400, "bad_query", None),
            (&token, "after=now&heartbeat=x", 400, "bad_query", None),
        ] {
            if query.contains("heartbeat") && !open {
                continue;
            }
            let refusal = Reader::refused(server.client, way, token, query).await;
            let what = format!("{way:?} {query}: {refusal:?}");
            assert_eq!(
                (refusal.status, refusal.code().as_str()),
                (status, code),
                "{what}"
            );
            assert_eq!(
                refusal.header("content-type"),
                Some("application/problem+json")
            );
            if let Some(extra) = extra {
                assert!(refusal.json()[extra].is_string(), "{what}");
            }
            if status == 401 {
                assert_eq!(refusal.header("www-authenticate"), Some("Bearer"), "{what}");
            }
        }
        for heartbeat in ["5", "300"] {
            let query = format!("after=now&heartbeat={heartbeat}");
            let opened = Reader::asking(server.client, way, &token, &query, &[]).await;
            assert!(opened.is_ok(), "{way:?} {heartbeat}");
        }
        let mut http = server.connect().await;
        let bearer = format!("authorization: Bearer {token}");
        let post = http.request("POST", way.path(), &[&bearer], "{}").await;
        assert_eq!(
            (post.status, post.header("allow")),
            (405, Some("GET, HEAD, OPTIONS"))
        );
    }
    server.wait_held("bob", 0).await;
}

#[tokio::test]
async fn the_first_block_names_the_cursor_also_of_now() {
    let token = TestServer::token("bob");
    for way in Way::OPEN {
        let server = TestServer::start().await;
        push_many(&server, ("to", "bob"), 0..3).await;
        push_many(&server, ("to", "carol"), 0..2).await;
        for (number, (after, first, count)) in
            [("now", "5.0.", 0), ("2.0", "2.0.", 1), ("0", "0.0.", 3)]
                .into_iter()
                .enumerate()
        {
            let mut reader = Reader::open(server.client, way, &token, after)
                .await
                .unwrap();
            let Event::Page(page) = reader.next().await else {
                panic!("{way:?}: no first block");
            };
            assert!(page.messages.is_empty(), "{way:?} {page:?}");
            // Events name it only to whom it is news: the reader checks that.
            if way != Way::Sse || after == "now" {
                assert!(page.next.starts_with(first), "{way:?} {page:?}");
                assert_eq!(page.next.len(), "0.0.00000000".len());
            }
            let old = if count == 0 { 0 } else { count + number };
            assert_eq!(reader.count(old).await.len(), old, "{way:?} {after}");
            server.push("alice", "bob", "1").await;
            assert_eq!(
                reader.count(1).await.len(),
                1,
                "{way:?} {after}: nothing else"
            );
        }
    }
}

#[tokio::test]
async fn the_last_event_id_wins_over_after_and_is_checked_as_strictly() {
    let server = TestServer::start().await;
    push_many(&server, ("to", "bob"), 0..5).await;
    let token = TestServer::token("bob");
    let open = async |headers: &[&str], after: &str| {
        Reader::asking(server.client, Way::Sse, &token, after, headers).await
    };
    for (header, after, ids) in [
        ("last-event-id: 3.0", "after=1.0", vec![4, 5]),
        ("Last-Event-ID: 3.0", "after=garbage", vec![4, 5]),
        ("last-event-id: 4.0", "after=99.0", vec![5]),
        ("last-event-id: 0", "", vec![1, 2, 3, 4, 5]),
        ("last-event-id:", "after=4.0", vec![5]),
        ("x: y", "after=now&lastEventId=3.0", vec![4, 5]),
        ("x: y", "last_event_id=3.0&after=99.0", vec![4, 5]),
        ("x: y", "after=1.0&last-event-id=4.0", vec![5]),
        ("x: y", "after=4.0&lastEventId=", vec![5]),
        ("last-event-id: 4.0", "after=now&lastEventId=1.0", vec![5]),
    ] {
        let mut reader = open(&[header], after).await.unwrap();
        let got = reader.count(ids.len()).await;
        let got: Vec<u64> = got.iter().map(|message| message.id).collect();
        assert_eq!(got, ids, "{header}, {after}");
    }
    for (header, status, code) in [
        ("last-event-id: 3", 400, "bad_cursor"),
        ("last-event-id: 3.0.\u{fc}", 400, "bad_cursor"),
        ("last-event-id: \u{fc}", 400, "bad_cursor"),
        ("last-event-id: 6.0", 409, "cursor_ahead"),
        ("last-event-id: 1.0.00000000", 409, "log_unknown"),
    ] {
        let refusal = open(&[header], "after=0").await.err().unwrap();
        assert_eq!(
            (refusal.status, refusal.code().as_str()),
            (status, code),
            "{header}"
        );
    }
    let refusal = open(&[], "after=0&lastEventId=x").await.err().unwrap();
    assert_eq!((refusal.status, &*refusal.code()), (400, "bad_cursor"));
    // The others do not know the header.
    let mut reader = Reader::asking(
        server.client,
        Way::Stream,
        &token,
        "after=4.0",
        &["last-event-id: 0"],
    )
    .await
    .unwrap();
    assert_eq!(reader.messages().await.len(), 1);
}

/// Asks for the events of a query; the fields of the only one that comes.
async fn refused_as_event(server: &TestServer, query: &str, header: &str) -> (u64, Value) {
    let mut http = server.connect().await;
    let path = format!("/v1/inbox/sse?refusals=event&{query}");
    let reply = http.request("GET", &path, &[header, ORIGIN], "").await;
    assert_eq!(reply.status, 200, "{query}: {reply:?}");
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-store, no-transform"),
        ("access-control-allow-origin", "https://app.example"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{query}");
    }
    let text = reply.text();
    let fields = text.strip_prefix("retry: ").unwrap();
    let (retry, fields) = fields.split_once("\nevent: end\ndata: ").unwrap();
    let data = fields.strip_suffix("\n\n").unwrap();
    assert!(!data.contains('\n'), "{text}");
    (retry.parse().unwrap(), serde_json::from_str(data).unwrap())
}

#[tokio::test]
async fn a_refusal_is_an_event_for_those_who_ask_for_it() {
    let server = TestServer::with_hub(|options| options.waiters_per_user_max = 1, |_| {}).await;
    push_many(&server, ("to", "bob"), 0..3).await;
    let token = TestServer::token("bob");
    let bearer = format!("authorization: Bearer {token}");
    let expired = TestServer::token_of(&halley::token::Claims {
        user: "bob".to_owned(),
        send: true,
        expires_at: halley::clock::now_s() - 60,
    });
    let expired = format!("authorization: Bearer {expired}");
    let check = async |query: &str, header: &str, status: u64, code: &str| {
        let (retry_ms, problem) = refused_as_event(&server, query, header).await;
        assert_eq!(
            (problem["status"].as_u64(), &problem["code"]),
            (Some(status), &code.into())
        );
        let soon = matches!(status, 429 | 503);
        assert_eq!(problem["reconnect"], soon, "{code}");
        let pauses = if soon { 900..2300 } else { 54_000..66_001 };
        assert!(pauses.contains(&retry_ms), "{code}: {retry_ms}");
        problem
    };
    check("after=0", "x: y", 401, "unauthorized").await;
    check("after=0", "authorization: Basic x", 401, "unauthorized").await;
    check("after=0&token=x.y.z", "x: y", 401, "unauthorized").await;
    check("after=0", &expired, 401, "token_expired").await;
    check("after=x", &bearer, 400, "bad_cursor").await;
    check("heartbeat=x\u{2028}", &bearer, 400, "bad_query").await;
    let ahead = check("after=9.9", &bearer, 409, "cursor_ahead").await;
    assert!(ahead["restart"].as_str().unwrap().starts_with("3.0."));
    let held = Reader::open(server.client, Way::Sse, &token, "0").await;
    let mut held = held.ok().unwrap();
    assert_eq!(held.count(3).await.len(), 3);
    check("after=0", &bearer, 429, "too_many_waiters").await;
    server.hub.close();
    check("after=0", &bearer, 503, "closing").await;
    // Without the option, or with another value, the status tells.
    for (query, status) in [
        ("after=9.9", 503),
        ("refusals=events", 400),
        ("refusals=", 400),
    ] {
        let refused = Reader::refused(server.client, Way::Sse, &token, query).await;
        assert_eq!(refused.status, status, "{query}");
    }
    let refused = Reader::refused(server.client, Way::Stream, "x", "refusals=event").await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn the_pause_before_a_browser_comes_back_is_random_within_its_limits() {
    let server = TestServer::start().await;
    let token = TestServer::token("bob");
    let mut pauses = Vec::new();
    for _ in 0..30 {
        let mut reader = Reader::open(server.client, Way::Sse, &token, "now")
            .await
            .unwrap();
        reader.next().await;
        pauses.push(reader.retry_ms.unwrap());
    }
    assert!(
        pauses.iter().all(|pause| (1000..=5000).contains(pause)),
        "{pauses:?}"
    );
    pauses.sort_unstable();
    pauses.dedup();
    assert!(pauses.len() > 10, "{pauses:?}");
}

#[tokio::test]
async fn a_socket_that_is_refused_says_why_in_json_and_the_connection_goes_on() {
    let server = TestServer::start().await;
    let http = server.connect().await;
    let request = Socket::request(&TestServer::token("bob"), "after=7.7");
    let refusal = Socket::upgrade(http, request).await.err().unwrap();
    assert_eq!(refusal.status, 409);
    assert!(matches!(refusal.json()["restart"], Value::String(_)));
}
