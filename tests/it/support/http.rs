//! HTTP by hand: what goes over the wire is what the test says.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;

/// One connection.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    pub(crate) unread: Vec<u8>,
}

/// A reply as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The bodies of the messages of a page.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        let page = self.json();
        page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| message["body"].clone())
            .collect()
    }
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// On a connection that is there.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// With little room for what is not read.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self {
            stream: socket.connect(address).await.unwrap(),
            unread: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request and reads its reply.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> Reply {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n");
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if !body.is_empty() {
            write!(text, "content-length: {}\r\n", body.len()).unwrap();
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.send(&text).await;
        if method == "HEAD" {
            self.head().await
        } else {
            self.reply().await
        }
    }

    /// Reads one reply whole.
    pub(crate) async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        self.body_of(&mut reply).await;
        reply
    }

    /// Reads the body that belongs to a head.
    pub(crate) async fn body_of(&mut self, reply: &mut Reply) {
        let length = reply
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            assert!(self.read_more().await, "the connection ended within a body");
        }
        reply.body = self.unread.drain(..length).collect();
    }

    /// Reads the head of a reply.
    pub(crate) async fn head(&mut self) -> Reply {
        let head = self.head_if_any().await;
        head.expect("the connection ended before a reply")
    }

    /// None if the connection ends before.
    pub(crate) async fn head_if_any(&mut self) -> Option<Reply> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.read_more().await {
                return None;
            }
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        Some(Reply {
            version: first.next().unwrap().to_owned(),
            status: first.next().unwrap().parse().unwrap(),
            headers: lines
                .map(|line| {
                    let (name, value) = line.split_once(": ").unwrap();
                    (name.to_lowercase(), value.to_owned())
                })
                .collect(),
            body: Vec::new(),
        })
    }

    /// Whether something comes within a time; it is not read.
    pub(crate) async fn ready_within(&self, limit: Duration) -> bool {
        timeout(limit, self.stream.peek(&mut [0])).await.is_ok()
    }

    /// Whether the server ends the connection, without another byte, within a time.
    pub(crate) async fn ends_within(&mut self, limit: Duration) -> bool {
        assert!(
            self.unread.is_empty(),
            "more than was expected: {:?}",
            self.unread
        );
        let mut byte = [0];
        match timeout(limit, self.stream.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => true,
            Ok(Ok(_)) => panic!("the server wrote on"),
            Err(_) => false,
        }
    }

    pub(crate) async fn ends(&mut self) -> bool {
        self.ends_within(PATIENCE).await
    }

    /// Whether more came; not if the connection is over.
    pub(super) async fn read_more(&mut self) -> bool {
        let mut piece = vec![0; 16 * 1024];
        let length = timeout(PATIENCE, self.stream.read(&mut piece))
            .await
            .expect("the server answers in time")
            .unwrap_or(0);
        self.unread.extend_from_slice(&piece[..length]);
        length > 0
    }
}
