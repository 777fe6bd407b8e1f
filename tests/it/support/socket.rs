//! A WebSocket by hand: what the server writes is checked against RFC 6455, what the client writes is what the
//! test says.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::http::{Http, Reply};
use super::server::TestServer;

/// A key, and what it must be answered with: the example of the standard.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// 1005 stands for a close frame without a code.
    Close(u16, String),
}

impl Frame {
    /// The first frame of these bytes, if it is whole, and its length.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (first, short) = (*bytes.first()?, *bytes.get(1)?);
        assert_eq!(
            first & 0xf0,
            0x80,
            "whole, without reserved bits: {first:x}"
        );
        assert_eq!(short & 0x80, 0, "a server does not mask");
        let (length, from) = match short {
            126 => {
                let length = u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap());
                assert!(length > 125, "as short as can be");
                (u64::from(length), 4)
            }
            127 => {
                let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap());
                assert!(length > 65_535, "as short as can be");
                (length, 10)
            }
            short => (u64::from(short), 2),
        };
        let end = from + usize::try_from(length).unwrap();
        let payload = bytes.get(from..end)?.to_vec();
        assert!(
            first & 8 == 0 || payload.len() < 126,
            "a control frame is short"
        );
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let frame = match first & 0xf {
            1 => Self::Text(text(&payload)),
            8 => {
                let (code, reason) = match payload.split_first_chunk() {
                    Some((code, reason)) => (u16::from_be_bytes(*code), reason),
                    None => (1005, &payload[..]),
                };
                Self::Close(code, text(reason))
            }
            9 => Self::Ping(payload),
            10 => Self::Pong(payload),
            other => panic!("opcode {other}"),
        };
        Some((frame, end))
    }
}

/// A masked frame: the first byte as it is given.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0xff);
            frame.extend(u64::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// An open socket.
pub(crate) struct Socket {
    pub(crate) http: Http,
}

impl Socket {
    /// The head of a handshake, without its last line.
    pub(crate) fn request(token: &str, query: &str) -> String {
        format!("GET /v1/inbox/ws?{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n")
    }

    /// What makes a request a handshake.
    pub(crate) fn handshake() -> String {
        format!(
            "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: {KEY}\r\n\r\n"
        )
    }

    /// Makes a request a handshake; a refusal comes as the reply.
    pub(crate) async fn upgrade(mut http: Http, request: String) -> Result<(Self, Reply), Reply> {
        http.send(&(request + &Self::handshake())).await;
        Self::accepted(http).await
    }

    /// Reads the server's answer to a handshake.
    pub(crate) async fn accepted(mut http: Http) -> Result<(Self, Reply), Reply> {
        let mut head = http.head().await;
        if head.status != 101 {
            http.body_of(&mut head).await;
            return Err(head);
        }
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
        assert_eq!(head.header("upgrade"), Some("websocket"));
        assert_eq!(head.header("connection"), Some("Upgrade"));
        for name in [
            "sec-websocket-extensions",
            "sec-websocket-protocol",
            "content-length",
        ] {
            assert_eq!(head.header(name), None);
        }
        Ok((Self { http }, head))
    }

    /// From here on, as a user who may send; the first page was read.
    pub(crate) async fn open(server: &TestServer, user: &str) -> Self {
        Self::asking(server.client, &TestServer::token(user), "after=now").await
    }

    pub(crate) async fn asking(address: SocketAddr, token: &str, query: &str) -> Self {
        let http = Http::connect(address).await;
        let (mut socket, _) = Self::upgrade(http, Self::request(token, query))
            .await
            .unwrap();
        let first = socket.text().await;
        assert_eq!(first["messages"], Value::Array(Vec::new()), "{first}");
        socket
    }

    /// Bytes as they are.
    pub(crate) async fn put(&mut self, bytes: &[u8]) {
        self.http.stream.write_all(bytes).await.unwrap();
    }

    /// One whole text.
    pub(crate) async fn say(&mut self, text: &Value) {
        self.put(&frame(0x81, text.to_string().as_bytes())).await;
    }

    pub(crate) async fn pong(&mut self, payload: &[u8]) {
        // The server may have gone; the reading will tell.
        drop(self.http.stream.write_all(&frame(0x8a, payload)).await);
    }

    pub(crate) async fn answer_close(&mut self, code: u16) {
        drop(
            self.http
                .stream
                .write_all(&frame(0x88, &code.to_be_bytes()))
                .await,
        );
    }

    /// The next frame; none if the connection has ended, with nothing left over.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = Frame::parse(&self.http.unread) {
                self.http.unread.drain(..length);
                return Some(frame);
            }
            if !self.http.read_more().await {
                assert!(self.http.unread.is_empty(), "half a frame");
                return None;
            }
        }
    }

    /// The next text.
    pub(crate) async fn text(&mut self) -> Value {
        match self.frame().await {
            Some(Frame::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// The next text that is no page.
    pub(crate) async fn answer(&mut self) -> Value {
        loop {
            let text = self.text().await;
            if text.get("messages").is_none() {
                return text;
            }
        }
    }

    /// The next text that is no page, as it came.
    pub(crate) async fn answer_text(&mut self) -> String {
        loop {
            match self.frame().await {
                Some(Frame::Text(text)) if !text.contains("\"messages\":") => return text,
                Some(Frame::Text(_)) => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// The next text that is no page, whatever comes before.
    pub(crate) async fn answer_behind_pongs(&mut self) -> Value {
        loop {
            match self.frame().await.expect("it goes on") {
                Frame::Text(text) if !text.contains("\"messages\":") => {
                    return serde_json::from_str(&text).unwrap();
                }
                Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => {}
                Frame::Close(code, reason) => panic!("closed: {code} {reason}"),
            }
        }
    }

    /// Says something and takes the answer.
    pub(crate) async fn ask(&mut self, text: &Value) -> Value {
        self.say(text).await;
        self.answer().await
    }

    /// Reads on to the close frame, answers it, and sees the connection end.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.frame().await.expect("a close frame comes first") {
                Frame::Close(code, reason) => {
                    self.answer_close(code).await;
                    assert_eq!(self.frame().await, None, "nothing behind a close frame");
                    return (code, reason);
                }
                Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) => {}
            }
        }
    }
}
