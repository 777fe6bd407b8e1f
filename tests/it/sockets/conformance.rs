//! RFC 6455 by hand: frames that a client may write in any cut, and those that it must not write.
//!
//! The families of cases are those of the Autobahn test suite, as far as a server without binary messages and
//! compression has them.

use serde_json::{Value, json};

use crate::device::inbox;
use crate::support::{Frame, PATIENCE, Random, Socket, TestServer, frame};

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const GOES_ON_AND_ENDS: u8 = 0x80;
const PING: u8 = 0x89;
const CLOSE: u8 = 0x88;

/// The text of a send, exactly so long.
fn text_of(length: usize) -> String {
    let around = "{\"send\":{\"to\":\"alice\",\"body\":\"\"},\"ref\":1}";
    let text = format!(
        "{{\"send\":{{\"to\":\"alice\",\"body\":\"{}\"}},\"ref\":1}}",
        "x".repeat(length - around.len())
    );
    assert_eq!(text.len(), length);
    text
}

/// The one page that repeats what was sent, once the receipt has come.
async fn sent_and_seen(socket: &mut Socket) -> Value {
    let (mut receipt, mut page) = (None, None);
    while receipt.is_none() || page.is_none() {
        let text = socket.text().await;
        match text.get("messages") {
            Some(messages) if messages[0].is_object() => page = Some(messages[0]["body"].clone()),
            Some(_) => {}
            None => {
                assert!(text["receipt"]["id"].is_u64(), "{text}");
                receipt = Some(text);
            }
        }
    }
    page.unwrap()
}

/// Cut into frames of these lengths, with a ping behind each that may still be interrupted.
fn in_parts(text: &[u8], mut cut: impl FnMut() -> usize, pings: bool) -> (Vec<u8>, usize) {
    let (mut bytes, mut rest, mut count) = (Vec::new(), text, 0);
    let mut first = TEXT_BEGINS;
    loop {
        let (part, behind) = rest.split_at(cut().min(rest.len()));
        rest = behind;
        if rest.is_empty() {
            bytes.extend(frame(first | GOES_ON_AND_ENDS, part));
            return (bytes, count);
        }
        bytes.extend(frame(first, part));
        if pings {
            bytes.extend(frame(PING, count.to_string().as_bytes()));
            count += 1;
        }
        first = GOES_ON;
    }
}

#[tokio::test]
async fn messages_of_every_length_of_a_length_arrive_whole() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    for length in [
        64, 124, 125, 126, 127, 128, 1023, 1024, 1025, 65_534, 65_535, 65_536, 65_540,
    ] {
        socket.put(&frame(TEXT, text_of(length).as_bytes())).await;
        let body = sent_and_seen(&mut socket).await;
        assert_eq!(body.as_str().unwrap().len(), length - 41, "{length}");
    }
    // Nothing at all is a message, too, and no JSON; wholly and in empty parts.
    for bytes in [
        frame(TEXT, b""),
        [
            frame(TEXT_BEGINS, b""),
            frame(GOES_ON, b""),
            frame(GOES_ON_AND_ENDS, b""),
        ]
        .concat(),
    ] {
        socket.put(&bytes).await;
        assert_eq!(socket.answer().await["error"]["code"], "bad_json");
    }
}

#[tokio::test]
async fn messages_in_parts_with_pings_between_arrive_whole_and_the_pings_are_answered_at_once() {
    let mut random = Random::from_environment("conformance");
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    // Characters of every width are cut in the middle.
    let text = "{\"send\":{\"to\":\"alice\",\"body\":\"aü日😀\u{10ffff}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\"},\"ref\":1}";
    for most in [1, 1, 2, 3, 5, 17, 200] {
        let cut = || {
            usize::try_from(random.below(most + 1))
                .unwrap()
                .max(usize::from(most == 1))
        };
        let (bytes, pings) = in_parts(text.as_bytes(), cut, true);
        socket.put(&bytes).await;
        for ping in 0..pings {
            let pong = Frame::Pong(ping.to_string().into_bytes());
            assert_eq!(socket.frame().await, Some(pong), "parts of at most {most}");
        }
        let body = sent_and_seen(&mut socket).await;
        assert_eq!(body, "aü日😀\u{10ffff}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}");
    }
    let long = text_of(70_000);
    let (bytes, _) = in_parts(long.as_bytes(), || 100, false);
    // Beyond a body's limit, within a frame's.
    socket.put(&bytes).await;
    assert_eq!(socket.answer().await["error"]["code"], "body_too_large");
}

