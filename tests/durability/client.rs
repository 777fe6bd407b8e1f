//! A small blocking HTTP client with one kept connection: thousands of requests a second, and no
//! retries of its own, because a test must know which request was answered and which was not.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

/// A reply: its status and its whole body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A message as a reader gets it; its body byte for byte.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) sequence: String,
    pub(crate) id: u64,
    pub(crate) prev: u64,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) at: u64,
    pub(crate) body: Box<RawValue>,
}

/// A page of an inbox or of a history (which has no `next`).
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) log: String,
    pub(crate) messages: Vec<Message>,
    #[serde(default)]
    pub(crate) next: String,
    pub(crate) more: bool,
}

/// What a pusher gets back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) sequence: String,
    pub(crate) id: u64,
    pub(crate) prev: u64,
    pub(crate) at: u64,
    pub(crate) duplicate: bool,
}

/// One kept connection with one key or token.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    secret: String,
    connection: Option<BufReader<TcpStream>>,
    timeout: Duration,
}

impl Reply {
    /// The body as JSON; `Null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The stable code of a problem; empty if this is none.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The body of an expected status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "unexpected reply: {text}");
        self
    }

    #[track_caller]
    fn read<T: for<'a> Deserialize<'a>>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The page in a 200.
    #[track_caller]
    pub(crate) fn page(self) -> Page {
        self.expect(200).read()
    }

    /// The message in a 200.
    #[track_caller]
    pub(crate) fn message(self) -> Message {
        self.expect(200).read()
    }

    /// The receipt in a 201, or in the 200 of a repeated push.
    #[track_caller]
    pub(crate) fn receipt(&self) -> Receipt {
        let receipt: Receipt = self.read();
        let status = if receipt.duplicate { 200 } else { 201 };
        assert_eq!(self.status, status, "{receipt:?}");
        receipt
    }
}

impl Client {
    /// A client that sends `secret` with every request; it connects when it first asks.
    pub(crate) fn new(address: SocketAddr, secret: &str) -> Self {
        Self {
            address,
            secret: secret.to_owned(),
            connection: None,
            timeout: Duration::from_secs(60),
        }
    }

    /// The same with another limit on how long a reply may take.
    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks; any error leaves it open whether the server did what was asked.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> io::Result<Reply> {
        let result = self.exchange(method, path, key, body);
        if !matches!(result, Ok((_, true))) {
            self.connection = None;
        }
        result.map(|(reply, _)| reply)
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> io::Result<(Reply, bool)> {
        let key = key.map_or(String::new(), |key| format!("Idempotency-Key: {key}\r\n"));
        let kind = if body.is_empty() {
            String::new()
        } else {
            let length = body.len();
            format!("Content-Type: application/json\r\nContent-Length: {length}\r\n")
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{key}{kind}\r\n{body}",
            self.address, self.secret
        );
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.address, self.timeout)?),
        };
        connection.get_mut().write_all(request.as_bytes())?;
        read_reply(connection)
    }

    /// Asks without a body.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.send("GET", path, None, "")
    }

    /// Pushes a 1:1 message through the admin listener.
    pub(crate) fn push_direct(
        &mut self,
        from: &str,
        to: &str,
        body: &str,
        key: Option<&str>,
    ) -> io::Result<Reply> {
        let path = format!("/v1/direct/{to}/messages");
        self.send("POST", &path, key, &draft(from, body))
    }

    /// Pushes to a group through the admin listener.
    pub(crate) fn push_group(
        &mut self,
        from: &str,
        group: &str,
        body: &str,
        key: Option<&str>,
    ) -> io::Result<Reply> {
        let path = format!("/v1/groups/{group}/messages");
        self.send("POST", &path, key, &draft(from, body))
    }

    /// Makes a group or sets its members.
    pub(crate) fn put_group(
        &mut self,
        group: &str,
        members: &[String],
        history: &str,
    ) -> io::Result<Reply> {
        let body = json!({"members": members, "history": history}).to_string();
        self.send("PUT", &format!("/v1/groups/{group}"), None, &body)
    }

    /// The inbox of a user, through the admin listener.
    pub(crate) fn inbox(&mut self, user: &str, after: &str, limit: u64) -> io::Result<Reply> {
        self.get(&format!(
            "/v1/users/{user}/inbox?after={after}&limit={limit}&wait=0"
        ))
    }

    /// A long poll with a token, through the client listener.
    pub(crate) fn poll(&mut self, after: &str, limit: u64, wait_s: u64) -> io::Result<Reply> {
        self.get(&format!(
            "/v1/inbox?after={after}&limit={limit}&wait={wait_s}"
        ))
    }

    /// A token for a user, through the admin listener.
    #[track_caller]
    pub(crate) fn token(&mut self, user: &str) -> String {
        let body = json!({"user": user, "ttl_s": 86_400, "send": true}).to_string();
        let reply = self.send("POST", "/v1/tokens", None, &body).unwrap();
        let token = &reply.expect(201).json()["token"];
        token.as_str().unwrap().to_owned()
    }

    /// The members of a group, sorted by name.
    #[track_caller]
    pub(crate) fn members(&mut self, group: &str) -> Vec<String> {
        let reply = self.get(&format!("/v1/groups/{group}")).unwrap();
        serde_json::from_value(reply.expect(200).json()["members"].take()).unwrap()
    }

    /// What the server says of itself.
    #[track_caller]
    pub(crate) fn status(&mut self) -> Value {
        self.get("/v1/status").unwrap().expect(200).json()
    }
}

/// The JSON of a push, its body as it is.
pub(crate) fn draft(from: &str, body: &str) -> String {
    format!(r#"{{"from":"{from}","body":{body}}}"#)
}

fn connect(address: SocketAddr, timeout: Duration) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(BufReader::new(stream))
}

/// A whole reply, and whether the connection stays open after it.
fn read_reply(connection: &mut BufReader<TcpStream>) -> io::Result<(Reply, bool)> {
    let status = line(connection)?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let (mut length, mut chunked, mut keep) = (0, false, true);
    loop {
        let header = line(connection)?.to_ascii_lowercase();
        let Some((name, value)) = header.split_once(": ") else {
            break;
        };
        match name {
            "content-length" => length = value.parse().map_err(io::Error::other)?,
            "transfer-encoding" => chunked = value == "chunked",
            "connection" => keep = value != "close",
            _ => {}
        }
    }
    let mut body = Vec::new();
    while chunked {
        let size = usize::from_str_radix(&line(connection)?, 16).map_err(io::Error::other)?;
        read_exactly(connection, &mut body, size)?;
        line(connection)?;
        chunked = size > 0;
    }
    read_exactly(connection, &mut body, length)?;
    Ok((Reply { status, body }, keep))
}

fn read_exactly(from: &mut impl Read, body: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let start = body.len();
    body.resize(start + length, 0);
    from.read_exact(&mut body[start..])
}

fn line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
