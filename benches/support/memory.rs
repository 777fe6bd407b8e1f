//! What a server takes in memory, and how long it takes to start, with many users, memberships and idempotency keys:
//! `memory=USERS` of `cargo bench --bench scale`.

use super::support::{Halley, Http, Server, each, print, push_batch, sides};

const AT_ONCE: usize = 1000;
/// Of each group.
const MEMBERS: usize = 2000;

/// Users who each write once, with a key; three of ten are in a group; then as many more. The server is killed twice:
/// the second start has no more to apply than the first left.
pub(super) async fn memory(users: usize) {
    let users = users.next_multiple_of(10 * MEMBERS);
    let mut sides = sides();
    for round in 0..2 {
        each(&mut sides, async |_, side| {
            load(&side.server, round * users, users).await;
            let when = format!("with {}", (round + 1) * users);
            side.memory(&when);
            for start in ["a", "another"] {
                side.server.kill();
                let started = side.server.start_again().await;
                let what = format!("{start} start {when}");
                side.figure(&format!("{what}, s"), started.as_secs_f64());
                side.memory(&format!("behind {what}"));
            }
        })
        .await;
    }
    let (memberships, twice) = (users * 3 / 10, 2 * users);
    let title = format!(
        "memory: {users} users who each wrote once with a key, {memberships} memberships; and {twice} of all"
    );
    print(&title, &sides);
}

async fn load(server: &Halley, first: usize, users: usize) {
    let mut backend = server.backend().await;
    for from in (first..first + users).step_by(AT_ONCE) {
        let item = |user: usize| {
            format!(
                "{{\"from\":\"user-{user:08}\",\"to\":\"user-00000000\",\"body\":1,\"idempotency_key\":\"key-{user}\"}}"
            )
        };
        let items: Vec<_> = (from..from + AT_ONCE).map(item).collect();
        let batch = server.request("POST", "/v1/messages", &format!("[{}]", items.join(",")));
        push_batch(&mut backend, batch.as_bytes()).await;
    }
    for from in (first..first + users * 3 / 10).step_by(MEMBERS) {
        let members = from..(from + MEMBERS).min(first + users * 3 / 10);
        make(&mut backend, server, from, members).await;
    }
}

async fn make(backend: &mut Http, server: &Halley, group: usize, members: std::ops::Range<usize>) {
    let names: Vec<_> = members.map(|user| format!("\"user-{user:08}\"")).collect();
    let members = format!("{{\"members\":[{}]}}", names.join(","));
    let make = server.request("PUT", &format!("/v1/groups/group-{group}"), &members);
    while backend.ask(&make).await.status == 503 {}
}
