//! Every way to be wrong, as a table: what is asked, and the status and code of the refusal.

use std::process::Command;

use halley::clock;
use halley::token::Claims;

use crate::openapi::operations;
use crate::support::{KEY, TestServer};

/// Who asks on which listener.
#[derive(Clone, Copy, Debug)]
enum As {
    User,
    /// A user whose token has no `send`.
    Reader,
    Backend,
}
use As::{Backend, Reader, User};

type Row = (
    As,
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
);

async fn check(server: &TestServer, rows: &[Row]) {
    for row in rows {
        let (who, method, path, body, status, code) = *row;
        let reply = match who {
            User => server.as_user("bob", method, path, body).await,
            Backend => server.as_admin(method, path, body).await,
            Reader => {
                let claims = Claims {
                    user: "bob".to_owned(),
                    send: false,
                    expires_at: clock::now_s() + 60,
                };
                let bearer = format!("authorization: Bearer {}", TestServer::token_of(&claims));
                let mut http = server.connect().await;
                http.request(method, path, &[&bearer], body).await
            }
        };
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (status, code),
            "{row:?}: {reply:?}"
        );
        assert_eq!(
            reply.header("content-type"),
            Some("application/problem+json"),
            "{row:?}"
        );
        let problem = reply.json();
        assert_eq!(problem["type"], format!("urn:halley:error:{code}"));
        assert_eq!(problem["status"], status);
        for field in ["title", "detail"] {
            assert!(
                problem[field].as_str().is_some_and(|text| !text.is_empty()),
                "{row:?}"
            );
        }
        let retry = matches!(status, 429 | 503);
        assert_eq!(reply.header("retry-after").is_some(), retry, "{row:?}");
    }
}

