//! A server in this process: both listeners on ports of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use halley::clock;
use halley::config::Limits;
use halley::http::{App, Held, ListenerKind, Parts, Timeouts, listen, serve};
use halley::hub::{Caches, Durability, Hub, Options, WindowSize};
use halley::secret::Secret;
use halley::token::{Claims, Verifier, mint};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http::{Http, Reply};
use super::{PATIENCE, eventually};

/// The API key of every test server.
pub(crate) const KEY: &str = "an admin key for tests";
const SECRET: &str = "a token secret for tests";

/// Serves until it is dropped.
pub(crate) struct TestServer {
    pub(crate) client: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) hub: Hub,
    pub(crate) app: App,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    _folder: TempDir,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With other limits and times.
    pub(crate) async fn with(change: impl FnOnce(&mut Parts)) -> Self {
        Self::with_hub(|_| {}, change).await
    }

    /// With another hub, too.
    #[expect(clippy::unused_async, reason = "it must be called within a runtime")]
    pub(crate) async fn with_hub(
        change_hub: impl FnOnce(&mut Options),
        change: impl FnOnce(&mut Parts),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = small(folder.path().join("data"));
        change_hub(&mut options);
        let hub = Hub::open(options).unwrap();
        let mut parts = Parts {
            hub: hub.clone(),
            limits: Limits {
                body_bytes_max: 65_536,
                request_bytes_max: 8 << 20,
                page_messages_max: 1000,
                queue_bytes_max: 64 << 20,
                poll_wait_max: Duration::from_secs(300),
                waiters_per_user_max: 100,
                requests_per_user_max: 100,
                connections_per_address_max: None,
                connections_max: 1000,
                icomet_channels_max: 1000,
            },
            timeouts: Timeouts::default(),
            admin_key: Secret::from(KEY.to_owned()),
            verifier: Verifier::from_secret(SECRET.as_bytes()),
            token_secret: Some(Secret::from(SECRET.to_owned())),
            cors_origins: vec!["https://app.example".parse().unwrap()],
            allowed_hosts: Vec::new(),
            icomet: None,
            started: Instant::now(),
            demo: false,
        };
        change(&mut parts);
        let app = App::new(parts).unwrap();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        let mut addresses = Vec::new();
        for kind in [ListenerKind::Client, ListenerKind::Admin] {
            let listener = listen("127.0.0.1:0".parse().unwrap(), kind).unwrap();
            addresses.push(listener.local_addr().unwrap());
            tasks.push(tokio::spawn(serve(
                listener,
                kind,
                app.clone(),
                stopped.clone(),
            )));
        }
        Self {
            client: addresses[0],
            admin: addresses[1],
            hub,
            app,
            stop,
            tasks,
            _folder: folder,
        }
    }

    /// A user's token; with `send`.
    pub(crate) fn token(user: &str) -> String {
        let expires_at = clock::now_s() + 3600;
        mint(
            SECRET.as_bytes(),
            &Claims {
                user: user.to_owned(),
                send: true,
                expires_at,
            },
        )
    }

    /// A token of any claims.
    pub(crate) fn token_of(claims: &Claims) -> String {
        mint(SECRET.as_bytes(), claims)
    }

    pub(crate) async fn connect(&self) -> Http {
        Http::connect(self.client).await
    }

    pub(crate) async fn connect_admin(&self) -> Http {
        Http::connect(self.admin).await
    }

    /// One request as a user, on a connection of its own.
    pub(crate) async fn as_user(&self, user: &str, method: &str, path: &str, body: &str) -> Reply {
        let bearer = format!("authorization: Bearer {}", Self::token(user));
        self.connect()
            .await
            .request(method, path, &[&bearer], body)
            .await
    }

    /// One request as the backend, on a connection of its own.
    pub(crate) async fn as_admin(&self, method: &str, path: &str, body: &str) -> Reply {
        let bearer = format!("authorization: Bearer {KEY}");
        self.connect_admin()
            .await
            .request(method, path, &[&bearer], body)
            .await
    }

    /// Pushes a direct message; its id.
    pub(crate) async fn push(&self, from: &str, to: &str, body: &str) -> u64 {
        let request = format!("{{\"from\":\"{from}\",\"body\":{body}}}");
        let reply = self
            .as_admin("POST", &format!("/v1/direct/{to}/messages"), &request)
            .await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["id"].as_u64().unwrap()
    }

    /// How many requests of a user are held.
    pub(crate) async fn held(&self, user: &str) -> u64 {
        let reply = self
            .as_admin("GET", &format!("/v1/users/{user}/presence"), "")
            .await;
        reply.json()["connections"].as_u64().unwrap()
    }

    pub(crate) async fn wait_held(&self, user: &str, count: u64) {
        let what = format!("{count} requests of {user} are held");
        eventually(&what, || async { self.held(user).await == count }).await;
    }

    /// Sends a poll and waits until it is held.
    pub(crate) async fn poll_held(&self, user: &str) -> Http {
        let mut http = self.connect().await;
        let before = self.held(user).await;
        http.send(&poll_request(user, "after=now&wait=60")).await;
        self.wait_held(user, before + 1).await;
        http
    }

    /// Signals the end; the tasks end when all connections have.
    pub(crate) fn signal_stop(&self) {
        self.stop.send(true).unwrap();
    }

    pub(crate) async fn ended(&mut self) {
        for task in self.tasks.drain(..) {
            tokio::time::timeout(PATIENCE, task)
                .await
                .expect("the listener ends")
                .unwrap();
        }
    }

    pub(crate) async fn status(&self) -> Value {
        self.as_admin("GET", "/v1/status", "").await.json()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        drop(Held::by(&self.app));
        self.hub.close();
    }
}

/// A poll as text.
pub(crate) fn poll_request(user: &str, query: &str) -> String {
    format!(
        "GET /v1/inbox?{query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        TestServer::token(user)
    )
}

/// Of a small hub.
fn small(data: PathBuf) -> Options {
    Options {
        tail_bytes_max: 256 << 20,
        // So that readings begin in the view and end in the tail.
        window: WindowSize {
            ids: 20,
            bytes: 1 << 20,
        },
        // So that some is known and some is read again.
        caches: Caches {
            memberships_bytes: 2000,
            values: 20,
        },
        data,
        durability: Durability::Interval,
        cache_bytes: 8 << 20,
        disk_free_min_bytes: 0,
        queue_bytes_max: 64 << 20,
        waiters_per_user_max: 100,
        channels_max: 0,
    }
}