#[tokio::test]
async fn every_ping_is_answered_with_what_was_in_it() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    for length in 0..=125 {
        let payload = vec![0xff - length; usize::from(length)];
        socket.put(&frame(PING, &payload)).await;
        assert_eq!(socket.frame().await, Some(Frame::Pong(payload)));
    }
    // Pongs that nobody asked for are no news.
    socket.put(&frame(0x8a, b"unasked")).await;
    socket.put(&frame(0x8a, b"")).await;
    let many: Vec<u8> = (0..=255).flat_map(|n| frame(PING, &[n])).collect();
    socket.put(&many).await;
    for n in 0..=255 {
        assert_eq!(socket.frame().await, Some(Frame::Pong(vec![n])));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_cut_at_any_byte_are_the_same_frames() {
    let server = TestServer::start().await;
    let text = "{\"token\":1,\"ref\":\"ü\"}";
    let (parts, _) = in_parts(text.as_bytes(), || 9, false);
    let bytes = [
        frame(PING, b"one"),
        frame(TEXT, format!("{text}{}", " ".repeat(120)).as_bytes()),
        parts,
        frame(PING, b"two"),
    ]
    .concat();
    let whole = async |socket: &mut Socket| {
        assert_eq!(socket.frame().await, Some(Frame::Pong(b"one".to_vec())));
        let (mut answers, mut pong) = (0, false);
        while answers < 2 || !pong {
            match socket.frame().await {
                Some(Frame::Text(text)) => {
                    assert!(text.ends_with("\"status\":400,\"title\":\"The body is not the JSON asked for\",\"type\":\"urn:halley:error:bad_json\"}}"), "{text}");
                    answers += 1;
                }
                Some(Frame::Pong(payload)) if payload == b"two" => pong = true,
                other => panic!("{other:?}"),
            }
        }
    };
    let mut socket = Socket::open(&server, "bob").await;
    socket.http.stream.set_nodelay(true).unwrap();
    for at in 0..bytes.len() {
        let (before, after) = bytes.split_at(at);
        socket.put(before).await;
        tokio::time::sleep(std::time::Duration::from_micros(100)).await;
        socket.put(after).await;
        whole(&mut socket).await;
    }
    for byte in &bytes {
        socket.put(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    whole(&mut socket).await;
}

/// Sends it behind a good message, which is still answered, and sees the server close.
async fn refused(server: &TestServer, what: &str, bytes: &[u8], codes: &[u16]) {
    let mut socket = Socket::open(server, "bob").await;
    let good = frame(TEXT, b"{\"send\":{\"to\":\"alice\",\"body\":1},\"ref\":7}");
    socket.put(&[&good, bytes].concat()).await;
    assert_eq!(socket.answer().await["ref"], 7, "{what}");
    let (code, reason) = socket.closed().await;
    assert!(codes.contains(&code), "{what}: {code} {reason}");
    let name = match code {
        1002 => "protocol_error",
        1003 => "not_text",
        1007 => "not_utf8",
        _ => "body_too_large",
    };
    assert_eq!(reason, name, "{what}");
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_socket_with_1002() {
    let server = TestServer::start().await;
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for bits in [0x40, 0x20, 0x10, 0x70] {
        for first in [TEXT, PING] {
            cases.push((
                format!("reserved bits {bits:x} of {first:x}"),
                frame(first | bits, b"{}"),
            ));
        }
    }
    for opcode in (3..8).chain(0xb..=0xf) {
        cases.push((format!("opcode {opcode:x}"), frame(0x80 | opcode, b"{}")));
        cases.push((
            format!("empty opcode {opcode:x}"),
            frame(0x80 | opcode, b""),
        ));
    }
    let long = [0; 126];
    for (what, bytes) in [
        ("not masked", b"\x81\x02{}".to_vec()),
        ("a ping that is not masked", b"\x89\x00".to_vec()),
        ("goes on with nothing", frame(GOES_ON, b"{}")),
        ("ends nothing", frame(GOES_ON_AND_ENDS, b"{}")),
        (
            "a message within a message",
            [frame(TEXT_BEGINS, b"{"), frame(TEXT, b"{}")].concat(),
        ),
        (
            "a begin within a message",
            [frame(TEXT_BEGINS, b"{"), frame(TEXT_BEGINS, b"}")].concat(),
        ),
        ("a ping in parts", frame(0x09, b"x")),
        ("a close in parts", frame(0x08, &1000_u16.to_be_bytes())),
        ("a long ping", frame(PING, &long)),
        ("a long pong", frame(0x8a, &long)),
        (
            "a long close",
            frame(CLOSE, &[&1000_u16.to_be_bytes()[..], &long].concat()),
        ),
        ("a close of one byte", frame(CLOSE, b"\x03")),
    ] {
        cases.push((what.to_owned(), bytes));
    }
    for (what, bytes) in cases {
        refused(&server, &what, &bytes, &[1002]).await;
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_ends_the_socket_with_1007_wherever_it_is_cut() {
    let server = TestServer::start().await;
    let wrong: [&[u8]; 9] = [
        b"\"\xff\"",
        b"\"\xc0\xaf\"",
        b"\"\xed\xa0\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\xf8\x88\x80\x80\x80\"",
        b"\"\x80\"",
        b"\"\xe6\x97\"",
        b"\xe6\x97",
        b"\"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited\"",
    ];
    for bytes in wrong {
        refused(&server, "whole", &frame(TEXT, bytes), &[1007]).await;
        for at in 1..bytes.len() {
            let (one, two) = bytes.split_at(at);
            let bytes = [frame(TEXT_BEGINS, one), frame(GOES_ON_AND_ENDS, two)].concat();
            refused(&server, &format!("{one:x?} {two:x?}"), &bytes, &[1007]).await;
        }
    }
    let reason = [&1000_u16.to_be_bytes()[..], b"\xff"].concat();
    refused(
        &server,
        "the reason of a close",
        &frame(CLOSE, &reason),
        &[1007],
    )
    .await;
}

#[tokio::test]
async fn what_is_not_text_or_too_long_ends_the_socket() {
    let server = TestServer::with(|parts| parts.timeouts.linger = PATIENCE).await;
    for bytes in [
        frame(0x82, b"{}"),
        frame(0x82, b""),
        [frame(0x02, b"{"), frame(GOES_ON_AND_ENDS, b"}")].concat(),
    ] {
        refused(&server, "binary", &bytes, &[1003]).await;
    }
    let most = 65_536 + 16 * 1024;
    // The head alone tells that it is too long.
    let head =
        |first: u8, length: u64| [&[first, 0xff][..], &length.to_be_bytes(), b"mask"].concat();
    for length in [most + 1, 1 << 32, 1 << 62] {
        refused(
            &server,
            &format!("{length} bytes"),
            &head(TEXT, length),
            &[1009],
        )
        .await;
    }
    let part = vec![b' '; 20_000];
    let mut parts = frame(TEXT_BEGINS, &part);
    for _ in 0..4 {
        parts.extend(frame(GOES_ON, &part));
    }
    refused(&server, "in parts", &parts, &[1009]).await;
    // What is too long may be on its way whole: the end must not look like a broken line.
    let mut socket = Socket::open(&server, "bob").await;
    let long = vec![b' '; usize::try_from(most).unwrap() + 1];
    socket.put(&frame(TEXT, &long)).await;
    let told = Frame::Close(1009, "body_too_large".to_owned());
    assert_eq!(socket.frame().await, Some(told));
    let end = tokio::io::AsyncReadExt::read(&mut socket.http.stream, &mut [0]).await;
    assert_eq!(end.unwrap(), 0);
    // As long as may be is not too long.
    let mut socket = Socket::open(&server, "bob").await;
    let text = vec![b' '; usize::try_from(most).unwrap()];
    socket.put(&frame(TEXT, &text)).await;
    assert_eq!(socket.answer().await["error"]["code"], "bad_json");
}

#[tokio::test]
async fn a_client_that_closes_is_answered_and_not_listened_to_any_more() {
    let server = TestServer::start().await;
    let good = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ];
    let wrong = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999];
    let mut cases: Vec<(Vec<u8>, u16)> = Vec::new();
    for code in good {
        cases.push((u16::to_be_bytes(code).to_vec(), code));
    }
    for code in wrong {
        cases.push((u16::to_be_bytes(code).to_vec(), 1002));
    }
    let reason = [&1000_u16.to_be_bytes()[..], "é".repeat(61).as_bytes(), b"!"].concat();
    assert_eq!(reason.len(), 125);
    cases.push((reason, 1000));
    cases.push((Vec::new(), 1005));
    for (payload, expected) in cases {
        let mut socket = Socket::open(&server, "bob").await;
        let behind = frame(TEXT, b"{\"send\":{\"to\":\"alice\",\"body\":1},\"ref\":7}");
        socket
            .put(&[frame(CLOSE, &payload), frame(PING, b"x"), behind].concat())
            .await;
        match socket.frame().await {
            Some(Frame::Close(code, _)) => assert_eq!(code, expected, "{payload:x?}"),
            other => panic!("{payload:x?}: {other:?}"),
        }
        assert_eq!(socket.frame().await, None, "and the connection ends");
    }
    assert!(inbox(&server, "alice").await.is_empty());
    server.wait_held("bob", 0).await;
    let mut socket = Socket::open(&server, "bob").await;
    assert_eq!(socket.ask(&json!({ "ref": 1 })).await["ref"], 1);
}
