//! How long a page, a line and a frame may be: what many clients cannot read must not be written.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::device::set_group;
use crate::support::{Event, Reader, TestServer, Way};

/// Where lines and frames end if the client does not say.
const FRAME_BYTES: usize = 32 << 10;
/// And pages of replies.
const REPLY_BYTES: usize = 1 << 20;
/// What the server reckons for what is around a page, at most.
const AROUND: usize = 160;
/// A name that takes more bytes as JSON than it has.
const NAME: &str = "zo\u{eb} \"z\" \\\\ \u{2028}";

/// Pushes bodies of many lengths, some of which grow when they are written into a line. Returns how many there are.
async fn backlog(server: &TestServer, bodies: &[String]) -> usize {
    set_group(server, "team", &["bob", NAME]).await;
    let message = |(n, body): (usize, &String)| match n % 3 {
        0 => json!({ "group": "team", "from": NAME, "body": body }),
        1 => json!({ "to": "bob", "from": NAME, "body": body }),
        _ => json!({ "to": "bob", "from": "alice", "body": body }),
    };
    let items: Vec<Value> = bodies.iter().enumerate().map(message).collect();
    for items in items.chunks(100) {
        let items = json!(items).to_string();
        let pushed = server.as_admin("POST", "/v1/messages", &items).await;
        assert_eq!(pushed.status, 200, "{pushed:?}");
    }
    items.len()
}

fn bodies() -> Vec<String> {
    (0..400)
        .map(|n| match n % 40 {
            7 => "x".repeat(20_000),
            8 => "y".repeat(60_000),
            9 => "\u{2028}\u{85}".repeat(6_000),
            10 => "z".repeat(32_300 + n),
            _ => "w".repeat(n * 7 % 1_200),
        })
        .collect()
}

/// What a query asks for: messages and bytes of a page.
fn asked(query: &str, usual: usize) -> (usize, usize) {
    let number = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name));
        value.map(|value| value.parse().unwrap())
    };
    (
        number("limit=").unwrap_or(100),
        number("page_bytes=").unwrap_or(usual),
    )
}

/// Pages by their bytes and how many entries they have must keep to what was asked, and must not end early.
fn check(what: &str, pages: &[(usize, usize)], (most, bytes): (usize, usize), around: usize) {
    for (length, count) in pages {
        assert!(
            *count == 1 || *length <= bytes && *count <= most,
            "{what}: {count} in {length} bytes"
        );
    }
    for pair in pages.windows(2) {
        let full = pair[0].1 == most || pair[0].0 + pair[1].0 > bytes.saturating_sub(around);
        assert!(full, "{what}: pages of {pair:?} could be one");
    }
}

const QUERIES: [&str; 7] = [
    "",
    "limit=1000",
    "limit=3",
    "page_bytes=256",
    "page_bytes=5000&limit=7",
    "page_bytes=70000",
    "page_bytes=1048576&limit=1000",
];

#[tokio::test]
async fn lines_and_frames_end_in_time_with_all_that_is_around_them() {
    let server = TestServer::start().await;
    let all = backlog(&server, &bodies()).await;
    let token = TestServer::token("bob");
    for way in [Way::Stream, Way::Socket] {
        for query in QUERIES {
            let asking = format!("after=0&{query}");
            let reader = Reader::asking(server.client, way, &token, &asking, &[]);
            let mut reader = reader.await.unwrap();
            let (mut pages, mut ids, mut taken) = (Vec::new(), BTreeSet::new(), 0);
            while ids.len() < all {
                let Event::Page(page) = reader.next().await else {
                    panic!("{way:?} {query}: it ended");
                };
                let length =
                    reader.wire_bytes() - std::mem::replace(&mut taken, reader.wire_bytes());
                ids.extend(page.messages.iter().map(|m| (m.sequence.clone(), m.id)));
                if !page.messages.is_empty() {
                    pages.push((length, page.messages.len()));
                    assert_eq!(page.more, ids.len() < all);
                }
            }
            let what = format!("{way:?} {query}");
            check(&what, &pages, asked(query, FRAME_BYTES), AROUND);
            assert!(pages.iter().any(|(_, count)| *count > 1) || query == "page_bytes=256");
        }
    }
}

/// A list that is read page by page.
struct List {
    path: &'static str,
    /// Where it begins.
    first: &'static str,
    entries: &'static str,
    /// Where it goes on behind a page.
    behind: fn(&Value) -> String,
    count: usize,
    /// By how much a page may be shorter than what was asked.
    around: usize,
}

