//! From a push to the reply of a held poll: `cargo bench --bench wake`.
//!
//! First 1,000 users hold a poll each and each gets one message, one every 2 ms. Then one message goes to a
//! group whose 1,000 or 5,000 members all hold polls: the time until the first, the middle and the last has it.
//! The one thread that reads all replies is part of the time.

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

use std::rc::Rc;
use std::time::{Duration, Instant};

use support::{Halley, Holding, Http, Latencies, Nchan, about_machine, body, load, run, users};
use tokio::sync::mpsc;

const ROUNDS: usize = 5;
const PACE: Duration = Duration::from_millis(2);

fn main() {
    println!(
        "wake: push of 64 bytes to reply of a held poll\n{}\n",
        about_machine()
    );
    println!("| server | what | p50 ms | p99 ms | last ms | processor us a delivery |");
    println!("|---|---|---|---|---|---|");
    let ours = rows::<Halley>();
    if Nchan::is_installed() {
        let theirs = rows::<Nchan>();
        println!("\nHalley / nchan:");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            println!(
                "{}: p50 {:.2}, p99 {:.2}, last {:.2}",
                ours.what,
                ours.p50 / theirs.p50,
                ours.p99 / theirs.p99,
                ours.last / theirs.last
            );
        }
    }
    println!("\nload average after: {}", load());
}

struct Row {
    what: String,
    p50: f64,
    p99: f64,
    last: f64,
}

fn rows<S: Holding + 'static>() -> Vec<Row> {
    let mut rows = Vec::new();
    run(async { rows.push(paced::<S>().await) });
    for members in [1000, 5000] {
        run(async { rows.push(fan_out::<S>(members).await) });
    }
    rows
}

fn row<S: Holding>(what: String, mut times: Latencies, last: f64, processor: Duration) -> Row {
    let row = Row {
        what,
        p50: times.percentile(50),
        p99: times.percentile(99),
        last,
    };
    println!(
        "| {} | {} | {:.2} | {:.2} | {:.2} | {:.1} |",
        S::NAME,
        row.what,
        row.p50,
        row.p99,
        row.last,
        processor.as_secs_f64() * 1e6 / times.count() as f64
    );
    row
}

/// Clients that poll for ever and say when each reply came.
async fn hold<S: Holding + 'static>(
    server: &Rc<S>,
    tasks: &tokio::task::LocalSet,
    count: usize,
    group: Option<&'static str>,
) -> mpsc::Receiver<(usize, Instant)> {
    let users = users(count);
    server.ready(&users, group).await;
    let (came, arrivals) = mpsc::channel(count.max(1));
    for user in users.into_iter().enumerate() {
        let client = server.client().await;
        tasks.spawn_local(poll(server.clone(), client, user, group, came.clone()));
    }
    arrivals
}

async fn poll<S: Holding>(
    server: Rc<S>,
    mut client: Http,
    (n, user): (usize, String),
    group: Option<&'static str>,
    came: mpsc::Sender<(usize, Instant)>,
) {
    let mut cursor = None;
    loop {
        let request = server.poll(&user, group, cursor.as_deref());
        let reply = client.ask(&request).await.expect(200);
        cursor = S::cursor(reply.text());
        if came.send((n, Instant::now())).await.is_err() {
            return;
        }
    }
}

async fn paced<S: Holding + 'static>() -> Row {
    const USERS: usize = 1000;
    let server = Rc::new(S::start());
    let tasks = tokio::task::LocalSet::new();
    let mut arrivals = hold(&server, &tasks, USERS, None).await;
    tasks
        .run_until(async {
            server.wait_held(USERS).await;
            let mut backend = server.backend().await;
            let requests: Vec<String> = users(USERS)
                .iter()
                .map(|user| server.push(user, false, &body(64)))
                .collect();
            let mut clock = tokio::time::interval(PACE);
            let before = server.processor();
            let mut times = Latencies::default();
            for (n, request) in requests.iter().enumerate() {
                clock.tick().await;
                let sent = Instant::now();
                backend.send(request).await;
                let (who, at) = arrivals.recv().await.unwrap();
                assert_eq!(who, n, "the message came to another");
                times.add(at - sent);
                let reply = backend.reply().await;
                assert!((200..300).contains(&reply.status), "{reply:?}");
            }
            let used = server.processor().saturating_sub(before);
            let last = times.percentile(100);
            row::<S>(format!("{USERS} users, one each"), times, last, used)
        })
        .await
}

async fn fan_out<S: Holding + 'static>(members: usize) -> Row {
    let server = Rc::new(S::start());
    let tasks = tokio::task::LocalSet::new();
    let mut arrivals = hold(&server, &tasks, members, Some("team")).await;
    tasks
        .run_until(async {
            let mut backend = server.backend().await;
            let request = server.push("team", true, &body(64));
            let (mut times, mut lasts) = (Latencies::default(), Latencies::default());
            let mut used = Duration::ZERO;
            for _ in 0..ROUNDS {
                server.wait_held(members).await;
                let (before, sent) = (server.processor(), Instant::now());
                backend.send(&request).await;
                let mut last = Duration::ZERO;
                for _ in 0..members {
                    let (_, at) = arrivals.recv().await.unwrap();
                    last = at - sent;
                    times.add(last);
                }
                lasts.add(last);
                let reply = backend.reply().await;
                assert!((200..300).contains(&reply.status), "{reply:?}");
                used += server.processor().saturating_sub(before);
            }
            let last = lasts.percentile(50);
            row::<S>(format!("group of {members}"), times, last, used)
        })
        .await
}
