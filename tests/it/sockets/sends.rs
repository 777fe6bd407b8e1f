//! Sending on a socket.

use serde_json::{Value, json};

use crate::device::{inbox, set_group};
use crate::support::{Frame, Socket, TestServer, frame};

fn code(answer: &Value) -> (&Value, &str) {
    (
        &answer["ref"],
        answer["error"]["code"].as_str().unwrap_or("none"),
    )
}

#[tokio::test]
async fn receipts_come_in_the_order_of_200_pipelined_sends() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    let mut socket = Socket::open(&server, "bob").await;
    let mut bytes = Vec::new();
    for number in 0..200_u64 {
        let (kind, to) = if number % 3 == 0 {
            ("group", "team")
        } else {
            ("to", "alice")
        };
        let text = json!({ "send": { kind: to, "body": number }, "ref": format!("r{number}") });
        bytes.extend(frame(0x81, text.to_string().as_bytes()));
        if number % 50 == 49 {
            bytes.extend(frame(
                0x81,
                json!({ "ref": "wrong" }).to_string().as_bytes(),
            ));
        }
    }
    socket.put(&bytes).await;
    let mut last = [0, 0];
    for number in 0..200_u64 {
        let answer = socket.answer().await;
        assert_eq!(answer["ref"], format!("r{number}"), "{answer}");
        let receipt = &answer["receipt"];
        assert_eq!(receipt["duplicate"], false);
        let kind = usize::from(receipt["sequence"] == "group");
        let id = receipt["id"].as_u64().unwrap();
        assert_eq!(
            (id, &receipt["prev"]),
            (last[kind] + 1, &json!(last[kind])),
            "{answer}"
        );
        last[kind] = id;
        if number % 50 == 49 {
            assert_eq!(code(&socket.answer().await), (&json!("wrong"), "bad_json"));
        }
    }
    let bodies: Vec<Value> = inbox(&server, "alice")
        .await
        .into_iter()
        .map(|m| m.body)
        .collect();
    let expected: Vec<u64> = (0..200).filter(|number| number % 3 > 0).collect();
    assert_eq!(json!(bodies), json!(expected));
}

#[tokio::test]
async fn what_was_sent_comes_back_on_the_socket_as_to_every_other_device() {
    let server = TestServer::start().await;
    let mut one = Socket::open(&server, "bob").await;
    let mut other = Socket::open(&server, "bob").await;
    one.say(&json!({ "send": { "to": "alice", "body": { "a": [1, "\n"] } } }))
        .await;
    let (mut receipt, mut page) = (Value::Null, Value::Null);
    while receipt.is_null() || page.is_null() {
        let text = one.text().await;
        if text.get("messages").is_some() {
            page = text;
        } else {
            receipt = text;
        }
    }
    // Without a `ref` there is none in the answer.
    assert_eq!(receipt.as_object().unwrap().len(), 1);
    let message = &page["messages"][0];
    for name in ["id", "prev", "at", "sequence"] {
        assert_eq!(message[name], receipt["receipt"][name], "{name}");
    }
    assert_eq!(message["body"], json!({ "a": [1, "\n"] }));
    assert_eq!(
        (&message["from"], &message["to"]),
        (&json!("bob"), &json!("alice"))
    );
    assert_eq!(other.text().await, page);
}

#[tokio::test]
async fn a_key_stands_for_one_message_on_a_socket_and_beside_it() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    let send = |body: u64| json!({ "send": { "to": "alice", "body": body, "idempotency_key": "k" }, "ref": 1 });
    let first = socket.ask(&send(1)).await["receipt"].clone();
    let again = socket.ask(&send(1)).await["receipt"].clone();
    assert_eq!(
        (&first["duplicate"], &again["duplicate"]),
        (&json!(false), &json!(true))
    );
    assert_eq!((&first["id"], &first["at"]), (&again["id"], &again["at"]));
    assert_eq!(
        code(&socket.ask(&send(2)).await),
        (&json!(1), "idempotency_conflict")
    );

    let bearer = format!("authorization: Bearer {}", TestServer::token("bob"));
    let headers = [bearer.as_str(), "idempotency-key: k"];
    let mut http = server.connect().await;
    let reply = http
        .request(
            "POST",
            "/v1/direct/alice/messages",
            &headers,
            "{\"body\":1}",
        )
        .await;
    assert_eq!((reply.status, &reply.json()["id"]), (200, &first["id"]));
    assert_eq!(inbox(&server, "alice").await.len(), 1);
}

