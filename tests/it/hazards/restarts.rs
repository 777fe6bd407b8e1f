//! Hazards of starting again: on the same data, or on another log's.

use serde_json::json;

use crate::device::{Device, Folder, ids, inbox, push_group, push_many, set_group};
use crate::support::TestServer;

/// 1. The sequence begins again at 1 after a restart, and clients with a higher cursor starve.
#[tokio::test]
async fn h01_an_old_cursor_gets_what_is_new_after_a_restart() {
    let folder = Folder::new();
    let server = folder.serve().await;
    push_many(&server, ("to", "bob"), 0..5).await;
    let mut before = Device::new(&server, "bob", "0");
    before.rest(100).await;
    drop(server);
    let server = folder.serve().await;
    let mut device = Device::new(&server, "bob", &before.next);
    device.ask(10, 60).await;
    server.wait_held("bob", 1).await;
    assert_eq!(server.push("alice", "bob", "6").await, 6);
    device.answered().await;
    assert_eq!(ids(&device.got, "direct"), [6]);
}

/// 11. Which log a cursor belongs to is not said, and an offset of another log is taken.
#[tokio::test]
async fn h11_a_cursor_names_its_log_and_another_log_refuses_it() {
    let (one, other) = (TestServer::start().await, TestServer::start().await);
    push_many(&one, ("to", "bob"), 0..3).await;
    push_many(&other, ("to", "bob"), 0..5).await;
    let mut device = Device::new(&one, "bob", "0");
    device.rest(10).await;
    assert!(
        one.hub
            .log()
            .to_string()
            .starts_with(device.next.split('.').nth(2).unwrap())
    );
    let path = format!("/v1/inbox?wait=60&after={}", device.next);
    let reply = other.as_user("bob", "GET", &path, "").await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "log_unknown"));
    assert_eq!(reply.json()["log"], other.hub.log().to_string());
}

/// 16. A boot makes files anew that were valid, or brings back what was taken away.
#[tokio::test]
async fn h16_restarts_take_nothing_away_and_bring_nothing_back() {
    let folder = Folder::new();
    let server = folder.serve().await;
    set_group(&server, "team", &["bob", "carol"]).await;
    set_group(&server, "ended", &["bob"]).await;
    push_many(&server, ("to", "bob"), 0..5).await;
    push_group(&server, "team", "1").await;
    push_group(&server, "ended", "1").await;
    server.as_admin("DELETE", "/v1/groups/ended", "").await;
    server
        .as_admin("DELETE", "/v1/groups/team/members/carol", "")
        .await;
    let (before, journal) = (inbox(&server, "bob").await, server.hub.status().journal);
    drop(server);
    for restart in 0..3 {
        let server = folder.serve().await;
        assert_eq!(inbox(&server, "bob").await, before, "restart {restart}");
        assert!(server.hub.status().journal.offset == journal.offset);
        assert!(server.hub.status().journal.bytes >= journal.bytes);
        let ended = server.as_admin("GET", "/v1/groups/ended", "").await;
        assert_eq!(ended.code(), "group_not_found", "restart {restart}");
        let team = server.as_admin("GET", "/v1/groups/team", "").await;
        assert_eq!(team.json()["members"], json!(["bob"]), "restart {restart}");
    }
}