impl List {
    /// All pages, by their bytes and how many entries they have.
    async fn pages(&self, server: &TestServer, admin: bool, query: &str) -> Vec<(usize, usize)> {
        let root = if admin { "/v1/users/bob" } else { "/v1" };
        let (mut pages, mut position) = (Vec::new(), self.first.to_owned());
        loop {
            let path = format!("{root}{}?{query}&wait=0&{position}", self.path);
            let reply = if admin {
                server.as_admin("GET", &path, "").await
            } else {
                server.as_user("bob", "GET", &path, "").await
            };
            let page = reply.json();
            let count = page[self.entries].as_array().map_or(0, Vec::len);
            assert!(reply.status == 200 && count > 0, "{path}: {page}");
            pages.push((reply.body.len(), count));
            if page["more"] == false {
                return pages;
            }
            position = (self.behind)(&page);
        }
    }
}

fn lists(all: usize, peers: usize) -> [List; 5] {
    let history = |path, first, behind, count| List {
        path,
        first,
        entries: "messages",
        behind,
        count,
        around: AROUND,
    };
    let next = |page: &Value| format!("after={}", page["next"].as_str().unwrap());
    let before = |page: &Value| format!("before={}", page["messages"][0]["id"]);
    let after = |page: &Value| {
        let last = page["messages"].as_array().unwrap().last().unwrap();
        format!("after={}", last["id"])
    };
    let older = |page: &Value| format!("before={}", page["next"].as_str().unwrap());
    let (group, direct) = (all.div_ceil(3), all / 3);
    [
        history("/inbox", "after=0", next, all + peers),
        history("/direct/alice/messages", "", before, direct),
        history("/groups/team/messages", "", before, group),
        history("/groups/team/messages", "after=0", after, group),
        List {
            path: "/conversations",
            first: "",
            entries: "conversations",
            behind: older,
            // With the group and both who sent the rest.
            count: peers + 3,
            // Room is kept for names that are written as escapes.
            around: usize::MAX / 2,
        },
    ]
}

#[tokio::test]
async fn replies_end_in_time_on_both_listeners() {
    let server = TestServer::start().await;
    let bodies = bodies();
    let all = backlog(&server, &bodies).await;
    for (n, bodies) in bodies.chunks(100).enumerate() {
        let name = |i: usize| format!("peer {n} {i} {}", "\"".repeat(i));
        let message = |(i, body)| json!({ "to": "bob", "from": name(i), "body": body });
        let items: Vec<Value> = bodies.iter().enumerate().map(message).collect();
        let items = json!(items).to_string();
        let pushed = server.as_admin("POST", "/v1/messages", &items).await;
        assert_eq!(pushed.status, 200);
    }
    for list in lists(all, bodies.len()) {
        for query in QUERIES {
            for admin in [false, true] {
                let pages = list.pages(&server, admin, query).await;
                let what = format!("{}?{query} by {}", list.path, list.first);
                let found: usize = pages.iter().map(|(_, count)| count).sum();
                assert_eq!(found, list.count, "{what}");
                check(&what, &pages, asked(query, REPLY_BYTES), list.around);
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_limit_is_refused_wherever_there_are_pages() {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    let token = TestServer::token("bob");
    for admin in [false, true] {
        let document = if admin {
            server.as_admin("GET", "/openapi.json", "").await
        } else {
            server.as_user("bob", "GET", "/openapi.json", "").await
        };
        let document = document.json();
        let mut paths = 0;
        for (path, verbs) in document["paths"].as_object().unwrap() {
            let known = |name: &str| {
                let parameters = verbs["get"]["parameters"].as_array();
                parameters.is_some_and(|all| all.iter().any(|one| one["name"] == name))
            };
            let pages = known("after") || known("before");
            assert_eq!(
                (known("limit"), known("page_bytes")),
                (pages, pages),
                "{path}"
            );
            if !pages {
                continue;
            }
            paths += 1;
            let path = path
                .replace("{user}", "bob")
                .replace("{peer}", "alice")
                .replace("{group}", "team");
            for wrong in [
                "limit=0",
                "limit=1001",
                "limit=x",
                "limit=",
                "limit=-1",
                "limit=1e2",
                "page_bytes=0",
                "page_bytes=255",
                "page_bytes=1048577",
                "page_bytes=32k",
                "page_bytes=",
                "page_bytes=99999999999999999999",
            ] {
                let asked = format!("{path}?wait=0&{wrong}");
                let reply = match Way::ALL.into_iter().find(|way| way.path() == path) {
                    Some(way) => Reader::refused(server.client, way, &token, wrong).await,
                    None if admin => server.as_admin("GET", &asked, "").await,
                    None => server.as_user("bob", "GET", &asked, "").await,
                };
                assert_eq!(
                    (reply.status, &*reply.code()),
                    (400, "bad_query"),
                    "{asked}"
                );
                let detail = reply.json()["detail"].to_string();
                let name = wrong.split('=').next().unwrap();
                assert!(detail.contains(name), "{detail}");
            }
        }
        assert!(paths >= 4, "{paths}");
    }
}
