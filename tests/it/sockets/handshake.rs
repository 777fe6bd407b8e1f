//! What becomes a socket and what does not.

use std::fmt::Write as _;

use crate::support::{Frame, Socket, TestServer, frame};

fn request(line: &str, headers: &[(&str, &str)]) -> String {
    let token = TestServer::token("bob");
    let mut text = format!("{line}\r\nhost: x\r\nauthorization: Bearer {token}\r\n");
    for (name, value) in headers {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    text + "\r\n"
}

const LINE: &str = "GET /v1/inbox/ws HTTP/1.1";
const RIGHT: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The right headers, with one changed or left out.
fn but(name: &str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
    RIGHT
        .into_iter()
        .filter_map(|(known, right)| {
            let value = if known == name { value } else { Some(right) };
            Some((known, value?))
        })
        .collect()
}

#[tokio::test]
async fn what_is_no_handshake_is_told_what_to_ask_for() {
    let server = TestServer::start().await;
    let wrong = [
        ("upgrade", None),
        ("upgrade", Some("h2c")),
        ("upgrade", Some("websockets")),
        ("connection", None),
        ("connection", Some("keep-alive")),
        ("sec-websocket-version", None),
        ("sec-websocket-version", Some("8")),
        ("sec-websocket-version", Some("14")),
        ("sec-websocket-key", None),
        ("sec-websocket-key", Some("")),
        ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25j")),
        ("sec-websocket-key", Some("dGhlIHNhbXBsZSBub25jZQ==x")),
    ];
    let mut http = server.connect().await;
    for (name, value) in wrong {
        http.send(&request(LINE, &but(name, value))).await;
        let reply = http.reply().await;
        let what = (reply.status, reply.code());
        assert_eq!(
            what,
            (426, "upgrade_required".to_owned()),
            "{name}: {value:?}"
        );
        assert_eq!(reply.header("upgrade"), Some("websocket"));
        assert_eq!(
            reply.header("connection"),
            Some("upgrade"),
            "it is of this hop"
        );
        assert_eq!(reply.header("sec-websocket-version"), Some("13"));
    }
    // Still the same connection. An old client cannot upgrade, and a request that has a body is none.
    http.send(&request("POST /v1/inbox/ws HTTP/1.1", &RIGHT))
        .await;
    assert_eq!(http.reply().await.status, 405);
    http.send(&request("HEAD /v1/inbox/ws HTTP/1.1", &RIGHT))
        .await;
    assert_eq!(http.head().await.status, 426);
    let mut old = server.connect().await;
    old.send(&request("GET /v1/inbox/ws HTTP/1.0", &RIGHT))
        .await;
    assert_eq!(old.reply().await.status, 426);
    let mut with_body = server.connect().await;
    let headers = [&RIGHT[..], &[("content-length", "2")]].concat();
    with_body.send(&(request(LINE, &headers) + "{}")).await;
    assert_eq!(with_body.reply().await.status, 400);
    assert_eq!(server.held("bob").await, 0);
}

#[tokio::test]
async fn a_handshake_may_be_written_in_every_way_that_the_standards_allow() {
    let server = TestServer::start().await;
    let lists: [&[(&str, &str)]; 5] = [
        &RIGHT,
        &[
            ("Upgrade", "WebSocket"),
            ("Connection", "keep-alive, upgrade"),
            RIGHT[2],
            RIGHT[3],
        ],
        &[
            ("connection", "keep-alive"),
            ("connection", "Upgrade"),
            RIGHT[0],
            RIGHT[2],
            RIGHT[3],
        ],
        &[("upgrade", "h2c, websocket"), RIGHT[1], RIGHT[2], RIGHT[3]],
        &[
            RIGHT[0],
            RIGHT[1],
            RIGHT[2],
            RIGHT[3],
            (
                "sec-websocket-extensions",
                "permessage-deflate; client_max_window_bits",
            ),
            ("sec-websocket-protocol", "chat, superchat"),
            ("origin", "https://elsewhere.example"),
        ],
    ];
    for headers in lists {
        let mut http = server.connect().await;
        http.send(&request(LINE, headers)).await;
        let opened = Socket::accepted(http).await;
        let (mut socket, _) = opened.unwrap_or_else(|reply| panic!("{headers:?}: {reply:?}"));
        assert_eq!(
            socket.text().await["next"]
                .as_str()
                .and_then(|next| next.get(..4)),
            Some("0.0.")
        );
    }
}

#[tokio::test]
async fn frames_sent_behind_the_handshake_are_read_as_if_they_had_come_later() {
    let server = TestServer::start().await;
    // More than is read in one go, and more than may wait for their receipts.
    for (pings, sends) in [(0, 2), (1, 1), (150, 1), (3, 60), (200, 0)] {
        let mut http = server.connect().await;
        let mut bytes = request(LINE, &RIGHT)
            .replacen("/ws", "/ws?after=now", 1)
            .into_bytes();
        for ping in 0..pings {
            bytes.extend(frame(0x89, &[ping]));
        }
        for number in 0..sends {
            let text = format!("{{\"send\":{{\"to\":\"carol\",\"body\":1}},\"ref\":{number}}}");
            bytes.extend(frame(0x81, text.as_bytes()));
        }
        tokio::io::AsyncWriteExt::write_all(&mut http.stream, &bytes)
            .await
            .unwrap();
        let (mut socket, _) = Socket::accepted(http).await.unwrap();
        let (mut last_ping, mut receipts) = (None, 0);
        while receipts < sends || last_ping != pings.checked_sub(1) {
            match socket.frame().await.unwrap() {
                Frame::Pong(payload) => last_ping = Some(payload[0]),
                Frame::Text(text) if text.starts_with("{\"receipt\"") => {
                    assert!(text.ends_with(&format!("\"ref\":{receipts}}}")), "{text}");
                    receipts += 1;
                }
                Frame::Text(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_handshake_behind_other_requests_on_a_kept_connection() {
    let server = TestServer::start().await;
    let mut http = server.connect().await;
    assert_eq!(http.request("GET", "/healthz", &[], "").await.status, 200);
    http.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    http.send(&request(LINE, &RIGHT)).await;
    assert_eq!(http.reply().await.status, 200);
    let (mut socket, _) = Socket::accepted(http).await.unwrap();
    assert!(socket.text().await["next"].is_string());
}
