//! Promises that span more than one server: restarts, copies, retries, and what was never this log.

use serde_json::{Value, json};

use crate::device::{
    Device, Folder, Page, admin, ids, inbox, listed, position, push_many, set_group,
};
use crate::support::{Http, Reply, TestServer};

const PUSH: &str = "/v1/direct/bob/messages";

async fn stop(server: TestServer) {
    // Closing waits for readers, who need this runtime.
    let hub = server.hub.clone();
    tokio::task::spawn_blocking(move || hub.close())
        .await
        .unwrap();
}

async fn keyed(http: &mut Http, path: &str, key: &str, body: &str) -> Reply {
    admin(http, "POST", path, &format!("idempotency-key: {key}"), body).await
}

/// Promise 9.
#[tokio::test]
async fn a_retried_push_is_stored_once_also_after_a_restart() {
    let folder = Folder::new();
    let one = "{\"from\":\"a\",\"body\":{\"x\": 1}}";
    let items = "[{\"to\":\"bob\",\"from\":\"a\",\"body\":1},{\"group\":\"team\",\"from\":\"a\",\"body\":1},\
                 {\"group\":\"none\",\"from\":\"a\",\"body\":1},{\"to\":\"bob\",\"from\":\"a\",\"body\":1}]";
    let mut first: Option<(Value, Value)> = None;
    for run in 0..4 {
        let server = folder.serve().await;
        set_group(&server, "team", &["bob"]).await;
        let mut http = server.connect_admin().await;
        for _ in 0..2 {
            let reply = keyed(&mut http, PUSH, "key", one).await;
            let array = keyed(&mut http, "/v1/messages", "array", items)
                .await
                .json()["results"]
                .clone();
            let Some((receipt, results)) = &first else {
                assert_eq!(
                    (reply.status, &reply.json()["duplicate"]),
                    (201, &json!(false))
                );
                first = Some((reply.json(), array));
                continue;
            };
            assert_eq!(reply.status, 200, "run {run}");
            let mut same = receipt.clone();
            same["duplicate"] = true.into();
            assert_eq!(reply.json(), same, "run {run}");
            for (result, again) in results
                .as_array()
                .unwrap()
                .iter()
                .zip(array.as_array().unwrap())
            {
                let mut same = result.clone();
                if result["error"].is_null() {
                    same["duplicate"] = true.into();
                }
                assert_eq!(*again, same, "run {run}");
            }
        }
        for other in [
            "{\"from\":\"a\",\"body\":{\"x\":1}}",
            "{\"from\":\"b\",\"body\":{\"x\": 1}}",
        ] {
            let reply = keyed(&mut http, PUSH, "key", other).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (422, "idempotency_conflict")
            );
        }
        for other in ["/v1/direct/carol/messages", "/v1/groups/bob/messages"] {
            let elsewhere = keyed(&mut http, other, "key", one).await;
            assert_eq!(elsewhere.status, 422, "the same key for {other}");
        }
        let all = inbox(&server, "bob").await;
        assert_eq!(
            (ids(&all, "direct"), ids(&all, "group")),
            (vec![1, 2, 3], vec![1])
        );
        drop(http);
        stop(server).await;
        if run == 1 {
            std::fs::remove_dir_all(folder.path().join("sled")).unwrap();
        }
    }
}

/// Promise 9: those who retry at the same moment get the same receipt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_that_race_are_one_push() {
    let server = TestServer::start().await;
    for round in 1..=10_u64 {
        let mut retries = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut http = server.connect_admin().await;
            let key = format!("key {round}");
            retries.spawn(async move {
                keyed(&mut http, PUSH, &key, "{\"from\":\"a\",\"body\":1}").await
            });
        }
        let replies = retries.join_all().await;
        assert!(
            replies.iter().all(|reply| reply.json()["id"] == round),
            "{replies:?}"
        );
        assert_eq!(
            replies.iter().filter(|reply| reply.status == 201).count(),
            1
        );
    }
    assert_eq!(inbox(&server, "bob").await.len(), 10);
}

/// Time never falls within a sequence, nor over a restart.
#[tokio::test]
async fn the_time_of_messages_never_falls() {
    let folder = Folder::new();
    for _ in 0..3 {
        let server = folder.serve().await;
        for _ in 0..5 {
            push_many(&server, ("to", "bob"), 0..4).await;
        }
        stop(server).await;
    }
    let server = folder.serve().await;
    let all = inbox(&server, "bob").await;
    assert_eq!(all.len(), 60);
    assert!(all.is_sorted_by_key(|message| message.at));
}

/// A body is any JSON, and comes back byte for byte: at once, later, and from a view made anew.
#[tokio::test]
async fn bodies_come_back_byte_for_byte() {
    let bodies = [
        "{ \"b\" :\t1 ,\r\n \"a\":[ ] }",
        "123456789012345678901234567890.000100e+0200",
        "-0.0",
        "1E300",
        "{\"twice\":1,\"Twice\":2,\"\":{\"\":null}}",
        "\"\\u0000\\u00e9\\ud83d\\ude00\\/ \\\" é 😀 \u{2028} \u{7f}\"",
        "null",
        "false",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
        "{\"$serde_json::private::RawValue\":\"1\"}",
    ];
    let folder = Folder::new();
    let server = folder.serve().await;
    for body in bodies {
        let mut http = server.poll_held("bob").await;
        server.push("alice", "bob", body).await;
        let reply = http.reply().await;
        assert!(
            reply.text().contains(&format!("\"body\":{body}}}")),
            "{body}: {}",
            reply.text()
        );
    }
    stop(server).await;
    for run in 0..2 {
        let server = folder.serve().await;
        let reply = server.as_user("bob", "GET", "/v1/inbox?wait=0", "").await;
        let history = server
            .as_user("bob", "GET", "/v1/direct/alice/messages", "")
            .await;
        for body in bodies {
            let text = format!("\"body\":{body}}}");
            assert!(
                reply.text().contains(&text) && history.text().contains(&text),
                "{run}: {body}"
            );
        }
        stop(server).await;
        std::fs::remove_dir_all(folder.path().join("sled")).unwrap();
    }
}

