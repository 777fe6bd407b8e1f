//! What it costs a client to stay informed, by each transport: `cargo bench --bench transports`.
//!
//! Clients of every kind run side by side against one server, half of them idle, half busy, for some minutes
//! (`HALLEY_BENCH_MINUTES`, 60 unless told), and everything they send and receive is counted: bytes above
//! TCP, without TLS; requests; wake-ups, that is, bytes in any direction after a second of silence, as when the
//! radio of a phone had gone to sleep. Figures of a shorter run are scaled to an hour.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints figures and stops at the first surprise; not each uses all that they share"
)]

mod support;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use halley::clock::now_ms;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use support::http::{Http, head, part, upto};
use support::{Halley, Server, about_machine, connect, run};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Silence after which the next byte is a wake-up.
const ASLEEP: Duration = Duration::from_secs(1);
/// The mean time between two messages to the busy user.
const BUSY_EVERY: Duration = Duration::from_secs(10);
/// Time between two messages to others, by which also the idle user's cursor moves.
const OTHERS_EVERY: Duration = Duration::from_secs(7);
/// As an app's HTTP library sends them.
const HEADERS: &str = "User-Agent: okhttp/4.12.0\r\nAccept-Encoding: gzip\r\n";
/// The message, a short text and its time.
const TEXT: &str =
    "Are we still meeting at the station at half past seven, or shall I come by car?";
const WIDTH: f64 = 48.0;

#[derive(Clone, Copy)]
enum Kind {
    /// Asks, and asks again after so many seconds.
    Polling(u64),
    /// Asks, and is answered after so many seconds at the latest.
    Held(u64),
    /// `EventSource`, with a sign of life every so many seconds.
    Events(u64),
    /// WebSocket, with a ping every so many seconds.
    Socket(u64),
}

const KINDS: [Kind; 7] = [
    Kind::Polling(3),
    Kind::Held(30),
    Kind::Held(300),
    Kind::Events(30),
    Kind::Events(300),
    Kind::Socket(30),
    Kind::Socket(300),
];

impl Kind {
    fn name(self) -> String {
        match self {
            Self::Polling(seconds) => format!("polling every {seconds} s"),
            Self::Held(seconds) => format!("long poll, {seconds} s"),
            Self::Events(seconds) => format!("SSE, heartbeat {seconds} s"),
            Self::Socket(seconds) => format!("WebSocket, heartbeat {seconds} s"),
        }
    }
}

/// What one client has sent and received.
struct Meter {
    http: Http,
    address: SocketAddr,
    counts: Counts,
    last: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    sent: u64,
    received: u64,
    requests: u64,
    wakeups: u64,
    messages: u64,
    delay_ms: u64,
}

impl Meter {
    async fn new(address: SocketAddr) -> Self {
        Self {
            http: connect(address).await,
            address,
            counts: Counts::default(),
            last: None,
        }
    }

    async fn again(&mut self) {
        self.http = connect(self.address).await;
    }

    fn moved(&mut self) {
        let now = Instant::now();
        if self.last.is_none_or(|last| now - last >= ASLEEP) {
            self.counts.wakeups += 1;
        }
        self.last = Some(now);
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.moved();
        self.counts.sent += bytes.len() as u64;
        self.http.send_bytes(bytes).await;
    }

    async fn ask(&mut self, path: &str, token: &str, more: &str) {
        self.counts.requests += 1;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: push.example.com\r\nAuthorization: Bearer {token}\r\n{HEADERS}{more}\r\n"
        );
        self.send(request.as_bytes()).await;
    }

    /// Reads until the bytes so far satisfy. None at the end of the connection.
    async fn take<T>(&mut self, whole: impl Fn(&[u8]) -> Option<(T, usize)>) -> Option<T> {
        loop {
            if let Some((what, length)) = whole(&self.http.unread) {
                self.http.unread.drain(..length);
                return Some(what);
            }
            let before = self.http.unread.len();
            let more = self.http.read_more().await;
            self.moved();
            self.counts.received += (self.http.unread.len() - before) as u64;
            if !more {
                return None;
            }
        }
    }

    /// Counts the messages in a text, and how long each was on its way.
    fn messages(&mut self, text: &str) {
        for part in text.split("\"pushed\":").skip(1) {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            let pushed: u64 = digits.parse().expect("a time");
            self.counts.messages += 1;
            self.counts.delay_ms += now_ms().saturating_sub(pushed);
        }
    }
}

