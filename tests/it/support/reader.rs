//! A strict client for every transport: what a server may not write is a panic here, whatever a lenient client
//! would have made of it.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::http::{Http, Reply, chunk, head, part};
use super::socket::{Frame, Socket};
use crate::device::position;

/// By what a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    Poll,
    Sse,
    Stream,
    Socket,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Poll, Self::Sse, Self::Stream, Self::Socket];
    /// Those that go on after a message.
    pub(crate) const OPEN: [Self; 3] = [Self::Sse, Self::Stream, Self::Socket];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Poll => "/v1/inbox",
            Self::Sse => "/v1/inbox/sse",
            Self::Stream => "/v1/inbox/stream",
            Self::Socket => "/v1/inbox/ws",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Sse => "sse",
            Self::Stream => "stream",
            Self::Socket => "socket",
        }
    }
}

/// A message as it came, its body byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    pub(crate) sequence: String,
    pub(crate) id: u64,
    pub(crate) prev: u64,
    pub(crate) n: u64,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) at: u64,
    #[serde(deserialize_with = "raw")]
    pub(crate) body: String,
}

fn raw<'a, D: Deserializer<'a>>(from: D) -> Result<String, D::Error> {
    Box::<RawValue>::deserialize(from).map(|raw| raw.get().to_owned())
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    pub(crate) log: String,
    pub(crate) messages: Vec<Message>,
    pub(crate) next: String,
    pub(crate) more: bool,
}

/// Why it ended, as the server says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: String,
    /// Of the close frame.
    pub(crate) close: Option<u16>,
}

/// What comes.
#[derive(Debug)]
pub(crate) enum Event {
    /// Messages; none is a sign of life.
    Page(Page),
    /// The server has said its last word, and the connection has ended.
    End(End),
    /// The connection ended without a word, or the reader's bytes are used up.
    Cut,
}

/// An open reader.
pub(crate) struct Reader {
    way: Way,
    line: Line,
    /// What to ask for again: polls only.
    ask: String,
    /// The last cursor that came completely.
    pub(crate) cursor: String,
    /// The pause that the server asks for.
    pub(crate) retry_ms: Option<u64>,
    /// What is decoded and not read yet.
    text: Vec<u8>,
    begun: bool,
}

/// A connection that may end in the middle of anything.
struct Line {
    socket: Socket,
    bytes_left: usize,
    chunked: bool,
    /// Bytes of what was taken, as they came.
    taken: usize,
}

impl Line {
    fn http(&mut self) -> &mut Http {
        &mut self.socket.http
    }

    /// Whether more came.
    async fn more(&mut self) -> bool {
        let before = self.http().unread.len();
        if self.bytes_left == 0 || !self.http().read_more().await {
            return false;
        }
        let came = self.http().unread.len() - before;
        let most = came.min(self.bytes_left);
        self.http().unread.truncate(before + most);
        self.bytes_left -= most;
        true
    }

