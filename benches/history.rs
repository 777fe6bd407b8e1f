//! A conversation of a million messages: its size on disk, its pages, and how long the server takes to start:
//! `cargo bench --bench history`, or with another number of messages: `cargo bench --bench history -- 100000`.
//!
//! Messages of 256 bytes between two users, pushed 1,000 at a time; pages of 50 before a random id, one
//! after the other on one connection. After a restart the server's own cache is empty, but the system's is not.

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
    reason = "a benchmark prints figures and stops at the first surprise; not each uses all that they share"
)]

mod support;

use std::fs;
use std::path::Path;
use std::time::Instant;

use support::{Halley, Latencies, Server, about_machine, body, load, run, users};

const BODY_BYTES: usize = 256;
const AT_ONCE: usize = 1000;
const PAGE: usize = 50;
/// Pages of one measurement.
const PAGES: usize = 5000;
/// The first pages after a start.
const FIRST: usize = 100;

fn main() {
    let count = std::env::args().find_map(|text| text.parse().ok());
    let count: usize = count.unwrap_or(1_000_000);
    println!(
        "history: {count} messages of {BODY_BYTES} bytes in one conversation\n{}\n",
        about_machine()
    );
    run(measure(count));
    println!("\nload average after: {}", load());
}

async fn measure(count: usize) {
    let mut server = Halley::start();
    let empty = server.memory();
    server.ready(&users(1), None).await;
    let begin = Instant::now();
    fill(&server, count).await;
    println!(
        "pushed, {AT_ONCE} in a request: {:.0} messages a second",
        count as f64 / begin.elapsed().as_secs_f64()
    );
    println!("\n| pages of {PAGE} before a random id | p50 ms | p99 ms | resident MB |");
    println!("|---|---|---|---|");
    pages(&server, "warm", count, PAGES).await;

    let begin = Instant::now();
    server.stop();
    let stopped = begin.elapsed();
    let disk = ["journal", "sled"].map(|part| bytes(&server.data().join(part)) as f64);
    let clean = started(&mut server).await;
    pages(&server, "after a restart, the first 100", count, FIRST).await;
    pages(&server, "after a restart, then", count, PAGES).await;
    server.kill();
    let killed = started(&mut server).await;
    server.kill();
    fs::remove_dir_all(server.data().join("sled")).unwrap();
    let rebuilt = started(&mut server).await;
    pages(&server, "after a rebuild", count, PAGES).await;

    println!("\n| what | s |\n|---|---|");
    println!("| clean stop | {:.2} |", stopped.as_secs_f64());
    println!("| start after a clean stop | {clean:.2} |");
    println!("| start after kill -9 | {killed:.2} |");
    println!("| start without sled: everything rebuilt | {rebuilt:.2} |");
    let [journal, sled] = disk.map(|bytes| bytes / count as f64);
    println!(
        "\non disk after the clean stop, bytes a message: journal {journal:.0}, sled {sled:.0}"
    );
    println!("resident when empty: {} MB", empty / 1_000_000);
}

async fn fill(server: &Halley, count: usize) {
    let mut backend = server.backend().await;
    let text = body(BODY_BYTES);
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let item = format!("{{\"from\":\"bench\",\"to\":\"user0\",\"body\":{text}}}");
        let items = format!("[{}]", vec![item; now].join(","));
        let request = server.request("POST", "/v1/messages", &items);
        backend.ask(&request).await.expect(200);
        left -= now;
    }
}

/// Starts the server again; seconds until it is ready.
async fn started(server: &mut Halley) -> f64 {
    let begin = Instant::now();
    server.start_again();
    let mut backend = server.backend().await;
    while backend.ask(&server.get("/readyz")).await.status != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    begin.elapsed().as_secs_f64()
}

/// Reads pages before random ids, each whole.
async fn pages(server: &Halley, when: &str, count: usize, pages: usize) {
    let mut client = server.client().await;
    let token = server.token("user0");
    let mut times = Latencies::default();
    let mut random = 88_172_645_463_325_252_u64;
    for _ in 0..pages {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let before = PAGE as u64 + 1 + random % (count - PAGE) as u64;
        let request = format!(
            "GET /v1/direct/bench/messages?before={before}&limit={PAGE} HTTP/1.1\r\nhost: bench\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        let sent = Instant::now();
        let reply = client.ask(&request).await;
        times.add(sent.elapsed());
        let reply = reply.expect(200);
        assert_eq!(reply.text().matches("\"id\":").count(), PAGE);
    }
    println!(
        "| {when} | {:.2} | {:.2} | {} |",
        times.percentile(50),
        times.percentile(99),
        server.memory() / 1_000_000
    );
}

/// What a folder's files take on the disk.
fn bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                bytes(&entry.path())
            } else {
                entry.metadata().unwrap().blocks() * 512
            }
        })
        .sum()
}
