//! What is in no log, also where everything is logged; and when it is there.

use std::time::Duration;

use crate::support::{ADMIN_KEY, Launch, eventually};

const BODY: &str = "in confidence";

#[test]
fn no_log_holds_a_key_a_token_or_a_body() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::new(&directory.path().join("data")).option("--log", "trace");
    let mut process = launch.start();
    let mut admin = process.admin();
    let token = admin.token("bob");
    let body = serde_json::to_string(BODY).unwrap();
    admin
        .push_direct("ann", "bob", &body, None)
        .unwrap()
        .receipt();
    let page = process.user(&token).get("/v1/inbox").unwrap().page();
    assert_eq!(page.messages.len(), 1);
    // The header counts; what stands in the query was sent all the same.
    let in_query = format!("/v1/inbox?token={token}");
    process.user(&token).get(&in_query).unwrap().expect(200);
    let mut stranger = process.user(&format!("{token}x"));
    stranger.get("/v1/inbox").unwrap().expect(401);
    assert!(process.terminate().success());
    let stopped = || launch.log().contains("stopped");
    assert!(eventually(Duration::from_secs(10), stopped));
    let log = launch.log();
    assert!(log.contains("TRACE"), "everything is logged");
    // As text, and as sled shows bytes.
    let numbers: Vec<String> = BODY.bytes().map(|byte| byte.to_string()).collect();
    let secret = std::fs::read_to_string(launch.data().join("token.secret")).unwrap();
    let signature = token.rsplit('.').next().unwrap();
    for hidden in [
        ADMIN_KEY,
        secret.trim_end(),
        signature,
        BODY,
        &numbers.join(", "),
    ] {
        let line = log.lines().find(|line| line.contains(hidden));
        assert_eq!(line, None, "{hidden}");
    }
}

#[test]
fn what_is_logged_of_a_start_stands_before_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let launch = Launch::new(&directory.path().join(round.to_string()));
        let _process = launch.start();
        let printed = launch.log();
        let (logged, _) = printed.split_once("is ready").unwrap();
        assert!(logged.contains("a new log begins"), "{printed}");
    }
}
