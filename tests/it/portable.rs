//! What one client may send, every client can read: the same rules by every way in.

use std::process::Command;

use halley::config::IcometRules::Open;
use halley::model::{Body, Draft, Receiver, UserName};
use serde_json::{Value, json};

use crate::support::{KEY, Socket, TestServer, frame};

/// Bodies that some common parser refuses, and with them the whole page; and the limit that is told.
fn wrong_bodies() -> Vec<(String, Option<u64>)> {
    let deep = |open: &str, inner: &str, close: &str, levels| {
        open.repeat(levels) + inner + &close.repeat(levels)
    };
    vec![
        (deep("[", "", "]", 65), Some(64)),
        (deep("[", "", "]", 1100), Some(64)),
        (deep("{\"a\":", "1", "}", 65), Some(64)),
        ("1".repeat(60_000), Some(400)),
        (format!("{{\"n\":-{}}}", "1".repeat(400)), Some(400)),
        (format!("0.{}", "1".repeat(399)), Some(400)),
        ("1e400".to_owned(), None),
        ("[-1.8e308]".to_owned(), None),
        ("1".repeat(310), None),
        ("\"\\ud83d\"".to_owned(), None),
        ("\"\\ude00\\ud83d\"".to_owned(), None),
        ("{\"\\uD800\":1}".to_owned(), None),
        ("{\"a\":1,\"\\u0061\":2}".to_owned(), None),
        ("[{\"\\u0000\":1}]".to_owned(), None),
    ]
}

fn right_bodies() -> Vec<String> {
    vec![
        "[".repeat(64) + &"]".repeat(64),
        format!("0.{}", "1".repeat(398)),
        "1".repeat(309),
        "\"\\ud83d\\ude00 \\\\ud83d\"".to_owned(),
        "{\"a\":{\"a\":1},\"A\":\"\\u0000\"}".to_owned(),
    ]
}

