//! What the server promises to everyone, promise by promise, as clients see it.
//!
//! Visible in id order: `races::many`. A pusher that hangs up: `races`. What a power loss, a kill or a failed
//! write may do, and live copies: the `durability` tests. Logs that part, and restarts: `logs`. Limits: `limits`.
//! Numbers within conversations and groups: `numbers`.

mod limits;
mod logs;
mod numbers;

use halley::hub::Durability;
use serde_json::{Value, json};

use crate::device::{
    Device, Folder, Page, admin, ids, inbox, listed, position, push_group, push_many, set_group,
};
use crate::support::{TestServer, eventually};

/// Promise 1.
#[tokio::test]
async fn ids_rise_by_one_and_are_never_given_twice() {
    let folder = Folder::new();
    let (mut direct, mut group) = (Vec::new(), Vec::new());
    for run in 0..4 {
        let server = folder.serve().await;
        set_group(&server, "team", &["bob"]).await;
        direct.push(server.push("alice", "bob", "1").await);
        group.push(push_group(&server, "team", "1").await);
        direct.extend(push_many(&server, ("to", "bob"), 0..3).await);
        group.extend(push_many(&server, ("group", "team"), 0..2).await);
        drop(server);
        if run == 1 {
            // Made anew from the journal.
            std::fs::remove_dir_all(folder.path().join("sled")).unwrap();
        }
    }
    assert_eq!(direct, listed(1..=16));
    assert_eq!(group, listed(1..=12));
}

/// Bytes of the journal, once all that was applied is counted: the figure follows the receipt.
async fn settled(server: &TestServer) -> u64 {
    let counted = || async {
        let status = server.hub.status();
        status.journal.offset == status.applied
    };
    eventually("all entries are counted", counted).await;
    server.hub.status().journal.bytes
}

/// Promise 2.
#[tokio::test]
async fn a_message_is_stored_once_however_many_receive_it() {
    let server = TestServer::start().await;
    let many: Vec<String> = (0..2000).map(|n| format!("member-{n}")).collect();
    set_group(&server, "few1", &["ann", "bob"]).await;
    set_group(
        &server,
        "many",
        &many.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    let body = format!("\"{}\"", "x".repeat(10_000));
    let mut growth = Vec::new();
    for group in ["few1", "many"] {
        let before = settled(&server).await;
        push_group(&server, group, &body).await;
        growth.push(settled(&server).await - before);
    }
    // The two may differ by the digits of the time.
    assert!(
        growth[0].abs_diff(growth[1]) < 16,
        "bytes for 2 and for 2000 members: {growth:?}"
    );
    assert!(growth[0] < 10_500, "{growth:?}");
    let before = server.status().await["view_bytes"].as_u64().unwrap();
    push_many(&server, ("group", "many"), 0..400).await;
    let grown = server.status().await["view_bytes"].as_u64().unwrap() - before;
    assert!(
        grown < 4 << 20,
        "an index entry for each member would be 12 MB: {grown}"
    );
    for member in ["member-0", "member-1999"] {
        assert_eq!(inbox(&server, member).await.len(), 401);
    }
}

/// Promise 3, as far as a living process shows it.
#[tokio::test]
async fn what_a_reader_sees_or_a_pusher_is_told_is_in_the_journal() {
    let folder = Folder::new();
    let always = |options: &mut halley::hub::Options| {
        options.data = folder.path();
        options.durability = Durability::Always;
    };
    let server = TestServer::with_hub(always, |_| {}).await;
    let in_journal = |text: &str| {
        let files = std::fs::read_dir(folder.path().join("journal")).unwrap();
        let mut texts = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        texts.any(|bytes| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        })
    };
    let mut device = Device::new(&server, "bob", "0");
    let mut pusher = server.connect_admin().await;
    for round in 0..20 {
        let text = format!("unmistakable {round}");
        device.ask(10, 60).await;
        let body = json!({ "from": "alice", "body": text }).to_string();
        let push = async {
            let reply = admin(&mut pusher, "POST", "/v1/direct/bob/messages", "", &body).await;
            assert_eq!(reply.status, 201);
            assert!(in_journal(&text), "acknowledged, not written");
        };
        let read = async {
            device.answered().await;
            assert!(in_journal(&text), "visible, not written");
        };
        tokio::join!(push, read);
    }
}

