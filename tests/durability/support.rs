//! The real binary as a process of its own: start, kill, stop, start again; and chance with a seed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_halley");
pub(crate) const ADMIN_KEY: &str = "durability-tests-admin-key-0123456789";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How to start a server on a data directory; its ports stay the same over restarts.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    data: PathBuf,
    client: SocketAddr,
    admin: SocketAddr,
    env: Vec<(String, String)>,
    args: Vec<String>,
    shell: Option<String>,
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    launch: Launch,
    child: Child,
}

impl Launch {
    /// A server on `data`, on free ports.
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            client: free_address(),
            admin: free_address(),
            env: Vec::new(),
            // Small windows, so that everything happens in the middle of sealing, too.
            args: ["--window-messages", "100"].map(str::to_owned).to_vec(),
            shell: None,
        }
    }

    /// Adds an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds an option and its value.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Adds an option without a value.
    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.args.push(name.to_owned());
        self
    }

    /// Runs shell commands (`ulimit`, `trap`) in the process before it becomes the server.
    pub(crate) fn shell(mut self, commands: &str) -> Self {
        self.shell = Some(commands.to_owned());
        self
    }

    /// Starts and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&self) -> Process {
        let mut process = self.spawn();
        process.wait_ready();
        process
    }

    /// Starts and does not wait.
    pub(crate) fn spawn(&self) -> Process {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.log_path())
            .unwrap();
        self.spawn_printing_to(log.try_clone().unwrap().into(), log.into())
    }

    /// The same with other places for standard output and error.
    pub(crate) fn spawn_printing_to(&self, out: Stdio, err: Stdio) -> Process {
        let mut command = match &self.shell {
            None => Command::new(BINARY),
            Some(commands) => {
                let mut sh = Command::new("sh");
                let script = format!("{commands}; exec \"$0\" \"$@\"");
                sh.args(["-c", &script, BINARY]);
                sh
            }
        };
        let ours = |name: &OsStr| name.to_string_lossy().starts_with("HALLEY_TEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        command
            .args(["serve", "--data"])
            .arg(&self.data)
            .args(["--listen", &self.client.to_string()])
            .args(["--admin-listen", &self.admin.to_string()])
            .args(&self.args)
            .env("HALLEY_ADMIN_KEY", ADMIN_KEY)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        Process {
            launch: self.clone(),
            child: command.spawn().unwrap(),
        }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Where everything that the server prints goes: beside the data directory.
    fn log_path(&self) -> PathBuf {
        let mut name = self.data.file_name().unwrap().to_owned();
        name.push(".log");
        self.data.with_file_name(name)
    }

    /// All that servers with this launch have printed.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }
}

impl Process {
    /// Waits until the server answers that it is ready.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        let mut client = self.admin().with_timeout(Duration::from_secs(5));
        let ready = eventually(START_LIMIT, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended while starting, {status}:\n{}", self.log());
            }
            client.get("/readyz").is_ok_and(|reply| reply.status == 200)
        });
        assert!(ready, "not ready in {START_LIMIT:?}:\n{}", self.log());
    }

    /// A client of the admin listener.
    pub(crate) fn admin(&self) -> Client {
        Client::new(self.launch.admin, ADMIN_KEY)
    }

    /// A client of the client listener.
    pub(crate) fn user(&self, token: &str) -> Client {
        Client::new(self.launch.client, token)
    }

    /// Where the backend connects.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.launch.admin
    }

    /// All that this server and those before it on the same directory have printed.
    pub(crate) fn log(&self) -> String {
        self.launch.log()
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it prints to standard error, where that is a pipe.
    pub(crate) fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Whether the process is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it with SIGKILL, as a crash of the process does.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and does not wait.
    pub(crate) fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal and does not wait.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends SIGTERM and waits until it has ended.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.wait_end(STOP_LIMIT)
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let ended = eventually(limit, || !self.is_running());
        assert!(ended, "still running after {limit:?}:\n{}", self.log());
        self.child.wait().unwrap()
    }

    /// Stops it cleanly, if it still runs, and starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        if self.is_running() {
            let status = self.terminate();
            assert!(status.success(), "{status}:\n{}", self.log());
        }
        *self = self.launch.start();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do about an error here.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the server printed at last:\n{}", last.join("\n"));
        }
    }
}

/// Runs a command of the binary to its end.
pub(crate) fn halley(args: &[&OsStr]) -> Output {
    Command::new(BINARY)
        .args(args)
        .env("HALLEY_ADMIN_KEY", ADMIN_KEY)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Test processes that may run at once, and the ports that each of them has.
const BLOCKS: u16 = 100;
const BLOCK_PORTS: u16 = 200;

/// An address that nothing listens on: below the range from which outgoing connections take theirs.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static BLOCK: OnceLock<(TcpListener, u16)> = OnceLock::new();
    // Nobody holds the ports of a server that is down, so each test process has a block of its own:
    // it listens on the block's first port as long as it lives.
    let (_, first) = BLOCK.get_or_init(|| {
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap();
        let mut blocks = (0..BLOCKS).map(|n| 10_000 + (start + n) % BLOCKS * BLOCK_PORTS);
        blocks
            .find_map(|port| Some((TcpListener::bind(local(port)).ok()?, port)))
            .expect("a block of ports is free")
    });
    (1..BLOCK_PORTS)
        .map(|_| local(first + 1 + NEXT.fetch_add(1, Ordering::Relaxed) % (BLOCK_PORTS - 1)))
        .find(|address| TcpListener::bind(address).is_ok())
        .unwrap()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Asks again until the condition holds or the time is over; says whether it held.
pub(crate) fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        pause(Duration::from_millis(2));
    }
}

/// The only pause: between two looks at a condition, and before a kill at a random moment.
#[expect(
    clippy::disallowed_methods,
    reason = "a process outside can only be asked again; a random kill needs a random moment"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Ends a test that cannot do what only root can: it fails, since it has checked nothing. By its name, which tells it,
/// `tests/run` leaves such a test out where there is no root, and says so.
#[track_caller]
pub(crate) fn only_root(can: bool, what: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    assert!(
        test == "main" || test.ends_with("_as_root"),
        "{test} needs root, and its name does not end with _as_root"
    );
    assert!(can, "only root can {what}: see CONTRIBUTING.md");
}
