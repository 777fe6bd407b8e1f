//! Memory of a held poll, of an open event source and WebSocket, and of a connection that stays open after a poll:
//! `cargo bench --bench held`.
//!
//! Resident memory of the server before and after, divided by the connections; each user holds one poll.
//! The kernel adds memory for the sockets, the same for every server.

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

const COUNTS: [usize; 2] = [1000, 10_000];

use support::http::upto;
use support::{
    Endless, Halley, Holding, Http, Nchan, Server, about_machine, body, load, run, users,
};

fn main() {
    println!(
        "held: server memory a connection, bytes\n{}\n",
        about_machine()
    );
    println!("| server | transport | connections | held, fresh | after one message each |");
    println!("|---|---|---|---|---|");
    let ours = rows::<Halley>();
    if Nchan::is_installed() {
        let theirs = rows::<Nchan>();
        println!();
        for ((what, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            let ratio = *ours as f64 / *theirs as f64;
            println!("{what}, fresh: Halley / nchan = {ratio:.2}");
        }
    }
    run(async {
        for count in COUNTS {
            let idle = idle(count).await;
            println!("{count} of Halley's connections, idle after a poll: {idle} each");
        }
    });
    println!("\nload average after: {}", load());
}

/// Prints a row for each transport and count; the memory of the fresh connections.
fn rows<S: Holding>() -> Vec<(String, u64)> {
    let mut fresh = Vec::new();
    for how in [None, Some(Endless::Events), Some(Endless::Socket)] {
        for count in COUNTS {
            run(async {
                let (held, after) = match how {
                    None => held::<S>(count).await,
                    Some(how) => open::<S>(how, count).await,
                };
                let how = how.map_or("poll", Endless::name);
                println!("| {} | {how} | {count} | {held} | {after} |", S::NAME);
                fresh.push((format!("{count} by {how}"), held));
            });
        }
    }
    fresh
}

/// Of clients that listen without an end.
async fn open<S: Holding>(how: Endless, count: usize) -> (u64, u64) {
    let server = S::start();
    let users = users(count);
    server.ready(&users, None).await;
    let before = server.memory();
    let mut clients = Vec::with_capacity(count);
    for user in &users {
        let mut client = server.client().await;
        client.send(&server.listen(how, user)).await;
        client.head().await;
        clients.push(client);
    }
    server.wait_held(count).await;
    let fresh = share(&server, before, count);
    let mut backend = server.backend().await;
    let text = body(64);
    for user in &users {
        let reply = backend.ask(&server.push(user, false, &text)).await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
    }
    for client in &mut clients {
        client.take(upto(text.as_bytes())).await;
    }
    (fresh, share(&server, before, count))
}

async fn held<S: Holding>(count: usize) -> (u64, u64) {
    let server = S::start();
    let users = users(count);
    server.ready(&users, None).await;
    let before = server.memory();
    let mut clients = Vec::with_capacity(count);
    for user in &users {
        let mut client = server.client().await;
        client.send(&server.poll(user, None, None)).await;
        clients.push(client);
    }
    server.wait_held(count).await;
    let fresh = share(&server, before, count);
    let mut backend = server.backend().await;
    let text = body(64);
    for user in &users {
        let reply = backend.ask(&server.push(user, false, &text)).await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
    }
    for (client, user) in clients.iter_mut().zip(&users) {
        let reply = client.reply().await;
        let cursor = S::cursor(reply.text());
        client
            .send(&server.poll(user, None, cursor.as_deref()))
            .await;
    }
    server.wait_held(count).await;
    (fresh, share(&server, before, count))
}

/// Of connections whose poll was answered and which stay open.
async fn idle(count: usize) -> u64 {
    let server = Halley::start();
    let users = users(count);
    server.ready(&users, None).await;
    let before = server.memory();
    let mut clients: Vec<Http> = Vec::with_capacity(count);
    for user in &users {
        let mut client = server.client().await;
        client.ask(&server.look(user)).await.expect(200);
        clients.push(client);
    }
    share(&server, before, count)
}

fn share<S: Holding>(server: &S, before: u64, count: usize) -> u64 {
    server.memory().saturating_sub(before) / count as u64
}