/// What is wrong, the code, and the status.
fn wrong_requests() -> Vec<(Value, &'static str, u16)> {
    let long = "x".repeat(65_535);
    let key = "k".repeat(256);
    vec![
        (
            json!({ "send": { "group": "team", "body": 1 } }),
            "group_not_found",
            404,
        ),
        (
            json!({ "send": { "group": "nobodys", "body": 1 } }),
            "group_not_found",
            404,
        ),
        (
            json!({ "send": { "to": "alice", "body": long } }),
            "body_too_large",
            413,
        ),
        (json!({ "send": { "to": "", "body": 1 } }), "bad_name", 400),
        (
            json!({ "send": { "to": "a\nb", "body": 1 } }),
            "bad_name",
            400,
        ),
        (json!({ "send": { "body": 1 } }), "bad_json", 400),
        (
            json!({ "send": { "to": "a", "group": "team", "body": 1 } }),
            "bad_json",
            400,
        ),
        (json!({ "send": { "to": "a" } }), "bad_json", 400),
        (json!({ "send": { "to": 1, "body": 1 } }), "bad_json", 400),
        (json!({ "send": 1 }), "bad_json", 400),
        (
            json!({ "send": { "to": "a", "body": 1, "idempotency_key": key } }),
            "bad_json",
            400,
        ),
        (
            json!({ "send": { "to": "a", "body": 1 }, "token": "x" }),
            "bad_json",
            400,
        ),
        (json!({}), "bad_json", 400),
        (json!({ "receive": 1 }), "bad_json", 400),
        (json!({ "token": "x" }), "unauthorized", 401),
        (json!({ "token": 1 }), "bad_json", 400),
    ]
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_one_by_one_and_the_socket_stays() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["carol"]).await;
    let mut socket = Socket::open(&server, "bob").await;
    for (number, (mut text, expected, status)) in (0_u64..).zip(wrong_requests()) {
        text["ref"] = json!(number);
        let answer = socket.ask(&text).await;
        let error = &answer["error"];
        // A text whose `ref` cannot be read has none in the answer.
        assert!(
            answer["ref"] == number || answer.get("ref").is_none(),
            "{answer}"
        );
        assert_eq!(
            (error["code"].as_str(), &error["status"]),
            (Some(expected), &json!(status)),
            "{text}"
        );
        for name in ["type", "title", "detail"] {
            assert!(error[name].is_string(), "{answer}");
        }
    }
    assert!(inbox(&server, "alice").await.is_empty());
    assert!(inbox(&server, "a").await.is_empty());
    assert!(inbox(&server, "carol").await.is_empty());
    assert!(
        socket
            .ask(&json!({ "send": { "to": "alice", "body": 1 } }))
            .await["receipt"]
            .is_object()
    );
}

#[tokio::test]
async fn a_mark_is_a_text_or_a_number_and_what_is_no_json_is_told_so() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    for text in [
        "",
        "{",
        "[]",
        "1",
        "null",
        "{\"ref\":1,}",
        "{\"send\":{\"to\":\"a\",\"body\":1},\"ref\":[]}",
        "{} {}",
    ] {
        socket.put(&frame(0x81, text.as_bytes())).await;
        let answer = socket.answer().await;
        assert_eq!(answer["error"]["code"], "bad_json", "{text}");
        assert!(answer.get("ref").is_none());
    }
    for reference in [json!("x".repeat(200)), json!({}), json!(true), json!([1])] {
        let text = json!({ "send": { "to": "a", "body": 1 }, "ref": reference });
        assert_eq!(
            socket.ask(&text).await["error"]["code"],
            "bad_json",
            "{reference}"
        );
    }
    for reference in [
        "0",
        "-7",
        "\"\"",
        "\"\u{1f600}\"",
        "18446744073709551615",
        "1.5",
        // As it was written, also what no number of a programming language holds.
        "18446744073709551616",
        "-123456789012345678901234567890",
        "1.10",
        "1E2",
        "\"\\u0041\"",
    ] {
        let text = format!("{{\"ref\": {reference} ,\"send\":{{\"to\":\"alice\",\"body\":1}}}}");
        socket.put(&frame(0x81, text.as_bytes())).await;
        let text = socket.answer_text().await;
        assert!(text.ends_with(&format!(",\"ref\":{reference}}}")), "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer["receipt"]["id"].is_u64(), "{answer}");
    }
    assert_eq!(
        inbox(&server, "alice").await.len(),
        11,
        "and nothing else was stored"
    );
    assert!(inbox(&server, "a").await.is_empty());
}

