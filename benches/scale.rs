//! Many users and many messages: what the server does with them while they grow: `cargo bench --bench scale`.
//!
//! Three parts and one more; those that are named on the command line run, with another number if one is given, and the
//! three run where none is named: `cargo bench --bench scale -- pairs=200000 users=20000 pushes=500000 conversation`.
//!
//! - `pairs` (2,000,000): messages between random pairs of `users` (100,000) users, 1,000 in a request, one request after
//!   the other; then `kill -9`, and a start.
//! - `pushes` (5,000,000): one message in a request, from 32 connections that each wait for the receipt.
//! - `conversation` (5,000,000): messages of two users, 1,000 in a request; pages before random ids; `kill -9`, and a
//!   start; then 100 times the same, and the first pages after each. The files are measured at 1,000,000.
//! - `overload=SECONDS` (600), only where it is named: pushes from many connections as fast as they are answered. What is
//!   refused, how long the others take, memory; then `kill -9`, a start, and whether all that was accepted is there.
//! - `memory=USERS` (1,000,000), only where it is named: users who each write once, with a key, and 300,000 memberships of
//!   groups; memory, and after each of two starts; the same with twice as many.
//!
//! `HALLEY_BESIDE` names another halley program, such as an older release: it is measured in the same run. Each has short
//! turns in which the other one is stopped, so that neither takes time from the other, and a machine that gets busy slows
//! both. Sizes on disk are those of blocks, while the server runs; lengths are told too where they differ.

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

#[path = "support/memory.rs"]
mod memory;
#[path = "support/overload.rs"]
mod overload;
mod support;

use std::cell::Cell;
use std::io::Write;

use futures_util::future::join_all;
use support::{
    Halley, Http, Latencies, PAGE, Random, Server, TURNS, about_machine, batch, body, each, pages,
    print, push_batch, run, sides, turn, users,
};

const BODY_BYTES: usize = 256;
const AT_ONCE: usize = 1000;
const CONNECTIONS: usize = 32;
/// What a rate is measured over, at most.
const WINDOW: usize = 100_000;
/// When the files of a conversation are measured.
const MEASURED: usize = 1_000_000;
/// Pages of one measurement.
const PAGES: usize = 5000;
/// The first ones after a start, and the starts from which their percentiles are.
const FIRST: usize = 100;
const STARTS: usize = 100;

/// How many of what; none of a part that does not run.
#[derive(Default)]
struct Sizes {
    pairs: Option<usize>,
    users: Option<usize>,
    pushes: Option<usize>,
    conversation: Option<usize>,
    overload: Option<usize>,
    memory: Option<usize>,
}

fn main() {
    let sizes = sizes();
    println!("scale: messages of {BODY_BYTES} bytes\n{}", about_machine());
    run(async {
        if let Some(count) = sizes.pairs {
            pairs(count, sizes.users.unwrap_or(100_000)).await;
        }
        if let Some(count) = sizes.pushes {
            pushes(count).await;
        }
        if let Some(count) = sizes.conversation {
            conversation(count).await;
        }
        if let Some(seconds) = sizes.overload {
            overload::overload(seconds.try_into().unwrap()).await;
        }
        if let Some(users) = sizes.memory {
            memory::memory(users).await;
        }
    });
}

/// What the command line asks for.
fn sizes() -> Sizes {
    let mut sizes = Sizes::default();
    // cargo adds an option of its own.
    for argument in std::env::args().skip(1).filter(|text| text != "--bench") {
        let (name, number) = argument.split_once('=').unwrap_or((&argument, ""));
        let (size, usual) = match name {
            "pairs" => (&mut sizes.pairs, 2_000_000),
            "users" => (&mut sizes.users, 100_000),
            "pushes" => (&mut sizes.pushes, 5_000_000),
            "conversation" => (&mut sizes.conversation, 5_000_000),
            "overload" => (&mut sizes.overload, 600),
            "memory" => (&mut sizes.memory, 1_000_000),
            _ => panic!("{name} is none of pairs, users, pushes, conversation, overload, memory"),
        };
        let number = if number.is_empty() {
            Ok(usual)
        } else {
            number.parse()
        };
        *size = Some(number.expect("a number stands behind ="));
    }
    let named = [
        sizes.pairs,
        sizes.pushes,
        sizes.conversation,
        sizes.overload,
        sizes.memory,
    ];
    if named == [None; 5] {
        sizes.pairs = Some(2_000_000);
        sizes.pushes = Some(5_000_000);
        sizes.conversation = Some(5_000_000);
    }
    sizes
}

/// A request with messages of random pairs. The names in it are written over, each time at the same places.
struct Pairs {
    request: Vec<u8>,
    /// Where the names of the first message stand, and how long a message is.
    names: [usize; 2],
    item: usize,
    users: usize,
    random: Random,
}

impl Pairs {
    fn new(server: &Halley, users: usize) -> Self {
        let item = format!(
            "{{\"from\":\"u0000000\",\"to\":\"u0000000\",\"body\":{}}},",
            body(BODY_BYTES)
        );
        let items = item.repeat(AT_ONCE);
        let items = format!("[{}]", items.trim_end_matches(','));
        let request = server.request("POST", "/v1/messages", &items);
        let begin = request.len() - items.len() + 1;
        let mut names = item.match_indices("u0").map(|(at, _)| begin + at + 1);
        Self {
            names: [names.next().unwrap(), names.next().unwrap()],
            request: request.into_bytes(),
            item: item.len(),
            users,
            random: Random::default(),
        }
    }

