//! What other servers of this kind have lost, repeated or hidden: for each known hazard a test that fails on
//! a server which falls for it.
//!
//! Proved elsewhere: a pusher that hangs up within the commit (15) by
//! `races::a_push_whose_pusher_left_wakes_held_polls_at_once`; a boot that takes back what was acknowledged
//! (16), beyond the restarts here, by the `durability` tests, which kill and damage. A cursor that only a
//! header carries (17) is here for polls; streams have their own.

mod restarts;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use halley::model::UserName;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::device::{Device, Message, admin, ids, inbox, listed, position, push_many, set_group};
use crate::support::{TestServer, eventually};

/// 2. A cursor that the server does not know is taken silently, and never catches up.
#[tokio::test]
async fn h02_an_unknown_cursor_is_refused_with_where_to_start_over() {
    let server = TestServer::start().await;
    push_many(&server, ("to", "bob"), 0..5).await;
    for (cursor, code) in [
        ("1.0.00000000", "log_unknown"),
        ("6.0", "cursor_ahead"),
        ("5.1", "cursor_ahead"),
        ("18446744073709551615.0", "cursor_ahead"),
    ] {
        let path = format!("/v1/inbox?wait=60&after={cursor}");
        let reply = server.as_user("bob", "GET", &path, "").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (409, code),
            "{cursor}"
        );
        let restart = reply.json()["restart"].as_str().unwrap().to_owned();
        Device::new(&server, "bob", &restart).rest(2).await;
    }
}

/// 3. The reply names a newer cursor than it has messages for.
#[tokio::test]
async fn h03_next_never_passes_what_was_not_given() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    for (direct, group) in [(3, 0), (0, 4), (2, 1), (0, 1), (5, 0)] {
        push_many(&server, ("to", "bob"), 0..direct).await;
        push_many(&server, ("group", "team"), 0..group).await;
    }
    for limit in 1..=17 {
        let mut device = Device::new(&server, "bob", "0");
        loop {
            device.poll(limit, 0).await;
            let mut rest = Device::new(&server, "bob", &device.next);
            let all = [device.got.clone(), rest.rest(1000).await].concat();
            assert_eq!(ids(&all, "direct"), listed(1..=10), "{}", device.next);
            assert_eq!(ids(&all, "group"), listed(1..=6), "{}", device.next);
            if !device.more {
                break;
            }
        }
    }
}

/// 4. A search from the oldest message that gives up early: every recent cursor is "not found".
#[tokio::test]
async fn h04_a_recent_cursor_is_found_behind_a_long_history() {
    let server = TestServer::start().await;
    for _ in 0..5 {
        push_many(&server, ("to", "bob"), 0..1000).await;
    }
    let rest = Device::new(&server, "bob", "4990.0").rest(1000).await;
    assert_eq!(ids(&rest, "direct"), listed(4991..=5000));
    let path = "/v1/direct/sender/messages?after=4998";
    let page = server.as_user("bob", "GET", path, "").await.json();
    assert_eq!(
        (&page["messages"][0]["id"], &page["more"]),
        (&json!(4999), &json!(false))
    );
}

/// 5. A live message moves the cursor before the backlog was given, which is then lost.
#[tokio::test]
async fn h05_the_backlog_comes_before_what_is_live() {
    let server = TestServer::start().await;
    push_many(&server, ("to", "bob"), 0..20).await;
    let mut device = Device::new(&server, "bob", "0");
    let mut pushed = 20;
    while pushed < 60 || device.more {
        let (count, ()) = tokio::join!(device.poll(3, 60), async {
            if pushed < 60 {
                pushed = server.push("alice", "bob", "1").await;
            }
        });
        assert!(count > 0);
    }
    device.rest(3).await;
    assert_eq!(ids(&device.got, "direct"), listed(1..=60));
}

/// 6. A message that is published while a poll expires is in neither reply.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h06_a_push_as_a_poll_expires_is_in_this_reply_or_the_next() {
    let server = TestServer::start().await;
    let mut devices = JoinSet::new();
    for number in 0..200_u64 {
        let user = format!("user-{number}");
        let mut device = Device::new(&server, &user, "0");
        let mut pusher = server.connect_admin().await;
        // One after the other: each wait begins when it is meant to.
        device.ask(10, 2).await;
        let name = UserName::parse(&user).unwrap();
        eventually("the poll is held", || async {
            server.hub.devices(&name).len() == 1
        })
        .await;
        let begin = Instant::now();
        devices.spawn(async move {
            // Aimed at the end of the wait, from a little before to a little after it.
            let aim = begin + Duration::from_micros(1_990_000 + number * 100);
            let path = format!("/v1/direct/{user}/messages");
            let push = async {
                tokio::time::sleep_until(aim.into()).await;
                let body = "{\"from\":\"a\",\"body\":1}";
                admin(&mut pusher, "POST", &path, "", body).await
            };
            let (_, pushed) = tokio::join!(device.answered(), push);
            device.rest(10).await;
            let id = pushed.json()["id"].as_u64().unwrap();
            assert_eq!(ids(&device.got, "direct"), [id], "aimed {number}");
        });
    }
    devices.join_all().await;
}

