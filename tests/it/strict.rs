//! Nothing in a request's body is ignored in silence, and what is absent changes nothing.

use serde_json::{Value, json};

use crate::device::{inbox, set_group};
use crate::support::{Socket, TestServer, frame};

/// Bodies with a field that does not belong there or is there twice, and the field.
#[rustfmt::skip]
const STRANGE: &[(bool, &str, &str, &str, &str)] = &[
    (true, "PUT", "/v1/groups/g", "{\"membrs\":[\"a\"]}", "`membrs`"),
    (true, "PUT", "/v1/groups/g", "{\"members\":[\"a\"],\"History\":\"all\"}", "`History`"),
    (true, "PUT", "/v1/groups/g", "{\"members\":[],\"members\":[\"a\"]}", "`members`"),
    (true, "PUT", "/v1/groups/g", "{\"members\":null}", "`members`"),
    (true, "PUT", "/v1/groups/g", "{\"members\":\"a\"}", "`members`"),
    (true, "PUT", "/v1/groups/g", "{\"members\":[\"a\",7]}", "`members[1]`"),
    (true, "PUT", "/v1/groups/g", "{\"members\":{\"a\":1}}", "`members`"),
    (true, "PUT", "/v1/groups/g", "{\"history\":\"some\"}", "`some`"),
    (true, "PUT", "/v1/groups/g", "{\"history\":true}", "`history`"),
    (true, "POST", "/v1/groups/g/members", "{\"ad\":[\"z\"]}", "`ad`"),
    (true, "POST", "/v1/groups/g/members", "{\"add\":[\"z\"],\"remov\":[\"a\"]}", "`remov`"),
    (true, "POST", "/v1/groups/g/members", "{\"add\":null}", "`add`"),
    (true, "POST", "/v1/groups/g/members", "{\"add\":[[\"z\"]]}", "`add[0]`"),
    (true, "POST", "/v1/groups/g/members", "{\"add\":[\"z\"],\"add\":[]}", "`add`"),
    (true, "POST", "/v1/tokens", "{\"user\":\"a\",\"ttl\":60}", "`ttl`"),
    (true, "POST", "/v1/tokens", "{\"user\":\"a\",\"exp\":60}", "`exp`"),
    (true, "POST", "/v1/tokens", "{\"user\":\"a\",\"ttl_s\":\"60\"}", "`ttl_s`"),
    (true, "POST", "/v1/tokens", "{\"user\":\"a\",\"ttl_s\":null}", "`ttl_s`"),
    (true, "POST", "/v1/tokens", "{\"user\":\"a\",\"send\":1}", "`send`"),
    (true, "POST", "/v1/tokens", "{\"user\":\"a\",\"user\":\"b\"}", "`user`"),
    (true, "POST", "/v1/direct/x/messages", "{\"from\":\"a\",\"body\":1,\"to\":\"y\"}", "`to`"),
    (true, "POST", "/v1/direct/x/messages", "{\"from\":\"a\",\"body\":1,\"ttl_sec\":5}", "`ttl_sec`"),
    (true, "POST", "/v1/direct/x/messages", "{\"from\":\"a\",\"from\":\"b\",\"body\":1}", "`from`"),
    (true, "POST", "/v1/direct/x/messages", "{\"from\":[\"a\"],\"body\":1}", "`from`"),
    (true, "POST", "/v1/direct/x/messages", "{\"from\":\"a\",\"body\":1,\"idempotency_key\":7}", "`idempotency_key`"),
    (true, "POST", "/v1/direct/x/messages", "{\"from\":\"a\",\"body\":1,\"idempotency_key\":\"\"}", "`idempotency_key`"),
    (true, "POST", "/v1/direct/x/messages", "{\"from\":\"a\",\"Body\":1}", "`Body`"),
    (true, "POST", "/v1/groups/g/messages", "{\"from\":\"a\",\"body\":1,\"group\":\"h\"}", "`group`"),
    (false, "POST", "/v1/direct/x/messages", "{\"body\":1,\"from\":\"zoe\"}", "`from`"),
    (false, "POST", "/v1/direct/x/messages", "{\"body\":1,\"from\":\"bob\"}", "`from`"),
    (false, "POST", "/v1/direct/x/messages", "{\"body\":1,\"ref\":1}", "`ref`"),
    (false, "POST", "/v1/groups/g/messages", "{\"body\":1,\"key\":\"k\"}", "`key`"),
];

