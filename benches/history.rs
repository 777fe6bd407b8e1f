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
use std::time::Instant;

use support::{
    Halley, PAGE, Random, Server, about_machine, batch, body, disk, load, pages, push_batch, run,
    users,
};

const BODY_BYTES: usize = 256;
const AT_ONCE: usize = 1000;
/// Pages of one measurement.
const PAGES: usize = 5000;
/// The first pages after a start.
const FIRST: usize = 100;

fn main() {
    let count = std::env::args().find_map(|text| text.parse().ok());
    let count = count.unwrap_or(1_000_000_usize).next_multiple_of(AT_ONCE);
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
    let mut backend = server.backend().await;
    let request = batch(&server, &body(BODY_BYTES), AT_ONCE);
    for _ in 0..count / AT_ONCE {
        push_batch(&mut backend, request.as_bytes()).await;
    }
    println!(
        "pushed, {AT_ONCE} in a request: {:.0} messages a second",
        count as f64 / begin.elapsed().as_secs_f64()
    );
    println!("\n| pages of {PAGE} before a random id | p50 ms | p99 ms | resident MB |");
    println!("|---|---|---|---|");
    page_row(&server, "warm", count, PAGES).await;

    let begin = Instant::now();
    server.stop();
    let stopped = begin.elapsed();
    let taken = ["journal", "sled"].map(|part| disk(&server.data().join(part))[0] as f64);
    let clean = started(&mut server).await;
    page_row(&server, "after a restart, the first 100", count, FIRST).await;
    page_row(&server, "after a restart, then", count, PAGES).await;
    server.kill();
    let killed = started(&mut server).await;
    server.kill();
    fs::remove_dir_all(server.data().join("sled")).unwrap();
    let rebuilt = started(&mut server).await;
    page_row(&server, "after a rebuild", count, PAGES).await;

    println!("\n| what | s |\n|---|---|");
    println!("| clean stop | {:.2} |", stopped.as_secs_f64());
    println!("| start after a clean stop | {clean:.2} |");
    println!("| start after kill -9 | {killed:.2} |");
    println!("| start without sled: everything rebuilt | {rebuilt:.2} |");
    let [journal, sled] = taken.map(|bytes| bytes / count as f64);
    println!(
        "\non disk after the clean stop, bytes a message: journal {journal:.0}, sled {sled:.0}"
    );
    println!("resident when empty: {} MB", empty / 1_000_000);
}

/// Starts the server again; seconds until it is ready.
async fn started(server: &mut Halley) -> f64 {
    server.start_again().await.as_secs_f64()
}

/// Measures pages, and prints their row.
async fn page_row(server: &Halley, when: &str, count: usize, how_many: usize) {
    let mut times = pages(server, &mut Random::default(), count, how_many).await;
    println!(
        "| {when} | {:.2} | {:.2} | {} |",
        times.percentile(50),
        times.percentile(99),
        server.memory() / 1_000_000
    );
}
