//! What clients send and get, byte by byte.

use std::time::Duration;

use halley::config::IcometRules::{Open, Strict};
use halley::token::Claims;

use super::{Wire, front, held, keyed, push, server, server_with, waiting};
use crate::support::TestServer;

/// The head of a poll's reply, but for its date.
fn head(content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\ncontent-type: {content_type}; charset=utf-8\ncache-control: no-store, no-transform\n\
         x-accel-buffering: no\nx-content-type-options: nosniff\nexpires: 0\ncontent-length: {}",
        body.len()
    )
}

fn object(kind: &str, channel: &str, seq: u64, content: &str) -> String {
    format!(
        "{{\"type\":\"{kind}\",\"cname\":\"{channel}\",\"seq\":{seq},\"content\":\"{content}\"}}"
    )
}

fn data(seq: u64, content: &str) -> String {
    object("data", "a", seq, content)
}

fn next_seq(seq: u64) -> String {
    object("next_seq", "a", seq, "")
}

#[tokio::test]
async fn polls_answer_as_icomet_does_byte_for_byte() {
    let server = server(Open).await;
    let mut wire = Wire::connect(server.client).await;
    let mut ask = async |path: &str, kind: &str, body: String| {
        assert_eq!(wire.get(path).await, (head(kind, &body), body), "{path}");
    };
    let (json, script) = ("application/json", "text/javascript");
    ask("/sub?cname=a", json, next_seq(1) + "\n").await;
    ask(
        "/sub?cname=a&cb=mycb",
        script,
        format!("mycb({});\n", next_seq(1)),
    )
    .await;
    for content in [
        "hi",
        "hi2",
        "%7B%22k%22%3A1%7D",
        "posted+form",
        "line1%0Atab%09q%22+bs%5C+end+é%3C%2Fscript%3E",
    ] {
        push(&server, "a", content).await;
    }
    let all = [
        data(1, "hi"),
        data(2, "hi2"),
        data(3, "{\\\"k\\\":1}"),
        data(4, "posted form"),
        data(5, "line1\\ntab\\tq\\\" bs\\\\ end é</script>"),
    ];
    let array = |from: usize| format!("[{}]", all[from..].join(","));
    for path in [
        "/sub?cname=a&seq=1",
        "/poll?cname=a&seq=1",
        "/sub?cname=a&seq=-7",
    ] {
        ask(path, json, array(0) + "\n").await;
    }
    ask("/sub?cname=a&seq=5", json, array(4) + "\n").await;
    ask(
        "/sub?cname=a&seq=4&cb=mycb",
        script,
        format!("mycb({});\n", array(3)),
    )
    .await;
    for ahead in ["99", "7", "4294967302", "99999999999999999999"] {
        ask(
            &format!("/sub?cname=a&seq={ahead}"),
            json,
            next_seq(6) + "\n",
        )
        .await;
    }
    // A client that has read everything waits; what comes then is no array.
    let mut one = held(&server, "a", "/sub?cname=a&seq=6&cb=jp&noop=3").await;
    let mut other = held(&server, "a", "/sub?cname=a&seq=6").await;
    push(&server, "a", "one").await;
    let called = format!("jp({});\n", data(6, "one"));
    assert_eq!(one.reply().await, (head(script, &called), called));
    let bare = data(6, "one") + "\n";
    assert_eq!(other.reply().await, (head(json, &bare), bare));
    // A broadcast takes a number, and says which is next.
    let mut waits = held(&server, "a", "/sub?cname=a&seq=7").await;
    assert_eq!(keyed(&server, "/broadcast?content=bb").await, "ok\n");
    let both = format!("[{},{}]\n", object("broadcast", "a", 7, "bb"), next_seq(8));
    assert_eq!(waits.reply().await.1, both);
    assert_eq!(front(&server, "/sub?cname=a&seq=7").await.1, both);
}

