//! What must never stand in a log, however much is logged.

use std::fs::{self, File};

use serde_json::json;

use crate::crowd::process::{Process, TOKEN_SECRET};
use crate::support::{Http, KEY, PATIENCE, Socket};

const WRONG: &str = "a key of another server";

/// A clean stop: what was logged is written, which is not so after a kill.
async fn end(mut process: Process) {
    process.terminate();
    let ended = process.ended_within(PATIENCE * 3).await;
    assert!(ended.is_some(), "it stops");
}

#[tokio::test]
async fn tokens_and_keys_are_not_logged_at_any_level() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["text", "json"] {
        let path = folder.path().join(format);
        let process = Process::with(|command| {
            command
                .env("HALLEY_LOG", "trace")
                .env("HALLEY_LOG_FORMAT", format)
                .stderr(File::create(&path).unwrap());
        })
        .await;
        let tokens = ["query", "header", "fresh"].map(Process::token);
        let [query, header, fresh] = &tokens;

        let mut http = Http::connect(process.client).await;
        let asked = format!("/v1/inbox?wait=0&token={query}");
        assert_eq!(http.request("GET", &asked, &[], "").await.status, 200);
        let bearer = |token: &str| format!("authorization: Bearer {token}");
        let path_of = "/v1/conversations";
        let reply = http.request("GET", path_of, &[&bearer(header)], "").await;
        assert_eq!(reply.status, 200);
        let mut socket = Socket::asking(process.client, header, "after=now").await;
        let answer = socket.ask(&json!({ "token": fresh })).await;
        assert_eq!(answer["error"]["code"], "forbidden");
        let mut http = Http::connect(process.admin).await;
        for (key, status) in [(KEY, 200), (WRONG, 401)] {
            let reply = http.request("GET", "/v1/status", &[&bearer(key)], "").await;
            assert_eq!(reply.status, status);
        }
        end(process).await;

        let log = fs::read_to_string(&path).unwrap();
        assert!(log.contains("TRACE"), "{log}");
        for secret in [KEY, WRONG, TOKEN_SECRET, query, header, fresh] {
            let at = log.find(secret);
            let around = at.and_then(|at| log.get(at.saturating_sub(100)..at));
            assert_eq!(around, None, "in the log as {format}");
        }
    }
}

/// One line an address and what it stands for, however often it happens.
#[tokio::test]
async fn wrong_keys_and_tokens_and_foreign_pages_are_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let process = Process::with(|command| {
        command.stderr(File::create(&path).unwrap());
    })
    .await;
    let mut client = Http::connect(process.client).await;
    let mut admin = Http::connect(process.admin).await;
    for _ in 0..4 {
        let wrong = format!("authorization: Bearer {WRONG}");
        let reply = admin.request("GET", "/v1/status", &[&wrong], "").await;
        assert_eq!(reply.status, 401);
        for origin in ["https://app.example", "https://other.example"] {
            let origin = format!("origin: {origin}");
            let page = ["authorization: Bearer a.b.c", &origin];
            let reply = client.request("GET", "/v1/inbox", &page, "").await;
            assert_eq!(reply.status, 401);
        }
        // What shows no key at all is no attempt, and a page of the server's own is no stranger.
        let reply = admin.request("GET", "/v1/status", &[], "").await;
        assert_eq!(reply.status, 401);
        let own = process.client;
        let head = format!("GET /healthz HTTP/1.1\r\nhost: {own}\r\norigin: http://{own}\r\n\r\n");
        client.send(&head).await;
        assert_eq!(client.reply().await.status, 200);
    }
    end(process).await;
    let log = fs::read_to_string(&path).unwrap();
    for (words, about) in [
        ("wrong admin key refused", "address=127.0.0.1"),
        ("invalid token refused", "address=127.0.0.1"),
        ("may not read the replies", "https://app.example"),
        ("may not read the replies", "https://other.example"),
    ] {
        let lines = log.lines();
        let lines: Vec<&str> = lines
            .filter(|line| line.contains(words) && line.contains(about))
            .collect();
        assert_eq!(lines.len(), 1, "{words} {about}: {log}");
    }
    assert_eq!(log.matches(" WARN halley::http").count(), 4, "{log}");
    assert!(!log.contains(WRONG), "{log}");
}
