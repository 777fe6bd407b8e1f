//! What operators see of what is held, and its limits.

use serde_json::{Value, json};

use crate::device::{push_group, push_many, set_group};
use crate::support::{Reader, TestServer, Way, eventually};

async fn presence(server: &TestServer) -> Value {
    server
        .as_admin("GET", "/v1/users/bob/presence", "")
        .await
        .json()
}

#[tokio::test]
async fn one_limit_counts_what_a_user_holds_by_all_transports() {
    let server = TestServer::with_hub(|hub| hub.waiters_per_user_max = 4, |_| {}).await;
    let token = TestServer::token("bob");
    let before = halley::clock::now_ms();
    let mut open = Vec::new();
    let poll = server.poll_held("bob").await;
    for way in Way::OPEN {
        open.push(
            Reader::open(server.client, way, &token, "now")
                .await
                .unwrap(),
        );
    }
    server.wait_held("bob", 4).await;
    let seen = presence(&server).await;
    assert_eq!(
        (&seen["user"], &seen["connections"]),
        (&json!("bob"), &json!(4))
    );
    let mut devices: Vec<&str> = Vec::new();
    for device in seen["devices"].as_array().unwrap() {
        let since = device["since"].as_u64().unwrap();
        assert!(
            (before..=halley::clock::now_ms()).contains(&since),
            "{device}"
        );
        devices.push(device["transport"].as_str().unwrap());
    }
    devices.sort_unstable();
    assert_eq!(devices, ["poll", "socket", "sse", "stream"]);
    // Since it began, not since it was asked for.
    let asked = halley::clock::now_ms();
    eventually("time goes on", || async { halley::clock::now_ms() > asked }).await;
    assert_eq!(presence(&server).await, seen);
    let held = json!({ "poll": 1, "sse": 1, "stream": 1, "socket": 1, "icomet": 0 });
    assert_eq!(server.status().await["held"], held);

    for way in Way::ALL {
        let refused = Reader::refused(server.client, way, &token, "after=now").await;
        let what = (
            refused.status,
            refused.code(),
            refused.json()["limit"].clone(),
        );
        assert_eq!(
            what,
            (429, "too_many_waiters".to_owned(), json!(4)),
            "{way:?}"
        );
        assert_eq!(refused.header("retry-after"), Some("1"), "{way:?}");
    }
    // Others are not concerned, and each place is free as soon as its holder has left.
    let other = Reader::open(server.client, Way::Sse, &TestServer::token("carol"), "now").await;
    assert!(other.is_ok());
    for way in Way::OPEN {
        drop(open.remove(0));
        server.wait_held("bob", 3).await;
        let left = presence(&server).await.to_string();
        assert!(!left.contains(&format!("\"{}\"", way.name())), "{left}");
        open.push(
            Reader::open(server.client, way, &token, "now")
                .await
                .unwrap(),
        );
        server.wait_held("bob", 4).await;
    }
    drop((open, poll, other));
    server.wait_held("bob", 0).await;
    assert_eq!(presence(&server).await["devices"], json!([]));
    let none = json!({ "poll": 0, "sse": 0, "stream": 0, "socket": 0, "icomet": 0 });
    eventually("nothing is held", || async {
        server.status().await["held"] == none
    })
    .await;
}

#[tokio::test]
async fn every_message_is_counted_for_every_device_that_got_it() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob", "carol"]).await;
    assert_eq!(server.status().await["delivered"], 0);
    let mut readers = Vec::new();
    for way in Way::ALL {
        for user in ["bob", "carol"] {
            let token = TestServer::token(user);
            let after = "0&wait=60";
            readers.push(
                Reader::open(server.client, way, &token, after)
                    .await
                    .unwrap(),
            );
        }
    }
    push_many(&server, ("to", "bob"), 0..40).await;
    push_group(&server, "team", "1").await;
    for (index, reader) in readers.iter_mut().enumerate() {
        let expected = if index % 2 == 0 { 41 } else { 1 };
        assert_eq!(reader.count(expected).await.len(), expected);
    }
    // A moment after the reader has it.
    eventually("4 times 41 and 1", || async {
        server.status().await["delivered"] == 168
    })
    .await;
    // The backend's history is not a delivery, and what nobody reads is none.
    server
        .as_admin("GET", "/v1/direct/bob/sender/messages", "")
        .await;
    push_many(&server, ("to", "dave"), 0..5).await;
    assert_eq!(server.status().await["delivered"], 168);
}