#[tokio::test]
async fn a_field_that_is_unknown_or_wrong_is_named_and_nothing_is_done() {
    let server = TestServer::start().await;
    set_group(&server, "g", &["a", "bob"]).await;
    for (admin, method, path, body, field) in STRANGE {
        let reply = if *admin {
            server.as_admin(method, path, body).await
        } else {
            server.as_user("bob", method, path, body).await
        };
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "bad_json"),
            "{body}: {reply:?}"
        );
        let problem = reply.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(field), "{body}: {detail}");
    }
    let group = server.as_admin("GET", "/v1/groups/g", "").await.json();
    let expected = json!({"group": "g", "history": "member", "last": 0, "members": ["a", "bob"]});
    assert_eq!(group, expected);
    assert!(inbox(&server, "x").await.is_empty());
}

#[tokio::test]
async fn a_batch_names_the_field_of_each_item() {
    let server = TestServer::start().await;
    let batch = json!([
        {"to": "x", "from": "a", "body": 1, "key": "k"},
        {"to": "x", "from": "a", "body": 2},
        {"to": "x", "from": 7, "body": 3},
        {"to": "x", "body": 4},
        {"to": "x", "group": "g", "from": "a", "body": 5},
        [1],
    ]);
    let reply = server
        .as_admin("POST", "/v1/messages", &batch.to_string())
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let results = reply.json()["results"].clone();
    for (index, words) in [(0, "`key`"), (2, "`from`"), (3, "`from`"), (4, "`to`")] {
        let error = &results[index]["error"];
        assert_eq!(error["code"], "bad_json", "{error}");
        assert!(error["detail"].as_str().unwrap().contains(words), "{error}");
    }
    assert_eq!(results[1]["id"], 1);
    assert_eq!(results[5]["error"]["code"], "bad_json");
}

#[tokio::test]
async fn a_socket_names_the_field_that_is_wrong() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    for (text, field) in [
        ("{\"send\":{\"to\":\"x\",\"body\":1},\"reff\":1}", "`reff`"),
        (
            "{\"send\":{\"to\":\"x\",\"body\":1,\"from\":\"zoe\"}}",
            "`from`",
        ),
        (
            "{\"send\":{\"to\":\"x\",\"body\":1,\"key\":\"k\"}}",
            "`key`",
        ),
        ("{\"send\":{\"to\":7,\"body\":1}}", "`to`"),
        ("{\"send\":{\"to\":\"x\",\"to\":\"y\",\"body\":1}}", "`to`"),
        ("{\"token\":7}", "`token`"),
        ("{\"sned\":{\"to\":\"x\",\"body\":1}}", "`sned`"),
    ] {
        socket.put(&frame(0x81, text.as_bytes())).await;
        let answer = socket.answer().await;
        let detail = answer["error"]["detail"].as_str().unwrap_or_default();
        assert_eq!(answer["error"]["code"], "bad_json", "{text}: {answer}");
        assert!(detail.contains(field), "{text}: {detail}");
    }
    let answer = socket.ask(&json!({"send": {"to": "x", "body": 1}})).await;
    assert_eq!(answer["receipt"]["id"], 1);
}