/// 7. `after` with a limit gives the newest, and leaves a hole in the middle.
#[tokio::test]
async fn h07_a_limit_gives_the_oldest_first() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    push_many(&server, ("to", "bob"), 0..10).await;
    push_many(&server, ("group", "team"), 0..10).await;
    let mut device = Device::new(&server, "bob", "2.10");
    device.poll(3, 0).await;
    assert_eq!(ids(&device.got, "direct"), [3, 4, 5]);
    for path in ["/v1/direct/sender/messages", "/v1/groups/team/messages"] {
        let reply = server
            .as_user("bob", "GET", &format!("{path}?after=2&limit=3"), "")
            .await;
        let page = reply.json();
        let ids: Vec<&Value> = (0..3).map(|n| &page["messages"][n]["id"]).collect();
        assert_eq!(ids, [3, 4, 5], "{path}");
        assert_eq!(page["more"], true);
    }
}

/// 8. Messages of the same second cannot be told apart, and one is repeated without end.
#[tokio::test]
async fn h08_messages_of_one_moment_come_once_each() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    let item = |n: u64| match n % 2 {
        0 => json!({ "to": "bob", "from": "a", "body": n }),
        _ => json!({ "group": "team", "from": "a", "body": n }),
    };
    let items = (0..60).map(item).collect::<Value>().to_string();
    assert_eq!(
        server.as_admin("POST", "/v1/messages", &items).await.status,
        200
    );
    let mut device = Device::new(&server, "bob", "0");
    for _ in 0..60 {
        assert_eq!(device.poll(1, 0).await, 1);
    }
    assert_eq!(device.poll(1, 0).await, 0, "all were given");
    assert!(
        device
            .got
            .iter()
            .all(|message| message.at == device.got[0].at),
        "one moment"
    );
    assert_eq!(ids(&device.got, "direct"), listed(1..=30));
    assert_eq!(ids(&device.got, "group"), listed(1..=30));
}

/// 9. Several lists paged with one limit: the place in one is taken for the place in another.
#[tokio::test]
async fn h09_many_groups_in_small_pages_come_once_each_and_end() {
    let server = TestServer::start().await;
    let groups: Vec<String> = (0..12).map(|n| format!("group-{n}")).collect();
    for group in &groups {
        set_group(&server, group, &["bob"]).await;
    }
    for (number, group) in groups.iter().enumerate() {
        let count = u64::try_from(number * number % 23).unwrap();
        push_many(&server, ("group", group), 0..count).await;
        push_many(&server, ("to", "bob"), 0..count / 3).await;
        push_many(&server, ("group", &groups[0]), 0..1).await;
    }
    let whole = inbox(&server, "bob").await;
    let head = server.hub.status().watermark;
    for limit in 1..=12 {
        let mut device = Device::new(&server, "bob", "0");
        let mut pages = 0;
        while pages == 0 || device.more {
            let left = whole.len() - device.got.len();
            assert_eq!(device.poll(limit, 0).await, limit.min(left));
            pages += 1;
        }
        assert_eq!(pages, whole.len().div_ceil(limit));
        assert_eq!(device.got, whole);
        assert_eq!(position(&device.next), (head.direct, head.group));
    }
}

/// Whether nothing is missing, as far as the messages themselves tell.
fn whole<'a>(messages: impl Iterator<Item = &'a Message>) -> bool {
    let mut last = HashMap::new();
    messages.fold(true, |whole, message| {
        let before = last.insert(message.chain(), (message.id, message.n));
        let (id, n) = before.unwrap_or((0, 0));
        whole && (message.prev, message.n) == (id, n + 1)
    })
}