fn main() {
    let minutes: f64 = std::env::var("HALLEY_BENCH_MINUTES").map_or(60.0, |text| {
        text.parse().expect("HALLEY_BENCH_MINUTES is a number")
    });
    println!(
        "transports: the client's side of an hour\n{}",
        about_machine()
    );
    println!("measured for {minutes} minutes\n");
    run(async {
        let rows = LocalSet::new().run_until(measure(minutes)).await;
        report(&rows, minutes);
    });
}

/// Counts of every kind, idle and busy.
async fn measure(minutes: f64) -> Vec<(Kind, Counts, Counts)> {
    let server = Halley::start();
    let users: Vec<String> = ["idle", "busy"].map(str::to_owned).into();
    server.ready(&users, None).await;
    let server = Rc::new(server);
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut clients = Vec::new();
    for user in &users {
        for kind in KINDS {
            let token = server.token(user);
            let meter = Meter::new(server.address()).await;
            clients.push(tokio::task::spawn_local(client(kind, meter, token, end)));
        }
    }
    let busy = tokio::task::spawn_local(push(server.clone(), "busy", BUSY_EVERY, end));
    let others = tokio::task::spawn_local(push(server.clone(), "others", OTHERS_EVERY, end));
    let mut counts = Vec::new();
    for client in clients {
        counts.push(client.await.expect("no client stops early"));
    }
    busy.await.expect("the pushes go on");
    others.await.expect("the pushes go on");
    let (idle, busy) = counts.split_at(KINDS.len());
    KINDS
        .into_iter()
        .zip(idle.iter().zip(busy))
        .map(|(kind, (idle, busy))| (kind, *idle, *busy))
        .collect()
}

/// Pushes messages at random, on average so often.
async fn push(server: Rc<Halley>, to: &str, every: Duration, end: Instant) {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut backend = server.backend().await;
    loop {
        let share = f64::from(random.next_u32()) / f64::from(u32::MAX);
        let pause = every.mul_f64(-share.clamp(1e-9, 1.0).ln());
        if Instant::now() + pause >= end {
            return;
        }
        // Not on one connection: the server closes those that are idle for long.
        sleep(pause).await;
        if pause > Duration::from_secs(30) {
            backend = server.backend().await;
        }
        let body = format!("{{\"pushed\":{},\"text\":\"{TEXT}\"}}", now_ms());
        backend
            .ask(&server.push(to, false, &body))
            .await
            .expect(201);
    }
}

/// Runs one client until the end.
async fn client(kind: Kind, mut meter: Meter, token: String, end: Instant) -> Counts {
    let work = async {
        match kind {
            Kind::Polling(seconds) => polling(&mut meter, &token, 0, seconds).await,
            Kind::Held(seconds) => polling(&mut meter, &token, seconds, 0).await,
            Kind::Events(seconds) => events(&mut meter, &token, seconds).await,
            Kind::Socket(seconds) => socket(&mut meter, &token, seconds).await,
        }
    };
    tokio::select! {
        () = work => unreachable!("clients go on"),
        () = sleep_until(end) => {}
    }
    meter.counts
}

async fn polling(meter: &mut Meter, token: &str, wait: u64, pause: u64) {
    let mut cursor = "now".to_owned();
    loop {
        let path = format!("/v1/inbox?after={cursor}&wait={wait}");
        meter.ask(&path, token, "Connection: Keep-Alive\r\n").await;
        let reply = meter.take(head).await.expect("a reply");
        let page = text(meter.take(part(reply.length())).await.expect("a page"));
        meter.messages(&page);
        cursor = next(&page);
        sleep(Duration::from_secs(pause)).await;
    }
}

