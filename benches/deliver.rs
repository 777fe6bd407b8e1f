//! From push to client, as fast as it goes: `cargo bench --bench deliver`.
//!
//! 1,000 users hold a poll each, or an event source; 32 and 128 connections push to one user after the other, and each
//! waits for its receipt. Servers have one core and the load another; what is compared runs in turns.
//! `HALLEY_BESIDE=/path/to/halley` measures another build in the same run; `-- 1` makes turns of 1 s.

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
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::http::upto;
use support::{
    Cores, Endless, Halley, Holding, Http, Latencies, Nchan, about_machine, body, load, processor,
    push, run, signal, users,
};
use tokio::task::LocalSet;

const USERS: usize = 1000;
const BODY_BYTES: usize = 64;
const PUSHERS: [usize; 2] = [32, 128];
const TURNS: u32 = 4;
const WARM_UP: Duration = Duration::from_millis(500);

fn main() {
    let seconds = std::env::args().find_map(|text| text.parse().ok());
    let turn = Duration::from_secs(seconds.unwrap_or(4));
    let cores = Cores::divide();
    println!(
        "deliver: pushes of {BODY_BYTES} bytes to {USERS} users who listen\n{}\n{cores}\n",
        about_machine()
    );
    println!(
        "| server | clients | pushers | deliveries a second | receipt p50 ms | p99 ms | processor us a delivery |"
    );
    println!("|---|---|---|---|---|---|---|");
    for how in [None, Some(Endless::Events)] {
        for pushers in PUSHERS {
            run(LocalSet::new().run_until(compare(&cores, how, pushers, turn)));
        }
    }
    println!("\nload average after: {}", load());
}

async fn compare(cores: &Cores, how: Option<Endless>, pushers: usize, time: Duration) {
    let mut sides = vec![
        Side::new(
            "Halley",
            cores.start(<Halley as support::Server>::start),
            how,
            pushers,
        )
        .await,
    ];
    if let Some(binary) = std::env::var_os("HALLEY_BESIDE") {
        let beside = cores.start(|| Halley::of(binary.into()));
        sides.push(Side::new("beside", beside, how, pushers).await);
    }
    if Nchan::is_installed() {
        let nchan = cores.start(<Nchan as support::Server>::start);
        sides.push(Side::new("nginx + nchan", nchan, how, pushers).await);
    }
    for _ in 0..TURNS {
        for side in &mut sides {
            side.turn(time).await;
        }
    }
    for mut side in sides {
        let count = side.count as f64;
        println!(
            "| {} | {} | {pushers} | {:.0} | {:.2} | {:.2} | {:.1} |",
            side.name,
            how.map_or("poll", Endless::name),
            count / (time * TURNS).as_secs_f64(),
            side.times.percentile(50),
            side.times.percentile(99),
            side.processor.as_secs_f64() * 1e6 / count
        );
    }
}

/// One server, which stands still while it is not its turn.
struct Side {
    name: &'static str,
    pid: u32,
    requests: Rc<Vec<String>>,
    pushers: Vec<Http>,
    times: Latencies,
    /// Deliveries so far, and those of the turns.
    came: Rc<Cell<usize>>,
    count: usize,
    processor: Duration,
    /// Runs until it is dropped.
    _server: Box<dyn Any>,
}

impl Side {
    async fn new<S: Holding + 'static>(
        name: &'static str,
        server: S,
        how: Option<Endless>,
        pushers: usize,
    ) -> Self {
        let (users, text) = (users(USERS), body(BODY_BYTES));
        let server = Rc::new(server);
        server.ready(&users, None).await;
        let came = Rc::new(Cell::new(0));
        for user in &users {
            let client = server.client().await;
            match how {
                None => {
                    let poll = poll(server.clone(), client, user.clone(), came.clone());
                    drop(tokio::task::spawn_local(poll));
                }
                Some(how) => {
                    let listen =
                        listen(client, server.listen(how, user), text.clone(), came.clone());
                    drop(tokio::task::spawn_local(listen));
                }
            }
        }
        server
            .wait_held(if how.is_none() { USERS } else { 0 })
            .await;
        let requests = users.iter().map(|user| server.push(user, false, &text));
        let mut clients = Vec::new();
        for _ in 0..pushers {
            clients.push(server.backend().await);
        }
        signal(server.pid(), Signal::STOP);
        Self {
            name,
            pid: server.pid(),
            requests: Rc::new(requests.collect()),
            pushers: clients,
            times: Latencies::default(),
            came,
            count: 0,
            processor: Duration::ZERO,
            _server: Box::new(server),
        }
    }

    async fn turn(&mut self, time: Duration) {
        signal(self.pid, Signal::CONT);
        let begin = Instant::now() + WARM_UP;
        let mut pushing = Vec::new();
        for (n, client) in self.pushers.drain(..).enumerate() {
            let push = push(client, self.requests.clone(), n, [begin, begin + time]);
            pushing.push(tokio::task::spawn_local(push));
        }
        tokio::time::sleep_until(begin.into()).await;
        let (before, came) = (processor(self.pid), self.came.get());
        tokio::time::sleep(time).await;
        self.processor += processor(self.pid).saturating_sub(before);
        self.count += self.came.get() - came;
        for pusher in pushing {
            let (client, times) = pusher.await.unwrap();
            self.pushers.push(client);
            self.times.extend(times);
        }
        signal(self.pid, Signal::STOP);
    }
}

/// Polls for ever, and counts messages.
async fn poll<S: Holding>(server: Rc<S>, mut client: Http, user: String, came: Rc<Cell<usize>>) {
    let mut cursor = None;
    loop {
        let request = server.poll(&user, None, cursor.as_deref());
        let reply = client.ask(&request).await.expect(200);
        let text = reply.text();
        cursor = S::cursor(text);
        came.set(came.get() + text.matches("xx\"").count());
    }
}

/// Counts what comes by a reply without an end.
async fn listen(mut client: Http, request: String, text: String, came: Rc<Cell<usize>>) {
    client.send(&request).await;
    client.head().await;
    loop {
        client.take(upto(text.as_bytes())).await;
        came.set(came.get() + 1);
    }
}
