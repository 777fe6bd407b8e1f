//! Tokens on a socket: with and without `send`, fresh ones, and those of others.

use halley::clock;
use halley::token::Claims;
use serde_json::{Value, json};

use crate::support::{Socket, TestServer};

/// Tokens are taken for so long after their end.
const LEEWAY_S: u64 = 5;

fn token(user: &str, send: bool, seconds: u64) -> String {
    TestServer::token_of(&Claims {
        user: user.to_owned(),
        send,
        expires_at: clock::now_s() + seconds - LEEWAY_S,
    })
}

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("none")
}

#[tokio::test]
async fn sending_needs_the_claim_of_the_token_that_is_in_force() {
    let server = TestServer::start().await;
    let send = json!({ "send": { "to": "alice", "body": 1 } });
    let reader = token("bob", false, 60);
    let writer = token("bob", true, 60);
    let mut socket = Socket::asking(server.client, &reader, "after=now").await;
    assert_eq!(code(&socket.ask(&send).await), "forbidden");
    let fresh = socket.ask(&json!({ "token": writer, "ref": "t" })).await;
    let ends = fresh["token"]["expires_at"].as_u64().unwrap();
    assert!(
        ends.abs_diff(clock::now_s() + 60 - LEEWAY_S) < 10,
        "{fresh}"
    );
    assert_eq!(fresh["ref"], "t");
    assert_eq!(socket.ask(&send).await["receipt"]["id"], 1);
    assert!(socket.ask(&json!({ "token": reader })).await["token"]["expires_at"].is_u64());
    assert_eq!(code(&socket.ask(&send).await), "forbidden");
}

#[tokio::test]
async fn a_refused_token_changes_nothing() {
    let server = TestServer::start().await;
    let send = json!({ "send": { "to": "alice", "body": 1 } });
    let mut socket = Socket::asking(server.client, &token("bob", true, 60), "after=now").await;
    let expired = TestServer::token_of(&Claims {
        user: "bob".to_owned(),
        send: false,
        expires_at: clock::now_s() - 60,
    });
    for (token, expected) in [
        (token("carol", false, 60), "forbidden"),
        (expired, "token_expired"),
        ("x.y.z".to_owned(), "unauthorized"),
        (String::new(), "unauthorized"),
    ] {
        let answer = socket.ask(&json!({ "token": token, "ref": 1 })).await;
        assert_eq!(
            (code(&answer), &answer["ref"]),
            (expected, &json!(1)),
            "{answer}"
        );
        assert!(
            token.is_empty() || !answer.to_string().contains(&token),
            "not repeated"
        );
        let sent = socket.ask(&send).await;
        assert!(sent["receipt"]["id"].is_u64(), "{sent}");
    }
    let mut carol = Socket::open(&server, "carol").await;
    assert_eq!(
        carol.ask(&send).await["receipt"]["prev"],
        0,
        "nobody became carol"
    );
}

#[tokio::test]
async fn a_fresh_token_lets_a_socket_outlive_the_first_and_end_with_itself() {
    let server = TestServer::start().await;
    let renewed = async {
        let first = token("bob", true, 3);
        let mut socket = Socket::asking(server.client, &first, "after=now").await;
        let begin = clock::now_s();
        let answer = socket.ask(&json!({ "token": token("bob", true, 5) })).await;
        let ends = answer["token"]["expires_at"].as_u64().unwrap() + LEEWAY_S;
        assert_eq!(socket.closed().await, (4001, "token_expired".to_owned()));
        assert!(clock::now_s() >= ends && ends > begin + 3);
    };
    let shortened = async {
        let mut socket = Socket::asking(server.client, &token("bob", true, 60), "after=now").await;
        socket.ask(&json!({ "token": token("bob", true, 3) })).await;
        assert_eq!(socket.closed().await, (4001, "token_expired".to_owned()));
    };
    tokio::join!(renewed, shortened);
}
