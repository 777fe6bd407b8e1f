//! A server of its own for a test, which ends with it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::program::halley;

#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// What it printed when it was ready; at its first start with the lines to paste.
    pub(crate) greeting: String,
    /// Its addresses, for clients and for backends: `127.0.0.1:PORT`.
    pub(crate) addresses: [String; 2],
    folder: tempfile::TempDir,
    directory: String,
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// The data is in this directory of a new folder.
    pub(crate) fn start(directory: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = halley(&["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(folder.path().join(directory))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut greeting = String::new();
        while !greeting.ends_with("; wait\n") {
            assert!(output.read_line(&mut greeting).unwrap() > 0, "{greeting}");
        }
        let mut addresses = greeting
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("http://"))
            .map(str::to_owned);
        Self {
            addresses: [addresses.next().unwrap(), addresses.next().unwrap()],
            child,
            greeting,
            folder,
            directory: directory.to_owned(),
            _output: output,
        }
    }

    /// The folder that has the data directory in it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        fs::canonicalize(self.folder.path().join(&self.directory)).unwrap()
    }

    /// The `OpenAPI` document of each listener.
    pub(crate) fn documents(&self) -> [Value; 2] {
        self.addresses.each_ref().map(|address| {
            let mut reply = ureq::get(format!("http://{address}/openapi.json"))
                .call()
                .unwrap();
            serde_json::from_str(&reply.body_mut().read_to_string().unwrap()).unwrap()
        })
    }

    /// Stops it as a service manager does, and waits for its end.
    pub(crate) fn stop(&mut self) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(killed.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
