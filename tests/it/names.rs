//! Names are compared byte for byte: what looks alike is another user, and another group.

use crate::device::{admin, ids, inbox};
use crate::support::TestServer;

/// Names that a server that tidies them up takes for one. As they are written in a path.
const ALIKE: &[(&str, &str)] = &[
    ("bob", "bob"),
    ("Bob", "Bob"),
    (" bob", "%20bob"),
    ("bob ", "bob%20"),
    ("zo\u{e9}", "zo%C3%A9"),
    ("zoe\u{301}", "zoe%CC%81"),
    ("\u{212b}", "%E2%84%AB"),
    ("\u{c5}", "%C3%85"),
    ("stra\u{df}e", "stra%C3%9Fe"),
    ("strasse", "strasse"),
    ("a/b", "a%2Fb"),
    ("a%2Fb", "a%252Fb"),
    ("a+b", "a+b"),
    ("a b", "a%20b"),
];

#[tokio::test]
async fn names_that_look_alike_are_users_and_groups_of_their_own() {
    let server = TestServer::start().await;
    let mut http = server.connect_admin().await;
    for (name, path) in ALIKE {
        let members = serde_json::json!({ "members": [name] }).to_string();
        let made = admin(
            &mut http,
            "PUT",
            &format!("/v1/groups/{path}"),
            "",
            &members,
        )
        .await;
        assert_eq!(made.status, 201, "the group {name:?} was there already");
        for kind in ["direct", "groups"] {
            let path = format!("/v1/{kind}/{path}/messages");
            let body = serde_json::json!({ "from": "ann", "body": name }).to_string();
            let pushed = admin(&mut http, "POST", &path, "", &body).await;
            assert_eq!(pushed.status, 201, "{pushed:?}");
            assert_eq!(
                pushed.json()["prev"],
                0,
                "{kind} {name:?} had a message already"
            );
        }
    }
    for (number, (name, path)) in (1..).zip(ALIKE) {
        let got = inbox(&server, name).await;
        assert_eq!(
            (ids(&got, "direct"), ids(&got, "group")),
            (vec![number], vec![number]),
            "{name:?}"
        );
        let read = admin(&mut http, "GET", &format!("/v1/users/{path}/inbox"), "", "").await;
        assert_eq!(read.bodies(), [*name, *name]);
        let list = server
            .as_user(name, "GET", "/v1/conversations", "")
            .await
            .json();
        assert_eq!(list["conversations"].as_array().unwrap().len(), 2, "{list}");
    }
}
