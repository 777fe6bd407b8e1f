//! Pushing, groups, history, conversations: what goes in comes out.

use serde_json::json;

use crate::support::{KEY, TestServer};

#[tokio::test]
async fn a_push_is_read_back_byte_for_byte_everywhere() {
    let server = TestServer::start().await;
    let body = "{\"b\" : [1e3, 1.10,\t\"\\u00e9\\/\"],\"B\":null}";
    let id = server.push("alice", "a%2Fb%20%C3%BC", body).await;
    let field = format!("\"body\":{body}}}");
    for path in [
        format!("/v1/messages/direct/{id}"),
        "/v1/users/alice/inbox".to_owned(),
        "/v1/users/a%2Fb%20%C3%BC/inbox".to_owned(),
        "/v1/users/alice/direct/a%2Fb%20%C3%BC/messages".to_owned(),
        "/v1/users/alice/conversations".to_owned(),
    ] {
        let reply = server.as_admin("GET", &path, "").await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.text().contains(&field), "{path}: {}", reply.text());
        assert!(reply.text().contains("a/b ü"), "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_retry_under_the_same_key_is_the_same_message() {
    let server = TestServer::start().await;
    let bearer = format!("authorization: Bearer {KEY}");
    let headers = [bearer.as_str(), "idempotency-key: k 1"];
    let mut http = server.connect_admin().await;
    let path = "/v1/direct/bob/messages";
    let first = http
        .request("POST", path, &headers, "{\"from\":\"a\",\"body\":1}")
        .await;
    let again = http
        .request("POST", path, &headers, "{\"from\":\"a\",\"body\":1}")
        .await;
    let other = http
        .request("POST", path, &headers, "{\"from\":\"a\",\"body\":2}")
        .await;
    assert_eq!((first.status, again.status, other.status), (201, 200, 422));
    assert_eq!(again.json()["duplicate"], true);
    assert_eq!(again.json()["id"], first.json()["id"]);
    assert_eq!(other.code(), "idempotency_conflict");
}

#[tokio::test]
async fn each_message_of_an_array_has_its_own_outcome_in_its_place() {
    let server = TestServer::start().await;
    let items = json!([
        { "to": "bob", "from": "alice", "body": 1 },
        { "from": "alice", "body": 2 },
        { "group": "nowhere", "from": "alice", "body": 3 },
        { "to": "", "from": "alice", "body": 4 },
        { "to": "bob", "from": "alice", "body": "x".repeat(65_536) },
        { "to": "bob", "from": "alice", "body": 5, "idempotency_key": "" },
        7,
        { "to": "bob", "from": "alice", "body": 6 },
    ]);
    let reply = server
        .as_admin("POST", "/v1/messages", &items.to_string())
        .await;
    assert_eq!(reply.status, 200);
    let results = reply.json()["results"].as_array().unwrap().clone();
    let outcomes: Vec<&str> = results
        .iter()
        .map(|result| result["error"]["code"].as_str().unwrap_or("stored"))
        .collect();
    assert_eq!(
        outcomes,
        [
            "stored",
            "bad_json",
            "group_not_found",
            "bad_name",
            "body_too_large",
            "bad_json",
            "bad_json",
            "stored"
        ]
    );
    assert_eq!(results[7]["prev"], results[0]["id"]);
    let none = server.as_admin("POST", "/v1/messages", "[]").await;
    assert_eq!(none.text(), "{\"results\":[]}");
}

#[tokio::test]
async fn the_key_of_an_array_covers_each_of_its_messages() {
    let server = TestServer::start().await;
    let bearer = format!("authorization: Bearer {KEY}");
    let headers = [bearer.as_str(), "idempotency-key: batch"];
    let items =
        "[{\"to\":\"b\",\"from\":\"a\",\"body\":1},{\"to\":\"b\",\"from\":\"a\",\"body\":1}]";
    let mut http = server.connect_admin().await;
    let first = http
        .request("POST", "/v1/messages", &headers, items)
        .await
        .json();
    let again = http
        .request("POST", "/v1/messages", &headers, items)
        .await
        .json();
    assert_ne!(first["results"][0]["id"], first["results"][1]["id"]);
    for n in 0..2 {
        assert_eq!(again["results"][n]["id"], first["results"][n]["id"]);
        assert_eq!(again["results"][n]["duplicate"], true);
    }
}

#[tokio::test]
async fn a_user_sends_as_the_tokens_user() {
    let server = TestServer::start().await;
    for (push, status) in [
        ("{\"from\":\"eve\",\"body\":\"hi\"}", 400),
        ("{\"body\":\"hi\"}", 201),
    ] {
        let path = "/v1/direct/bob/messages";
        let reply = server.as_user("alice", "POST", path, push).await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
    let history = server
        .as_user("bob", "GET", "/v1/direct/alice/messages", "")
        .await
        .json();
    assert_eq!(history["messages"][0]["from"], "alice");
}

#[tokio::test]
async fn groups_are_made_changed_shown_and_ended() {
    let server = TestServer::start().await;
    let made = server
        .as_admin("PUT", "/v1/groups/t%2F1", "{\"members\":[\"b\",\"a\"]}")
        .await;
    assert_eq!(made.status, 201);
    assert_eq!(
        made.json(),
        json!({ "group": "t/1", "history": "member", "members": 2, "added": 2, "removed": 0 })
    );
    let changed = server
        .as_admin(
            "POST",
            "/v1/groups/t%2F1/members",
            "{\"add\":[\"c\"],\"remove\":[\"a\"]}",
        )
        .await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["members"], 2);
    assert_eq!(
        server
            .as_admin("PUT", "/v1/groups/t%2F1/members/a", "")
            .await
            .json()["added"],
        1
    );
    assert_eq!(
        server
            .as_admin("DELETE", "/v1/groups/t%2F1/members/b", "")
            .await
            .json()["removed"],
        1
    );
    let shown = server.as_admin("GET", "/v1/groups/t%2F1", "").await.json();
    assert_eq!(shown["members"], json!(["a", "c"]));
    let sent = server
        .as_user("a", "POST", "/v1/groups/t%2F1/messages", "{\"body\":1}")
        .await;
    assert_eq!(sent.status, 201);
    let stranger = server
        .as_user("b", "POST", "/v1/groups/t%2F1/messages", "{\"body\":1}")
        .await;
    assert_eq!(
        (stranger.status, stranger.code().as_str()),
        (404, "group_not_found")
    );
    let list = server
        .as_user("c", "GET", "/v1/conversations", "")
        .await
        .json();
    assert_eq!(list["conversations"][0]["group"], "t/1");
    assert_eq!(list["conversations"][0]["member"], true);
    let ended = server.as_admin("DELETE", "/v1/groups/t%2F1", "").await;
    assert_eq!(ended.json(), json!({ "group": "t/1", "removed": 2 }));
    assert_eq!(
        server.as_admin("GET", "/v1/groups/t%2F1", "").await.code(),
        "group_not_found"
    );
}

#[tokio::test]
async fn pages_of_a_history_and_of_conversations_go_both_ways() {
    let server = TestServer::start().await;
    for n in 0..5 {
        server
            .push("alice", &format!("peer{}", n % 3), &n.to_string())
            .await;
    }
    let server = &server;
    let page = |query: &'static str| {
        let path = format!("/v1/users/alice/direct/peer0/messages?{query}");
        async move { server.as_admin("GET", &path, "").await.json() }
    };
    let newest = page("limit=1").await;
    assert_eq!(newest["messages"][0]["body"], 3);
    assert_eq!(newest["more"], true);
    let older = page("before=4&limit=1").await;
    assert_eq!(
        (&older["messages"][0]["body"], &older["more"]),
        (&json!(0), &json!(false))
    );
    assert_eq!(page("after=1").await["messages"][0]["body"], 3);

    let first = server
        .as_user("alice", "GET", "/v1/conversations?limit=2", "")
        .await
        .json();
    assert_eq!(first["more"], true);
    let next = first["next"].as_str().unwrap();
    let path = format!("/v1/conversations?limit=2&before={next}");
    let second = server.as_user("alice", "GET", &path, "").await.json();
    assert_eq!(second["more"], false);
    assert_eq!(second["next"], json!(null));
    assert_eq!(second["conversations"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_made_token_opens_the_inbox_also_in_the_query() {
    let server = TestServer::start().await;
    let made = server
        .as_admin("POST", "/v1/tokens", "{\"user\":\"bob\"}")
        .await;
    assert_eq!(made.status, 201);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let path = format!("/v1/inbox?wait=0&token={token}");
    assert_eq!(
        server
            .connect()
            .await
            .request("GET", &path, &[], "")
            .await
            .status,
        200
    );
    let bearer = format!("authorization: bearer {token}");
    let mut http = server.connect().await;
    let sent = http
        .request("POST", "/v1/direct/x/messages", &[&bearer], "{\"body\":1}")
        .await;
    assert_eq!((sent.status, sent.code().as_str()), (403, "forbidden"));
}

#[tokio::test]
async fn status_counts_connections() {
    let server = TestServer::start().await;
    let _held = server.poll_held("bob").await;
    let status = server.status().await;
    assert_eq!(status["connections"]["client"], 1);
    assert!(status["version"].is_string() && status["log"].is_string());
}

/// With `history: "all"` the past is readable also to who leaves before anything more is sent.
#[tokio::test]
async fn who_leaves_keeps_what_he_could_read_also_without_a_message_meanwhile() {
    let server = TestServer::start().await;
    let server = &server;
    let set = |members: &'static str, history: &'static str| async move {
        let body = format!("{{\"members\":[{members}],\"history\":\"{history}\"}}");
        server.as_admin("PUT", "/v1/groups/team", &body).await
    };
    let history = || server.as_user("zed", "GET", "/v1/groups/team/messages", "");
    let push = |n: u8| async move {
        let body = format!("{{\"from\":\"ann\",\"body\":{n}}}");
        let pushed = server
            .as_admin("POST", "/v1/groups/team/messages", &body)
            .await;
        assert_eq!(pushed.status, 201);
    };
    set("\"ann\"", "all").await;
    server
        .as_admin("PUT", "/v1/groups/team/members/zed", "")
        .await;
    server
        .as_admin("DELETE", "/v1/groups/team/members/zed", "")
        .await;
    assert_eq!(
        history().await.code(),
        "group_not_found",
        "there was nothing to read"
    );
    push(1).await;
    push(2).await;
    server
        .as_admin("PUT", "/v1/groups/team/members/zed", "")
        .await;
    assert_eq!(history().await.bodies(), [1, 2]);
    server
        .as_admin("DELETE", "/v1/groups/team/members/zed", "")
        .await;
    assert_eq!(history().await.bodies(), [1, 2], "after leaving");

    // They rejoin where they left, when the group no longer shows its past.
    set("\"ann\",\"zed\"", "member").await;
    assert_eq!(history().await.bodies(), [1, 2], "after rejoining");
    server.as_admin("DELETE", "/v1/groups/team", "").await;
    assert_eq!(history().await.bodies(), [1, 2], "the group is deleted");
    set("\"ann\",\"zed\"", "member").await;
    push(3).await;
    assert_eq!(history().await.bodies(), [1, 2, 3]);
    let inbox = server.as_user("zed", "GET", "/v1/inbox?wait=0", "").await;
    assert_eq!(inbox.bodies(), [3]);
    let list = server
        .as_user("zed", "GET", "/v1/conversations", "")
        .await
        .json();
    assert_eq!(list["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(list["conversations"][0]["last"]["body"], 3);
}

/// All members of a change are there, or none: a reader never sees a part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_many_members_is_seen_whole() {
    const MEMBERS: usize = 3000;
    let server = TestServer::start().await;
    let names: Vec<String> = (0..MEMBERS).map(|n| format!("member-{n}")).collect();
    let all = json!({ "members": names }).to_string();
    server.as_admin("PUT", "/v1/groups/team", "{}").await;
    let changes = async {
        for body in [all.as_str(), "{}", all.as_str(), "{}"] {
            server.as_admin("PUT", "/v1/groups/team", body).await;
        }
    };
    tokio::pin!(changes);
    loop {
        let read = tokio::select! {
            biased;
            () = &mut changes => return,
            read = server.as_admin("GET", "/v1/groups/team", "") => read.json(),
        };
        let seen = read["members"].as_array().unwrap().len();
        assert!(seen == 0 || seen == MEMBERS, "{seen} of {MEMBERS}");
    }
}

/// As long as sled has not taken what came before; in a window that does not fill it never does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_beyond_what_may_wait_for_sled_is_refused_with_the_limit_and_a_time_to_come_back() {
    let server = TestServer::with_hub(
        |hub| {
            hub.tail_bytes_max = 1;
            hub.channels_max = 10;
        },
        |_| {},
    )
    .await;
    assert_eq!(server.push("ann", "bob", "1").await, 1);
    let one = "{\"from\":\"ann\",\"body\":2}";
    let many = "[{\"to\":\"bob\",\"from\":\"ann\",\"body\":2}]";
    // Each waits a little for room.
    let refused = tokio::join!(
        server.as_admin("POST", "/v1/direct/bob/messages", one),
        server.as_admin("POST", "/v1/messages", many),
        server.as_admin("PUT", "/v1/groups/team", "{\"members\":[\"bob\"]}"),
    );
    for reply in [refused.0, refused.1, refused.2] {
        assert_eq!((reply.status, reply.code()), (503, "busy".to_owned()));
        assert_eq!(reply.header("retry-after"), Some("1"));
        let problem = reply.json();
        assert_eq!(problem["limit"], 1);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("than the 1 bytes that it may"), "{detail}");
    }
    let inbox = server.as_user("bob", "GET", "/v1/inbox?wait=0", "").await;
    assert_eq!(inbox.bodies(), [1]);
    assert_eq!(server.status().await["watermark"]["direct"], 1);
}