fn assert_refused(problem: &Value, limit: Option<u64>, body: &str) {
    let start: String = body.chars().take(40).collect();
    assert_eq!(problem["code"], "body_not_portable", "{start}: {problem}");
    assert_eq!(problem["status"], 400, "{start}");
    assert_eq!(problem["limit"].as_u64(), limit, "{start}: {problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("at byte "), "{detail}");
}

async fn stored(server: &TestServer, user: &str) -> Vec<String> {
    let path = "/v1/inbox?wait=0&limit=1000";
    let reply = server.as_user(user, "GET", path, "").await;
    reply.bodies().iter().map(Value::to_string).collect()
}

#[tokio::test]
async fn a_push_or_send_that_some_client_could_not_read_is_refused() {
    let server = TestServer::start().await;
    for (body, limit) in wrong_bodies() {
        let push = format!("{{\"from\":\"a\",\"body\":{body}}}");
        let send = format!("{{\"body\": {body} }}");
        for path in ["/v1/direct/x/messages", "/v1/groups/none/messages"] {
            assert_refused(
                &server.as_admin("POST", path, &push).await.json(),
                limit,
                &body,
            );
            assert_refused(
                &server.as_user("b", "POST", path, &send).await.json(),
                limit,
                &body,
            );
        }
    }
    assert_eq!(stored(&server, "x").await, [""; 0]);
    for body in right_bodies() {
        let push = format!("{{\"from\":\"a\",\"body\":{body}}}");
        let reply = server
            .as_admin("POST", "/v1/direct/x/messages", &push)
            .await;
        assert_eq!(reply.status, 201, "{body}: {reply:?}");
    }
    let reply = server.as_user("x", "GET", "/v1/inbox?wait=0", "").await;
    for body in right_bodies() {
        assert!(reply.text().contains(&body), "kept as written: {body}");
    }
}

#[tokio::test]
async fn in_a_batch_only_the_wrong_ones_are_refused() {
    let server = TestServer::start().await;
    let item = |body: &str| format!("{{\"to\":\"x\",\"from\":\"a\",\"body\":{body}}}");
    let wrong = wrong_bodies();
    let items: Vec<String> = wrong
        .iter()
        .flat_map(|(body, _)| [item(body), item("true")])
        .collect();
    let batch = format!("[{}]", items.join(","));
    let reply = server.as_admin("POST", "/v1/messages", &batch).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let results = reply.json()["results"].as_array().unwrap().clone();
    for ((body, limit), pair) in wrong.iter().zip(results.chunks(2)) {
        assert_refused(&pair[0]["error"], *limit, body);
        assert_eq!(pair[1]["sequence"], "direct", "{pair:?}");
    }
    assert_eq!(stored(&server, "x").await, vec!["true"; wrong.len()]);
}

#[tokio::test]
async fn a_send_on_a_socket_is_refused_and_the_socket_stays_open() {
    let server = TestServer::start().await;
    let mut socket = Socket::open(&server, "bob").await;
    for (number, (body, limit)) in wrong_bodies().into_iter().enumerate() {
        let text = format!("{{\"send\":{{\"to\":\"x\",\"body\":{body}}},\"ref\":{number}}}");
        socket.put(&frame(0x81, text.as_bytes())).await;
        let answer = socket.answer().await;
        assert_eq!(answer["ref"], number, "{answer}");
        assert_refused(&answer["error"], limit, &body);
    }
    let answer = socket.ask(&json!({"send": {"to": "x", "body": 7}})).await;
    assert_eq!(answer["receipt"]["id"], 1);
}

/// What `push` and `broadcast` take is text, and becomes a JSON string of whole characters; `pub` takes the inside of
/// one, which may have half of a pair.
#[tokio::test]
async fn icomets_contents_are_read_by_every_client() {
    let server = TestServer::with_hub(
        |options| options.channels_max = 10,
        |parts| parts.icomet = Some(Open),
    )
    .await;
    let get = async |path: &str| {
        let mut http = server.connect_admin().await;
        http.request("GET", path, &[], "").await
    };
    for content in ["%5Cud83d", "a%5CuDC00", "%5Cude00%5Cud83d"] {
        let reply = get(&format!("/pub?cname=x&content={content}")).await;
        assert_refused(&reply.json(), None, content);
        // Text, with a backslash.
        assert_eq!(
            get(&format!("/push?cname=x&content={content}"))
                .await
                .status,
            200
        );
    }
    assert_eq!(
        get("/pub?cname=x&content=%5Cud83d%5Cude00").await.status,
        200
    );
    assert_eq!(
        get("/push?cname=x&content=%ed%a0%bd").await.status,
        400,
        "no UTF-8"
    );
    assert_eq!(get("/broadcast?content=%5Cud83d").await.status, 200);
    let bodies = stored(&server, "x").await;
    let expected = ["\\ud83d", "a\\uDC00", "\\ude00\\ud83d", "😀", "\\ud83d"];
    assert_eq!(bodies, expected.map(|text| json!(text).to_string()));
}

#[tokio::test]
async fn the_command_line_refuses_before_it_asks_and_reads_what_was_stored_before() {
    let server = TestServer::start().await;
    let old = [
        "[".repeat(1100) + &"]".repeat(1100),
        "\"\\ud800\"".to_owned(),
        "1e400".to_owned(),
    ];
    for body in &old {
        let draft = Draft {
            from: UserName::parse("a").unwrap(),
            to: Receiver::User(UserName::parse("x").unwrap()),
            body: Body::from(body.clone().into_bytes()),
            key: None,
            by_user: false,
        };
        server
            .hub
            .push(vec![draft])
            .await
            .unwrap()
            .remove(0)
            .unwrap();
    }
    let admin = format!("http://{}", server.admin);
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halley"));
        command
            .args(arguments)
            .args(["--server", &admin])
            .env("HALLEY_ADMIN_KEY", KEY);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.unwrap().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            said,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for (body, _) in wrong_bodies() {
        let (status, _, said) = run(&["push", "--from", "a", "--to", "y", &body]).await;
        assert_eq!(status, Some(2), "{said}");
        assert!(
            said.contains("not every client can read this body: at byte "),
            "{said}"
        );
    }
    let (status, _, said) = run(&["push", "--from", "a", "--to", "y", "--text", "1e400"]).await;
    assert_eq!(status, Some(0), "{said}");
    for json in [false, true] {
        let mut arguments = vec!["history", "--user", "x", "--peer", "a"];
        arguments.extend(json.then_some("--json"));
        let (status, said, error) = run(&arguments).await;
        assert_eq!(status, Some(0), "{error}");
        for body in &old {
            assert!(said.contains(body), "{said}");
        }
    }
    let page = server.as_user("x", "GET", "/v1/inbox?wait=0", "").await;
    for body in &old {
        assert!(page.text().contains(body));
    }
}
