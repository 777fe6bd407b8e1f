//! Signals, the reader of the log, and limits of the process: what the system does to a server from outside.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::http::{Http, request};
use crate::support::{BINARY, Launch, Process, eventually, only_root};

const LIMIT: Duration = Duration::from_secs(30);
/// Someone who runs nothing else on this machine.
pub(crate) const NOBODY_ELSE: u32 = 54_321;

fn launch() -> (tempfile::TempDir, Launch) {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::new(&directory.path().join("data"));
    (directory, launch)
}

/// Sends a signal by its number or name; `kill` knows those that have no name, too.
fn send(process: &Process, signal: &str) {
    let pid = process.pid().to_string();
    let sent = Command::new("sh")
        .args(["-c", "kill -\"$1\" \"$2\"", "sh", signal, &pid])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{signal}: {sent:?}");
}

fn log_id(process: &Process) -> String {
    process.admin().status()["log"].as_str().unwrap().to_owned()
}

#[test]
fn a_signal_that_asks_for_nothing_ends_nothing() {
    let (_directory, launch) = launch();
    let mut process = launch.start();
    let before = log_id(&process);
    // 16 is SIGSTKFLT, of which not every shell knows the name.
    let named = [
        "HUP", "USR1", "USR2", "PIPE", "ALRM", "VTALRM", "PROF", "IO", "16", "XFSZ",
    ];
    let realtime = (34..=64).map(|number: u32| number.to_string());
    for signal in named.map(str::to_owned).into_iter().chain(realtime) {
        send(&process, &signal);
        process.admin().get("/healthz").unwrap().expect(200);
        assert!(process.is_running(), "{signal}");
    }
    let status = process.terminate();
    assert_eq!(status.code(), Some(0), "{status}: {}", launch.log());
    process.restart();
    assert_eq!(log_id(&process), before);
}

#[test]
fn every_other_signal_stops_it_cleanly() {
    let (_directory, launch) = launch();
    let launch = launch.option("--durability", "interval");
    let mut process = launch.start();
    let before = log_id(&process);
    for signal in ["TERM", "INT", "QUIT", "PWR", "XCPU"] {
        send(&process, signal);
        let status = process.wait_end(LIMIT);
        assert_eq!(
            status.code(),
            Some(0),
            "{signal}: {status}: {}",
            launch.log()
        );
        process.restart();
        assert_eq!(log_id(&process), before, "{signal}");
    }
    let told = launch.log();
    for signal in ["SIGTERM", "SIGINT", "SIGQUIT", "SIGPWR", "SIGXCPU"] {
        assert!(told.contains(signal), "{signal}: {told}");
    }
    assert!(!told.contains("WARN"), "{told}");
}

#[test]
fn a_hangup_reloads_what_is_logged_and_tells_what_is_not_reloaded() {
    let (directory, launch) = launch();
    let file = directory.path().join("halley.toml");
    fs::write(&file, "log = 'info'\n").unwrap();
    let launch = launch.option("--config", file.to_str().unwrap());
    let process = launch.start();
    let hangup = |text: &str, told: &str| {
        fs::write(&file, text).unwrap();
        send(&process, "HUP");
        let said = eventually(LIMIT, || launch.log().contains(told));
        assert!(said, "{told}: {}", launch.log());
    };
    hangup("log = 'loud'\n", "the configuration is not reloaded");
    hangup("log = 'debug'\n", "log=\"debug\"");
    hangup(
        "log = 'info'\npoll-wait-s-max = 20\n",
        "options=\"poll-wait-s-max\"",
    );
    process.admin().get("/readyz").unwrap().expect(200);
}

#[test]
fn a_signal_before_it_is_ready_ends_it() {
    let (_directory, launch) = launch();
    let mut process = launch.spawn();
    let started = || launch.log().contains("a new log begins");
    assert!(eventually(LIMIT, started), "{}", launch.log());
    process.signal(Signal::TERM);
    let status = process.wait_end(LIMIT);
    assert_eq!(status.code(), Some(0), "{status}: {}", launch.log());
}

