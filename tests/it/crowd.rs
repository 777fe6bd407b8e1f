//! A thousand readers, of which ten never read.

pub(crate) mod process;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::process::Process;
use crate::support::{
    Event, Http, Message, PATIENCE, Reader, TestServer, Way, chunk, eventually, request,
};

const READERS: usize = 990;
const SLOW: usize = 10;
/// Messages to all, in each of two runs.
const TO_ALL: u64 = 100;
/// Long messages to those that do not read: a copy for each of these would take three times what all may.
const LONG_ONES: usize = 300;
const LONG: usize = 16 * 1024;
/// What readers that do not read may add to what writing alone costs.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// Asks for events and never reads: with little room in the kernel.
async fn connect_deaf(address: SocketAddr, way: Way, token: &str) -> Http {
    let mut http = Http::connect_narrow(address).await;
    let mut request = format!("GET {}?token={token} HTTP/1.1\r\nhost: x\r\n", way.path());
    if way == Way::Socket {
        request.push_str(&crate::support::Socket::handshake());
    } else {
        request.push_str("\r\n");
    }
    http.send(&request).await;
    http
}

/// One of many: its events as they come, without a copy of what it has read.
struct Listener {
    http: Http,
    last: u64,
}

impl Listener {
    async fn connect(address: SocketAddr, token: String) -> Self {
        let mut http = Http::connect(address).await;
        http.patience = Some(2 * PATIENCE);
        let path = format!("/v1/inbox/sse?after=now&token={token}");
        http.send(&request("GET", &path, &[], "")).await;
        assert_eq!(http.head().await.status, 200);
        let greeting = http.take(chunk).await;
        assert!(greeting.ends_with(b"\n\n"));
        Self { http, last: 0 }
    }

    /// Reads until a number, each once and in order; how late each was.
    async fn read_to(mut self, last: u64) -> (Self, Vec<Duration>) {
        let mut late = Vec::new();
        while self.last < last {
            let events = String::from_utf8(self.http.take(chunk).await).unwrap();
            // There may be more than one in a chunk.
            for event in events.split_terminator("\n\n") {
                let Some((_, data)) = event.split_once("\ndata: ") else {
                    continue;
                };
                let message: Value = serde_json::from_str(data).unwrap();
                assert_eq!(message["body"]["number"], self.last + 1);
                self.last += 1;
                let sent = message["body"]["at_us"].as_u64().unwrap();
                late.push(Duration::from_micros(now_us().saturating_sub(sent)));
            }
        }
        (self, late)
    }
}

/// Microseconds since the first call.
fn now_us() -> u64 {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_micros()).unwrap()
}

