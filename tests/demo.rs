//! `halley demo` as a user meets it: what it prints works, and nothing is left behind.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what tests share stands outside test functions"
)]

#[allow(
    dead_code,
    clippy::allow_attributes,
    reason = "other tests use the rest"
)]
mod program;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use program::{KEY, fail, halley};

/// A demo whose temporary directories are in a place of the test's own.
struct Demo {
    child: Child,
    /// What it has printed, up to the line to paste.
    said: String,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with_log(arguments, Stdio::inherit())
    }

    fn start_with_log(arguments: &[&str], log: Stdio) -> Self {
        let ports = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        Self::start_with(&[&ports, arguments].concat(), |command| {
            command.stderr(log);
        })
    }

    fn start_with(arguments: &[&str], set: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = halley(&["demo", "--disk-free-min-bytes", "0"]);
        command
            .args(arguments)
            .env("TMPDIR", folder.path())
            .env("HALLEY_DATA", folder.path().join("not-this"))
            .stdout(Stdio::piped());
        set(&mut command);
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("\ncurl ") {
            assert!(output.read_line(&mut said).unwrap() > 0, "{said}");
        }
        Self {
            child,
            said,
            folder,
        }
    }

    /// What stands behind a word at the beginning of a line.
    fn address(&self, word: &str) -> &str {
        let line = self
            .said
            .lines()
            .find(|line| line.trim_start().starts_with(word));
        let mut words = line.unwrap_or_default().split_whitespace();
        words
            .nth(1)
            .unwrap_or_else(|| panic!("{word}: {}", self.said))
    }

    fn curl(&self) -> &str {
        self.said
            .lines()
            .find(|line| line.starts_with("curl "))
            .unwrap()
    }

    fn folders(&self) -> Vec<PathBuf> {
        folders(self.folder.path())
    }

    /// Ends it by a signal; how it ended, and what is left.
    fn end(mut self, signal: &str) -> (bool, Vec<PathBuf>) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        let ended = self.child.wait().unwrap();
        (ended.success(), self.folders())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn folders(place: &Path) -> Vec<PathBuf> {
    fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn text_at(url: &str) -> String {
    let mut reply = ureq::get(url).call().unwrap();
    reply.body_mut().read_to_string().unwrap()
}

#[test]
fn it_prints_what_works_and_leaves_nothing() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let demo = Demo::start(&[]);
        assert!(text_at(demo.address("chat")).contains("<title>Halley demo</title>"));
        assert!(text_at(demo.address("admin")).contains("<title>Halley admin</title>"));

        let chat = demo.address("chat");
        let mut joined = ureq::post(format!("{chat}demo/join"))
            .send("{\"user\":\"ann\"}")
            .unwrap();
        let joined = joined.body_mut().read_to_string().unwrap();
        let joined: serde_json::Value = serde_json::from_str(&joined).unwrap();
        let pasted = Command::new("sh").arg("-c").arg(demo.curl()).output();
        let receipt = String::from_utf8(pasted.unwrap().stdout).unwrap();
        assert!(receipt.contains("\"duplicate\":false"), "{receipt}");
        let token = joined["token"].as_str().unwrap();
        let page = text_at(&format!("{chat}v1/groups/everyone/messages?token={token}"));
        assert!(
            page.contains("Welcome") && page.contains("Hello from a terminal"),
            "{page}"
        );

        let folders = demo.folders();
        assert_eq!(
            folders.len(),
            1,
            "one directory, and not that of the environment"
        );
        assert!(folders[0].join("data/journal").is_dir());
        assert_eq!(demo.end(signal), (true, Vec::new()), "{signal}");
    }
}

#[test]
fn a_key_that_was_given_is_not_shown() {
    let demo = Demo::start(&["--admin-key", KEY]);
    assert!(!demo.said.contains(KEY), "{}", demo.said);
    assert!(demo.curl().contains("$HALLEY_ADMIN_KEY"));
}

#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let mut demo = Demo::start_with_log(&["--log", "debug"], Stdio::piped());
    drop(demo.child.stderr.take());
    assert!(text_at(demo.address("chat")).contains("<title>Halley demo</title>"));
    assert_eq!(demo.end("-HUP"), (true, Vec::new()));
}

#[test]
fn ports_that_are_taken_are_replaced_unless_they_were_asked_for() {
    let taken = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    };
    let ((_first, client), (_second, admin)) = (taken(), taken());
    // As where a server runs with the same variables.
    let demo = Demo::start_with(&[], |command| {
        command
            .env("HALLEY_LISTEN", &client)
            .env("HALLEY_ADMIN_LISTEN", &admin);
    });
    assert!(text_at(demo.address("chat")).contains("<title>Halley demo</title>"));
    assert!(text_at(demo.address("admin")).contains("<title>Halley admin</title>"));
    assert!(!demo.said.contains(&client) && !demo.said.contains(&admin));
    assert_eq!(demo.end("-TERM"), (true, Vec::new()));
}

#[test]
fn a_demo_that_cannot_start_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = halley(&["demo", "--listen", &address]);
    let said = fail(command.env("TMPDIR", folder.path()), 1);
    assert!(said.contains("cannot listen"), "{said}");

    // A secret that a real server may have, too: the demo's tokens would be good there.
    for (option, value) in [
        ("token-public-key-file", "some.pem"),
        ("token-secret-file", "some.secret"),
        ("token-secret", KEY),
    ] {
        let mut command = halley(&["demo", &format!("--{option}"), value]);
        let said = fail(command.env("TMPDIR", folder.path()), 2);
        assert!(
            said.ends_with(&format!("cannot run with {option}\n")),
            "{said}"
        );
    }
    let mut command = halley(&["demo"]);
    command.env("TMPDIR", folder.path());
    let said = fail(command.env("HALLEY_TOKEN_SECRET", KEY), 2);
    assert!(said.contains("cannot run with token-secret"), "{said}");
    assert_eq!(folders(folder.path()), Vec::<PathBuf>::new());
}