#[test]
fn a_reader_of_the_log_that_hangs_stops_nothing() {
    let (_directory, launch) = launch();
    let launch = launch.option("--log", "trace");
    let mut process = launch.spawn_printing_to(Stdio::piped(), Stdio::piped());
    process.wait_ready();
    // Several times what a pipe takes.
    let mut admin = process.admin().with_timeout(LIMIT);
    for _ in 0..2000 {
        admin.get("/healthz").unwrap().expect(200);
    }
    let status = process.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn lines_that_nobody_reads_in_time_are_counted() {
    let (_directory, launch) = launch();
    let launch = launch.option("--log", "trace");
    let mut process = launch.spawn_printing_to(Stdio::null(), Stdio::piped());
    process.wait_ready();
    fill_log(process.admin_address());
    // Now it is read, and when the reader has caught up, the end is heard as well.
    let mut log = process.take_stderr();
    let mut text = read_until(&mut log, "log lines were dropped");
    assert!(process.terminate().success());
    log.read_to_string(&mut text).unwrap();
    assert!(text.contains("stopped"), "the end is there");
}

fn read_until(log: &mut ChildStderr, expected: &str) -> String {
    let (mut text, mut room) = (String::new(), [0; 8 * 1024]);
    while !text.contains(expected) {
        let length = log.read(&mut room).unwrap();
        assert!(length > 0, "{expected} is not in {} bytes", text.len());
        text.push_str(&String::from_utf8_lossy(&room[..length]));
    }
    text
}

/// Asks so often that the lines about it are more than may wait: about 75 bytes a request are logged.
fn fill_log(address: SocketAddr) {
    const TURNS: usize = 400;
    const TOGETHER: usize = 50;
    let requests = request("GET", "/healthz", &[], "").repeat(TOGETHER);
    crate::client::runtime().block_on(async {
        let mut http = Http::connect(address).await;
        http.patience = Some(LIMIT);
        for _ in 0..TURNS {
            http.send(&requests).await;
            for _ in 0..TOGETHER {
                assert_eq!(http.reply().await.status, 200);
            }
        }
    });
}

/// The program as a user who may have so many threads.
pub(crate) fn as_nobody_else(place: &Path, threads: u32) -> Command {
    let mut command = Command::new("setpriv");
    let (user, group) = (
        format!("--reuid={NOBODY_ELSE}"),
        format!("--regid={NOBODY_ELSE}"),
    );
    command.args([&user, &group, "--clear-groups"]);
    let can = command.arg("true").output();
    let can = can.is_ok_and(|output| output.status.success());
    only_root(can, "be another user");
    let program = place.join("halley");
    fs::copy(BINARY, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args([&user, &group, "--clear-groups", "prlimit"]);
    command.arg(format!("--nproc={threads}")).arg(program);
    command
}

#[test]
fn too_few_threads_are_named_at_the_start_as_root() {
    let directory = tempfile::tempdir().unwrap();
    for limit in [1, 5, 20] {
        let mut command = as_nobody_else(directory.path(), limit);
        let data = directory.path().join("data");
        fs::create_dir_all(&data).unwrap();
        chown(&data, Some(NOBODY_ELSE), Some(NOBODY_ELSE)).unwrap();
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0", "--data"]);
        let output = command.arg(&data).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{limit}: {said}");
        assert!(said.contains("ulimit -u, LimitNPROC"), "{limit}: {said}");
    }
}

#[test]
fn few_open_files_are_named_at_the_start() {
    for limit in ["ulimit -n 20", "ulimit -n 100", "ulimit -n 140"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let output = Command::new("sh")
            .args(["-c", &format!("{limit}; exec \"$0\" \"$@\""), BINARY])
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen"])
            .args(["127.0.0.1:0", "--data"])
            .arg(&data)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{limit}: {said}");
        assert!(said.contains("ulimit -n, LimitNOFILE"), "{limit}: {said}");
        assert!(!data.exists(), "{limit}: nothing was begun");
    }
}

#[test]
fn a_log_is_begun_only_where_that_is_wanted() {
    let (_directory, launch) = launch();
    let mut refused = launch.clone().flag("--must-exist").spawn();
    assert_eq!(refused.wait_end(LIMIT).code(), Some(1));
    assert!(!launch.data().exists(), "nothing was made");
    let said = launch.log();
    assert!(said.contains("it does not exist"), "{said}");
    // As an unmounted disk leaves it.
    fs::create_dir(launch.data()).unwrap();
    let mut refused = launch.clone().flag("--must-exist").spawn();
    assert_eq!(refused.wait_end(LIMIT).code(), Some(1));
    assert_eq!(fs::read_dir(launch.data()).unwrap().count(), 0);

    let mut process = launch.start();
    assert!(process.terminate().success());
    let begun = || launch.log().matches("a new log begins").count();
    assert_eq!(begun(), 1);
    let mut process = launch.clone().flag("--must-exist").start();
    assert!(process.terminate().success());
    assert_eq!(begun(), 1, "it goes on");
}
