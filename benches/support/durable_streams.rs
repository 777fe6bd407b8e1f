//! Durable Streams as the peer: its server in Rust, which like Halley answers an append when it is on disk. A stream
//! for each user.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::{Http, Server, connect, free_address};

/// Names its program.
const BINARY: &str = "DURABLE_STREAMS";

/// Runs until it is dropped.
pub(crate) struct DurableStreams {
    child: Child,
    address: SocketAddr,
    /// Kept open: the server writes to it.
    _output: BufReader<ChildStdout>,
    _folder: TempDir,
}

impl DurableStreams {
    /// Whether it is there to be compared; says how it gets there.
    pub(crate) fn is_named() -> bool {
        let named = std::env::var_os(BINARY).is_some();
        if !named {
            println!(
                "{BINARY} names no program: no comparison with Durable Streams. To get it: \
                 cargo install durable-streams --version 0.1.5 --locked --root FOLDER; \
                 then {BINARY}=FOLDER/bin/durable-streams-server"
            );
        }
        named
    }
}

impl Server for DurableStreams {
    const NAME: &'static str = "Durable Streams";

    fn start() -> Self {
        // On the disk that Halley writes to.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let address = free_address();
        let mut child = Command::new(std::env::var_os(BINARY).expect("it is named"))
            .env_clear()
            .args(["--durability", "wal", "--host", "127.0.0.1", "--port"])
            .arg(address.port().to_string())
            .arg("--data-dir")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("the server speaks");
        assert!(line.contains("listening"), "{line}");
        Self {
            child,
            address,
            _output: output,
            _folder: folder,
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn backend(&self) -> Http {
        connect(self.address).await
    }

    async fn ready(&self, users: &[String], _: Option<&str>) {
        let mut backend = self.backend().await;
        for user in users {
            let make = format!(
                "PUT /{user} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/octet-stream\r\n\
                 content-length: 0\r\n\r\n"
            );
            backend.ask(&make).await.expect(201);
        }
    }

    /// As bytes that it need not look at, which is what its own benchmarks append.
    fn push(&self, to: &str, _: bool, body: &str) -> String {
        format!(
            "POST /{to} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

impl Drop for DurableStreams {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
