//! What must never stand in a log, however much is logged.

use std::fs::{self, File};

use serde_json::json;

use crate::crowd::process::{Process, TOKEN_SECRET};
use crate::support::{Http, KEY, Socket};

const WRONG: &str = "a key of another server";

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
        drop(process);

        let log = fs::read_to_string(&path).unwrap();
        assert!(log.contains("TRACE"), "{log}");
        for secret in [KEY, WRONG, TOKEN_SECRET, query, header, fresh] {
            let at = log.find(secret);
            let around = at.and_then(|at| log.get(at.saturating_sub(100)..at));
            assert_eq!(around, None, "in the log as {format}");
        }
    }
}
