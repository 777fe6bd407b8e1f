//! A user's device: reads an inbox by its cursor, one page after the other, and checks in each what every
//! reader may rely on. What the messages must be is for the tests to say.

use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Http, KEY, Reply, TestServer, poll_request};

/// A message as clients get it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Message {
    pub(crate) sequence: String,
    pub(crate) id: u64,
    pub(crate) prev: u64,
    pub(crate) n: u64,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) at: u64,
    pub(crate) body: Value,
}

impl Message {
    /// The conversation or group that its `prev` and `n` count in.
    pub(crate) fn chain(&self) -> (String, String) {
        match (&self.to, &self.group) {
            (Some(to), None) => {
                let (one, other) = (self.from.clone(), to.clone());
                if one < other {
                    (one, other)
                } else {
                    (other, one)
                }
            }
            (None, Some(group)) => (String::new(), group.clone()),
            _ => panic!("a message is for a user or for a group: {self:?}"),
        }
    }
}

/// A page of an inbox or of a history.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) log: String,
    pub(crate) messages: Vec<Message>,
    /// Histories have none.
    #[serde(default)]
    pub(crate) next: String,
    pub(crate) more: bool,
}

impl Page {
    pub(crate) fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{reply:?}");
        serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {reply:?}"))
    }
}

/// The two numbers of a cursor, direct and group.
pub(crate) fn position(cursor: &str) -> (u64, u64) {
    let mut parts = cursor.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap(), parts.next().unwrap_or(0))
}

/// Ids of one sequence.
pub(crate) fn ids(messages: &[Message], sequence: &str) -> Vec<u64> {
    let own = messages
        .iter()
        .filter(|message| message.sequence == sequence);
    own.map(|message| message.id).collect()
}

/// Ids from a range, to compare with.
pub(crate) fn listed(range: impl Iterator<Item = u64>) -> Vec<u64> {
    range.collect()
}

/// One device of a user.
pub(crate) struct Device {
    address: SocketAddr,
    user: String,
    http: Option<Http>,
    /// The cursor to go on from.
    pub(crate) next: String,
    pub(crate) more: bool,
    /// All that it got.
    pub(crate) got: Vec<Message>,
}

impl Device {
    pub(crate) fn new(server: &TestServer, user: &str, after: &str) -> Self {
        Self::at(server.client, user, after)
    }

    pub(crate) fn at(address: SocketAddr, user: &str, after: &str) -> Self {
        Self {
            address,
            user: user.to_owned(),
            http: None,
            next: after.to_owned(),
            more: false,
            got: Vec::new(),
        }
    }

    /// Sends a poll from the present cursor, and does not wait for its reply.
    pub(crate) async fn ask(&mut self, limit: usize, wait_s: u64) -> &mut Http {
        let query = format!("after={}&limit={limit}&wait={wait_s}", self.next);
        let http = match &mut self.http {
            Some(http) => http,
            none => none.insert(Http::connect(self.address).await),
        };
        http.send(&poll_request(&self.user, &query)).await;
        http
    }

    /// Takes the connection out: the device is about to leave.
    pub(crate) fn leave(&mut self) -> Option<Http> {
        self.http.take()
    }

    /// Reads the reply to a poll; how many messages it had.
    pub(crate) async fn answered(&mut self) -> usize {
        let reply = self.http.as_mut().expect("it has asked").reply().await;
        let page = Page::of(&reply);
        let (mut last, after) = (position(&self.next), position(&page.next));
        let cursors = format!("{} to {}", self.next, page.next);
        for message in &page.messages {
            let last = if message.sequence == "direct" {
                &mut last.0
            } else {
                &mut last.1
            };
            assert!(
                *last < message.id,
                "{} behind {last}: {cursors}",
                message.id
            );
            *last = message.id;
        }
        assert!(
            last.0 <= after.0 && last.1 <= after.1,
            "`next` is behind: {cursors}"
        );
        assert!(
            page.log.starts_with(page.next.rsplit('.').next().unwrap()),
            "{cursors} of {}",
            page.log
        );
        self.next = page.next;
        self.more = page.more;
        let count = page.messages.len();
        self.got.extend(page.messages);
        count
    }

    pub(crate) async fn poll(&mut self, limit: usize, wait_s: u64) -> usize {
        self.ask(limit, wait_s).await;
        self.answered().await
    }

    /// Reads on until nothing is left; what came.
    pub(crate) async fn rest(&mut self, limit: usize) -> Vec<Message> {
        let before = self.got.len();
        loop {
            let count = self.poll(limit, 0).await;
            assert!(count <= limit, "{count} messages for a limit of {limit}");
            assert!(self.got.len() < 1_000_000, "an endless inbox");
            if !self.more {
                return self.got[before..].to_vec();
            }
            assert!(count > 0, "more, but nothing now");
        }
    }
}

/// The whole inbox of a user.
pub(crate) async fn inbox(server: &TestServer, user: &str) -> Vec<Message> {
    Device::new(server, user, "0").rest(1000).await
}

/// Numbers messages `from..to` in an array to one user or group, and gives their ids.
pub(crate) async fn push_many(
    server: &TestServer,
    to: (&str, &str),
    bodies: std::ops::Range<u64>,
) -> Vec<u64> {
    let items: Vec<_> = bodies
        .map(|n| serde_json::json!({ to.0: to.1, "from": "sender", "body": n }))
        .collect();
    let items = Value::Array(items).to_string();
    let reply = server.as_admin("POST", "/v1/messages", &items).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let results = reply.json()["results"].as_array().unwrap().clone();
    results
        .iter()
        .map(|result| result["id"].as_u64().unwrap())
        .collect()
}

/// Makes a group, or sets its members.
pub(crate) async fn set_group(server: &TestServer, group: &str, members: &[&str]) {
    let body = serde_json::json!({ "members": members }).to_string();
    let reply = server
        .as_admin("PUT", &format!("/v1/groups/{group}"), &body)
        .await;
    assert!(reply.status < 300, "{reply:?}");
}

/// One message to a group; its id.
pub(crate) async fn push_group(server: &TestServer, group: &str, body: &str) -> u64 {
    let request = format!("{{\"from\":\"sender\",\"body\":{body}}}");
    let path = format!("/v1/groups/{group}/messages");
    let reply = server.as_admin("POST", &path, &request).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["id"].as_u64().unwrap()
}

/// A request of the backend on a kept connection, with a header of its own.
pub(crate) async fn admin(
    http: &mut Http,
    method: &str,
    path: &str,
    header: &str,
    body: &str,
) -> Reply {
    let bearer = format!("authorization: Bearer {KEY}");
    let headers = [bearer.as_str(), header];
    let used = if header.is_empty() {
        &headers[..1]
    } else {
        &headers[..]
    };
    http.request(method, path, used, body).await
}

/// A data directory that outlives its servers.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("data")
    }

    /// Starts a server on it. The one before must have been dropped.
    pub(crate) async fn serve(&self) -> TestServer {
        TestServer::with_hub(|options| options.data = self.path(), |_| {}).await
    }

    /// A copy, of which no server knows.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new();
        copy_all(&self.path(), &copy.path());
        copy
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
