//! Halley itself: the release build, or another one, on a new data directory, with all defaults but the addresses.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Endless, Holding, Http, Server, connect};

/// Runs until it is dropped.
pub(crate) struct Halley {
    binary: PathBuf,
    child: Child,
    client: SocketAddr,
    admin: SocketAddr,
    key: String,
    tokens: Mutex<HashMap<String, String>>,
    /// Kept open: the server writes to it.
    output: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Halley {
    /// A new server without messages, run by this program.
    pub(crate) fn of(binary: PathBuf) -> Self {
        // Under the build's own folder: the system's may be memory, and then a sync costs nothing.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let (child, output, [client, admin]) = run_in(&binary, folder.path());
        let key = std::fs::read_to_string(folder.path().join("data/admin.key")).expect("the key");
        Self {
            binary,
            child,
            client,
            admin,
            key: key.trim().to_owned(),
            tokens: Mutex::default(),
            output,
            folder,
        }
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\n\
             content-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        )
    }

    pub(crate) fn get(&self, path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\n\r\n",
            self.key
        )
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn signal(&self, signal: Signal) {
        super::signal(self.child.id(), signal);
    }

    /// Holds it still, with all that it does in the background.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let ended = self.child.wait().expect("it ends");
        assert!(ended.success(), "{ended}");
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Starts it again on its directory, after it has ended; how long it took until it was ready.
    pub(crate) async fn start_again(&mut self) -> Duration {
        let begin = Instant::now();
        let folder = self.folder.path();
        (self.child, self.output, [self.client, self.admin]) = run_in(&self.binary, folder);
        let mut backend = self.backend().await;
        while backend.ask(&self.get("/readyz")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begin.elapsed()
    }

    /// Where clients ask.
    pub(crate) fn address(&self) -> SocketAddr {
        self.client
    }

    /// A user's token.
    pub(crate) fn token(&self, user: &str) -> String {
        let tokens = self.tokens.lock().expect("nobody panicked");
        tokens[user].clone()
    }

    /// A poll that is answered at once.
    pub(crate) fn look(&self, user: &str) -> String {
        self.poll(user, None, None).replace("wait=300", "wait=0")
    }
}

/// A server on the data directory in this folder, when it has said its addresses: of clients, of the backend.
fn run_in(binary: &Path, folder: &Path) -> (Child, BufReader<ChildStdout>, [SocketAddr; 2]) {
    let mut child = Command::new(binary)
        .env_clear()
        .arg("--data")
        .arg(folder.join("data"))
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--log", "warn"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut output = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut addresses = output.by_ref().lines().filter_map(|line| {
        let line = line.expect("the server says its addresses");
        let (_, rest) = line.split_once("http://")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    let client = addresses.next().expect("the client address");
    let admin = addresses.next().expect("the admin address");
    (child, output, [client, admin])
}

impl Server for Halley {
    const NAME: &'static str = "Halley";

    fn start() -> Self {
        Self::of(env!("CARGO_BIN_EXE_halley").into())
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn backend(&self) -> Http {
        connect(self.admin).await
    }

    async fn ready(&self, users: &[String], group: Option<&str>) {
        let mut backend = self.backend().await;
        for user in users {
            let ask = self.request("POST", "/v1/tokens", &format!("{{\"user\":\"{user}\"}}"));
            let reply = backend.ask(&ask).await.expect(201).json();
            let token = reply["token"].as_str().expect("a token").to_owned();
            let mut tokens = self.tokens.lock().expect("nobody panicked");
            tokens.insert(user.clone(), token);
        }
        if let Some(group) = group {
            let members = serde_json::json!({ "members": users }).to_string();
            let make = self.request("PUT", &format!("/v1/groups/{group}"), &members);
            backend.ask(&make).await.expect(201);
        }
    }

    fn push(&self, to: &str, is_group: bool, body: &str) -> String {
        let kind = if is_group { "groups" } else { "direct" };
        let text = format!("{{\"from\":\"bench\",\"body\":{body}}}");
        self.request("POST", &format!("/v1/{kind}/{to}/messages"), &text)
    }
}

impl Holding for Halley {
    async fn client(&self) -> Http {
        connect(self.client).await
    }

    fn poll(&self, user: &str, _: Option<&str>, cursor: Option<&str>) -> String {
        let tokens = self.tokens.lock().expect("nobody panicked");
        format!(
            "GET /v1/inbox?wait=300&after={} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\n\r\n",
            cursor.unwrap_or("0"),
            tokens[user]
        )
    }

    fn listen(&self, how: Endless, user: &str) -> String {
        let path = match how {
            Endless::Events => "sse",
            Endless::Socket => "ws",
        };
        let (token, headers) = (self.token(user), how.headers());
        format!(
            "GET /v1/inbox/{path}?heartbeat=300 HTTP/1.1\r\nhost: bench\r\n{headers}\
             authorization: Bearer {token}\r\n\r\n"
        )
    }

    fn cursor(reply: &str) -> Option<String> {
        let (_, rest) = reply.rsplit_once("\"next\":\"")?;
        rest.split('"').next().map(str::to_owned)
    }

    async fn held(&self) -> usize {
        let mut backend = self.backend().await;
        let status = backend.ask(&self.get("/v1/status")).await.json();
        let held = status["waiters"].as_u64().expect("a number");
        usize::try_from(held).expect("it fits")
    }
}

impl Drop for Halley {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
