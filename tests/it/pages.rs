//! Pages for browsers: which, where, and under which policy.

use std::net::SocketAddr;

use crate::support::{Http, Reply, TestServer};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const ON_BOTH: &[(&str, &str)] = &[("/halley.js", SCRIPT)];
const ADMIN: &[(&str, &str)] = &[
    ("/", HTML),
    ("/admin.css", CSS),
    ("/admin.js", SCRIPT),
    ("/admin-live.js", SCRIPT),
    ("/admin-nodes.js", SCRIPT),
];
const DEMO: &[(&str, &str)] = &[
    ("/", HTML),
    ("/demo.css", CSS),
    ("/demo.js", SCRIPT),
    ("/demo-chats.js", SCRIPT),
    ("/demo-nodes.js", SCRIPT),
    ("/demo-times.js", SCRIPT),
];

async fn demo() -> TestServer {
    TestServer::with(|parts| parts.demo = true).await
}

async fn get(address: SocketAddr, path: &str) -> Reply {
    Http::connect(address)
        .await
        .request("GET", path, &[], "")
        .await
}

async fn join(server: &TestServer, body: &str) -> Reply {
    server
        .connect()
        .await
        .request("POST", "/demo/join", &[], body)
        .await
}

#[tokio::test]
async fn pages_are_given_to_anyone_under_a_strict_policy() {
    let server = demo().await;
    for (address, paths) in [
        (server.client, ON_BOTH),
        (server.client, DEMO),
        (server.admin, ON_BOTH),
        (server.admin, ADMIN),
    ] {
        for (path, content_type) in paths {
            let reply = get(address, path).await;
            assert_eq!(reply.status, 200, "{path}");
            assert_eq!(reply.header("content-type"), Some(*content_type), "{path}");
            assert_eq!(reply.header("content-security-policy"), Some(POLICY));
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
            assert!(!reply.body.is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn pages_load_only_what_is_there() {
    let server = demo().await;
    for (address, paths) in [(server.client, DEMO), (server.admin, ADMIN)] {
        for (path, _) in paths {
            let page = get(address, path).await;
            let text = page.text();
            assert!(
                !text.contains("style=\""),
                "{path} has a style that the policy forbids"
            );
            for before in ["src=\"", "rel=\"stylesheet\" href=\"", "from \"./"] {
                for rest in text.split(before).skip(1) {
                    let name = rest.split('"').next().unwrap();
                    assert!(
                        !name.starts_with('/'),
                        "{path}: {name} fails below a prefix"
                    );
                    let reply = get(address, &format!("/{name}")).await;
                    assert_eq!(reply.status, 200, "{path} loads {name}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_browser_asks_again_and_is_told_that_it_has_the_page() {
    let server = TestServer::start().await;
    let first = get(server.admin, "/").await;
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    let tag = first.header("etag").unwrap();
    for (header, status) in [
        (format!("if-none-match: {tag}"), 304),
        (format!("if-none-match: \"other\", W/{tag}"), 304),
        ("if-none-match: \"other\"".to_owned(), 200),
    ] {
        let mut http = server.connect_admin().await;
        let reply = http.request("GET", "/", &[&header], "").await;
        assert_eq!(reply.status, status, "{header}");
        assert_eq!(reply.header("etag"), Some(tag));
        assert_eq!(reply.body.is_empty(), status == 304);
    }
    let head = server
        .connect_admin()
        .await
        .request("HEAD", "/", &[], "")
        .await;
    assert_eq!((head.status, head.header("etag")), (200, Some(tag)));
}

#[tokio::test]
async fn no_page_is_on_the_wrong_listener() {
    let (server, shown) = (TestServer::start().await, demo().await);
    for (address, paths) in [
        (server.client, DEMO),
        (server.client, ADMIN),
        (shown.client, &ADMIN[1..]),
        (server.admin, &DEMO[1..]),
        (shown.admin, &DEMO[1..]),
    ] {
        for (path, _) in paths {
            let reply = get(address, path).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (404, "not_found"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_no_demo_lets_nobody_in() {
    let server = TestServer::start().await;
    let reply = join(&server, "{\"user\":\"ann\"}").await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"));
    let reply = server
        .connect()
        .await
        .request("OPTIONS", "/demo/join", &[], "")
        .await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn who_joins_the_demo_may_read_and_write_with_everyone() {
    let server = demo().await;
    let group = "/v1/groups/everyone";
    let made = server
        .as_admin("PUT", group, "{\"members\":[\"bob\"],\"history\":\"all\"}")
        .await;
    assert_eq!(made.status, 201);

    let joined = join(&server, "{\"user\":\"Zoë\"}").await;
    assert_eq!(joined.status, 200, "{joined:?}");
    let joined = joined.json();
    assert_eq!(
        (&joined["user"], &joined["group"]),
        (&"Zoë".into(), &"everyone".into())
    );

    let bearer = format!(
        "authorization: Bearer {}",
        joined["token"].as_str().unwrap()
    );
    let messages = format!("{group}/messages");
    let mut http = server.connect().await;
    let sent = http
        .request("POST", &messages, &[&bearer], "{\"body\":\"hello\"}")
        .await;
    assert_eq!(sent.status, 201, "{sent:?}");
    let read = http.request("GET", &messages, &[&bearer], "").await;
    assert_eq!(read.bodies(), ["hello"]);
    let members = server.as_admin("GET", group, "").await.json();
    assert_eq!(members["members"], serde_json::json!(["Zoë", "bob"]));
}

#[tokio::test]
async fn names_that_break_the_rule_do_not_join() {
    let server = demo().await;
    for (body, code) in [
        ("{\"user\":\"\"}", "bad_name"),
        ("{\"user\":\"a\\nb\"}", "bad_name"),
        ("{}", "bad_json"),
        ("[", "bad_json"),
    ] {
        let reply = join(&server, body).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, code), "{body}");
    }
    let reply = join(&server, &format!("{{\"user\":\"{}\"}}", "x".repeat(5000))).await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn pages_are_no_part_of_the_interface() {
    let server = demo().await;
    for address in [server.client, server.admin] {
        let document = get(address, "/openapi.json").await.json();
        for path in ["/", "/halley.js", "/demo/join"] {
            assert!(document["paths"].get(path).is_none(), "{path}");
        }
    }
    let reply = server.connect().await.request("POST", "/", &[], "").await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
}