#[tokio::test]
async fn the_backend_closes_and_clears_a_channel_and_the_numbers_go_on() {
    let server = server(Open).await;
    for content in ["1", "2", "3", "4", "5", "6", "7"] {
        push(&server, "a", content).await;
    }
    let mut waits = held(&server, "a", "/sub?cname=a&seq=8").await;
    assert_eq!(keyed(&server, "/close?cname=a").await, "ok 8\n");
    assert_eq!(waits.reply().await.1, object("close", "a", 8, "") + "\n");
    push(&server, "a", "after").await;
    let after = format!("[{}]\n", data(8, "after"));
    assert_eq!(front(&server, "/sub?cname=a&seq=8").await.1, after);
    // What is cleared is not given again.
    assert_eq!(keyed(&server, "/clear?cname=a").await, "ok 9\n");
    let signed = keyed(&server, "/sign?cname=a").await;
    assert!(signed.contains("\"seq\":9,"), "{signed}");
    let mut waits = held(&server, "a", "/sub?cname=a&seq=1").await;
    push(&server, "a", "new").await;
    assert_eq!(waits.reply().await.1, data(9, "new") + "\n");
}

#[tokio::test]
async fn a_noop_repeats_the_number_of_its_request_and_comes_at_no_fixed_time() {
    let server = server_with(Open, |parts| {
        parts.timeouts.noop = Duration::from_millis(300);
    })
    .await;
    let mut took = Vec::new();
    for noop in [41, 0, -2] {
        let began = std::time::Instant::now();
        let (_, body) = front(&server, &format!("/sub?cname=n1&seq=1&noop={noop}")).await;
        took.push(began.elapsed());
        let expected = "{\"type\":\"noop\",\"cname\":\"n1\",\"seq\":N,\"content\":\"\"}\n";
        assert_eq!(body, expected.replace('N', &noop.to_string()));
    }
    assert!(took.iter().all(|took| *took >= Duration::from_millis(270)));
    assert!(took[0] != took[1] && took[1] != took[2]);
    // An endless reply counts on.
    let mut wire = held(&server, "n1", "/stream?cname=n1&seq=1&noop=7").await;
    wire.head().await;
    for noop in 7..10 {
        assert_eq!(wire.chunk().await, object("noop", "n1", noop, "") + "\n");
    }
    // Counted from what was sent last, here from the message in the middle of the wait.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let pushed = std::time::Instant::now();
    push(&server, "n1", "x").await;
    let mut noop = 10;
    loop {
        let chunk = wire.chunk().await;
        if chunk == object("data", "n1", 1, "x") + "\n" {
            break;
        }
        // A busy machine may be late enough for one more.
        assert_eq!(chunk, object("noop", "n1", noop, "") + "\n");
        noop += 1;
    }
    assert_eq!(wire.chunk().await, object("noop", "n1", noop, "") + "\n");
    assert!(pushed.elapsed() >= Duration::from_millis(270));
}