/// Promise 5.
#[tokio::test]
async fn a_cursor_goes_on_for_any_device_in_any_pieces() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    let mut cursors = vec!["0".to_owned()];
    for n in 0..30 {
        server.push("alice", "bob", &n.to_string()).await;
        push_group(&server, "team", &n.to_string()).await;
        let mut device = Device::new(&server, "bob", "now");
        device.poll(1, 0).await;
        cursors.push(device.next);
    }
    for (number, cursor) in cursors.iter().enumerate() {
        for limit in [1, 7, 1000] {
            let mut device = Device::new(&server, "bob", cursor);
            let rest = device.rest(limit).await;
            let first = u64::try_from(number).unwrap() + 1;
            assert_eq!(
                ids(&rest, "direct"),
                listed(first..=30),
                "{cursor} by {limit}"
            );
            assert_eq!(
                ids(&rest, "group"),
                listed(first..=30),
                "{cursor} by {limit}"
            );
        }
    }
    // A cursor in between, as no page gave it, means what its numbers say.
    let rest = Device::new(&server, "bob", "3.27").rest(4).await;
    assert_eq!(ids(&rest, "direct"), listed(4..=30));
    assert_eq!(ids(&rest, "group"), listed(28..=30));
}

/// Promise 5.
#[tokio::test]
async fn the_cursor_moves_on_also_when_nothing_came() {
    let server = TestServer::start().await;
    set_group(&server, "others", &["carol"]).await;
    let mut idle = Device::new(&server, "bob", "0");
    let mut held = Device::new(&server, "bob", "0");
    held.ask(10, 1).await;
    server.wait_held("bob", 1).await;
    for _ in 0..3 {
        server.push("alice", "carol", "1").await;
        push_group(&server, "others", "1").await;
    }
    assert_eq!(held.answered().await, 0);
    assert_eq!(position(&held.next), (3, 3), "after waiting");
    assert_eq!(idle.poll(10, 0).await, 0);
    assert_eq!(position(&idle.next), (3, 3), "at once");
    let own = server.push("alice", "bob", "2").await;
    server.push("alice", "carol", "1").await;
    push_group(&server, "others", "1").await;
    assert_eq!(ids(&idle.rest(10).await, "direct"), [own]);
    assert_eq!(position(&idle.next), (own + 1, 4), "behind what came");
}

/// Promise 6.
#[tokio::test]
async fn each_conversation_and_group_is_a_chain_that_begins_at_0() {
    let server = TestServer::start().await;
    set_group(&server, "one", &["bob"]).await;
    set_group(&server, "two", &["bob"]).await;
    for _ in 0..4 {
        server.push("alice", "bob", "1").await;
        server.push("bob", "alice", "1").await;
        server.push("bob", "bob", "1").await;
        server.push("carol", "bob", "1").await;
        server.push("carol", "dave", "1").await;
        push_group(&server, "one", "1").await;
        push_group(&server, "two", "1").await;
    }
    let mut last = std::collections::HashMap::new();
    for message in inbox(&server, "bob").await {
        let prev = last.insert(message.chain(), message.id).unwrap_or(0);
        assert_eq!(message.prev, prev, "{message:?}");
    }
    assert_eq!(last.len(), 5, "with alice, himself, carol, and two groups");
}

