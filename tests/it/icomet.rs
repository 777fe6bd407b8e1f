//! icomet's protocol as its clients and backends speak it: the bytes that they send, and the bytes that they get.

mod backends;
mod channels;
mod clients;
mod numbers;
mod refusals;

use std::net::SocketAddr;
use std::time::Duration;

use halley::config::IcometRules;
use halley::http::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{KEY, PATIENCE, TestServer};

/// A server that speaks icomet's protocol, and keeps quiet for longer than a test.
async fn server(rules: IcometRules) -> TestServer {
    server_with(rules, |_| {}).await
}

async fn server_with(rules: IcometRules, change: impl FnOnce(&mut Parts)) -> TestServer {
    TestServer::with_hub(
        |options| options.channels_max = 1000,
        |parts| {
            parts.icomet = Some(rules);
            parts.cors_origins.clear();
            change(parts);
        },
    )
    .await
}

/// A connection on which all bytes are looked at.
struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            unread: Vec::new(),
        }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// `GET` and a path, as the simplest of clients does.
    async fn get(&mut self, path: &str) -> (String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .await;
        self.reply().await
    }

    /// A head, without its date, and the body that it says is there.
    async fn reply(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let body = self.take(length).await;
        (head, body)
    }

    async fn head(&mut self) -> String {
        let head = self.until("\r\n\r\n").await;
        let lines = head.trim_end().split("\r\n");
        let lines: Vec<_> = lines.filter(|line| !line.starts_with("date: ")).collect();
        assert_eq!(lines.len() + 1, head.trim_end().split("\r\n").count());
        lines.join("\n")
    }

    /// Everything up to a text, and the text.
    async fn until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .unread
                .windows(end.len())
                .position(|part| part == end.as_bytes());
            if let Some(at) = found {
                let taken = self.unread.drain(..at + end.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            assert!(self.more().await, "ended before {end:?}");
        }
    }

    async fn take(&mut self, length: usize) -> String {
        while self.unread.len() < length {
            assert!(self.more().await, "ended within a body");
        }
        String::from_utf8(self.unread.drain(..length).collect()).unwrap()
    }

    /// One chunk of a reply in chunks.
    async fn chunk(&mut self) -> String {
        let length = self.until("\r\n").await;
        let length = usize::from_str_radix(length.trim_end(), 16).unwrap();
        let text = self.take(length).await;
        assert_eq!(self.take(2).await, "\r\n");
        text
    }

    /// All that comes until the server ends the connection.
    async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8(std::mem::take(&mut self.unread)).unwrap()
    }

    /// Nothing comes for a while.
    async fn silent(&mut self) {
        assert_eq!(self.unread, b"");
        let mut byte = [0];
        let read = timeout(Duration::from_millis(60), self.stream.peek(&mut byte));
        assert!(read.await.is_err(), "something came");
    }

    async fn more(&mut self) -> bool {
        let mut piece = vec![0; 16 * 1024];
        let read = timeout(PATIENCE, self.stream.read(&mut piece));
        let length = read.await.expect("the server answers in time").unwrap_or(0);
        self.unread.extend_from_slice(&piece[..length]);
        length > 0
    }
}

/// A client's request on a connection of its own.
async fn front(server: &TestServer, path: &str) -> (String, String) {
    Wire::connect(server.client).await.get(path).await
}

/// A backend's request on a connection of its own.
async fn back(server: &TestServer, path: &str) -> (String, String) {
    Wire::connect(server.admin).await.get(path).await
}

/// The body of what a backend is told, who shows the key.
async fn keyed(server: &TestServer, path: &str) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    let key = KEY.replace(' ', "+");
    back(server, &format!("{path}{sign}key={key}")).await.1
}

/// Text to a channel, by the key.
async fn push(server: &TestServer, channel: &str, content: &str) {
    let path = format!("/push?cname={channel}&content={content}");
    assert_eq!(keyed(server, &path).await, "{\"type\":\"ok\"}\n");
}

/// Waits until so many requests wait for a channel.
async fn waiting(server: &TestServer, channel: &str, count: usize) {
    let path = format!("/info?cname={}", channel.replace(' ', "+"));
    let expected = format!("{{\"cname\": \"{channel}\", \"subscribers\": {count}}}\n");
    crate::support::eventually(&expected, || async {
        keyed(server, &path).await == expected
    })
    .await;
}

/// Sends a request that will wait, and waits until it does.
async fn held(server: &TestServer, channel: &str, path: &str) -> Wire {
    let mut wire = Wire::connect(server.client).await;
    let info = format!("/info?cname={}", channel.replace(' ', "+"));
    let before = keyed(server, &info).await;
    let count: usize = before
        .trim_end_matches("}\n")
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    wire.send(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
        .await;
    waiting(server, channel, count + 1).await;
    wire
}
