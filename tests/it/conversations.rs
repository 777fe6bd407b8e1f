//! The list of conversations: what a page costs, and that it holds up nobody else.

use serde_json::{Value, json};

use crate::support::TestServer;

const PAGE_BYTES: usize = 1 << 20;

/// Pushes a message of this length from each of so many users.
async fn crowd(server: &TestServer, peers: usize, bytes: usize) {
    let body = "x".repeat(bytes);
    for first in (0..peers).step_by(50) {
        let items: Vec<Value> = (first..peers.min(first + 50))
            .map(|n| json!({ "to": "bob", "from": format!("peer-{n}"), "body": body }))
            .collect();
        let pushed = server
            .as_admin("POST", "/v1/messages", &json!(items).to_string())
            .await;
        assert_eq!(pushed.status, 200, "{pushed:?}");
    }
}

/// All pages: the names in them, and the bytes of the longest page.
async fn pages(server: &TestServer, limit: usize) -> (Vec<String>, usize) {
    let (mut names, mut longest, mut before) = (Vec::new(), 0, String::new());
    loop {
        let path = format!("/v1/conversations?limit={limit}{before}");
        let reply = server.as_user("bob", "GET", &path, "").await;
        let page = reply.json();
        let lines = page["conversations"].as_array().unwrap();
        assert!(!lines.is_empty(), "{page}");
        let name = |line: &Value| {
            line["user"]
                .as_str()
                .or(line["group"].as_str())
                .unwrap()
                .to_owned()
        };
        names.extend(lines.iter().map(name));
        longest = longest.max(reply.body.len());
        assert_eq!(page["more"], page["next"].is_string());
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return (names, longest),
        }
    }
}

#[tokio::test]
async fn a_page_ends_at_the_limit_of_bytes_and_the_next_goes_on_behind_it() {
    let server = TestServer::start().await;
    crowd(&server, 50, 60_000).await;
    for group in ["team", "empty-1", "empty-2"] {
        let path = format!("/v1/groups/{group}");
        server
            .as_admin("PUT", &path, "{\"members\":[\"bob\"]}")
            .await;
    }
    let text = json!({ "from": "bob", "body": "x".repeat(60_000) }).to_string();
    server
        .as_admin("POST", "/v1/groups/team/messages", &text)
        .await;
    crowd(&server, 3, 60_000).await;
    let expected = (0..3).rev().chain((3..50).rev());
    let expected: Vec<_> = expected.map(|n| format!("peer-{n}")).collect();
    for limit in [1, 7, 1000] {
        let (names, longest) = pages(&server, limit).await;
        let at = |wanted| names.iter().position(|name| name == wanted).unwrap();
        // Which comes first of what came within the same millisecond is not said.
        let (last, first) = (at("team").max(at("empty-1")), at("team").min(at("empty-2")));
        assert!(first <= 3 && last <= 5, "by {limit}: {names:?}");
        assert!(at("empty-2") < at("empty-1"), "by {limit}: {names:?}");
        let (mut peers, mut groups) = (names.clone(), names);
        peers.retain(|name| name.starts_with("peer-"));
        groups.retain(|name| !name.starts_with("peer-"));
        assert_eq!((peers, groups.len()), (expected.clone(), 3), "by {limit}");
        assert!(longest <= PAGE_BYTES, "a page of {longest} bytes");
    }
}

#[tokio::test]
async fn a_list_is_answered_as_other_reads_are() {
    let server = TestServer::start().await;
    crowd(&server, 3, 1).await;
    let bearer = format!("authorization: Bearer {}", TestServer::token("bob"));
    let mut http = server.connect().await;
    for (method, length) in [("GET", true), ("HEAD", false), ("GET", true)] {
        let reply = http
            .request(method, "/v1/conversations", &[&bearer], "")
            .await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(!reply.body.is_empty(), length, "{method}");
    }
    let old = format!("GET /v1/conversations HTTP/1.0\r\n{bearer}\r\n\r\n");
    http.send(&old).await;
    assert_eq!(http.reply().await.json()["more"], false);
    assert!(http.ends().await);
}
