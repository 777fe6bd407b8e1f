//! More pushes than the server can keep: `overload=SECONDS` of `cargo bench --bench scale`.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use super::support::{Halley, Http, Latencies, Random, Server, body};

/// What each push has.
const MESSAGES: usize = 100;
const BODY_BYTES: usize = 256;
const CONNECTIONS: usize = 64;
const USERS: usize = 100_000;
/// A line of the table.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Until a refused client tries again: far less than it is asked to wait.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// What all connections did, since the last line and since the beginning.
#[derive(Default)]
struct Counts {
    accepted: Cell<usize>,
    refused: Cell<usize>,
    delays: RefCell<Latencies>,
}

impl Counts {
    fn line(&self, seconds: u64, of: Duration, memory: u64) {
        let (accepted, refused) = (self.accepted.take(), self.refused.take());
        let mut delays = self.delays.take();
        let all = (accepted / MESSAGES + refused).max(1);
        println!(
            "| {seconds} | {:.0} | {:.1} % | {:.1} | {:.1} | {:.1} | {:.0} |",
            accepted as f64 / of.as_secs_f64(),
            refused as f64 * 100.0 / all as f64,
            delays.percentile(50),
            delays.percentile(99),
            delays.percentile(100),
            memory as f64 / 1e6
        );
    }
}

/// Pushes as fast as it is answered for so many seconds; then a crash, and a look at what is there.
pub(crate) async fn overload(seconds: u64) {
    let mut server = Halley::start();
    let (counts, all) = (Counts::default(), Cell::new(0));
    let end = Instant::now() + Duration::from_secs(seconds);
    println!(
        "\noverload: {CONNECTIONS} connections push {MESSAGES} messages of {BODY_BYTES} bytes in each request for {seconds} s, \
         between random pairs of {USERS} users; refused ones again after {} ms\n",
        AGAIN_AFTER.as_millis()
    );
    println!(
        "| s | accepted a second | refused with 503 | p50 ms | p99 ms | max ms | resident MB |"
    );
    println!("|---|---|---|---|---|---|---|");
    let random = RefCell::new(Random::default());
    let pushers = (0..CONNECTIONS).map(|_| push(&server, &random, end, (&counts, &all)));
    join(tell(&server, &counts, end), join_all(pushers)).await;
    let accepted = all.get();
    server.kill();
    let began = server.start_again().await;
    let stored = stored(&server).await;
    println!(
        "\n{accepted} messages were accepted; kill -9, a start of {:.1} s; {stored} are there",
        began.as_secs_f64()
    );
    // Each request was answered before the crash.
    assert_eq!(stored, accepted, "what was accepted, and nothing else");
}

async fn tell(server: &Halley, counts: &Counts, end: Instant) {
    let begun = Instant::now();
    let mut told = begun;
    while told < end {
        let next = (told + TOLD_EVERY).min(end);
        tokio::time::sleep_until(next.into()).await;
        counts.line(begun.elapsed().as_secs(), told.elapsed(), server.memory());
        told = Instant::now();
    }
}

/// Requests with messages of random pairs, one after the other.
async fn push(
    server: &Halley,
    random: &RefCell<Random>,
    end: Instant,
    (counts, all): (&Counts, &Cell<usize>),
) {
    let body = body(BODY_BYTES);
    let mut backend = server.backend().await;
    while Instant::now() < end {
        let items: Vec<_> = (0..MESSAGES)
            .map(|_| {
                let any = || random.borrow_mut().below(USERS);
                let (from, to) = (any(), any());
                format!("{{\"from\":\"u{from}\",\"to\":\"u{to}\",\"body\":{body}}}")
            })
            .collect();
        let items = format!("[{}]", items.join(","));
        let request = server.request("POST", "/v1/messages", &items);
        while !accepted(&mut backend, &request, counts).await {
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        all.set(all.get() + MESSAGES);
    }
}

/// Whether a request was; anything but a refusal with a time to come back is a fault.
async fn accepted(backend: &mut Http, request: &str, counts: &Counts) -> bool {
    let sent = Instant::now();
    let reply = backend.ask(request).await;
    if reply.status == 503 {
        let asked_to_wait = reply.header("retry-after").is_some();
        assert!(
            asked_to_wait && reply.text().contains("\"code\":\"busy\""),
            "{reply:?}"
        );
        counts.refused.set(counts.refused.get() + 1);
        return false;
    }
    counts.delays.borrow_mut().add(sent.elapsed());
    let reply = reply.expect(200);
    assert_eq!(
        reply.text().matches("\"id\":").count(),
        MESSAGES,
        "{reply:?}"
    );
    counts.accepted.set(counts.accepted.get() + MESSAGES);
    true
}

/// The last id, which is how many messages there are.
async fn stored(server: &Halley) -> usize {
    let mut backend = server.backend().await;
    let status = backend
        .ask(&server.get("/v1/status"))
        .await
        .expect(200)
        .json();
    let last = status["watermark"]["direct"].as_u64().expect("a number");
    usize::try_from(last).expect("it fits")
}