/// The bytes of each kind of client, one after the other on a connection where it keeps one.
#[tokio::test]
async fn requests_of_real_clients_are_understood() {
    let server = server(Strict).await;
    push(&server, "J%C3%BCrgen%201", "m1").await;
    let token = TestServer::token("Jürgen 1");
    let array = "[{\"type\":\"data\",\"cname\":\"Jürgen 1\",\"seq\":1,\"content\":\"m1\"}]";
    let called = format!("icomet_cb_0({array});\n");
    let mut wire = Wire::connect(server.client).await;
    // icomet.js with jQuery in a browser, which encodes what must be encoded.
    let script = format!(
        "GET /sub?cb=icomet_cb_0&cname=J%C3%BCrgen%201&seq=1&noop=5&token={token}&_=1732320000000\
         &callback=jQuery1102_1732320000001&_=1732320000002 HTTP/1.1\r\nHost: comet.example.com:8100\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0\r\nAccept: */*\r\n\
         Referer: http://www.example.com/\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept-Language: de\r\nConnection: keep-alive\r\n\r\n"
    );
    for _ in 0..2 {
        wire.send(&script).await;
        assert_eq!(wire.reply().await.1, called);
    }
    // The same without any encoding, in another case, with what says nothing, and with the token in the head.
    for query in [
        format!("cb=icomet_cb_0&cname=Jürgen+1&seq=1&token={token}"),
        format!("CB=icomet_cb_0&CName=J%C3%BCrgen+1&SEQ=1&Token={token}"),
        format!("&&flag&cb=icomet_cb_0&=x&cname=Jürgen+1&seq=1x&token={token}&cname=other&seq=9&"),
        format!("cb=icomet_cb_0&cname=Jürgen+1&seq=+1&noop=&token={token}&unknown=%zz"),
    ] {
        assert_eq!(
            wire.get(&format!("/sub?{query}")).await.1,
            called,
            "{query}"
        );
    }
    wire.send(&format!(
        "GET /poll?cb=icomet_cb_0&cname=Jürgen+1&seq=1 HTTP/1.1\r\nHost: h\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.reply().await.1, called);
    // iCometClient4j: java.net.HttpURLConnection, a line an object.
    let line = "{\"type\":\"data\",\"cname\":\"Jürgen 1\",\"seq\":1,\"content\":\"m1\"}\n";
    let mut java = Wire::connect(server.client).await;
    java.send(&format!(
        "GET /stream?cname=J%C3%BCrgen+1&seq=1&token={token} HTTP/1.1\r\nUser-Agent: Dalvik/2.1.0\r\n\
         Host: comet.example.com:8100\r\nConnection: Keep-Alive\r\nAccept-Encoding: gzip\r\n\r\n"
    ))
    .await;
    java.head().await;
    assert_eq!(java.chunk().await, line);
    push(&server, "J%C3%BCrgen%201", "m2").await;
    let next = line.replace(":1,", ":2,").replace("m1", "m2");
    assert_eq!(java.chunk().await, next);
    // curl, and HTTP/1.0, whose replies end with the connection.
    for (accept, request) in [
        ("curl", "HTTP/1.0\r\nUser-Agent: curl/7.1\r\nAccept: */*"),
        ("ab", "HTTP/1.0"),
    ] {
        let mut old = Wire::connect(server.client).await;
        let path = format!("/sub?cname=J%C3%BCrgen+1&seq=1&token={token}");
        old.send(&format!("GET {path} {request}\r\n\r\n")).await;
        let (head, body) = old.reply().await;
        assert!(head.starts_with("HTTP/1.0 200 OK\n"), "{accept}: {head}");
        assert!(head.ends_with("\nconnection: close"), "{accept}: {head}");
        assert!(body.starts_with("[{\"type\":\"data\""), "{accept}: {body}");
        assert_eq!(old.rest().await, "");
    }
    let mut old = held(
        &server,
        "Jürgen 1",
        &format!("/stream?cname=J%C3%BCrgen+1&seq=3&token={token}"),
    )
    .await;
    old.head().await;
    drop(old);
    let mut old = Wire::connect(server.client).await;
    old.send(&format!(
        "GET /stream?cname=Jürgen+1&seq=1&token={token} HTTP/1.0\r\n\r\n"
    ))
    .await;
    let head = old.head().await;
    assert!(!head.contains("chunked"), "{head}");
    assert_eq!(
        old.until("\n").await + &old.until("\n").await,
        line.to_owned() + &next
    );
}

#[tokio::test]
async fn endless_replies_frame_each_object() {
    let server = server(Open).await;
    for content in ["m1", "%3C%2Fscript%3E%E2%80%A8"] {
        push(&server, "a", content).await;
    }
    let stream_head = |kind: &str, more: &str| {
        format!(
            "HTTP/1.1 200 OK\ncontent-type: {kind}; charset=utf-8\ncache-control: no-store, no-transform\n\
             x-accel-buffering: no\nx-content-type-options: nosniff\nexpires: 0\n{more}\
             transfer-encoding: chunked\nconnection: close"
        )
    };
    let evil = data(2, "</script>\\u2028");
    let escaped = data(2, "\\u003c/script\\u003e\\u2028");
    for (mode, kind, more, begin, end, second) in [
        ("stream", "application/json", "", "", "\n", &evil),
        (
            "sse",
            "text/event-stream",
            "access-control-allow-origin: *\n",
            "data: ",
            "\n\n",
            &evil,
        ),
        (
            "iframe",
            "text/html",
            "",
            "<script>parent.icomet_cb(",
            ");</script>\n",
            &escaped,
        ),
    ] {
        let path = format!("/{mode}?cname=a&seq=1&cb=ignored");
        let mut wire = held(&server, "a", &path).await;
        assert_eq!(wire.head().await, stream_head(kind, more));
        if mode == "iframe" {
            let page = wire.chunk().await;
            assert!(page.starts_with("<html><head><meta ") && page.ends_with("</head><body>\n"));
        }
        let framed = |number: u64, object: &str| {
            let id = match mode {
                "sse" => format!("id: {number}\n"),
                _ => String::new(),
            };
            format!("{id}{begin}{object}{end}")
        };
        assert_eq!(wire.chunk().await, framed(1, &data(1, "m1")));
        assert_eq!(wire.chunk().await, framed(2, second));
        wire.silent().await;
    }
    waiting(&server, "a", 0).await;
    // All kinds of objects, and the end.
    let mut wire = held(&server, "a", "/stream?cname=a&seq=0").await;
    wire.head().await;
    assert_eq!(wire.chunk().await, next_seq(3) + "\n");
    push(&server, "a", "m3").await;
    assert_eq!(wire.chunk().await, data(3, "m3") + "\n");
    keyed(&server, "/broadcast?content=all").await;
    assert_eq!(
        wire.chunk().await,
        object("broadcast", "a", 4, "all") + "\n"
    );
    assert_eq!(wire.chunk().await, next_seq(5) + "\n");
    assert_eq!(keyed(&server, "/close?cname=a").await, "ok 5\n");
    assert_eq!(wire.chunk().await, object("close", "a", 5, "") + "\n");
    assert_eq!(wire.rest().await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_long_backlog_of_an_endless_reply_comes_whole() {
    let server = server(Open).await;
    for n in 0..100 {
        push(&server, "b", &n.to_string()).await;
    }
    let mut wire = held(&server, "b", "/stream?cname=b&seq=1").await;
    wire.head().await;
    for n in 0..100 {
        assert_eq!(
            wire.chunk().await,
            object("data", "b", n + 1, &n.to_string()) + "\n"
        );
    }
}

/// Nothing is given twice, and what came while it was away is not lost, also if it had nothing yet.
#[tokio::test]
async fn an_event_source_goes_on_from_the_id_of_the_last_event() {
    let server = server(Open).await;
    push(&server, "a", "m1").await;
    let event = |id: u64, object: String| format!("id: {id}\ndata: {object}\n\n");
    let open = async |path: &str, id: &str| {
        let mut wire = Wire::connect(server.client).await;
        wire.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n{id}\r\n"))
            .await;
        wire
    };
    let mut first = open("/sse?cname=a&seq=0", "").await;
    first.head().await;
    assert_eq!(first.chunk().await, event(1, next_seq(2)));
    drop(first);
    push(&server, "a", "m2").await;
    keyed(&server, "/broadcast?content=all").await;
    push(&server, "a", "m4").await;
    let all = object("broadcast", "a", 3, "all");
    for (path, id, number) in [
        ("/sse?cname=a&seq=0", "last-event-id: 1\r\n", 1),
        ("/sse?cname=a&seq=0", "Last-Event-ID: 2\r\n", 2),
        ("/sse?cname=a&seq=1&lastEventId=1", "", 1),
        (
            "/sse?cname=a&seq=9&last_event_id=0",
            "last-event-id: 3\r\n",
            3,
        ),
        ("/sse?cname=a&seq=4", "last-event-id:\r\n", 3),
    ] {
        let mut wire = open(path, id).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200"), "{path} {id}");
        if number < 2 {
            assert_eq!(wire.chunk().await, event(2, data(2, "m2")));
        }
        if number < 3 {
            assert_eq!(wire.chunk().await, event(3, all.clone()));
            assert_eq!(wire.chunk().await, event(3, next_seq(4)));
        }
        assert_eq!(wire.chunk().await, event(4, data(4, "m4")), "{path} {id}");
        wire.silent().await;
    }
    let mut wire = open("/sse?cname=a", "last-event-id: x\r\n").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 400"));
    // Other replies have no ids to go on from.
    let mut wire = open("/sub?cname=a&seq=4", "last-event-id: 1\r\n").await;
    let (_, body) = wire.reply().await;
    assert_eq!(body, format!("[{}]\n", data(4, "m4")));
}

#[tokio::test]
async fn ping_says_how_often_to_expect_something() {
    let server = server(Strict).await;
    for (path, body) in [
        (
            "/ping",
            "icomet_cb({\"type\":\"ping\",\"sub_timeout\":30});\n",
        ),
        (
            "/ping?cb=p.q",
            "p.q({\"type\":\"ping\",\"sub_timeout\":30});\n",
        ),
    ] {
        let (found, text) = front(&server, path).await;
        assert_eq!(text, body);
        let expected = head("text/javascript", body).replace("\nexpires: 0", "");
        let expected = expected.replace(", no-transform", "");
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn requests_end_with_the_token_and_with_the_server() {
    let mut server = server(Strict).await;
    let claims = |expires_at| Claims {
        user: "a".to_owned(),
        send: false,
        expires_at,
    };
    // A token is refused some seconds after its end, for clocks that differ.
    let mut before = 0;
    while before < 120 {
        let token = TestServer::token_of(&claims(halley::clock::now_s() - before));
        let (_, body) = front(&server, &format!("/sub?cname=a&token={token}")).await;
        if body.contains("401") {
            break;
        }
        before += 1;
    }
    let soon = TestServer::token_of(&claims(halley::clock::now_s() + 2 - before));
    let wrong = object("401", "a", 0, "Token error") + "\n";
    let mut stream = held(&server, "a", &format!("/stream?cname=a&seq=1&token={soon}")).await;
    let (_, body) = front(&server, &format!("/sub?cname=a&seq=1&token={soon}")).await;
    assert_eq!(body, wrong);
    stream.head().await;
    assert_eq!(stream.chunk().await, wrong);
    // No last chunk: clients take what is complete for done, and do not come again.
    assert_eq!(stream.rest().await, "");
    let token = TestServer::token("a");
    let mut stream = held(&server, "a", &format!("/sse?cname=a&seq=1&token={token}")).await;
    let mut poll = held(
        &server,
        "a",
        &format!("/sub?cname=a&seq=1&noop=8&token={token}"),
    )
    .await;
    server.signal_stop();
    assert_eq!(poll.reply().await.1, object("noop", "a", 8, "") + "\n");
    stream.head().await;
    assert_eq!(stream.rest().await, "");
    assert_eq!(poll.rest().await, "");
    server.ended().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut() {
    let server = server_with(Open, |parts| {
        parts.timeouts.write = Duration::from_millis(200);
    })
    .await;
    let mut narrow = crate::support::Http::connect_narrow(server.client).await;
    narrow
        .send("GET /stream?cname=slow&seq=1 HTTP/1.1\r\nHost: h\r\n\r\n")
        .await;
    waiting(&server, "slow", 1).await;
    let content = "x".repeat(15_000);
    for _ in 0..1000 {
        push(&server, "slow", &content).await;
        let (_, info) = super::back(&server, "/info?cname=slow").await;
        if info.ends_with("\"subscribers\": 0}\n") {
            return;
        }
    }
    panic!("the server keeps a reader that does not read");
}
