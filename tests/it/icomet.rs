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

use crate::support::{Http, KEY, Reply, TestServer, chunk, part, upto};

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
    http: Http,
}

impl Wire {
    async fn connect(address: SocketAddr) -> Self {
        let http = Http::connect(address).await;
        Self { http }
    }

    async fn send(&mut self, text: &str) {
        self.http.send(text).await;
    }

    /// `GET` and a path, as the simplest of clients does.
    async fn get(&mut self, path: &str) -> (String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
            .await;
        self.reply().await
    }

    /// A head, without its date, and the body that it says is there.
    async fn reply(&mut self) -> (String, String) {
        let reply = self.http.head().await;
        let body = self.take(reply.length()).await;
        (dateless(&reply), body)
    }

    async fn head(&mut self) -> String {
        dateless(&self.http.head().await)
    }

    async fn take(&mut self, length: usize) -> String {
        text(self.http.take(part(length)).await)
    }

    /// Everything up to a text, and the text.
    async fn until(&mut self, end: &str) -> String {
        text(self.http.take(upto(end.as_bytes())).await)
    }

    /// One chunk of a reply in chunks.
    async fn chunk(&mut self) -> String {
        text(self.http.take(chunk).await)
    }

    /// All that comes until the server ends the connection.
    async fn rest(&mut self) -> String {
        text(self.http.rest().await)
    }

    /// Nothing comes for a while.
    async fn silent(&mut self) {
        assert_eq!(self.http.unread, b"");
        let came = self.http.ready_within(Duration::from_millis(60)).await;
        assert!(!came, "something came");
    }
}

/// A head as it came, but its date, of which there is one.
fn dateless(reply: &Reply) -> String {
    let lines = reply.head.split("\r\n");
    let (dates, others): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("date: "));
    assert_eq!(dates.len(), 1, "{reply:?}");
    others.join("\n")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
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
