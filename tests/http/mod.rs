//! HTTP by hand, for all tests and benchmarks: what goes over the wire is what the test says, and nothing is asked
//! a second time. Every reply is read here, strictly: what a server may not write is a panic.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses a part"
)]

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Room for one reading, at least.
const ROOM: usize = 4096;

/// One connection.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    /// What came and is not taken yet.
    pub(crate) unread: Vec<u8>,
    /// How long one reading or writing may take; none: for ever.
    pub(crate) patience: Option<Duration>,
}

/// A reply as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Status line and headers, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn version(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    /// Names and values, in their order.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.head.split("\r\n").skip(1);
        lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header has a colon");
            let value = value.strip_prefix(' ');
            (name, value.expect("a space stands behind the colon"))
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// The length of the body by its header.
    pub(crate) fn length(&self) -> usize {
        let length = self.header("content-length");
        length.map_or(0, |length| length.parse().unwrap())
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.header("transfer-encoding") == Some("chunked")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The stable code of a problem; empty if this is none.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The reply, which must have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "unexpected: {self:?}");
        self
    }
}

/// A request as text; its body is announced.
pub(crate) fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
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
    text
}

/// The head that these bytes begin with, and its length; none if there is more to come.
pub(crate) fn head(bytes: &[u8]) -> Option<(Reply, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let reply = Reply {
        status: status.unwrap_or_else(|| panic!("no status: {head}")),
        head,
        body: Vec::new(),
    };
    Some((reply, end + 4))
}

/// One chunk, if it is there wholly, and its length with all that is around it.
pub(crate) fn chunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let size = std::str::from_utf8(&bytes[..end]).unwrap();
    assert!(
        !size.starts_with(['+', '0']) || size == "0",
        "a chunk of {size}"
    );
    let size = usize::from_str_radix(size, 16).unwrap();
    let whole = bytes.get(end + 2..end + 4 + size)?;
    assert!(whole.ends_with(b"\r\n"), "a chunk's end");
    Some((whole[..size].to_vec(), end + 4 + size))
}

/// So many bytes, if they are there.
pub(crate) fn part(length: usize) -> impl Fn(&[u8]) -> Option<(Vec<u8>, usize)> {
    move |bytes| Some((bytes.get(..length)?.to_vec(), length))
}

/// Everything up to a mark, and the mark.
pub(crate) fn upto(mark: &[u8]) -> impl Fn(&[u8]) -> Option<(Vec<u8>, usize)> {
    move |bytes| {
        let found = bytes.windows(mark.len()).position(|part| part == mark)?;
        part(found + mark.len())(bytes)
    }
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.expect("it listens")
    }

    pub(crate) async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// On a connection that is there.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            patience: Some(PATIENCE),
        }
    }

    /// With little room for what is not read.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = self.try_send(bytes).await;
        sent.expect("the server takes what is sent");
    }

    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        within(self.patience, self.stream.write_all(bytes)).await
    }

    /// Sends a request and reads its reply.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> Reply {
        self.send(&request(method, path, headers, body)).await;
        if method == "HEAD" {
            self.head().await
        } else {
            self.reply().await
        }
    }

    /// Sends a whole request and reads its reply.
    pub(crate) async fn ask(&mut self, request: &str) -> Reply {
        self.send(request).await;
        self.reply().await
    }

    /// Reads one reply whole.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("a reply comes whole")
    }

    pub(crate) async fn try_reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.try_take(head).await?;
        self.try_body_of(&mut reply).await?;
        Ok(reply)
    }

    /// Reads the body that belongs to a head.
    pub(crate) async fn body_of(&mut self, reply: &mut Reply) {
        self.try_body_of(reply).await.expect("a body comes whole");
    }

    async fn try_body_of(&mut self, reply: &mut Reply) -> io::Result<()> {
        reply.body = self.try_take(part(reply.length())).await?;
        let mut chunked = reply.body.is_empty() && reply.is_chunked();
        while chunked {
            let chunk = self.try_take(chunk).await?;
            chunked = !chunk.is_empty();
            reply.body.extend(chunk);
        }
        Ok(())
    }

    /// Reads the head of a reply.
    pub(crate) async fn head(&mut self) -> Reply {
        let head = self.head_if_any().await;
        head.expect("the connection ended before a reply")
    }

    /// None if the connection ends before.
    pub(crate) async fn head_if_any(&mut self) -> Option<Reply> {
        unless_late(self.try_take(head).await)
    }

    /// Reads until the bytes so far satisfy.
    pub(crate) async fn take<T>(&mut self, whole: impl Fn(&[u8]) -> Option<(T, usize)>) -> T {
        let taken = self.try_take(whole).await;
        taken.expect("what is waited for comes whole")
    }

    async fn try_take<T>(&mut self, whole: impl Fn(&[u8]) -> Option<(T, usize)>) -> io::Result<T> {
        loop {
            if let Some((what, length)) = whole(&self.unread) {
                self.unread.drain(..length);
                return Ok(what);
            }
            if !self.try_read_more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// All that comes until the server ends the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.unread)
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
    pub(crate) async fn read_more(&mut self) -> bool {
        unless_late(self.try_read_more().await).unwrap_or(false)
    }

    async fn try_read_more(&mut self) -> io::Result<bool> {
        self.unread.reserve(ROOM);
        let read = within(self.patience, self.stream.read_buf(&mut self.unread)).await?;
        Ok(read > 0)
    }
}

async fn within<T>(
    patience: Option<Duration>,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let Some(patience) = patience else {
        return work.await;
    };
    let done = timeout(patience, work).await;
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// None if the connection ended, by an error or without; to wait in vain is another matter.
#[track_caller]
fn unless_late<T>(result: io::Result<T>) -> Option<T> {
    let late = matches!(&result, Err(error) if error.kind() == io::ErrorKind::TimedOut);
    assert!(!late, "the server answers in time");
    result.ok()
}
