//! Pushes a second, each on disk before it is acknowledged, and how long one takes: `cargo bench --bench push`, or with
//! another length of a turn in seconds: `cargo bench --bench push -- 1`.
//!
//! Direct messages of 256 bytes to 1,000 users from 1, 32 and 512 connections that each wait for their receipt. Servers
//! have one core, the load has another. What is compared runs in turns, in which the others stand still:
//!
//! - Durable Streams, which also answers when it is on disk: appends of the same bytes to as many streams, where
//!   `DURABLE_STREAMS` names its program.
//! - nchan, where it is installed. It keeps messages in memory only, so the ratio is the price of keeping them.
//! - One sync of this disk: what a push cannot be quicker than.

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

use std::any::Any;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{
    Cores, DurableStreams, Halley, Http, Latencies, Nchan, Server, about_machine, body, load,
    processor, push, run, signal, users,
};
use tokio::task::LocalSet;

const CONNECTIONS: [usize; 3] = [1, 32, 512];
const USERS: usize = 1000;
const BODY_BYTES: usize = 256;
/// Turns of each server, and how long one is by default.
const TURNS: u32 = 5;
const SECONDS: u64 = 4;
/// The beginning of a turn, which is not counted.
const WARM_UP: Duration = Duration::from_millis(500);

fn main() {
    let seconds = std::env::args().find_map(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(SECONDS));
    // Before this thread has one core only.
    let machine = about_machine();
    let cores = Cores::divide();
    println!(
        "push: {BODY_BYTES} bytes to one of {USERS} users, {TURNS} turns of {} s for each server\n{machine}\n{cores}",
        time.as_secs()
    );
    let has_streams = DurableStreams::is_named();
    let has_nchan = Nchan::is_installed();
    println!(
        "\n| server | connections | pushes/s | p50 ms | p99 ms | longest ms | processor us a push |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut syncs = Syncs::new();
    let mut rows: Vec<Vec<Row>> = Vec::new();
    for connections in CONNECTIONS {
        run(async {
            let mut sides = vec![Side::new::<Halley>(&cores, connections).await];
            if has_streams {
                sides.push(Side::new::<DurableStreams>(&cores, connections).await);
            }
            if has_nchan {
                sides.push(Side::new::<Nchan>(&cores, connections).await);
            }
            for _ in 0..TURNS {
                if connections == 1 {
                    syncs.turn();
                }
                for side in &mut sides {
                    side.turn(time).await;
                }
            }
            rows.push(sides.into_iter().map(|side| side.row(time)).collect());
        });
    }
    println!();
    for (connections, rows) in CONNECTIONS.iter().zip(&rows) {
        for other in &rows[1..] {
            println!("{connections} connections: {}", rows[0].ratios(other));
        }
    }
    println!("\n{}", syncs.beside(rows[0][0].p50));
    println!("\nload average after: {}", load());
}

/// One of the servers, with what pushes to it. It stands still but for its turns.
struct Side {
    name: &'static str,
    pid: u32,
    requests: Rc<Vec<String>>,
    clients: Vec<Http>,
    times: Latencies,
    processor: Duration,
    /// Runs until it is dropped.
    _server: Box<dyn Any>,
}

impl Side {
    async fn new<S: Server + 'static>(cores: &Cores, connections: usize) -> Self {
        let server = cores.start(S::start);
        let (users, text) = (users(USERS), body(BODY_BYTES));
        server.ready(&users, None).await;
        let requests = users.iter().map(|user| server.push(user, false, &text));
        let requests = Rc::new(requests.collect());
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(server.backend().await);
        }
        signal(server.pid(), Signal::STOP);
        Self {
            name: S::NAME,
            pid: server.pid(),
            requests,
            clients,
            times: Latencies::default(),
            processor: Duration::ZERO,
            _server: Box::new(server),
        }
    }

    /// Pushes from all connections, each of which waits for its receipts, for so long.
    async fn turn(&mut self, time: Duration) {
        signal(self.pid, Signal::CONT);
        let begin = Instant::now() + WARM_UP;
        let tasks = LocalSet::new();
        let mut pushers = Vec::new();
        for (n, client) in self.clients.drain(..).enumerate() {
            let push = push(client, self.requests.clone(), n, [begin, begin + time]);
            pushers.push(tasks.spawn_local(push));
        }
        let work = async {
            tokio::time::sleep_until(begin.into()).await;
            let before = processor(self.pid);
            tokio::time::sleep(time).await;
            self.processor += processor(self.pid).saturating_sub(before);
            for pusher in pushers {
                let (client, times) = pusher.await.unwrap();
                self.clients.push(client);
                self.times.extend(times);
            }
        };
        tasks.run_until(work).await;
        signal(self.pid, Signal::STOP);
    }

    /// Ends the server, and prints what it did.
    fn row(mut self, time: Duration) -> Row {
        let count = self.times.count() as f64;
        let row = Row {
            name: self.name,
            rate: count / (time * TURNS).as_secs_f64(),
            p50: self.times.percentile(50),
            p99: self.times.percentile(99),
            processor: self.processor.as_secs_f64() * 1e6 / count,
        };
        println!(
            "| {} | {} | {:.0} | {:.2} | {:.2} | {:.0} | {:.1} |",
            row.name,
            self.clients.len(),
            row.rate,
            row.p50,
            row.p99,
            self.times.percentile(100),
            row.processor
        );
        row
    }
}

/// What one server did with so many connections.
struct Row {
    name: &'static str,
    rate: f64,
    p50: f64,
    p99: f64,
    processor: f64,
}

impl Row {
    fn ratios(&self, other: &Self) -> String {
        format!(
            "{} / {}: rate {:.2}, p50 {:.2}, p99 {:.2}, processor {:.2}",
            self.name,
            other.name,
            self.rate / other.rate,
            self.p50 / other.p50,
            self.p99 / other.p99,
            self.processor / other.processor
        )
    }
}

/// What a sync costs on the disk of the data directories, written as the journal writes: into zeros that are there.
struct Syncs {
    file: File,
    written: u64,
    times: Latencies,
}

impl Syncs {
    const EACH_BYTES: usize = 2048;
    /// So many in a turn.
    const COUNT: usize = 500;

    fn new() -> Self {
        let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        file.write_all_at(&vec![0; Self::EACH_BYTES * Self::COUNT * TURNS as usize], 0)
            .unwrap();
        file.sync_all().unwrap();
        Self {
            file,
            written: 0,
            times: Latencies::default(),
        }
    }

    fn turn(&mut self) {
        for _ in 0..Self::COUNT {
            let begin = Instant::now();
            self.file
                .write_all_at(&[b'x'; Self::EACH_BYTES], self.written)
                .unwrap();
            self.file.sync_data().unwrap();
            self.times.add(begin.elapsed());
            self.written += Self::EACH_BYTES as u64;
        }
    }

    /// What one took, and how much longer a push takes that nothing else delays.
    fn beside(mut self, push: f64) -> String {
        let [sync, p99] = [50, 99].map(|percent| self.times.percentile(percent));
        format!(
            "one sync here ({} bytes into zeros, fdatasync; {} of them in turns with the pushes of 1 connection): \
             p50 {sync:.3} ms, p99 {p99:.3} ms\n\
             Halley's p50 on 1 connection is {push:.3} ms: that sync and {:.3} ms",
            Self::EACH_BYTES,
            self.times.count(),
            push - sync
        )
    }
}
