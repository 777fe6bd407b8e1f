//! Numbers: nothing is lost and nothing comes twice, whoever sends, however it is read, whatever the timing.

use std::time::Duration;

use halley::config::IcometRules::{Open, Strict};
use serde_json::{Value, json};

use super::{Wire, front, held, keyed, push, server, server_with};
use crate::support::{TestServer, eventually};

/// What each writer sends.
const EACH: usize = 60;

/// Objects of a poll's body, whether they stand in an array or alone.
fn objects(body: &str) -> Vec<Value> {
    match serde_json::from_str(body).unwrap() {
        Value::Array(objects) => objects,
        object => vec![object],
    }
}

/// A client that counts, as icomet's own does.
struct Client<'a> {
    server: &'a TestServer,
    channel: String,
    wire: Option<Wire>,
    next: u64,
    noop: u64,
    got: Vec<String>,
    noops: usize,
}

impl<'a> Client<'a> {
    fn new(server: &'a TestServer, channel: &str) -> Self {
        Self {
            server,
            channel: channel.to_owned(),
            wire: None,
            next: 1,
            noop: 0,
            got: Vec::new(),
            noops: 0,
        }
    }

    async fn poll(&mut self) {
        let path = format!(
            "/sub?cname={}&seq={}&noop={}&token={}",
            self.channel,
            self.next,
            self.noop,
            TestServer::token(&self.channel)
        );
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::connect(self.server.client).await,
        };
        let (_, body) = wire.get(&path).await;
        self.wire = Some(wire);
        for object in objects(&body) {
            self.take(&object);
        }
    }

    fn take(&mut self, object: &Value) {
        assert_eq!(object["cname"], self.channel.as_str());
        match object["type"].as_str().unwrap() {
            "data" | "broadcast" => {
                assert_eq!(object["seq"], self.next, "no gap, and nothing twice");
                self.next += 1;
                self.got
                    .push(object["content"].as_str().unwrap().to_owned());
            }
            "next_seq" => assert_eq!(object["seq"], self.next),
            "noop" => {
                assert_eq!(object["seq"], self.noop);
                self.noop += 1;
                self.noops += 1;
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn what_halley_gets_icomet_gives_and_the_other_way_round() {
    let server = server(Strict).await;
    let mut bob = Client::new(&server, "bob");
    // Sent while the user is away, and before they ever came: it waits.
    server.push("ann", "bob", "\"text \\u00fc\"").await;
    server.push("ann", "bob", "{\"a\": [1.0, \"x\"]}").await;
    push(&server, "bob", "by%20icomet").await;
    bob.poll().await;
    assert_eq!(bob.got, ["text ü", "{\"a\": [1.0, \"x\"]}", "by icomet"]);
    // What the user sends has no number; what they send to themselves has.
    let own = r#"{"body":"own"}"#;
    server
        .as_user("bob", "POST", "/v1/direct/ann/messages", own)
        .await;
    server
        .as_user("bob", "POST", "/v1/direct/bob/messages", own)
        .await;
    // Groups, during the membership.
    let members = r#"{"members":["bob","ann"]}"#;
    server.as_admin("PUT", "/v1/groups/team", members).await;
    let to_team = |from: &str| format!("{{\"from\":\"{from}\",\"body\":\"from {from}\"}}");
    let messages = "/v1/groups/team/messages";
    server.as_admin("POST", messages, &to_team("ann")).await;
    server.as_admin("POST", messages, &to_team("bob")).await;
    keyed(&server, "/broadcast?content=all").await;
    server
        .as_admin("DELETE", "/v1/groups/team/members/bob", "")
        .await;
    server.as_admin("POST", messages, &to_team("cyd")).await;
    // Nobody but a backend writes to all.
    let refused = server
        .as_user("bob", "POST", "/v1/groups/icomet/messages", own)
        .await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "forbidden")
    );
    bob.poll().await;
    assert_eq!(bob.got[3..], ["own", "from ann", "all"]);
    let mut ann = Client::new(&server, "ann");
    ann.poll().await;
    // What bob sent her came before she had a channel, which only a backend or she herself opens.
    assert_eq!(ann.got, ["from bob", "all", "from cyd"]);
    // An inbox of Halley's own has it all, as have two transports at once.
    let inbox = server.as_user("bob", "GET", "/v1/inbox?wait=0", "").await;
    let bodies = inbox.bodies();
    assert!(
        bodies.contains(&json!("by icomet")) && bodies.contains(&json!("all")),
        "{bodies:?}"
    );
    let from: Vec<_> = inbox.json()["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|message| message["body"] == "by icomet")
        .map(|message| message["from"].clone())
        .collect();
    assert_eq!(from, ["icomet"]);
}

#[tokio::test]
async fn two_transports_get_the_same_message() {
    let server = server(Strict).await;
    let mut bob = Client::new(&server, "bob");
    let token = TestServer::token("bob");
    let next = bob.next;
    let mut stream = held(
        &server,
        "bob",
        &format!("/stream?cname=bob&seq={next}&token={token}"),
    )
    .await;
    stream.head().await;
    let mut poll = server.poll_held("bob").await;
    push(&server, "bob", "both").await;
    assert!(stream.chunk().await.contains("\"content\":\"both\""));
    assert_eq!(poll.reply().await.bodies(), [json!("both")]);
    bob.poll().await;
    assert_eq!(bob.got.last().unwrap(), "both");
    let presence = server
        .as_admin("GET", "/v1/users/bob/presence", "")
        .await
        .json();
    assert_eq!(presence["devices"][0]["transport"], "icomet", "{presence}");
    assert_eq!(server.status().await["held"]["icomet"], 1);
}

/// Pushes in every way.
async fn write(server: &TestServer) {
    let direct = async {
        for n in 0..EACH {
            server.push("ann", "bob", &format!("\"d{n}\"")).await;
        }
    };
    let group = async {
        for n in 0..EACH {
            let body = format!("{{\"from\":\"ann\",\"body\":\"g{n}\"}}");
            server
                .as_admin("POST", "/v1/groups/team/messages", &body)
                .await;
            // The clients must also be met while nothing comes.
            if n % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
        }
    };
    let icomet = async {
        for n in 0..EACH {
            push(server, "bob", &format!("i{n}")).await;
            if n % 20 == 0 {
                keyed(server, &format!("/broadcast?content=b{n}")).await;
            }
        }
    };
    tokio::join!(direct, group, icomet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_push_and_many_read_without_a_gap_or_a_repeat() {
    // Polls end by time while messages come.
    let server = server_with(Strict, |parts| {
        parts.timeouts.noop = Duration::from_millis(3);
    })
    .await;
    let server = &server;
    server
        .as_admin("PUT", "/v1/groups/team", r#"{"members":["bob","cyd"]}"#)
        .await;
    let read = |channel: &'static str, count: usize| async move {
        let mut client = Client::new(server, channel);
        while client.got.len() < count {
            client.poll().await;
        }
        client
    };
    let (bob, again, cyd, ()) = tokio::join!(
        read("bob", 3 * EACH + 3),
        read("bob", 3 * EACH + 3),
        read("cyd", EACH + 3),
        write(server)
    );
    assert_eq!(bob.got, again.got, "a number is the same message for all");
    assert!(bob.noops > 0, "polls ended by time, too");
    for (client, signs) in [(&bob, "dgib"), (&cyd, "gb")] {
        for sign in signs.chars() {
            let of: Vec<_> = client
                .got
                .iter()
                .filter(|text| text.starts_with(sign))
                .collect();
            let step = if sign == 'b' { 20 } else { 1 };
            let all: Vec<_> = (0..EACH)
                .step_by(step)
                .map(|n| format!("{sign}{n}"))
                .collect();
            assert_eq!(of, all.iter().collect::<Vec<_>>());
        }
    }
    // A late reader finds the same.
    let mut late = Client::new(server, "bob");
    while late.got.len() < bob.got.len() {
        late.poll().await;
    }
    assert_eq!(late.got, bob.got);
}

#[tokio::test]
async fn a_poll_that_waits_gets_the_first_of_several_that_come_at_once_and_the_next_the_rest() {
    let server = server(Open).await;
    let mut poll = held(&server, "a", "/sub?cname=a&seq=1").await;
    let draft = |n: usize| json!({"to": "a", "from": "ann", "body": n.to_string()});
    let drafts = Value::from((1..=3).map(draft).collect::<Vec<_>>()).to_string();
    server.as_admin("POST", "/v1/messages", &drafts).await;
    let (_, first) = poll.reply().await;
    assert!(first.starts_with("{\"type\":\"data\""), "{first}");
    assert_eq!(objects(&first)[0]["content"], "1");
    let (_, rest) = poll.get("/sub?cname=a&seq=2").await;
    assert!(rest.starts_with('['), "{rest}");
    let contents: Vec<_> = objects(&rest)
        .iter()
        .map(|one| one["content"].clone())
        .collect();
    assert_eq!(contents, ["2", "3"]);
}

#[tokio::test]
async fn a_stream_loses_nothing_of_a_burst() {
    let server = server(Open).await;
    let mut stream = held(&server, "a", "/stream?cname=a&seq=1").await;
    stream.head().await;
    let drafts: Vec<_> = (0..1000)
        .map(|n| json!({"to": "a", "from": "ann", "body": n.to_string()}))
        .collect();
    let drafts = Value::from(drafts).to_string();
    for _ in 0..2 {
        assert_eq!(
            server
                .as_admin("POST", "/v1/messages", &drafts)
                .await
                .status,
            200
        );
    }
    for number in 0..2000 {
        let object: Value = serde_json::from_str(&stream.chunk().await).unwrap();
        assert_eq!(object["seq"], number + 1);
        assert_eq!(object["content"], (number % 1000).to_string());
    }
    // A poll takes them in pages.
    let mut client = Client::new(&server, "a");
    while client.got.len() < 2000 {
        client.poll().await;
    }
    eventually("all are counted", || async {
        server.status().await["delivered"] == 4000
    })
    .await;
    let (_, body) = front(&server, "/sub?cname=a").await;
    assert_eq!(objects(&body)[0]["seq"], 2001);
}
