//! What these tests ask of a server, each on one kept connection, in threads that wait for the replies. Nothing is
//! asked a second time, because a test must know which request was answered and which was not.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::runtime::{Builder, Runtime};

use crate::http::{Http, Reply, request};

/// A message as a reader gets it; its body byte for byte.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) sequence: String,
    pub(crate) id: u64,
    pub(crate) prev: u64,
    pub(crate) n: u64,
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) at: u64,
    pub(crate) body: Box<RawValue>,
}

/// A page of an inbox or of a history (which has no `next`).
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) log: String,
    pub(crate) messages: Vec<Message>,
    #[serde(default)]
    pub(crate) next: String,
    pub(crate) more: bool,
}

/// What a pusher gets back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) sequence: String,
    pub(crate) id: u64,
    pub(crate) prev: u64,
    pub(crate) at: u64,
    pub(crate) duplicate: bool,
}

/// One kept connection with one key or token.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    secret: String,
    connection: Option<Http>,
    timeout: Duration,
    runtime: Runtime,
}

impl Reply {
    #[track_caller]
    fn read<T: for<'a> Deserialize<'a>>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The page in a 200.
    #[track_caller]
    pub(crate) fn page(self) -> Page {
        self.expect(200).read()
    }

    /// The message in a 200.
    #[track_caller]
    pub(crate) fn message(self) -> Message {
        self.expect(200).read()
    }

    /// The receipt in a 201, or in the 200 of a repeated push.
    #[track_caller]
    pub(crate) fn receipt(&self) -> Receipt {
        let receipt: Receipt = self.read();
        let status = if receipt.duplicate { 200 } else { 201 };
        assert_eq!(self.status, status, "{receipt:?}");
        receipt
    }
}

impl Client {
    /// A client that sends `secret` with every request; it connects when it first asks.
    pub(crate) fn new(address: SocketAddr, secret: &str) -> Self {
        Self {
            address,
            secret: secret.to_owned(),
            connection: None,
            timeout: Duration::from_secs(60),
            runtime: runtime(),
        }
    }

    /// The same with another limit on how long a reply may take.
    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asks; any error leaves it open whether the server did what was asked.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> io::Result<Reply> {
        let bearer = format!("authorization: Bearer {}", self.secret);
        let key = key.map(|key| format!("idempotency-key: {key}"));
        let mut headers = vec![bearer.as_str()];
        headers.extend(key.as_deref());
        if !body.is_empty() {
            headers.push("content-type: application/json");
        }
        let request = request(method, path, &headers, body);
        let result = self.runtime.block_on(exchange(
            &mut self.connection,
            self.address,
            self.timeout,
            &request,
        ));
        let keep = |reply: &Reply| reply.header("connection") != Some("close");
        if !result.as_ref().is_ok_and(keep) {
            self.connection = None;
        }
        result
    }

    /// Asks without a body.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.send("GET", path, None, "")
    }

    /// Pushes a 1:1 message through the admin listener.
    pub(crate) fn push_direct(
        &mut self,
        from: &str,
        to: &str,
        body: &str,
        key: Option<&str>,
    ) -> io::Result<Reply> {
        let path = format!("/v1/direct/{to}/messages");
        self.send("POST", &path, key, &draft(from, body))
    }

    /// Pushes to a group through the admin listener.
    pub(crate) fn push_group(
        &mut self,
        from: &str,
        group: &str,
        body: &str,
        key: Option<&str>,
    ) -> io::Result<Reply> {
        let path = format!("/v1/groups/{group}/messages");
        self.send("POST", &path, key, &draft(from, body))
    }

    /// Makes a group or sets its members.
    pub(crate) fn put_group(
        &mut self,
        group: &str,
        members: &[String],
        history: &str,
    ) -> io::Result<Reply> {
        let body = json!({"members": members, "history": history}).to_string();
        self.send("PUT", &format!("/v1/groups/{group}"), None, &body)
    }

    /// The inbox of a user, through the admin listener.
    pub(crate) fn inbox(&mut self, user: &str, after: &str, limit: u64) -> io::Result<Reply> {
        self.get(&format!(
            "/v1/users/{user}/inbox?after={after}&limit={limit}&wait=0"
        ))
    }

    /// A long poll with a token, through the client listener.
    pub(crate) fn poll(&mut self, after: &str, limit: u64, wait_s: u64) -> io::Result<Reply> {
        self.get(&format!(
            "/v1/inbox?after={after}&limit={limit}&wait={wait_s}"
        ))
    }

    /// A token for a user, through the admin listener.
    #[track_caller]
    pub(crate) fn token(&mut self, user: &str) -> String {
        let body = json!({"user": user, "ttl_s": 86_400, "send": true}).to_string();
        let reply = self.send("POST", "/v1/tokens", None, &body).unwrap();
        let token = &reply.expect(201).json()["token"];
        token.as_str().unwrap().to_owned()
    }

    /// The members of a group, sorted by name.
    #[track_caller]
    pub(crate) fn members(&mut self, group: &str) -> Vec<String> {
        let reply = self.get(&format!("/v1/groups/{group}")).unwrap();
        serde_json::from_value(reply.expect(200).json()["members"].take()).unwrap()
    }

    /// What the server says of itself.
    #[track_caller]
    pub(crate) fn status(&mut self) -> Value {
        self.get("/v1/status").unwrap().expect(200).json()
    }
}

/// The JSON of a push, its body as it is.
pub(crate) fn draft(from: &str, body: &str) -> String {
    format!(r#"{{"from":"{from}","body":{body}}}"#)
}

/// For the waiting of one thread.
pub(crate) fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

async fn exchange(
    connection: &mut Option<Http>,
    address: SocketAddr,
    timeout: Duration,
    request: &str,
) -> io::Result<Reply> {
    let http = match connection {
        Some(http) => http,
        none => none.insert(Http::try_connect(address).await?),
    };
    http.patience = Some(timeout);
    http.try_send(request.as_bytes()).await?;
    http.try_reply().await
}
