//! One keep-alive connection, with as little work as will do.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that asks one thing at a time.
pub(crate) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("the socket takes options");
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends a whole request and waits for its reply: status and body.
    pub(crate) async fn ask(&mut self, request: &str) -> (u16, String) {
        self.send(request).await;
        self.answer().await
    }

    pub(crate) async fn send(&mut self, request: &str) {
        let sent = self.stream.write_all(request.as_bytes()).await;
        sent.expect("the server takes requests");
    }

    /// Reads until this text has come; what comes later is read later.
    pub(crate) async fn until(&mut self, text: &str) {
        let text = text.as_bytes();
        self.read.clear();
        while !self.read.windows(text.len()).any(|part| part == text) {
            let read = self.stream.read_buf(&mut self.read).await;
            assert!(
                read.expect("the server writes") > 0,
                "the server closed a connection"
            );
        }
        self.read = Vec::new();
    }

    pub(crate) async fn answer(&mut self) -> (u16, String) {
        self.read.clear();
        loop {
            if let Some(reply) = parse(&self.read) {
                return reply;
            }
            let read = self.stream.read_buf(&mut self.read).await;
            assert!(
                read.expect("the server answers") > 0,
                "the server closed a connection"
            );
        }
    }
}

/// The reply, when it is all there.
fn parse(read: &[u8]) -> Option<(u16, String)> {
    let head_end = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(read.get(..head_end)?).expect("heads are ASCII");
    let status = head.get(9..12)?.parse().expect("a status is a number");
    let length = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().expect("a length is a number"))
        })
        .unwrap_or(0);
    let body = read.get(head_end..head_end + length)?;
    Some((status, String::from_utf8_lossy(body).into_owned()))
}