#[tokio::test]
async fn a_single_push_takes_its_key_in_the_body_as_one_of_many_does() {
    let server = TestServer::start().await;
    let path = "/v1/direct/x/messages";
    let body = "{\"from\":\"a\",\"body\":1,\"idempotency_key\":\"k\"}";
    let first = server.as_admin("POST", path, body).await;
    let again = server.as_admin("POST", path, body).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(again.json()["duplicate"], true);
    let bearer = format!("authorization: Bearer {}", crate::support::KEY);
    for (header, body, status) in [
        ("idempotency-key: k", "{\"from\":\"a\",\"body\":1}", 200),
        ("idempotency-key: k", body, 200),
        ("idempotency-key: other", body, 400),
    ] {
        let mut http = server.connect_admin().await;
        let reply = http.request("POST", path, &[&bearer, header], body).await;
        assert_eq!(reply.status, status, "{header}: {reply:?}");
    }
    let send = "{\"body\":1,\"idempotency_key\":\"k\"}";
    let first = server.as_user("bob", "POST", path, send).await;
    let again = server.as_user("bob", "POST", path, send).await;
    assert_eq!((first.status, again.status), (201, 200));
}

async fn members(server: &TestServer, group: &str) -> Value {
    let path = format!("/v1/groups/{group}");
    server.as_admin("GET", &path, "").await.json()["members"].clone()
}

#[tokio::test]
async fn a_group_that_is_set_without_members_keeps_them() {
    let server = TestServer::start().await;
    for (group, body, status) in [
        ("new", "{}", 201),
        ("g", "{\"members\":[\"a\",\"b\"]}", 201),
        ("g", "{}", 200),
        ("g", "{\"history\":\"all\"}", 200),
    ] {
        let reply = server
            .as_admin("PUT", &format!("/v1/groups/{group}"), body)
            .await;
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        assert_eq!(reply.json()["removed"], 0, "{body}");
    }
    assert_eq!(members(&server, "g").await, json!(["a", "b"]));
    assert_eq!(members(&server, "new").await, json!([]));
    let group = server.as_admin("GET", "/v1/groups/g", "").await.json();
    assert_eq!(group["history"], "all");
    // An empty list is a list.
    let reply = server
        .as_admin("PUT", "/v1/groups/g", "{\"members\":[]}")
        .await;
    assert_eq!(reply.json()["removed"], 2);
    // One that was deleted begins again, with nobody.
    server
        .as_admin("PUT", "/v1/groups/g", "{\"members\":[\"a\"]}")
        .await;
    server.as_admin("DELETE", "/v1/groups/g", "").await;
    let reply = server
        .as_admin("PUT", "/v1/groups/g", "{\"history\":\"all\"}")
        .await;
    assert_eq!(reply.status, 201);
    assert_eq!(members(&server, "g").await, json!([]));
}

#[tokio::test]
async fn who_joins_while_a_group_is_set_without_members_stays() {
    let server = TestServer::start().await;
    set_group(&server, "g", &[]).await;
    let joins = async {
        for number in 0..40 {
            let path = format!("/v1/groups/g/members/u{number}");
            assert_eq!(server.as_admin("PUT", &path, "").await.status, 200);
        }
    };
    let sets = async {
        for number in 0..40 {
            let history = ["all", "member"][number % 2];
            let body = format!("{{\"history\":\"{history}\"}}");
            let reply = server.as_admin("PUT", "/v1/groups/g", &body).await;
            assert_eq!((reply.status, &reply.json()["removed"]), (200, &json!(0)));
        }
    };
    tokio::join!(joins, sets);
    assert_eq!(members(&server, "g").await.as_array().unwrap().len(), 40);
}

/// As of a GET: what is sent where nothing is read would be ignored.
#[tokio::test]
async fn a_body_where_none_is_taken_is_refused() {
    let server = TestServer::start().await;
    set_group(&server, "g", &["a"]).await;
    for (method, path) in [
        ("PUT", "/v1/groups/g/members/b"),
        ("DELETE", "/v1/groups/g/members/a"),
        ("DELETE", "/v1/groups/g"),
    ] {
        let reply = server.as_admin(method, path, "{\"history\":\"all\"}").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "bad_request"),
            "{reply:?}"
        );
    }
    assert_eq!(members(&server, "g").await, json!(["a"]));
}