    /// The same number of messages, of other pairs.
    fn next(&mut self) -> &[u8] {
        for message in 0..AT_ONCE {
            let from = self.random.below(self.users);
            let to = (from + 1 + self.random.below(self.users - 1)) % self.users;
            for (name, user) in self.names.iter().zip([from, to]) {
                let at = name + message * self.item;
                write!(&mut self.request[at..at + 7], "{user:07}").unwrap();
            }
        }
        &self.request
    }
}

async fn pairs(count: usize, users: usize) {
    let count = count.next_multiple_of(10 * TURNS * AT_ONCE);
    let mut sides = sides();
    let mut clients = Vec::new();
    for side in &sides {
        clients.push((side.server.backend().await, Pairs::new(&side.server, users)));
    }
    let messages = count / (10 * TURNS);
    for number in 0..10 * TURNS {
        each(&mut sides, async |which, side| {
            let (backend, pairs) = &mut clients[which];
            let work = async {
                for _ in 0..messages / AT_ONCE {
                    push_batch(backend, pairs.next()).await;
                }
            };
            turn(side, messages, work).await;
            if number + 1 == 5 * TURNS {
                side.disk("at half", count / 2);
            }
        })
        .await;
    }
    each(&mut sides, async |_, side| {
        side.disk("at the end", count);
        side.all_rates("tenth");
        side.memory("at the end");
        side.crash().await;
    })
    .await;
    let title = format!(
        "pairs: {count} messages between random pairs of {users} users, {AT_ONCE} in a request"
    );
    print(&title, &sides);
}

async fn pushes(count: usize) {
    let window = WINDOW.min((count / 10).next_multiple_of(TURNS));
    let count = count.next_multiple_of(window).max(2 * window);
    let mut sides = sides();
    let mut clients = Vec::new();
    for side in &sides {
        let requests: Vec<_> = users(1000)
            .iter()
            .map(|user| side.server.push(user, false, &body(BODY_BYTES)))
            .collect();
        let mut backends = Vec::new();
        for _ in 0..CONNECTIONS {
            backends.push(side.server.backend().await);
        }
        clients.push((requests, backends));
    }
    let messages = window / TURNS;
    for _ in 0..count / messages {
        each(&mut sides, async |which, side| {
            let (requests, backends) = &mut clients[which];
            let left = Cell::new(messages);
            let work = backends
                .iter_mut()
                .map(|backend| push(backend, requests, &left));
            let work = async {
                join_all(work).await;
            };
            turn(side, messages, work).await;
        })
        .await;
    }
    each(&mut sides, async |_, side| {
        side.all_rates(&window.to_string());
        side.memory("at the end");
        side.disk("at the end", count);
    })
    .await;
    let title = format!(
        "pushes: {count} messages to 1000 users from {CONNECTIONS} connections, one in a request"
    );
    print(&title, &sides);
}

/// Pushes as long as there are any left.
async fn push(backend: &mut Http, requests: &[String], left: &Cell<usize>) {
    while let Some(rest) = left.get().checked_sub(1) {
        left.set(rest);
        let reply = backend.ask(&requests[rest % requests.len()]).await;
        assert_eq!(reply.status, 201, "{reply:?}");
    }
}

async fn conversation(count: usize) {
    let messages = TURNS * AT_ONCE;
    let count = count.next_multiple_of(messages);
    let measured = MEASURED.min(count);
    let mut sides = sides();
    let mut clients = Vec::new();
    for side in &sides {
        side.server.ready(&users(1), None).await;
        let request = batch(&side.server, &body(BODY_BYTES), AT_ONCE);
        clients.push((side.server.backend().await, request));
    }
    for number in 1..=count / messages {
        each(&mut sides, async |which, side| {
            let (backend, request) = &mut clients[which];
            let work = async {
                for _ in 0..TURNS {
                    push_batch(backend, request.as_bytes()).await;
                }
            };
            turn(side, messages, work).await;
            if number * messages == measured {
                side.disk(&format!("at {measured}"), measured);
            }
        })
        .await;
    }
    each(&mut sides, async |_, side| {
        side.rate_of_all();
        let random = &mut Random::default();
        // The first ones warm up.
        pages(&side.server, random, count, PAGES).await;
        let warm = pages(&side.server, random, count, PAGES).await;
        side.percentiles("pages, warm", warm);
        side.memory("at the end");
        side.crash().await;
        let [mut starts, mut first, mut then] = [(); 3].map(|()| Latencies::default());
        for number in 0..STARTS {
            if number > 0 {
                side.server.kill();
                starts.add(side.server.start_again().await);
            }
            first.extend(pages(&side.server, random, count, 1).await);
            then.extend(pages(&side.server, random, count, FIRST - 1).await);
        }
        side.percentiles("another start after kill -9", starts);
        side.percentiles("the first page after a start", first);
        side.percentiles(&format!("the next {} pages", FIRST - 1), then);
    })
    .await;
    let title = format!(
        "conversation: {count} messages of two users, {AT_ONCE} in a request; pages of {PAGE} before a random id"
    );
    print(&title, &sides);
}