/// Promise 6: a cursor of the log that a copy came from goes on up to where they parted, and not beyond.
#[tokio::test]
async fn a_copied_log_goes_on_for_old_cursors_up_to_where_they_parted() {
    let folder = Folder::new();
    let server = folder.serve().await;
    set_group(&server, "team", &["bob"]).await;
    push_many(&server, ("to", "bob"), 0..3).await;
    push_many(&server, ("group", "team"), 0..2).await;
    let mut shared = Device::new(&server, "bob", "0");
    shared.poll(2, 0).await;
    stop(server).await;
    let copy = folder.copy();

    let (old, new) = (folder.serve().await, copy.serve().await);
    push_many(&old, ("to", "bob"), 10..12).await;
    push_many(&old, ("group", "team"), 10..11).await;
    let mut beyond = Device::new(&old, "bob", "0");
    assert_eq!(beyond.rest(100).await.len(), 8);
    push_many(&new, ("to", "bob"), 20..24).await;
    push_many(&new, ("group", "team"), 20..24).await;
    assert_ne!(old.hub.log(), new.hub.log());

    let mut moved = Device::new(&new, "bob", &shared.next);
    let all = [shared.got.clone(), moved.rest(3).await].concat();
    assert_eq!(ids(&all, "direct"), listed(1..=7));
    assert_eq!(ids(&all, "group"), listed(1..=6));
    // The numbers alone would pass: the new log has more messages of its own.
    assert!(position(&beyond.next).0 < 7);
    for wait in ["0", "60"] {
        let path = format!("/v1/inbox?wait={wait}&after={}", beyond.next);
        let reply = new.as_user("bob", "GET", &path, "").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (409, "cursor_ahead"),
            "{reply:?}"
        );
        let restart = reply.json()["restart"].as_str().unwrap().to_owned();
        assert_eq!(position(&restart), (3, 2));
        assert_eq!(reply.json()["log"], new.hub.log().to_string());
        let rest = Device::new(&new, "bob", &restart).rest(100).await;
        assert_eq!(ids(&rest, "direct"), listed(4..=7));
        assert_eq!(ids(&rest, "group"), listed(3..=6));
    }
    // The other way round: the old log knows nothing of the copy.
    let reply = old
        .as_user("bob", "GET", &format!("/v1/inbox?after={}", moved.next), "")
        .await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (409, "log_unknown"),
        "{reply:?}"
    );
    let restart = reply.json()["restart"].as_str().unwrap().to_owned();
    assert_eq!(
        Device::new(&old, "bob", &restart).rest(100).await,
        inbox(&old, "bob").await
    );
}

/// Promise 6: never a silent wait.
#[tokio::test]
async fn a_cursor_beyond_the_watermark_is_told_so_at_once() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    push_many(&server, ("to", "bob"), 0..3).await;
    push_many(&server, ("group", "team"), 0..2).await;
    for (cursor, restart) in [
        ("4.2", (3, 2)),
        ("3.3", (3, 2)),
        ("1.99", (1, 2)),
        ("99.99", (3, 2)),
    ] {
        let path = format!("/v1/inbox?wait=60&after={cursor}");
        let reply = server.as_user("bob", "GET", &path, "").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (409, "cursor_ahead"),
            "{cursor}"
        );
        let given = reply.json()["restart"].as_str().unwrap().to_owned();
        assert_eq!(position(&given), restart, "{cursor}");
        let mut device = Device::new(&server, "bob", &given);
        let rest = device.rest(100).await;
        assert_eq!(ids(&rest, "direct"), listed(restart.0 + 1..=3));
    }
    for path in [
        "/v1/direct/sender/messages?after=4",
        "/v1/groups/team/messages?after=3",
    ] {
        let reply = server.as_user("bob", "GET", path, "").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (409, "cursor_ahead"),
            "{path}"
        );
    }
    assert_eq!(server.held("bob").await, 0);
}

#[tokio::test]
async fn now_is_the_place_behind_all_that_is_there() {
    let server = TestServer::start().await;
    push_many(&server, ("to", "bob"), 0..3).await;
    let reply = server
        .as_user("bob", "GET", "/v1/inbox?after=now&wait=0", "")
        .await;
    let page = Page::of(&reply);
    assert!(page.messages.is_empty() && !page.more);
    assert_eq!(position(&page.next), (3, 0));
    let mut http = server.poll_held("bob").await;
    let id = server.push("alice", "bob", "4").await;
    let came = Page::of(&http.reply().await);
    assert_eq!(ids(&came.messages, "direct"), [id]);
    assert_eq!(
        ids(
            &Device::new(&server, "bob", &page.next).rest(9).await,
            "direct"
        ),
        [id]
    );
}
