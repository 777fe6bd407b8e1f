//! The most channels there may be: new ones are refused in icomet's words, and all else goes on.

use futures_util::future::join_all;
use halley::config::IcometRules::{Open, Strict};
use halley::model::UserName;
use serde_json::{Value, json};

use super::{Wire, back, front, held, keyed, push, server_with, waiting};
use crate::device::inbox;
use crate::support::{PATIENCE, Reply, Socket, TestServer};

async fn server(rules: halley::config::IcometRules, channels_max: usize) -> TestServer {
    TestServer::with_hub(
        |options| options.channels_max = channels_max,
        |parts| parts.icomet = Some(rules),
    )
    .await
}

#[tokio::test]
async fn new_channels_beyond_the_limit_are_refused_as_icomet_does() {
    let server = server(Open, 3).await;
    assert!(front(&server, "/sub?cname=a").await.1.contains("next_seq"));
    assert_eq!(
        back(&server, "/push?cname=b&content=1").await.1,
        "{\"type\":\"ok\"}\n"
    );
    assert!(back(&server, "/sign?cname=c").await.1.contains("\"seq\":1"));

    let object = "{\"type\":\"429\",\"cname\":\"d\",\"seq\":0,\"content\":\"Too many channels\"}";
    for (path, body) in [
        ("/sub?cname=d", format!("{object}\n")),
        ("/poll?cname=d&cb=f&seq=1", format!("f({object});\n")),
        ("/stream?cname=d", format!("{object}\n")),
        ("/sse?cname=d", format!("data: {object}\n\n")),
    ] {
        let (head, found) = front(&server, path).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\n"), "{path}: {head}");
        assert_eq!(found, body, "{path}");
    }
    let (_, body) = front(&server, "/iframe?cname=d").await;
    assert!(body.ends_with(&format!("<script>parent.icomet_cb({object});</script>\n")));
    for path in [
        "/push?cname=d&content=x",
        "/pub?cname=d&content=x&cb=f",
        "/sign?cname=d",
    ] {
        let (head, body) = back(&server, path).await;
        assert!(head.starts_with("HTTP/1.1 429 "), "{path}: {head}");
        assert_eq!(body, "", "{path}");
    }
    // None of it was stored or is shown as in use.
    assert!(inbox(&server, "d").await.is_empty());
    assert_eq!(back(&server, "/check?cname=d").await.1, "{}\n");
    let (_, info) = back(&server, "/info").await;
    assert!(info.contains("\"channels\": 3,"), "{info}");

    // The others go on, also one that was closed.
    assert!(back(&server, "/close?cname=a").await.1.starts_with("ok "));
    for channel in ["a", "b", "c"] {
        let path = format!("/push?cname={channel}&content=2");
        assert_eq!(back(&server, &path).await.1, "{\"type\":\"ok\"}\n");
    }
    assert_eq!(back(&server, "/broadcast?content=all").await.1, "ok\n");
    let (_, body) = front(&server, "/sub?cname=a&seq=1").await;
    assert!(
        body.starts_with("[{\"type\":\"data\"") && body.contains("broadcast"),
        "{body}"
    );
}

#[tokio::test]
async fn halleys_own_messages_go_to_whom_they_are_meant_for_without_a_channel_too() {
    let server = server(Strict, 1).await;
    server.push("ann", "bob", "1").await;
    server.push("ann", "cyd", "1").await;
    let members = json!({ "members": ["bob", "cyd", "dan"] }).to_string();
    let reply = server.as_admin("PUT", "/v1/groups/team", &members).await;
    assert_eq!(reply.json()["members"], 3, "{reply:?}");
    let text = json!({ "from": "ann", "body": 2 }).to_string();
    let sent: Reply = server
        .as_admin("POST", "/v1/groups/team/messages", &text)
        .await;
    assert_eq!(sent.status, 201);
    assert_eq!(inbox(&server, "cyd").await.len(), 2);
    assert!(
        keyed(&server, "/sign?cname=bob")
            .await
            .contains("\"seq\":1,")
    );
    assert_eq!(keyed(&server, "/sign?cname=cyd").await, "");
    assert_eq!(keyed(&server, "/sign?cname=dan").await, "");
}

#[tokio::test]
async fn with_a_full_disk_known_channels_go_on_and_new_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let start = async |disk_free_min_bytes| {
        TestServer::with_hub(
            |options| {
                options.data = folder.path().join("data");
                options.channels_max = 9;
                options.disk_free_min_bytes = disk_free_min_bytes;
            },
            |parts| parts.icomet = Some(Open),
        )
        .await
    };
    let server = start(0).await;
    back(&server, "/push?cname=a&content=x").await;
    drop(server);
    let server = start(u64::MAX).await;
    let (head, body) = front(&server, "/sub?cname=a&seq=1").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.contains("\"content\":\"x\""), "{body}");
    let (head, body) = front(&server, "/sub?cname=b&seq=1").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(body.contains("\"code\":\"disk_full\""), "{body}");
}

