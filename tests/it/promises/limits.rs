//! Limits: the configured ones are kept, and the reply at each says which it is.

use std::time::{Duration, Instant};

use clap::FromArgMatches;
use halley::config::{Config, Options, options_command};
use halley::http::Timeouts;
use halley::server::Server;
use serde_json::{Value, json};

use crate::support::{Http, PATIENCE, Socket, TestServer};

const POST: &str = "/v1/direct/carol/messages";

fn push(length: usize) -> String {
    json!({ "from": "a", "body": "x".repeat(length) }).to_string()
}

/// Requests beyond a limit: method, path, body; status, code, what the reply names.
type Beyond = (
    &'static str,
    &'static str,
    String,
    u16,
    &'static str,
    &'static str,
);

fn beyond() -> [Beyond; 7] {
    let array = Value::from(vec![
        json!({ "to": "b", "from": "a", "body": "x".repeat(100) });
        25
    ]);
    let items = Value::from(vec![json!(0); 1001]).to_string();
    [
        ("POST", POST, push(122), 413, "body_too_large", "123"),
        (
            "POST",
            "/v1/messages",
            "[".to_owned() + &" ".repeat(4567),
            413,
            "body_too_large",
            "4567",
        ),
        ("POST", "/v1/messages", items, 413, "body_too_large", "1000"),
        (
            "POST",
            "/v1/messages",
            array.to_string(),
            503,
            "busy",
            "queue",
        ),
        (
            "GET",
            "/v1/users/ann/inbox?limit=18",
            String::new(),
            400,
            "bad_query",
            "17",
        ),
        (
            "GET",
            "/v1/users/ann/inbox?wait=78",
            String::new(),
            400,
            "bad_query",
            "77",
        ),
        (
            "GET",
            "/v1/inbox",
            String::new(),
            429,
            "too_many_waiters",
            "2",
        ),
    ]
}

/// Promise 11: at each limit the reply names it, and it is the configured one.
#[tokio::test]
async fn every_limit_is_the_configured_one_and_is_named() {
    let change = |parts: &mut halley::http::Parts| {
        parts.limits.body_bytes_max = 123;
        parts.limits.request_bytes_max = 4567;
        parts.limits.page_messages_max = 17;
        parts.limits.poll_wait_max = Duration::from_secs(77);
    };
    let hub = |options: &mut halley::hub::Options| {
        options.waiters_per_user_max = 2;
        options.queue_bytes_max = 2000;
    };
    let server = TestServer::with_hub(hub, change).await;
    let _held = (server.poll_held("bob").await, server.poll_held("bob").await);
    for (method, path, body, status, code, named) in beyond() {
        let reply = if path == "/v1/inbox" {
            server.as_user("bob", method, path, &body).await
        } else {
            server.as_admin(method, path, &body).await
        };
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{path}: {reply:?}"
        );
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(named), "{path}: {detail}");
        assert_eq!(
            reply.header("retry-after").is_some(),
            status == 429 || status == 503
        );
    }
    for (method, path, body) in [
        ("POST", POST, push(121)),
        ("GET", "/v1/users/ann/inbox?limit=17", String::new()),
    ] {
        let reply = server.as_admin(method, path, &body).await;
        assert!(reply.status < 300, "at the limit: {reply:?}");
    }
}

/// What would not fit into 1 MiB comes in the next page, and the page says that there is more.
#[tokio::test]
async fn a_page_ends_before_a_mebibyte() {
    const PAGE: usize = 1 << 20;
    let server = TestServer::start().await;
    let body = "x".repeat(60_000);
    let items = vec![json!({ "to": "bob", "from": "ann", "body": body }); 40];
    let pushed = server
        .as_admin("POST", "/v1/messages", &Value::from(items).to_string())
        .await;
    assert_eq!(pushed.status, 200);
    for path in [
        "/v1/inbox?wait=0&limit=1000",
        "/v1/direct/ann/messages?limit=1000",
        "/v1/direct/ann/messages?limit=1000&after=0",
    ] {
        let reply = server.as_user("bob", "GET", path, "").await;
        let bytes = reply.body.len();
        assert!(bytes <= PAGE && bytes > PAGE - 60_300, "{path}: {bytes}");
        assert_eq!(reply.json()["more"], true, "{path}");
    }
}

