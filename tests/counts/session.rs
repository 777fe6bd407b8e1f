//! A backend that pushes and a user who reads, over connections that stay open. Once it has begun, nothing here
//! allocates memory, so that all that is allocated is the server's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use halley::clock;
use halley::token::{Claims, mint};

use crate::{ADMIN_KEY, TOKEN_SECRET, Work};

/// It is in a message, and in nothing else that the server sends.
const BODY: &str = r#"{"text":"hello, bob"}"#;
const BODY_ENDS: &[u8] = b"hello, bob\"}";

/// One connection.
struct Wire {
    stream: TcpStream,
    /// What was read and not yet looked at.
    buffer: Vec<u8>,
    filled: usize,
}

impl Wire {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let buffer = vec![0; 64 << 10];
        Self {
            stream,
            buffer,
            filled: 0,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads until this is there; where it ends. What is before `from` was looked at already.
    fn read_until(&mut self, wanted: &[u8]) -> usize {
        let mut from = 0;
        loop {
            let read = &self.buffer[from..self.filled];
            if let Some(at) = read.windows(wanted.len()).position(|part| part == wanted) {
                return from + at + wanted.len();
            }
            from = self.filled.saturating_sub(wanted.len());
            self.read();
        }
    }

    fn read(&mut self) {
        let got = self.stream.read(&mut self.buffer[self.filled..]).unwrap();
        assert!(got > 0, "the server closed: {}", self.text());
        self.filled += got;
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.filled]).into_owned()
    }

    /// Reads a whole reply with a length and this status; its body is at the end of what was read.
    fn read_reply(&mut self, status: &[u8]) {
        const LENGTH: &[u8] = b"content-length: ";
        self.filled = 0;
        let head = self.read_until(b"\r\n\r\n");
        let reply = &self.buffer[..head];
        let right = reply.get(9..12) == Some(status);
        assert!(right, "{}", self.text());
        let length = reply.windows(LENGTH.len()).position(|part| part == LENGTH);
        let digits = &reply[length.unwrap() + LENGTH.len()..];
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let body = digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
        while self.filled < head + body {
            self.read();
        }
    }
}

/// Does the same work again and again.
pub(crate) struct Session {
    work: Work,
    backend: Wire,
    ask: Vec<u8>,
    reader: Wire,
    /// A poll without its cursor, and with it.
    poll: (Vec<u8>, Vec<u8>),
}

impl Session {
    /// Connects to the addresses for clients and backends.
    pub(crate) fn begin(work: Work, [client, admin]: [SocketAddr; 2]) -> Self {
        let claims = Claims {
            user: "bob".into(),
            expires_at: clock::now_s() + 3600,
            send: false,
        };
        let token = mint(TOKEN_SECRET.as_bytes(), &claims);
        let request = |method: &str, path: &str, key: &str, more: &str| {
            format!(
                "{method} {path} HTTP/1.1\r\nhost: halley\r\nauthorization: Bearer {key}\r\n{more}\r\n"
            )
        };
        let body = format!(r#"{{"from":"ann","body":{BODY}}}"#);
        let length = format!("content-length: {}\r\n", body.len());
        let push = request("POST", "/v1/direct/bob/messages", ADMIN_KEY, &length) + &body;
        let ask = match work {
            Work::Nothing => request("GET", "/healthz", ADMIN_KEY, ""),
            _ => push,
        };
        let held = match work {
            Work::Nothing | Work::Push | Work::Poll => None,
            Work::Sse => Some(request("GET", "/v1/inbox/sse?after=now", &token, "")),
            Work::Stream => Some(request("GET", "/v1/inbox/stream?after=now", &token, "")),
            Work::Socket => {
                let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                               sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                Some(request("GET", "/v1/inbox/ws?after=now", &token, upgrade))
            }
        };
        let rest =
            format!("&wait=30 HTTP/1.1\r\nhost: halley\r\nauthorization: Bearer {token}\r\n\r\n");
        let mut session = Self {
            work,
            backend: Wire::connect(admin),
            ask: ask.into_bytes(),
            reader: Wire::connect(client),
            poll: (rest.into_bytes(), Vec::with_capacity(4 << 10)),
        };
        if let Some(held) = held {
            session.reader.send(held.as_bytes());
            session.reader.read_until(b"\r\n\r\n");
        }
        session.set_poll(None);
        session
    }

    /// Once; `parked` waits until the server holds the poll.
    pub(crate) fn turn(&mut self, parked: &dyn Fn()) {
        if self.work == Work::Poll {
            self.reader.send(&self.poll.1);
            parked();
        }
        self.backend.send(&self.ask);
        match self.work {
            Work::Nothing => self.backend.read_reply(b"200"),
            _ => self.backend.read_reply(b"201"),
        }
        match self.work {
            Work::Nothing | Work::Push => {}
            Work::Poll => {
                self.reader.read_reply(b"200");
                let next = self.reader.read_until(b"\"next\":\"");
                self.set_poll(Some(next));
            }
            Work::Sse | Work::Stream | Work::Socket => {
                self.reader.filled = 0;
                self.reader.read_until(BODY_ENDS);
            }
        }
    }

    /// Puts the cursor that begins here in the last reply into the poll.
    fn set_poll(&mut self, cursor: Option<usize>) {
        let (rest, poll) = &mut self.poll;
        poll.clear();
        poll.extend_from_slice(b"GET /v1/inbox?after=");
        match cursor {
            None => poll.extend_from_slice(b"now"),
            Some(at) => {
                let cursor = self.reader.buffer[at..].split(|byte| *byte == b'"').next();
                poll.extend_from_slice(cursor.unwrap());
            }
        }
        poll.extend_from_slice(rest);
    }
}
