//! What is in no log, also where everything is logged; and when it is there.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{ADMIN_KEY, Launch, eventually};

const BODY: &str = "in confidence";
/// How long the server waits for who reads its log.
const PATIENCE: Duration = Duration::from_secs(1);

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

/// A log that nobody reads and that has no room: the last words wait for it, though not for ever.
#[test]
fn what_is_logged_of_a_start_stands_before_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    let (_reader, mut log) = UnixStream::pair().unwrap();
    log.set_nonblocking(true).unwrap();
    while log.write(&[b'-'; 4096]).is_ok() {}
    log.set_nonblocking(false).unwrap();
    let launch = Launch::new(&directory.path().join("data"));
    let begun = Instant::now();
    let mut process = launch.spawn_printing_to(Stdio::null(), OwnedFd::from(log).into());
    process.wait_ready();
    assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
}