async fn events(meter: &mut Meter, token: &str, heartbeat: u64) {
    let mut last = String::new();
    loop {
        let path = format!("/v1/inbox/sse?after=now&heartbeat={heartbeat}");
        let more = if last.is_empty() {
            "Accept: text/event-stream\r\n".to_owned()
        } else {
            format!("Accept: text/event-stream\r\nLast-Event-ID: {last}\r\n")
        };
        meter.ask(&path, token, &more).await;
        while let Some(event) = meter.take(upto(b"\n\n")).await {
            let event = text(event);
            meter.messages(&event);
            if let Some(id) = event.lines().find_map(|line| line.strip_prefix("id: ")) {
                id.clone_into(&mut last);
            }
        }
        meter.again().await;
    }
}

async fn socket(meter: &mut Meter, token: &str, heartbeat: u64) {
    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut cursor = "now".to_owned();
    loop {
        let path = format!("/v1/inbox/ws?after={cursor}&heartbeat={heartbeat}");
        meter.ask(&path, token, UPGRADE).await;
        meter.take(head).await.expect("a reply").expect(101);
        while let Some((kind, payload)) = frame(meter).await {
            match kind {
                0x81 => {
                    let page = text(payload);
                    meter.messages(&page);
                    cursor = next(&page);
                }
                0x89 => meter.send(&[0x8a, 0x80, 1, 2, 3, 4]).await, // the ping was empty
                0x88 => meter.send(&[0x88, 0x80, 1, 2, 3, 4]).await,
                other => panic!("a frame of kind {other}"),
            }
        }
        meter.again().await;
    }
}

/// The first byte and the payload of the next frame.
async fn frame(meter: &mut Meter) -> Option<(u8, Vec<u8>)> {
    let head = meter.take(part(2)).await?;
    let length = match head[1] {
        126 => {
            let long = meter.take(part(2)).await?;
            usize::from(u16::from_be_bytes([long[0], long[1]]))
        }
        length => usize::from(length),
    };
    Some((head[0], meter.take(part(length)).await?))
}

fn next(page: &str) -> String {
    let (_, rest) = page.rsplit_once("\"next\":\"").expect("a cursor");
    rest.split('"').next().unwrap().to_owned()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("it is text")
}

fn report(rows: &[(Kind, Counts, Counts)], minutes: f64) {
    let hour = |count: u64| (count as f64 * 60.0 / minutes).round();
    for (name, pick) in [("idle", 0), ("busy", 1)] {
        println!("{name} client, an hour:\n");
        println!(
            "| transport | requests | bytes sent | bytes received | wake-ups | messages | mean delay ms |"
        );
        println!("|---|---|---|---|---|---|---|");
        for (kind, idle, busy) in rows {
            let counts = [idle, busy][pick];
            let delay = counts.delay_ms as f64 / (counts.messages as f64);
            let delay = if counts.messages == 0 {
                "-".to_owned()
            } else {
                format!("{delay:.0}")
            };
            println!(
                "| {} | {} | {} | {} | {} | {} | {delay} |",
                kind.name(),
                hour(counts.requests),
                hour(counts.sent),
                hour(counts.received),
                hour(counts.wakeups),
                hour(counts.messages),
            );
        }
        println!();
    }
    let bytes = |counts: &Counts| counts.sent + counts.received;
    let most = rows
        .iter()
        .map(|(_, _, busy)| bytes(busy))
        .max()
        .unwrap_or(1);
    println!("kB an hour, sent and received (i idle, b busy):\n");
    for (kind, idle, busy) in rows {
        for (mark, name, counts) in [('i', kind.name(), idle), ('b', String::new(), busy)] {
            let share = bytes(counts) as f64 / most as f64;
            let bar = mark.to_string().repeat((share * WIDTH).ceil() as usize);
            println!("{name:<27} {bar} {:.0}", hour(bytes(counts)) / 1000.0);
        }
    }
}