#[tokio::test]
async fn what_users_send_opens_no_channel_and_has_a_number_where_one_is_open() {
    let server = server(Strict, 2).await;
    let ok = "{\"type\":\"ok\"}\n";
    assert_eq!(keyed(&server, "/push?cname=bob&content=x").await, ok);
    let send = async |to: &str| {
        let path = format!("/v1/direct/{to}/messages");
        let sent = server.as_user("mallory", "POST", &path, "{\"body\":1}");
        assert_eq!(sent.await.status, 201);
    };
    for n in 0..20 {
        send(&format!("made-up-{n}")).await;
    }
    let mut socket = Socket::open(&server, "mallory").await;
    for n in 0..20 {
        let made_up = json!({ "to": format!("made-up-too-{n}"), "body": 1 });
        let answer = socket.ask(&json!({ "send": made_up })).await;
        assert!(answer["receipt"].is_object(), "{answer}");
    }
    // There is still room for one more, whom the backend names.
    assert_eq!(keyed(&server, "/push?cname=cyd&content=x").await, ok);
    send("bob").await;
    let path = format!("/sub?cname=bob&seq=2&token={}", TestServer::token("bob"));
    let (_, numbered) = front(&server, &path).await;
    assert!(
        numbered.contains("\"seq\":2,\"content\":\"1\""),
        "{numbered}"
    );
}

#[tokio::test]
async fn without_tokens_new_channels_are_opened_at_a_rate_and_known_ones_go_on() {
    let server = server(Open, 100_000).await;
    let mut wire = Wire::connect(server.client).await;
    let mut refused = None;
    for n in 0..5000 {
        let (head, body) = wire.get(&format!("/sub?cname=made-up-{n}")).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\n"), "{head}");
        if body.contains("\"type\":\"429\"") {
            assert!(body.contains("\"content\":\"Too many channels\""), "{body}");
            refused = Some(n);
            break;
        }
    }
    assert!(refused.is_some_and(|n| n >= 1000), "{refused:?}");
    // Who was there before, and whom the backend names, are not asked to wait.
    assert!(
        front(&server, "/sub?cname=made-up-0")
            .await
            .1
            .contains("next_seq")
    );
    for n in 0..100 {
        let (_, body) = back(&server, &format!("/push?cname=known-{n}&content=1")).await;
        assert_eq!(body, "{\"type\":\"ok\"}\n");
    }
    assert!(
        front(&server, "/sub?cname=known-99")
            .await
            .1
            .contains("next_seq")
    );
}

#[tokio::test]
async fn a_forgotten_channel_makes_room_and_an_old_number_gets_all_that_comes_later() {
    let server = server(Open, 2).await;
    let full = |body: &str| body.contains("Too many channels");
    for n in 1..=3 {
        push(&server, "a", &format!("old{n}")).await;
    }
    push(&server, "b", "x").await;
    // A plain close ends the requests alone. What is forgotten goes on behind as many numbers as there were messages.
    for (path, room, next) in [
        ("/close?cname=a&forget=0", false, 4),
        ("/close?cname=a&forget=1", true, 5),
    ] {
        let mut poll = held(&server, "a", "/sub?cname=a&seq=4").await;
        let mut lines = held(&server, "a", "/stream?cname=a&seq=4").await;
        assert_eq!(back(&server, path).await.1, format!("ok {next}\n"));
        let close =
            format!("{{\"type\":\"close\",\"cname\":\"a\",\"seq\":{next},\"content\":\"\"}}\n");
        assert_eq!(poll.reply().await.1, close);
        lines.head().await;
        assert_eq!(lines.chunk().await, close);
        let (_, body) = front(&server, "/sub?cname=c").await;
        assert_eq!(!full(&body), room, "{path}: {body}");
    }
    let (head, body) = back(&server, "/close?cname=a&forget=1").await;
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    assert_eq!(body, "channel[a] not connected\n");
    let (head, _) = back(&server, "/close?cname=a&forget=yes").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(full(&front(&server, "/sub?cname=a&seq=4").await.1));
    assert_eq!(inbox(&server, "a").await.len(), 3, "messages stay");

    // One without a client is forgotten as well; whom the backend writes to has a channel again.
    assert_eq!(back(&server, "/close?cname=b&forget=1").await.1, "ok 2\n");
    push(&server, "a", "new").await;
    let new = "[{\"type\":\"data\",\"cname\":\"a\",\"seq\":5,\"content\":\"new\"}]\n";
    for seq in 1..=5 {
        let path = format!("/sub?cname=a&seq={seq}");
        assert_eq!(front(&server, &path).await.1, new, "{seq}");
    }
    for path in ["/sub?cname=a", "/sub?cname=a&seq=9"] {
        let (_, body) = front(&server, path).await;
        assert!(body.contains("\"next_seq\",\"cname\":\"a\",\"seq\":6"));
    }
    assert!(
        back(&server, "/sign?cname=a")
            .await
            .1
            .contains("\"seq\":5,")
    );
}