/// Promise 7.
#[tokio::test]
async fn one_cursor_of_two_numbers_covers_a_hundred_groups() {
    let server = TestServer::start().await;
    let groups: Vec<String> = (0..100).map(|n| format!("group-{n}")).collect();
    for group in &groups {
        set_group(&server, group, &["bob"]).await;
    }
    let mut device = Device::new(&server, "bob", "0");
    for round in 0..3_usize {
        let item =
            |n: usize| json!({ "group": groups[(n * 37 + round) % 100], "from": "a", "body": n });
        let items = (0..200).map(item).collect::<Value>().to_string();
        assert_eq!(
            server.as_admin("POST", "/v1/messages", &items).await.status,
            200
        );
        server.push("alice", "bob", "1").await;
        let came = device.rest(7).await;
        let first = u64::try_from(round).unwrap() * 200 + 1;
        assert_eq!(ids(&came, "group"), listed(first..first + 200));
        assert_eq!(ids(&came, "direct").len(), 1);
        assert_eq!(
            device.next.split('.').count(),
            3,
            "two numbers and the log: {}",
            device.next
        );
    }
}

/// Promise 8.
#[tokio::test]
async fn a_member_sees_what_was_sent_while_a_member() {
    let server = TestServer::start().await;
    let member = async |method: &str, group: &str| {
        let path = format!("/v1/groups/{group}/members/bob");
        assert_eq!(server.as_admin(method, &path, "").await.status, 200);
    };
    for (group, history) in [("closed", "member"), ("open", "all")] {
        let body = json!({ "members": ["ann"], "history": history }).to_string();
        server
            .as_admin("PUT", &format!("/v1/groups/{group}"), &body)
            .await;
        let before = push_group(&server, group, "\"before\"").await;
        let mut stranger = Device::new(&server, "bob", "now");
        stranger.poll(1, 0).await;
        member("PUT", group).await;
        let first = push_group(&server, group, "\"in\"").await;
        member("DELETE", group).await;
        let between = push_group(&server, group, "\"out\"").await;
        member("PUT", group).await;
        let second = push_group(&server, group, "\"in again\"").await;
        member("DELETE", group).await;
        let after = push_group(&server, group, "\"gone\"").await;

        assert_eq!(
            ids(&stranger.rest(1).await, "group"),
            [first, second],
            "{group}: inbox"
        );
        let path = format!("/v1/groups/{group}/messages");
        let reply = server.as_user("bob", "GET", &path, "").await;
        let seen = ids(&Page::of(&reply).messages, "group");
        let expected = match history {
            "all" => vec![before, first, between, second],
            _ => vec![first, second],
        };
        assert_eq!(seen, expected, "{group}: history, read after leaving");
        let path = format!("/v1/groups/{group}/messages?after={before}&limit=1");
        let page = Page::of(&server.as_user("bob", "GET", &path, "").await);
        assert_eq!(
            (ids(&page.messages, "group"), page.more),
            (vec![first], true)
        );
        let all = Page::of(
            &server
                .as_user("ann", "GET", &format!("/v1/groups/{group}/messages"), "")
                .await,
        );
        assert_eq!(
            ids(&all.messages, "group"),
            [before, first, between, second, after]
        );
    }
    let never = server
        .as_user("eve", "GET", "/v1/groups/open/messages", "")
        .await;
    assert_eq!(never.code(), "group_not_found");
}

/// Promise 8.
#[tokio::test]
async fn who_leaves_while_waiting_gets_nothing_more_and_who_joins_does() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["ann", "bob"]).await;
    let (mut bob, mut cid) = (
        Device::new(&server, "bob", "0"),
        Device::new(&server, "cid", "0"),
    );
    bob.ask(10, 60).await;
    cid.ask(10, 60).await;
    server.wait_held("bob", 1).await;
    server.wait_held("cid", 1).await;
    set_group(&server, "team", &["ann", "cid"]).await;
    let id = push_group(&server, "team", "1").await;
    assert_eq!(cid.answered().await, 1);
    let own = server.push("ann", "bob", "2").await;
    bob.answered().await;
    assert_eq!(
        (ids(&bob.got, "group"), ids(&bob.got, "direct")),
        (vec![], vec![own])
    );
    assert_eq!(ids(&cid.got, "group"), [id]);
}