/// 10. "Did I miss anything?" has no answer.
#[tokio::test]
async fn h10_a_client_can_tell_that_it_lacks_a_message() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    for _ in 0..5 {
        push_many(&server, ("to", "bob"), 0..2).await;
        push_many(&server, ("to", "carol"), 0..1).await;
        push_many(&server, ("group", "team"), 0..2).await;
    }
    let all = inbox(&server, "bob").await;
    assert_eq!(all.len(), 20);
    assert!(whole(all.iter()));
    for lost in all.iter().filter(|message| {
        all.iter()
            .any(|later| later.prev == message.id && later.sequence == message.sequence)
    }) {
        assert!(
            !whole(all.iter().filter(|message| *message != lost)),
            "not noticed: {lost:?}"
        );
    }
}

/// 12. An id is given before the commit, and a reader's cursor passes what is not visible yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h12_no_cursor_passes_an_id_that_is_not_visible_yet() {
    let server = TestServer::start().await;
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let mut http = server.connect_admin().await;
        tasks.spawn(async move {
            for _ in 0..50 {
                let body = "{\"from\":\"a\",\"body\":1}";
                let reply = admin(&mut http, "POST", "/v1/direct/bob/messages", "", body).await;
                assert_eq!(reply.status, 201);
            }
        });
    }
    for wait_s in [0, 0, 0, 5] {
        let mut device = Device::new(&server, "bob", "0");
        tasks.spawn(async move {
            while device.got.len() < 800 {
                device.poll(1000, wait_s).await;
                let count = u64::try_from(device.got.len()).unwrap();
                assert_eq!(position(&device.next).0, count, "all are for bob");
            }
            assert_eq!(ids(&device.got, "direct"), listed(1..=800));
        });
    }
    tasks.join_all().await;
}

/// 13. What is buffered for a reader is shorter than the time it was away.
#[tokio::test]
async fn h13_more_than_any_buffer_holds_is_given_in_full() {
    let server = TestServer::start().await;
    let mut device = Device::new(&server, "bob", "0");
    let mut pushed = 0;
    for (bodies, limit) in [(1000, 10), (65, 10), (65, 1000), (200, 64), (1000, 1000)] {
        device.ask(limit, 60).await;
        server.wait_held("bob", 1).await;
        // One entry, more than a waiting reader's mailbox takes.
        push_many(&server, ("to", "bob"), 0..bodies).await;
        pushed += bodies;
        device.answered().await;
        device.rest(limit).await;
        assert_eq!(ids(&device.got, "direct"), listed(1..=pushed));
    }
}

/// 14. A retried push is stored twice.
#[tokio::test]
async fn h14_a_retried_push_is_stored_once() {
    let server = TestServer::start().await;
    let mut http = server.connect_admin().await;
    let (path, body) = ("/v1/direct/bob/messages", "{\"from\":\"a\",\"body\":1}");
    let mut device = Device::new(&server, "bob", "0");
    for retry in 0..3 {
        let reply = admin(&mut http, "POST", path, "idempotency-key: k", body).await;
        assert_eq!(
            (&reply.json()["id"], &reply.json()["duplicate"]),
            (&json!(1), &json!(retry > 0))
        );
    }
    device.rest(10).await;
    assert_eq!(ids(&device.got, "direct"), [1]);
}

/// 17. The place to go on from is not in the body, where every client can read it.
#[tokio::test]
async fn h17_the_cursor_is_in_every_body() {
    let server = TestServer::start().await;
    let mut device = Device::new(&server, "bob", "0");
    assert_eq!(device.poll(10, 0).await, 0);
    assert_eq!(position(&device.next), (0, 0), "without messages");
    device.ask(10, 60).await;
    server.wait_held("bob", 1).await;
    server.push("alice", "bob", "1").await;
    device.answered().await;
    assert_eq!(position(&device.next), (1, 0), "after a wait");
    device.ask(10, 60).await;
    server.wait_held("bob", 1).await;
    server.hub.begin_close();
    device.answered().await;
    assert_eq!(position(&device.next), (1, 0), "at the end of the server");
}

/// 18. The connection breaks before all is given, and what was given already comes again.
#[tokio::test]
async fn h18_a_reader_that_breaks_off_goes_on_behind_its_last_page() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    push_many(&server, ("to", "bob"), 0..20).await;
    push_many(&server, ("group", "team"), 0..20).await;
    let mut device = Device::new(&server, "bob", "0");
    for _ in 0..5 {
        assert_eq!(device.poll(7, 60).await, 7);
        assert!(device.more);
        drop(device.leave());
        eventually("it is gone", || async { server.held("bob").await == 0 }).await;
    }
    assert_eq!(device.poll(7, 60).await, 5);
    assert_eq!(ids(&device.got, "direct"), listed(1..=20));
    assert_eq!(ids(&device.got, "group"), listed(1..=20));
}