#[tokio::test]
async fn a_body_as_long_as_may_be_goes_through_byte_for_byte() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    let body = format!("[ \"{}\" ,\r\n 1.0]", "ü".repeat((65_536 - 13) / 2));
    let text = format!("{{\"send\":{{\"to\":\"alice\",\"body\":{body}}},\"ref\":1}}");
    socket.put(&frame(0x81, text.as_bytes())).await;
    assert_eq!(socket.answer().await["ref"], 1);
    let reply = server.as_user("alice", "GET", "/v1/inbox?wait=0", "").await;
    assert!(reply.text().contains(&format!("\"body\":{body}}}")));
}

#[tokio::test]
async fn what_was_sent_before_a_good_bye_is_done_and_answered() {
    let server = TestServer::start().await;
    for round in 0..20 {
        let user = format!("friend-{round}");
        let mut socket = Socket::open(&server, "bob").await;
        let mut bytes = Vec::new();
        for number in 0..40 {
            let text = json!({ "send": { "to": user, "body": number }, "ref": number });
            bytes.extend(frame(0x81, text.to_string().as_bytes()));
        }
        bytes.extend(frame(0x88, &1000_u16.to_be_bytes()));
        socket.put(&bytes).await;
        let mut receipts = 0;
        let close = loop {
            match socket.frame().await.expect("a close frame comes first") {
                Frame::Text(text) if text.contains("receipt") => receipts += 1,
                Frame::Close(code, _) => break code,
                _ => {}
            }
        };
        assert_eq!((close, receipts), (1000, 40));
        assert_eq!(socket.frame().await, None);
        assert_eq!(inbox(&server, &user).await.len(), 40);
    }
}

#[tokio::test]
async fn what_came_whole_before_the_client_left_is_done() {
    let server = TestServer::start().await;
    for round in 0..20 {
        let user = format!("friend-{round}");
        let mut socket = Socket::open(&server, "bob").await;
        let mut bytes = Vec::new();
        for number in 0..10 {
            let text = json!({ "send": { "to": user, "body": number } });
            bytes.extend(frame(0x81, text.to_string().as_bytes()));
        }
        bytes.truncate(bytes.len() - 1);
        socket.put(&bytes).await;
        tokio::io::AsyncWriteExt::shutdown(&mut socket.http.stream)
            .await
            .unwrap();
        drop(socket);
        crate::support::eventually("nine, but not the half one", || async {
            inbox(&server, &user).await.len() == 9
        })
        .await;
    }
}

/// Sixteen wait for their receipts; what else the client has sent waits in the kernel, not in the queue that all
/// clients share.
#[tokio::test]
async fn a_client_that_sends_without_waiting_takes_no_more_of_the_queue_than_sixteen_messages() {
    const BODY: usize = 2_000;
    let server = TestServer::with_hub(|options| options.queue_bytes_max = 20 * BODY, |_| {}).await;
    let mut socket = Socket::open(&server, "bob").await;
    let send = |number: u64| json!({ "send": { "to": "alice", "body": "x".repeat(BODY - 300) }, "ref": number });
    let all: Vec<u8> = (0..500)
        .flat_map(|number| frame(0x81, send(number).to_string().as_bytes()))
        .collect();
    socket.put(&all).await;
    for number in 0..500 {
        let answer = socket.answer().await;
        assert!(answer["receipt"]["id"].is_u64(), "{answer}");
        assert_eq!(answer["ref"], number);
    }
}