#[tokio::test]
async fn what_has_no_option_is_limited_too() {
    let server = TestServer::start().await;
    let token = |blanks: usize| "{\"user\":\"a\"}".to_owned() + &" ".repeat(blanks);
    let reply = server.as_admin("POST", "/v1/tokens", &token(4084)).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let reply = server.as_admin("POST", "/v1/tokens", &token(4085)).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (413, "body_too_large")
    );
    assert_eq!(reply.json()["limit"], 4096);

    let mut socket = Socket::open(&server, "bob").await;
    // With its quotes.
    for (length, taken) in [(126, true), (127, false)] {
        let reference = "x".repeat(length);
        let text = json!({ "send": { "to": "ann", "body": 1 }, "ref": reference });
        let answer = socket.ask(&text).await;
        assert_eq!(answer.get("receipt").is_some(), taken, "{answer}");
        assert_eq!(answer["error"]["code"] == "bad_json", !taken, "{answer}");
    }
}

/// What is within the limits is not refused for ever: 10,000 names that also open as many channels.
#[tokio::test]
async fn the_least_queue_takes_the_largest_change_of_a_group() {
    const REQUEST: usize = 80 << 10;
    let bytes = REQUEST.to_string();
    let given = [
        "halley",
        "--request-bytes-max",
        &bytes,
        "--queue-bytes-max",
        &bytes,
    ];
    let matches = options_command().get_matches_from(given);
    let options = Options::from_arg_matches(&matches).unwrap();
    let refused = Config::from_options(options).unwrap_err().to_string();
    let (_, least) = refused.split_once("at least ").unwrap();
    let least = least.split(',').next().unwrap().parse().unwrap();
    let hub = |options: &mut halley::hub::Options| {
        options.queue_bytes_max = least;
        options.channels_max = 20_000;
    };
    let server = TestServer::with_hub(hub, |parts| parts.limits.request_bytes_max = REQUEST).await;
    let members: Vec<String> = (0..10_000).map(|n| format!("{n:04x}")).collect();
    let body = json!({ "members": members }).to_string();
    assert!(body.len() <= REQUEST);
    let made = server.as_admin("PUT", "/v1/groups/team", &body).await;
    assert_eq!(made.status, 201, "{made:?}");
}

/// Users must not shut the backend out.
#[tokio::test]
async fn the_last_places_for_connections_are_the_backends() {
    let server = TestServer::with(|parts| parts.limits.connections_max = 16).await;
    let mut kept = Vec::new();
    for _ in 0..14 {
        let mut http = server.connect().await;
        assert_eq!(http.request("GET", "/healthz", &[], "").await.status, 200);
        kept.push(http);
    }
    let mut late = server.connect().await;
    assert_eq!(
        late.request("GET", "/healthz", &[], "").await.code(),
        "too_many_connections"
    );
    assert_eq!(server.status().await["connections"]["client"], 14);
}

/// Half of the time to stop is for requests under way; then they are cut, and the store is closed in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_end_is_cut_when_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut config = Config::default_for(&data);
    (config.listen, config.admin_listen) = (
        "127.0.0.1:0".parse().unwrap(),
        "127.0.0.1:0".parse().unwrap(),
    );
    config.shutdown = Duration::from_secs(6);
    let server = Server::open(&config, Timeouts::default()).unwrap();
    let (_, admin) = server.addresses().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let key = std::fs::read_to_string(data.join("admin.key")).unwrap();
    let mut http = Http::connect(admin).await;
    http.send(&format!(
        "POST {POST} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\n\
         content-length: 10\r\n\r\n",
        key.trim()
    ))
    .await;
    assert_eq!(http.head().await.status, 100, "the body is waited for");
    let begin = Instant::now();
    stop.send(()).unwrap();
    assert!(http.ends().await);
    assert!(begin.elapsed() >= config.shutdown / 2);
    let ended = tokio::time::timeout(PATIENCE, running).await;
    ended
        .unwrap()
        .unwrap()
        .expect("the store is closed in time");
}
