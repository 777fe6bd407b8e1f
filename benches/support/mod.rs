//! What the benchmarks share: servers as child processes, figures, the HTTP client of the tests.
//!
//! The load comes from this process, with one thread; what is measured is another process. Both on one
//! machine take the processor from each other, so compare ratios of one run, not figures of two.

mod conversation;
mod cores;
mod durable_streams;
mod figures;
mod halley;
#[path = "../../tests/http/mod.rs"]
pub(crate) mod http;
mod nchan;
mod sides;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "not each benchmark uses all of them")]
pub(crate) use conversation::{PAGE, Random, batch, pages, push_batch};
#[allow(unused_imports, reason = "not each benchmark uses all of them")]
pub(crate) use cores::Cores;
#[allow(unused_imports, reason = "not each benchmark compares")]
pub(crate) use durable_streams::DurableStreams;
#[allow(unused_imports, reason = "not each benchmark uses all of them")]
pub(crate) use figures::{Latencies, about_machine, disk, load, processor, signal};
pub(crate) use halley::Halley;
pub(crate) use http::Http;
#[allow(unused_imports, reason = "not each benchmark compares")]
pub(crate) use nchan::Nchan;
#[allow(unused_imports, reason = "not each benchmark compares builds")]
pub(crate) use sides::{TURNS, each, print, sides, turn};

/// No step of a benchmark takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a client listens for longer than one message.
#[derive(Clone, Copy)]
pub(crate) enum Endless {
    /// `EventSource`.
    Events,
    /// WebSocket.
    Socket,
}

/// What asks for a WebSocket.
const UPGRADE: &str = "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl Endless {
    /// For the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Events => "SSE",
            Self::Socket => "WebSocket",
        }
    }

    fn headers(self) -> &'static str {
        match self {
            Self::Events => "accept: text/event-stream\r\n",
            Self::Socket => UPGRADE,
        }
    }
}

/// A server that messages are pushed to.
pub(crate) trait Server {
    /// What it is, for the tables.
    const NAME: &'static str;

    /// A new server without messages.
    fn start() -> Self;
    /// Its process.
    fn pid(&self) -> u32;
    /// Connects to where messages are pushed.
    async fn backend(&self) -> Http;
    /// Makes what these users and their group need to be pushed to and to poll, once.
    async fn ready(&self, users: &[String], group: Option<&str>);
    /// A request that pushes a JSON text to a user, or to a group.
    fn push(&self, to: &str, is_group: bool, body: &str) -> String;

    /// Resident memory, bytes.
    fn memory(&self) -> u64 {
        figures::memory(self.pid())
    }

    /// Processor time used so far.
    fn processor(&self) -> Duration {
        processor(self.pid())
    }
}

/// A server that holds requests of those who wait for messages.
pub(crate) trait Holding: Server {
    /// Connects to where clients ask.
    async fn client(&self) -> Http;
    /// A request that waits for the user's next message; `cursor` is what the last reply gave.
    fn poll(&self, user: &str, group: Option<&str>, cursor: Option<&str>) -> String;
    /// A request that is told all that comes for the user.
    fn listen(&self, how: Endless, user: &str) -> String;
    /// The cursor of a reply, if there is such a thing.
    fn cursor(reply: &str) -> Option<String>;
    /// How many polls are held now.
    async fn held(&self) -> usize;

    /// Until so many polls are held.
    async fn wait_held(&self, wanted: usize) {
        let reached = async {
            while self.held().await < wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("all polls are held");
    }
}

/// Runs on one thread: the other processors are the server's.
pub(crate) fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(work);
}

/// An address that nobody listens on, for a server that must be told one.
fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    free.local_addr().expect("it is bound")
}

/// A connection that waits for a reply as long as it takes.
pub(crate) async fn connect(address: SocketAddr) -> Http {
    let mut http = Http::connect(address).await;
    http.patience = None;
    http
}

/// Names of users.
pub(crate) fn users(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user{n}")).collect()
}

/// A JSON text of so many bytes.
pub(crate) fn body(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// Pushes until the time is over, beginning with another request for each number; the times of those that began in it.
pub(crate) async fn push(
    mut client: Http,
    requests: Rc<Vec<String>>,
    number: usize,
    [begin, end]: [Instant; 2],
) -> (Http, Latencies) {
    let mut times = Latencies::default();
    for request in requests.iter().cycle().skip(number * 31) {
        let sent = Instant::now();
        if sent >= end {
            break;
        }
        let reply = client.ask(request).await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
        if sent >= begin {
            times.add(sent.elapsed());
        }
    }
    (client, times)
}