    /// Reads until the bytes so far satisfy; none if the connection ends before.
    async fn take<T>(&mut self, mut whole: impl FnMut(&[u8]) -> Option<(T, usize)>) -> Option<T> {
        loop {
            if let Some((what, length)) = whole(&self.http().unread) {
                self.http().unread.drain(..length);
                self.taken += length;
                return Some(what);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next piece of the body; `Some(None)` is its proper end.
    async fn piece(&mut self) -> Option<Option<Vec<u8>>> {
        if !self.chunked {
            if self.http().unread.is_empty() && !self.more().await {
                return Some(None);
            }
            return Some(Some(std::mem::take(&mut self.http().unread)));
        }
        let chunk = self.take(chunk).await?;
        if !chunk.is_empty() {
            return Some(Some(chunk));
        }
        assert!(self.ended().await, "something stands behind the last chunk");
        Some(None)
    }

    async fn ended(&mut self) -> bool {
        self.bytes_left < usize::MAX / 2 || self.http().ends().await
    }
}

impl Reader {
    /// Opens it; a refusal comes as the reply. A poll is asked only by [`Self::next`].
    pub(crate) async fn open(
        address: SocketAddr,
        way: Way,
        token: &str,
        after: &str,
    ) -> Result<Self, Reply> {
        let query = format!("after={after}");
        Self::asking(address, way, token, &query, &[]).await
    }

    /// With a query and headers of one's own.
    pub(crate) async fn asking(
        address: SocketAddr,
        way: Way,
        token: &str,
        query: &str,
        headers: &[&str],
    ) -> Result<Self, Reply> {
        let mut http = Http::connect(address).await;
        let mut ask = format!(
            "GET {}?{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n",
            way.path()
        );
        for header in headers {
            ask.push_str(header);
            ask.push_str("\r\n");
        }
        let mut head = None;
        match way {
            Way::Poll => {}
            Way::Socket => {
                let (socket, reply) = Socket::upgrade(http, ask).await?;
                return Ok(Self::over(way, socket, String::new(), Some(&reply)));
            }
            Way::Sse | Way::Stream => {
                http.send(&(ask.clone() + "\r\n")).await;
                let mut reply = http.head().await;
                if reply.status != 200 {
                    http.body_of(&mut reply).await;
                    return Err(reply);
                }
                head = Some(reply);
            }
        }
        Ok(Self::over(way, Socket { http }, ask, head.as_ref()))
    }

    /// Asks, and must be refused; polls are, too, at once.
    pub(crate) async fn refused(address: SocketAddr, way: Way, token: &str, query: &str) -> Reply {
        if way == Way::Poll {
            let bearer = format!("authorization: Bearer {token}");
            let path = format!("{}?{query}", way.path());
            return Http::connect(address)
                .await
                .request("GET", &path, &[&bearer], "")
                .await;
        }
        let opened = Self::asking(address, way, token, query, &[]).await;
        opened.err().expect("a refusal")
    }

    fn over(way: Way, socket: Socket, ask: String, head: Option<&Reply>) -> Self {
        let chunked = head.is_some_and(Reply::is_chunked);
        Self {
            way,
            line: Line {
                socket,
                bytes_left: usize::MAX,
                chunked,
                taken: 0,
            },
            ask,
            cursor: String::new(),
            retry_ms: None,
            text: Vec::new(),
            begun: false,
        }
    }

    /// Of a connection on which the request was sent already, and whose head was read.
    pub(crate) fn on(http: Http, way: Way, head: &Reply) -> Self {
        Self::over(way, Socket { http }, String::new(), Some(head))
    }

    /// Takes only so many bytes more; then the connection seems cut.
    pub(crate) fn stop_after(&mut self, bytes: usize) {
        self.line.bytes_left = bytes;
    }

    /// The bytes of all that came, with what is around chunks and frames.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.line.taken
    }

    /// The connection itself.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.line.socket
    }

    /// What comes next; checks what every reader may rely on.
    pub(crate) async fn next(&mut self) -> Event {
        let event = match self.way {
            Way::Poll => self.poll().await,
            Way::Sse => self.event().await,
            Way::Stream => self.json_line().await,
            Way::Socket => self.frame().await,
        };
        self.begun = true;
        if let Event::Page(page) = &event {
            self.check(page);
            self.cursor.clone_from(&page.next);
        }
        event
    }

    /// The next page with messages; its end and cuts are not expected.
    pub(crate) async fn messages(&mut self) -> Vec<Message> {
        loop {
            match self.next().await {
                Event::Page(page) if page.messages.is_empty() => {}
                Event::Page(page) => return page.messages,
                other => panic!("{:?}: {other:?}", self.way),
            }
        }
    }

    /// As many messages as are asked for, or more if they come together.
    pub(crate) async fn count(&mut self, count: usize) -> Vec<Message> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.messages().await);
        }
        all
    }

    /// Reads to the end that the server tells, without messages.
    pub(crate) async fn end(&mut self) -> End {
        loop {
            match self.next().await {
                Event::Page(page) if page.messages.is_empty() => {}
                Event::End(end) => return end,
                other => panic!("{:?}: {other:?}", self.way),
            }
        }
    }

    fn check(&self, page: &Page) {
        assert!(
            !page.more || !page.messages.is_empty(),
            "more, but nothing now: {page:?}"
        );
        let (next, short) = (position(&page.next), page.next.rsplit('.').next().unwrap());
        assert!(page.log.starts_with(short), "{} of {}", page.next, page.log);
        let mut last = if self.cursor.is_empty() {
            (0, 0)
        } else {
            position(&self.cursor)
        };
        for message in &page.messages {
            let last = match message.sequence.as_str() {
                "direct" => &mut last.0,
                "group" => &mut last.1,
                other => panic!("a sequence {other}"),
            };
            assert!(
                *last < message.id,
                "{:?}: {message:?} behind {last}",
                self.way
            );
            *last = message.id;
        }
        assert!(
            last.0 <= next.0 && last.1 <= next.1,
            "{page:?} after {}",
            self.cursor
        );
    }

    async fn poll(&mut self) -> Event {
        if self.begun {
            let (front, back) = self.ask.split_once("after=").unwrap();
            let (_, behind) = back.split_at(back.find(['&', ' ']).unwrap());
            self.ask = format!("{front}after={}{}", self.cursor, behind);
        }
        let ask = self.ask.clone() + "\r\n";
        self.line.http().send(&ask).await;
        let Some(reply) = self.line.take(head).await else {
            return Event::Cut;
        };
        assert_eq!(
            (reply.version(), reply.status),
            ("HTTP/1.1", 200),
            "{reply:?}"
        );
        match self.line.take(part(reply.length())).await {
            Some(body) => Event::Page(page(&body)),
            None => Event::Cut,
        }
    }

    /// Text up to a mark, without it. None if the body ends.
    async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.text.windows(mark.len()).position(|some| some == mark);
            if let Some(at) = found {
                let text = self.text.drain(..at + mark.len()).take(at).collect();
                return Some(text);
            }
            let Some(piece) = self.line.piece().await? else {
                let left = String::from_utf8_lossy(&self.text);
                let all = left.is_empty() || self.line.bytes_left == 0;
                assert!(all, "at the end: {left}");
                return None;
            };
            self.text.extend_from_slice(&piece);
        }
    }

    /// Nothing may stand behind the last word.
    async fn last(&mut self, object: &Value) -> Event {
        let before = self.text.len();
        assert_eq!((before, self.until(b"\n").await), (0, None));
        let end = End {
            code: object["code"].as_str().unwrap().to_owned(),
            close: None,
        };
        assert_eq!(
            object["next"].as_str(),
            Some(self.cursor.as_str()),
            "{object}"
        );
        assert!(
            object["detail"].is_string() && object["reconnect"] == true,
            "{object}"
        );
        Event::End(end)
    }

    /// The lines of an event, up to the empty one.
    async fn block(&mut self) -> Option<String> {
        let block = String::from_utf8(self.until(b"\n\n").await?).unwrap();
        assert!(
            !block.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}']),
            "{block:?}"
        );
        Some(block)
    }

    /// Where it goes on, as it was asked; nothing if it asked for now.
    fn asked(&self) -> Option<String> {
        let value = |mark, ends: &[char]| {
            let (_, behind) = self.ask.split_once(mark)?;
            behind.split(ends).next().filter(|value| !value.is_empty())
        };
        let header = value("last-event-id: ", &['\r']);
        let query = |mark| value(mark, &['&', ' ']);
        let asked = header
            .or_else(|| query("lastEventId="))
            .or_else(|| query("last_event_id="))
            .or_else(|| query("last-event-id="))
            .or_else(|| query("?after="))
            .unwrap_or("0");
        (asked != "now").then(|| asked.to_owned())
    }

    /// What stands before all events: the pause, and the cursor if the client has none.
    async fn greeting(&mut self) -> Option<String> {
        let line = String::from_utf8(self.until(b"\n").await?).unwrap();
        let retry = line.strip_prefix("retry: ").expect("the first line");
        self.retry_ms = Some(retry.parse().unwrap());
        if let Some(asked) = self.asked() {
            return Some(asked);
        }
        let block = self.block().await?;
        let fields = block.strip_prefix("event: start\nid: ").expect(&block);
        let (next, data) = fields.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data, serde_json::json!({ "next": next }));
        Some(next.to_owned())
    }

    async fn event(&mut self) -> Event {
        let now = |messages, next: &str| {
            Event::Page(Page {
                log: next.rsplit('.').next().unwrap().to_owned(),
                messages,
                next: next.to_owned(),
                more: false,
            })
        };
        if !self.begun {
            let greeting = self.greeting().await;
            return greeting.map_or(Event::Cut, |next| now(Vec::new(), &next));
        }
        // A sign of life is one line, and no event.
        let Some(line) = self.until(b"\n").await else {
            return Event::Cut;
        };
        if line == b":" {
            return now(Vec::new(), &self.cursor);
        }
        assert!(!line.is_empty(), "an event of nothing");
        self.text.splice(0..0, line.into_iter().chain(*b"\n"));
        let Some(block) = self.block().await else {
            return Event::Cut;
        };
        let fields: Vec<(&str, &str)> = block
            .split('\n')
            .map(|line| line.split_once(": ").unwrap_or((line, "")))
            .collect();
        match fields[..] {
            [("id", id), ("data", data)] => {
                let message = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"));
                now(vec![message], id)
            }
            [("event", "end"), ("id", id), ("data", data)] => {
                let object: Value = serde_json::from_str(data).unwrap();
                assert_eq!(object["next"], id);
                id.clone_into(&mut self.cursor);
                self.last(&object).await
            }
            _ => panic!("an event {block:?}"),
        }
    }

    async fn json_line(&mut self) -> Event {
        let Some(line) = self.until(b"\n").await else {
            return Event::Cut;
        };
        let text = std::str::from_utf8(&line).unwrap();
        assert!(
            !text.contains(['\r', '\u{85}', '\u{2028}', '\u{2029}']),
            "{text:?}"
        );
        if line.starts_with(b"{\"end\":") {
            let object: Value = serde_json::from_slice(&line).unwrap();
            object["end"]["next"]
                .as_str()
                .unwrap()
                .clone_into(&mut self.cursor);
            return self.last(&object["end"]).await;
        }
        Event::Page(page(&line))
    }

    async fn frame(&mut self) -> Event {
        loop {
            let Some(frame) = self.line.take(Frame::parse).await else {
                return Event::Cut;
            };
            match frame {
                Frame::Text(text) => return Event::Page(page(text.as_bytes())),
                Frame::Ping(payload) => self.line.socket.pong(&payload).await,
                Frame::Pong(_) => panic!("nothing was asked"),
                Frame::Close(code, reason) => {
                    self.line.socket.answer_close(code).await;
                    assert!(self.line.ended().await);
                    return Event::End(End {
                        code: reason,
                        close: Some(code),
                    });
                }
            }
        }
    }
}

fn page(text: &[u8]) -> Page {
    serde_json::from_slice(text)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}
