//! Pushes a second, each on disk before it is acknowledged, and how long one takes: `cargo bench --bench push`.
//!
//! Direct messages of 256 bytes to 1,000 users from 1, 32 and 512 connections that each wait for their
//! receipt. nchan keeps messages in memory only, so the ratio is the price of keeping them.

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

use std::fs::File;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use support::{Halley, Http, Latencies, Nchan, Server, about_machine, body, load, run, users};

const TIME: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(1);
const BODY_BYTES: usize = 256;

fn main() {
    println!(
        "push: {BODY_BYTES} bytes to one of 1,000 users\n{}",
        about_machine()
    );
    let mut syncs = syncs();
    println!(
        "one append of 512 bytes with fdatasync here: p50 {:.2} ms, p99 {:.2} ms\n",
        syncs.percentile(50),
        syncs.percentile(99)
    );
    println!(
        "| server | connections | pushes/s | p50 ms | p99 ms | longest ms | processor us a push |"
    );
    println!("|---|---|---|---|---|---|---|");
    let ours = table::<Halley>();
    if Nchan::is_installed() {
        let theirs = table::<Nchan>();
        println!();
        for ((connections, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            println!(
                "{connections} connections: Halley (disk) / nchan (memory) = {:.2}",
                ours / theirs
            );
        }
    }
    println!("\nload average after: {}", load());
}

/// What a sync costs on the disk of the data directory.
fn syncs() -> Latencies {
    let mut file: File = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut times = Latencies::default();
    for _ in 0..500 {
        let begin = Instant::now();
        file.write_all(&[b'x'; 512]).unwrap();
        file.sync_data().unwrap();
        times.add(begin.elapsed());
    }
    times
}

fn table<S: Server + 'static>() -> Vec<(usize, f64)> {
    let mut rates = Vec::new();
    for connections in [1, 32, 512] {
        run(async {
            rates.push((connections, measure::<S>(connections).await));
        });
    }
    rates
}

async fn measure<S: Server + 'static>(connections: usize) -> f64 {
    let server = S::start();
    server.ready(&[], None).await;
    let text = body(BODY_BYTES);
    let requests: Rc<Vec<String>> = Rc::new(
        users(1000)
            .iter()
            .map(|user| server.push(user, false, &text))
            .collect(),
    );
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(server.backend().await);
    }
    // Only now: many connections take a while.
    let begin = Instant::now() + WARM_UP;
    let tasks = tokio::task::LocalSet::new();
    let mut pushers = Vec::new();
    for (n, client) in clients.into_iter().enumerate() {
        pushers.push(tasks.spawn_local(push(client, requests.clone(), n, begin)));
    }
    let mut times = Latencies::default();
    let processor = tasks
        .run_until(async {
            tokio::time::sleep_until(begin.into()).await;
            let before = server.processor();
            tokio::time::sleep(TIME).await;
            let used = server.processor().saturating_sub(before);
            for pusher in pushers {
                times.extend(pusher.await.unwrap());
            }
            used
        })
        .await;
    let count = times.count() as f64;
    let rate = count / TIME.as_secs_f64();
    println!(
        "| {} | {connections} | {rate:.0} | {:.2} | {:.2} | {:.0} | {:.1} |",
        S::NAME,
        times.percentile(50),
        times.percentile(99),
        times.percentile(100),
        processor.as_secs_f64() * 1e6 / count
    );
    rate
}

/// Pushes until the time is over; the times of those that began after the warming up.
async fn push(mut client: Http, requests: Rc<Vec<String>>, n: usize, begin: Instant) -> Latencies {
    let mut times = Latencies::default();
    for request in requests.iter().cycle().skip(n * 7) {
        let sent = Instant::now();
        if sent >= begin + TIME {
            break;
        }
        let reply = client.ask(request).await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
        if sent >= begin {
            times.add(sent.elapsed());
        }
    }
    times
}