/// Pushes to all and has all of them read it; the median and the slowest but one in a hundred.
async fn run(
    backend: &mut Http,
    listeners: Vec<Listener>,
    upto: u64,
) -> (Vec<Listener>, [Duration; 2]) {
    let mut reading = JoinSet::new();
    for listener in listeners {
        reading.spawn(listener.read_to(upto));
    }
    for number in upto - TO_ALL + 1..=upto {
        let body = json!({ "number": number, "at_us": now_us(), "text": "x".repeat(1000) });
        let text = json!({ "from": "backend", "body": body }).to_string();
        process::ask(backend, "POST", "/v1/groups/all/messages", &text).await;
    }
    let (listeners, late): (Vec<_>, Vec<_>) = reading.join_all().await.into_iter().unzip();
    let mut late = late.concat();
    late.sort_unstable();
    let part = |hundredths| late[late.len() * hundredths / 100];
    (listeners, [part(50), part(99)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_of_a_thousand_that_never_read_cost_no_memory_and_delay_nobody() {
    let process = Process::start().await;
    let mut backend = Http::connect(process.admin).await;
    let slow: Vec<String> = (0..SLOW).map(|n| format!("slow-{n}")).collect();
    let users: Vec<String> = (0..READERS).map(|n| format!("user-{n}")).collect();
    let all = [&slow[..], &users[..]].concat();
    for (group, members) in [
        ("all", &all[..]),
        ("slow", &slow[..]),
        ("nobody", &["nobody".to_owned()][..]),
    ] {
        let members = json!({ "members": members }).to_string();
        process::ask(
            &mut backend,
            "PUT",
            &format!("/v1/groups/{group}"),
            &members,
        )
        .await;
    }
    let mut listeners = Vec::new();
    for user in &users {
        listeners.push(Listener::connect(process.client, Process::token(user)).await);
    }
    let (listeners, usual) = run(&mut backend, listeners, TO_ALL).await;

    let mut deaf = Vec::new();
    for user in &slow {
        deaf.push(connect_deaf(process.client, Way::Sse, &Process::token(user)).await);
    }
    // What writing alone costs: the first time is another matter.
    flood(&mut backend, "nobody").await;
    let mut usual_growth = 0;
    for _ in 0..3 {
        usual_growth = usual_growth.max(growth(&process, flood(&mut backend, "nobody")).await);
    }
    let growth = growth(&process, flood(&mut backend, "slow")).await;
    let status = process::ask(&mut backend, "GET", "/v1/status", "").await;
    assert_eq!(
        status["held"]["sse"],
        READERS + SLOW,
        "nobody was cut yet: {status}"
    );
    let (listeners, beside) = run(&mut backend, listeners, 2 * TO_ALL).await;
    assert!(
        growth < usual_growth + GROWTH_KIB_MAX,
        "it grew by {growth} KiB, and without readers by {usual_growth}"
    );
    for (usual, beside) in usual.iter().zip(beside) {
        let most = 10 * *usual + Duration::from_millis(500);
        assert!(beside < most, "{usual:?} became {beside:?}");
    }
    drop((listeners, deaf));
}

/// By how much the server grows meanwhile, KiB.
async fn growth(process: &Process, meanwhile: impl Future<Output = ()>) -> u64 {
    let before = process.resident_kib();
    meanwhile.await;
    process.resident_kib().saturating_sub(before)
}

/// Long messages to a group.
async fn flood(backend: &mut Http, group: &str) {
    let item = json!({ "group": group, "from": "backend", "body": "x".repeat(LONG) });
    let items = Value::Array(vec![item; LONG_ONES]).to_string();
    process::ask(backend, "POST", "/v1/messages", &items).await;
    // Behind this all of them have reached those that wait.
    let last = "{\"from\":\"backend\",\"body\":1}";
    process::ask(backend, "POST", "/v1/direct/nobody/messages", last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_cut_and_goes_on_from_his_cursor() {
    const PATIENT: Duration = Duration::from_secs(4);
    let server = TestServer::with(|parts| parts.timeouts.write = PATIENT).await;
    let mut deaf = Vec::new();
    for way in Way::OPEN {
        let user = way.name();
        deaf.push((
            way,
            connect_deaf(server.client, way, &TestServer::token(user)).await,
        ));
        server.wait_held(user, 1).await;
    }
    let mut alive = Reader::open(server.client, Way::Sse, &TestServer::token("sse"), "now")
        .await
        .unwrap();
    alive.next().await;
    // It reads while the others do not: else it would be one of them.
    let alive = tokio::spawn(async move {
        let count = alive.count(LONG_ONES).await.len();
        (alive, count)
    });
    let mut backend = Http::connect(server.admin).await;
    let begin = Instant::now();
    for way in Way::OPEN {
        let item = json!({ "to": way.name(), "from": "a", "body": "x".repeat(LONG) });
        let items = Value::Array(vec![item; LONG_ONES]).to_string();
        let path = "/v1/messages";
        let reply = crate::device::admin(&mut backend, "POST", path, "", &items).await;
        assert_eq!(reply.status, 200);
    }
    let (alive, count) = alive.await.unwrap();
    assert_eq!(count, LONG_ONES, "another device of the same user");
    for (way, http) in deaf {
        let left = u64::from(way == Way::Sse);
        server.wait_held(way.name(), left).await;
        assert!(begin.elapsed() >= PATIENT);
        // What had arrived before counts, and nothing is missing after it.
        let (cursor, got) = read_what_came(way, http).await;
        assert!(
            got.len() < LONG_ONES,
            "{way:?} was cut behind {}",
            got.len()
        );
        let token = TestServer::token(way.name());
        let mut reader = Reader::open(server.client, way, &token, &cursor)
            .await
            .unwrap();
        let rest = reader.count(LONG_ONES - got.len()).await;
        let ids: Vec<u64> = got.iter().chain(&rest).map(|message| message.id).collect();
        assert!(
            ids.is_sorted_by(|one, next| one < next) && ids.len() == LONG_ONES,
            "{way:?}"
        );
        drop(reader);
        server.wait_held(way.name(), left).await;
    }
    eventually("all that was given up is closed", || async {
        server.app.connections(halley::http::ListenerKind::Client) == 1
    })
    .await;
    drop(alive);
}

/// Reads a connection that the server has cut to its end: what is complete, and the cursor behind it.
async fn read_what_came(way: Way, mut http: Http) -> (String, Vec<Message>) {
    let Some(head) = http.head_if_any().await else {
        return ("0".to_owned(), Vec::new());
    };
    let mut reader = Reader::on(http, way, &head);
    let mut got = Vec::new();
    while let Event::Page(page) = reader.next().await {
        got.extend(page.messages);
    }
    let cursor = if reader.cursor.is_empty() {
        "0".to_owned()
    } else {
        reader.cursor
    };
    (cursor, got)
}
