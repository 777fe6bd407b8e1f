//! Memory of a held poll, and of a connection that stays open after one: `cargo bench --bench held`.
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

use support::{Client, Halley, Nchan, Server, about_machine, body, load, run, users};

fn main() {
    println!(
        "held: server memory a connection, bytes\n{}\n",
        about_machine()
    );
    println!(
        "| server | connections | held, fresh | held again after one message each | idle after a poll |"
    );
    println!("|---|---|---|---|---|");
    let ours: Vec<u64> = [1000, 10_000]
        .map(|count| row::<Halley>(count, true))
        .into();
    if Nchan::is_installed() {
        let theirs: Vec<u64> = [1000, 10_000]
            .map(|count| row::<Nchan>(count, false))
            .into();
        println!();
        for (n, (ours, theirs)) in [1000, 10_000].iter().zip(ours.iter().zip(&theirs)) {
            println!(
                "{n} held polls: Halley / nchan = {:.2}",
                *ours as f64 / *theirs as f64
            );
        }
    }
    println!("\nload average after: {}", load());
}

/// Prints one row; the memory of a fresh held poll.
fn row<S: Server>(count: usize, with_idle: bool) -> u64 {
    let mut fresh = 0;
    run(async {
        let (held, again) = held::<S>(count).await;
        let idle = if with_idle {
            idle(count).await.to_string()
        } else {
            "-".into()
        };
        println!("| {} | {count} | {held} | {again} | {idle} |", S::NAME);
        fresh = held;
    });
    fresh
}

async fn held<S: Server>(count: usize) -> (u64, u64) {
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
        let (status, reply) = backend.ask(&server.push(user, false, &text)).await;
        assert!((200..300).contains(&status), "{status} {reply}");
    }
    for (client, user) in clients.iter_mut().zip(&users) {
        let (_, reply) = client.answer().await;
        let cursor = S::cursor(&reply);
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
    let mut clients: Vec<Client> = Vec::with_capacity(count);
    for user in &users {
        let mut client = server.client().await;
        let (status, reply) = client.ask(&server.look(user)).await;
        assert_eq!(status, 200, "{reply}");
        clients.push(client);
    }
    share(&server, before, count)
}

fn share<S: Server>(server: &S, before: u64, count: usize) -> u64 {
    server.memory().saturating_sub(before) / count as u64
}
