//! The real server as a process of its own, to see what memory it takes and what it logs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use halley::clock;
use halley::token::{Claims, mint};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::device::admin;
use crate::support::{Http, KEY};

pub(crate) const TOKEN_SECRET: &str = "a token secret of a process, for tests";

/// Killed when dropped.
pub(crate) struct Process {
    pub(crate) client: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Process {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_halley"));
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .args(["--durability", "interval", "--disk-free-min-bytes", "0"])
            // What is kept until it is sealed comes and goes, and would hide what is measured.
            .args(["--cache-bytes", "8388608", "--window-messages", "100"])
            .arg("--data")
            .arg(folder.path().join("data"))
            .env("HALLEY_ADMIN_KEY", KEY)
            .env("HALLEY_TOKEN_SECRET", TOKEN_SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let said = tokio::task::spawn_blocking(move || addresses(stdout))
            .await
            .unwrap();
        Self {
            client: said[0],
            admin: said[1],
            child,
            _folder: folder,
        }
    }

    pub(crate) fn token(user: &str) -> String {
        let claims = Claims {
            user: user.to_owned(),
            send: false,
            expires_at: clock::now_s() + 3600,
        };
        mint(TOKEN_SECRET.as_bytes(), &claims)
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// How it ended, if it does within a time.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() >= deadline {
                return ended;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it has in memory.
    pub(crate) fn resident_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// The two addresses that it prints when it is ready.
fn addresses(stdout: impl BufRead) -> Vec<SocketAddr> {
    let lines = stdout.lines().map(Result::unwrap);
    let lines = lines.filter(|line| line.contains("http://"));
    let address = |line: String| {
        let (_, behind) = line.split_once("http://").unwrap();
        behind.split_once(' ').unwrap().0.parse().unwrap()
    };
    lines.map(address).take(2).collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks as the backend on a kept connection; it must succeed.
pub(crate) async fn ask(http: &mut Http, method: &str, path: &str, body: &str) -> Value {
    let reply = admin(http, method, path, "", body).await;
    assert!(reply.status < 300, "{reply:?}");
    reply.json()
}