#[tokio::test]
async fn who_waits_for_a_channel_that_is_gone_is_told_with_the_next_message() {
    let server = server(Open, 9).await;
    push(&server, "a", "old").await;
    for by_user in [true, false] {
        let mut wait = held(&server, "a", "/sub?cname=a&seq=2").await;
        // As when the backend has gone before the requests were ended.
        let name = UserName::parse("a").unwrap();
        assert_eq!(server.hub.close_channel(name).await, Ok(Some(2)));
        let kind = if by_user {
            let path = "/v1/direct/a/messages";
            let sent = server.as_user("ann", "POST", path, "{\"body\":1}").await;
            assert_eq!(sent.status, 201);
            "{\"type\":\"close\",\"cname\":\"a\",\"seq\":2,"
        } else {
            push(&server, "a", "new").await;
            "{\"type\":\"data\",\"cname\":\"a\",\"seq\":2,"
        };
        let (_, body) = wait.reply().await;
        assert!(body.starts_with(kind), "{body}");
    }
}

#[tokio::test]
async fn channels_that_nobody_uses_are_listed_in_pages() {
    let server = server(Strict, 9000).await;
    let names: Vec<_> = (0..1003).map(|n| format!("user-{n:04}")).collect();
    // Those who join a group get a channel.
    for names in names.chunks(500) {
        let members = json!({ "members": names }).to_string();
        let set = server.as_admin("PUT", "/v1/groups/team", &members).await;
        assert!(set.status < 300, "{set:?}");
    }
    let token = TestServer::token("user-0500");
    let path = format!("/sub?cname=user-0500&seq=1&token={token}");
    let _waits = held(&server, "user-0500", &path).await;
    let mut idle = names.clone();
    idle.remove(500);
    let first = json!({ "idle": idle[..999], "next": "user-0999" });
    let second = json!({ "idle": idle[999..], "next": null });
    for (path, page) in [
        ("/info?idle=1", &first),
        ("/info?idle=1&after=user-0999", &second),
    ] {
        let body = keyed(&server, path).await;
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), *page);
    }
    assert_eq!(
        keyed(&server, "/close?cname=user-1001&forget=1").await,
        "ok 1\n"
    );
    let body = keyed(&server, "/info?idle=1&after=user-1000").await;
    assert_eq!(body, "{\"idle\": [\"user-1002\"], \"next\": null}\n");
}

/// Whoever is first, a client that comes back with its number gets the last message, and waits for none in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_while_channels_are_forgotten_and_opened_misses_nothing_and_never_waits_in_silence()
 {
    const CLIENTS: usize = 12;
    let server = server(Open, 1).await;
    let follow = async |mut wire: Wire| {
        let mut seq = 1;
        loop {
            let (_, body) = wire.get(&format!("/sub?cname=a&seq={seq}")).await;
            let objects = match serde_json::from_str(&body).unwrap() {
                Value::Array(objects) => objects,
                object => vec![object],
            };
            for object in objects {
                let number = object["seq"].as_u64().unwrap();
                match object["type"].as_str().unwrap() {
                    "close" => assert!(seq <= number, "{object} for {seq}"),
                    "data" => {
                        assert!(seq <= number, "{object} for {seq}");
                        seq = number + 1;
                    }
                    other => panic!("{other}: {object} for {seq}"),
                }
                if object["content"] == "end" {
                    return;
                }
            }
        }
    };
    let mut wires = Vec::new();
    for _ in 0..CLIENTS {
        wires.push(Wire::connect(server.client).await);
    }
    let backend = async {
        let (mut pushing, mut closing) = (
            Wire::connect(server.admin).await,
            Wire::connect(server.admin).await,
        );
        for n in 0..100 {
            let push = format!("/push?cname=a&content={n}");
            let (pushed, closed) =
                tokio::join!(pushing.get(&push), closing.get("/close?cname=a&forget=1"));
            assert_eq!(pushed.1, "{\"type\":\"ok\"}\n");
            assert!(closed.1.starts_with("ok ") || closed.1.contains("not connected"));
        }
        push(&server, "a", "end").await;
    };
    let clients = join_all(wires.into_iter().map(follow));
    tokio::join!(clients, backend);
}

/// All who are subscribed to one channel ask again when a message has come, at the same moment.
#[tokio::test]
async fn many_subscribers_of_one_channel_come_back_at_once() {
    const MANY: usize = 40;
    let server = server_with(Open, |parts| {
        parts.timeouts.crowd = 10 * PATIENCE;
        parts.limits.requests_per_user_max = 4;
    })
    .await;
    let mut wires = Vec::new();
    for _ in 0..MANY {
        wires.push(Wire::connect(server.client).await);
    }
    for seq in 1..4 {
        for wire in &mut wires {
            wire.send(&format!(
                "GET /sub?cname=a&seq={seq} HTTP/1.1\r\nHost: h\r\n\r\n"
            ))
            .await;
        }
        waiting(&server, "a", MANY).await;
        push(&server, "a", "x").await;
        for wire in &mut wires {
            let (_, body) = wire.reply().await;
            assert!(body.contains("\"type\":\"data\""), "{seq}: {body}");
        }
    }
}