/// One row a line.
#[rustfmt::skip]
const WRONG_REQUESTS: &[Row] = &[
    (User, "GET", "/", "", 404, "not_found"),
    (User, "GET", "/v1/inbox/", "", 404, "not_found"),
    (User, "GET", "/v1/tokens", "", 404, "not_found"),
    (Backend, "GET", "/v1/inbox", "", 404, "not_found"),
    (Backend, "GET", "/v1/messages/other/1", "", 404, "not_found"),
    (User, "POST", "/v1/inbox", "{}", 405, "method_not_allowed"),
    (Backend, "DELETE", "/v1/tokens", "", 405, "method_not_allowed"),
    (User, "PATCH", "/healthz", "", 405, "method_not_allowed"),
    (User, "GET", "/v1/inbox", "{}", 400, "bad_request"),
    (User, "GET", "/v1/inbox?wait=301", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox?wait=-1", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox?wait=1.5", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox?wait=", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox?limit=0", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox?limit=1001", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox?after=x", "", 400, "bad_cursor"),
    (User, "GET", "/v1/inbox?after=1.2.3", "", 400, "bad_cursor"),
    (User, "GET", "/v1/inbox?after=9.0", "", 409, "cursor_ahead"),
    (User, "GET", "/v1/inbox?after=0.0.12345678", "", 409, "log_unknown"),
    (User, "GET", "/v1/direct/x/messages?before=1&after=2", "", 400, "bad_query"),
    (User, "GET", "/v1/direct/x/messages?before=a", "", 400, "bad_query"),
    (User, "GET", "/v1/direct/x/messages?after=99", "", 409, "cursor_ahead"),
    (User, "GET", "/v1/direct/%zz/messages", "", 400, "bad_request"),
    (User, "GET", "/v1/direct/%ff/messages", "", 400, "bad_request"),
    (User, "GET", "/v1/direct/%00/messages", "", 400, "bad_name"),
    (User, "GET", "/v1/groups/none/messages", "", 404, "group_not_found"),
    (User, "GET", "/v1/conversations?before=x", "", 400, "bad_query"),
    (User, "POST", "/v1/groups/none/messages", "{\"body\":1}", 404, "group_not_found"),
    (Backend, "GET", "/v1/messages/direct/99", "", 404, "message_not_found"),
    (Backend, "GET", "/v1/messages/direct/x", "", 404, "message_not_found"),
    (Backend, "GET", "/v1/users/%0a/presence", "", 400, "bad_name"),
    (Backend, "GET", "/v1/users/./presence", "", 400, "bad_name"),
    (Backend, "GET", "/v1/groups/%2E%2e", "", 400, "bad_name"),
    (User, "GET", "/v1/direct/../messages", "", 400, "bad_name"),
    (User, "GET", "/v1/direct/%2e/messages", "", 400, "bad_name"),
    (Backend, "GET", "/v1/groups/none", "", 404, "group_not_found"),
    (Backend, "DELETE", "/v1/groups/none", "", 404, "group_not_found"),
    (Backend, "PUT", "/v1/groups/none/members/a", "", 404, "group_not_found"),
    (Backend, "DELETE", "/v1/groups/%2e", "", 400, "bad_name"),
    (Backend, "PUT", "/v1/groups/g/members/%00", "", 400, "bad_name"),
    (Backend, "DELETE", "/v1/groups/none/members/a", "", 404, "group_not_found"),
    (Backend, "DELETE", "/v1/groups/g/members/%00", "", 400, "bad_name"),
    (User, "GET", "/v1/inbox/sse?heartbeat=4", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox/sse?after=x", "", 400, "bad_cursor"),
    (User, "GET", "/v1/inbox/sse?after=9.0", "", 409, "cursor_ahead"),
    (User, "GET", "/v1/inbox/sse?after=0.0.12345678", "", 409, "log_unknown"),
    (User, "GET", "/v1/inbox/stream?heartbeat=301", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox/stream?after=x", "", 400, "bad_cursor"),
    (User, "GET", "/v1/inbox/stream?after=9.0", "", 409, "cursor_ahead"),
    (User, "GET", "/v1/inbox/stream?after=0.0.12345678", "", 409, "log_unknown"),
    (User, "GET", "/v1/inbox/ws", "", 426, "upgrade_required"),
    (User, "GET", "/v1/inbox/ws?heartbeat=4", "", 400, "bad_query"),
    (User, "GET", "/v1/inbox/ws?after=x", "", 400, "bad_cursor"),
    (User, "GET", "/v1/groups/%2e/messages", "", 400, "bad_name"),
    (User, "GET", "/v1/groups/g/messages?limit=0", "", 400, "bad_query"),
    (User, "GET", "/v1/groups/g/messages?after=99", "", 409, "cursor_ahead"),
    (User, "GET", "/v1/conversations?limit=1001", "", 400, "bad_query"),
    (Backend, "GET", "/v1/users/./inbox", "", 400, "bad_name"),
    (Backend, "GET", "/v1/users/bob/inbox?wait=301", "", 400, "bad_query"),
    (Backend, "GET", "/v1/users/bob/inbox?after=x", "", 400, "bad_cursor"),
    (Backend, "GET", "/v1/users/bob/inbox?after=9.0", "", 409, "cursor_ahead"),
    (Backend, "GET", "/v1/users/bob/inbox?after=0.0.12345678", "", 409, "log_unknown"),
    (Backend, "GET", "/v1/users/%00/direct/x/messages", "", 400, "bad_name"),
    (Backend, "GET", "/v1/users/bob/direct/%00/messages", "", 400, "bad_name"),
    (Backend, "GET", "/v1/users/bob/direct/x/messages?before=a", "", 400, "bad_query"),
    (Backend, "GET", "/v1/users/bob/direct/x/messages?before=1&after=2", "", 400, "bad_query"),
    (Backend, "GET", "/v1/users/bob/direct/x/messages?after=99", "", 409, "cursor_ahead"),
    (Backend, "GET", "/v1/users/%00/groups/g/messages", "", 400, "bad_name"),
    (Backend, "GET", "/v1/users/bob/groups/../messages", "", 400, "bad_name"),
    (Backend, "GET", "/v1/users/bob/groups/g/messages?limit=0", "", 400, "bad_query"),
    (Backend, "GET", "/v1/users/bob/groups/g/messages?after=99", "", 409, "cursor_ahead"),
    (Backend, "GET", "/v1/users/bob/groups/none/messages", "", 404, "group_not_found"),
    (Backend, "GET", "/v1/users/%00/conversations", "", 400, "bad_name"),
    (Backend, "GET", "/v1/users/bob/conversations?limit=0", "", 400, "bad_query"),
    (Backend, "GET", "/v1/users/bob/conversations?before=1-group", "", 400, "bad_query"),
];

#[tokio::test]
async fn wrong_requests() {
    check(&TestServer::start().await, WRONG_REQUESTS).await;
}

/// One row a line.
#[rustfmt::skip]
const WRONG_BODIES: &[Row] = &[
    (User, "POST", "/v1/direct/x/messages", "", 400, "bad_json"),
    (User, "POST", "/v1/direct/x/messages", "{", 400, "bad_json"),
    (User, "POST", "/v1/direct/x/messages", "{}", 400, "bad_json"),
    (User, "POST", "/v1/direct/x/messages", "{\"body\":1}x", 400, "bad_json"),
    (User, "POST", "/v1/direct/x/messages", "{\"body\":1,\"body\":2}", 400, "bad_json"),
    (User, "POST", "/v1/direct/x/messages", "{\"body\":01}", 400, "bad_json"),
    (Backend, "POST", "/v1/direct/x/messages", "{\"body\":1}", 400, "bad_json"),
    (Backend, "POST", "/v1/direct/x/messages", "{\"from\":\"\",\"body\":1}", 400, "bad_name"),
    (Backend, "POST", "/v1/direct/x/messages", "{\"from\":7,\"body\":1}", 400, "bad_json"),
    (Backend, "POST", "/v1/direct/%0a/messages", "{\"from\":\"a\",\"body\":1}", 400, "bad_name"),
    (Backend, "POST", "/v1/groups/g/messages", "{\"from\":\"a\",\"body\":1}", 404, "group_not_found"),
    (Backend, "POST", "/v1/messages", "{}", 400, "bad_json"),
    (Backend, "PUT", "/v1/groups/g", "[]", 400, "bad_json"),
    (Backend, "PUT", "/v1/groups/g", "{\"history\":\"some\"}", 400, "bad_json"),
    (Backend, "PUT", "/v1/groups/g", "{\"members\":[\"\"]}", 400, "bad_name"),
    (Backend, "PUT", "/v1/groups/g", "{\"members\":[\"..\"]}", 400, "bad_name"),
    (Backend, "PUT", "/v1/groups/%2e%2e", "{}", 400, "bad_name"),
    (Backend, "POST", "/v1/direct/x/messages", "{\"from\":\".\",\"body\":1}", 400, "bad_name"),
    (Backend, "POST", "/v1/direct/../messages", "{\"from\":\"a\",\"body\":1}", 400, "bad_name"),
    (Backend, "POST", "/v1/groups/g/members", "{\"add\":\"a\"}", 400, "bad_json"),
    (Backend, "POST", "/v1/groups/g/members", "{\"add\":[\"\"]}", 400, "bad_name"),
    (Backend, "POST", "/v1/groups/none/members", "{\"add\":[\"a\"]}", 404, "group_not_found"),
    (Backend, "POST", "/v1/groups/g/messages", "{\"from\":\"a\"}", 400, "bad_json"),
    (Backend, "POST", "/v1/groups/g/messages", "{\"from\":\"\",\"body\":1}", 400, "bad_name"),
    (User, "POST", "/v1/direct/%2e/messages", "{\"body\":1}", 400, "bad_name"),
    (User, "POST", "/v1/groups/%2e/messages", "{\"body\":1}", 400, "bad_name"),
    (User, "POST", "/v1/groups/g/messages", "{}", 400, "bad_json"),
    (User, "POST", "/v1/direct/x/messages", "{\"body\":\"\\ud83d\"}", 400, "body_not_portable"),
    (User, "POST", "/v1/groups/g/messages", "{\"body\":[1e400]}", 400, "body_not_portable"),
    (Backend, "POST", "/v1/direct/x/messages", "{\"from\":\"a\",\"body\":\"\\udc00\"}", 400, "body_not_portable"),
    (Backend, "POST", "/v1/groups/g/messages", "{\"from\":\"a\",\"body\":{\"a\":1,\"a\":1}}", 400, "body_not_portable"),
    (Reader, "POST", "/v1/direct/x/messages", "{\"body\":1}", 403, "forbidden"),
    (Reader, "POST", "/v1/groups/g/messages", "{\"body\":1}", 403, "forbidden"),
    (Backend, "POST", "/v1/tokens", "{}", 400, "bad_json"),
    (Backend, "POST", "/v1/tokens", "{\"user\":\"a\",\"ttl_s\":0}", 400, "bad_json"),
    (Backend, "POST", "/v1/tokens", "{\"user\":\"a\",\"ttl_s\":31536001}", 400, "bad_json"),
    (Backend, "POST", "/v1/tokens", "{\"user\":\"\"}", 400, "bad_name"),
    (Backend, "POST", "/v1/tokens", "{\"user\":\"..\"}", 400, "bad_name"),
];

#[tokio::test]
async fn wrong_bodies() {
    check(&TestServer::start().await, WRONG_BODIES).await;
}

const WITHOUT_SECRET: &[Row] = &[(
    Backend,
    "POST",
    "/v1/tokens",
    "{\"user\":\"a\"}",
    403,
    "forbidden",
)];

#[tokio::test]
async fn a_server_that_only_knows_a_public_key_makes_no_tokens() {
    let server = TestServer::with(|parts| parts.token_secret = None).await;
    check(&server, WITHOUT_SECRET).await;
}

/// What a row of the tables cannot provoke, everywhere or at one path, and why.
#[rustfmt::skip]
const NOT_IN_THE_TABLES: &[(&str, &str, &str)] = &[
    ("", "bad_request", "is found before any route, the same for all"),
    ("", "unauthorized", "is another bearer, which is looked at before any handler"),
    ("", "token_expired", "is another bearer, which is looked at before any handler"),
    ("", "body_too_large", "is too long for a row"),
    ("", "content_encoding", "is a header"),
    ("", "transfer_encoding", "is a header"),
    ("", "request_timeout", "is a matter of time"),
    ("", "idempotency_conflict", "needs a header and an earlier push"),
    ("", "group_full", "needs 100,000 members"),
    ("", "cursor_gone", "does not happen yet"),
    ("", "too_many_waiters", "needs other requests"),
    ("", "too_many_requests", "needs other requests"),
    ("", "internal", "is the server's state"),
    ("", "busy", "is the server's state"),
    ("", "closing", "is the server's state"),
    ("", "disk_full", "is the server's state"),
    ("", "disk_stalled", "is the server's state"),
    ("", "writes_refused", "is the server's state"),
    ("", "store_damaged", "is the server's state"),
    ("", "too_many_connections", "is the server's state"),
    ("/v1/inbox/ws", "cursor_ahead", "needs the headers of a WebSocket"),
    ("/v1/inbox/ws", "log_unknown", "needs the headers of a WebSocket"),
];

fn is_under(path: &str, template: &str) -> bool {
    let path = path.split('?').next().unwrap();
    let (parts, wanted) = (path.split('/'), template.split('/'));
    parts.clone().count() == wanted.clone().count()
        && parts
            .zip(wanted)
            .all(|(part, wanted)| wanted.starts_with('{') || part == wanted)
}

#[tokio::test]
async fn every_code_that_a_request_can_provoke_is_in_the_tables() {
    let server = TestServer::start().await;
    let rows = [WRONG_REQUESTS, WRONG_BODIES, WITHOUT_SECRET].concat();
    for admin in [false, true] {
        for (verb, path, operation) in operations(&server, admin).await {
            let replies = operation["responses"].as_object().unwrap().values();
            let codes = replies
                .filter_map(|reply| reply["x-codes"].as_array())
                .flatten();
            for code in codes.map(|code| code.as_str().unwrap()) {
                let excepted = NOT_IN_THE_TABLES
                    .iter()
                    .any(|(at, known, _)| *known == code && (at.is_empty() || *at == path));
                let met = rows.iter().any(|(who, method, asked, _, _, met)| {
                    matches!(who, Backend) == admin
                        && method.eq_ignore_ascii_case(&verb)
                        && *met == code
                        && is_under(asked, &path)
                });
                assert!(excepted || met, "{verb} {path}: no row for {code}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_too_large_says_the_limit() {
    let server = TestServer::start().await;
    let long = format!("{{\"from\":\"a\",\"body\":\"{}\"}}", "x".repeat(65_536));
    let longer = format!("{{\"from\":\"a\",\"body\":\"{}\"}}", "x".repeat(100_000));
    let many = format!("[{}1]", "1,".repeat(1000));
    let names = format!("{{\"members\":[{}\"a\"]}}", "\"a\",".repeat(10_000));
    for (path, body, limit) in [
        ("/v1/direct/x/messages", long, 65_536),
        ("/v1/direct/x/messages", longer, 65_536 + 16 * 1024),
        ("/v1/messages", many, 1000),
        ("/v1/groups/g", names, 10_000),
    ] {
        let method = if path == "/v1/groups/g" {
            "PUT"
        } else {
            "POST"
        };
        let reply = server.as_admin(method, path, &body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (413, "body_too_large"),
            "{path}"
        );
        assert_eq!(reply.json()["limit"], limit, "{path}");
    }
    let fits = format!("{{\"from\":\"a\",\"body\":\"{}\"}}", "x".repeat(65_534));
    assert_eq!(
        server
            .as_admin("POST", "/v1/direct/x/messages", &fits)
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn wrong_bearers() {
    let server = TestServer::start().await;
    let now = clock::now_s();
    let claims = |user: &str, expires_at| Claims {
        user: user.to_owned(),
        send: true,
        expires_at,
    };
    let expired = format!("Bearer {}", TestServer::token_of(&claims("bob", now - 60)));
    let unnamed = format!("Bearer {}", TestServer::token_of(&claims("a\nb", now + 60)));
    let good = TestServer::token("bob");
    let forged = format!("Bearer {good}x");
    let cases = [
        ("Bearer", "unauthorized"),
        ("Basic Ym9iOmJvYg==", "unauthorized"),
        ("Bearer nonsense", "unauthorized"),
        (forged.as_str(), "unauthorized"),
        (unnamed.as_str(), "unauthorized"),
        (expired.as_str(), "token_expired"),
    ];
    for (value, code) in cases {
        let header = format!("authorization: {value}");
        let mut http = server.connect().await;
        let reply = http.request("GET", "/v1/inbox", &[&header], "").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (401, code),
            "{value}"
        );
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    for value in [
        format!("Bearer {good}"),
        format!("Bearer {}", KEY.trim_start_matches('a')),
        format!("Basic {KEY}"),
    ] {
        let header = format!("authorization: {value}");
        let mut http = server.connect_admin().await;
        let reply = http.request("GET", "/v1/status", &[&header], "").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (401, "unauthorized"),
            "{value}"
        );
        assert!(
            !reply.text().contains(KEY.trim_start_matches('a')) && !reply.text().contains(&good)
        );
    }
}

#[tokio::test]
async fn wrong_keys_of_a_push() {
    let server = TestServer::start().await;
    let bearer = format!("authorization: Bearer {KEY}");
    for key in [String::new(), "x".repeat(256), "\u{fc}".to_owned()] {
        let header = format!("idempotency-key: {key}");
        let mut http = server.connect_admin().await;
        let reply = http
            .request(
                "POST",
                "/v1/direct/b/messages",
                &[&bearer, &header],
                "{\"from\":\"a\",\"body\":1}",
            )
            .await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "bad_request"),
            "{key:?}"
        );
    }
}

#[tokio::test]
async fn a_server_without_room_refuses_writes_only() {
    let server = TestServer::with_hub(|hub| hub.disk_free_min_bytes = u64::MAX, |_| {}).await;
    let push = "{\"from\":\"a\",\"body\":1}";
    check(
        &server,
        &[
            (
                Backend,
                "POST",
                "/v1/direct/b/messages",
                push,
                503,
                "disk_full",
            ),
            (User, "GET", "/readyz", "", 503, "disk_full"),
            (Backend, "GET", "/readyz", "", 503, "disk_full"),
        ],
    )
    .await;
    for path in ["/healthz", "/v1/inbox?wait=0"] {
        assert_eq!(server.as_user("a", "GET", path, "").await.status, 200);
    }
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let server = TestServer::start().await;
    assert_eq!(server.as_user("a", "GET", "/readyz", "").await.status, 200);
    server.hub.begin_close();
    let push = "{\"from\":\"a\",\"body\":1}";
    check(
        &server,
        &[
            (
                Backend,
                "POST",
                "/v1/direct/b/messages",
                push,
                503,
                "closing",
            ),
            (User, "GET", "/v1/inbox", "", 503, "closing"),
            (User, "GET", "/readyz", "", 503, "closing"),
        ],
    )
    .await;
}

#[tokio::test]
async fn other_sites_are_let_in_only_if_they_are_named() {
    let server = TestServer::start().await;
    let preflight = [
        "origin: https://app.example",
        "access-control-request-method: POST",
    ];
    let mut http = server.connect().await;
    let reply = http.request("OPTIONS", "/v1/inbox", &preflight, "").await;
    assert_eq!(reply.status, 204);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(reply.header("access-control-max-age"), Some("600"));
    assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"));
    let allowed = reply.header("access-control-allow-headers").unwrap();
    for header in [
        "authorization",
        "content-type",
        "idempotency-key",
        "last-event-id",
    ] {
        assert!(allowed.contains(header), "{allowed}");
    }
    let reply = http
        .request("GET", "/v1/inbox", &["origin: https://app.example"], "")
        .await;
    assert_eq!(reply.status, 401);
    assert_eq!(
        reply.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let reply = http
        .request("GET", "/v1/inbox", &["origin: https://evil.example"], "")
        .await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    assert_eq!(reply.header("vary"), Some("Origin"));
    let mut http = server.connect_admin().await;
    let reply = http.request("OPTIONS", "/v1/status", &preflight, "").await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
}

/// `restart` is always a cursor; a history, which has ids, says its last one.
#[tokio::test]
async fn a_history_after_its_end_says_where_the_end_is_also_to_the_command_line() {
    let server = TestServer::start().await;
    server.push("alice", "bob", "1").await;
    let path = "/v1/users/bob/direct/alice/messages?after=9";
    let reply = server.as_admin("GET", path, "").await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "cursor_ahead"));
    let problem = reply.json();
    assert_eq!(
        (&problem["last"], problem.get("restart")),
        (&1.into(), None)
    );

    let admin = format!("http://{}", server.admin);
    let asking = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_halley"))
            .args([
                "history", "--user", "bob", "--peer", "alice", "--after", "9",
            ])
            .args(["--server", &admin])
            .env("HALLEY_ADMIN_KEY", KEY)
            .output()
    });
    let output = asking.await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("`after` is beyond the last direct message, 1 (409 cursor_ahead)"),
        "{said}"
    );
}
