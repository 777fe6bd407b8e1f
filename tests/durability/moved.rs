//! The directory that a server writes to is moved, removed, cut, replaced or mounted over while it runs: writes are
//! refused, it says what has happened, and nothing is written into what is there instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::image::look;
use crate::support::{Launch, Process, eventually, halley, only_root};

const NOTICE_LIMIT: Duration = Duration::from_secs(20);
const SEGMENT: &str = "journal/00000000000000000001.journal";

pub(crate) fn run(program: &str, arguments: &[&Path]) -> bool {
    let done = Command::new(program).args(arguments).output();
    done.is_ok_and(|done| done.status.success())
}

fn copy_all(from: &Path, to: &Path) {
    assert!(run("cp", &["-a".as_ref(), from, to]));
}

/// A mount, taken away when dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// A file system in memory.
    pub(crate) fn memory(at: &Path, size: &str) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let mounted = mount.arg(at).output();
        let mounted = mounted.is_ok_and(|out| out.status.success());
        only_root(mounted, "mount a file system");
        Self(at.to_owned())
    }
}

impl Mounted {
    /// An ext4 of its own.
    pub(crate) fn image(temp: &Path, name: &str, options: &[&str]) -> Self {
        let (image, at) = (temp.join(format!("{name}.img")), temp.join(name));
        fs::create_dir(&at).unwrap();
        fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-t", "ext4", "-b", "4096"]).args(options);
        let made = make.arg(&image).output();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,errors=remount-ro"]);
        let mounted = made.is_ok_and(|made| made.status.success())
            && mount.args([&image, &at]).output().unwrap().status.success();
        only_root(mounted, "mount a file system");
        Self(at)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A server may still use it; what is left over goes with the machine.
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

fn push(process: &Process, count: usize) {
    let mut client = process.admin();
    for number in 0..count {
        let body = number.to_string();
        client
            .push_direct("ann", "bob", &body, None)
            .unwrap()
            .receipt();
    }
}

/// It is told everywhere that writes are refused, and why; the server lives.
#[track_caller]
fn assert_told(process: &Process, what: &str) {
    let mut client = process.admin();
    let ready = client.get("/readyz").unwrap().expect(503);
    assert_eq!(ready.code(), "writes_refused");
    let refused = client.push_direct("ann", "bob", "1", None).unwrap();
    assert_eq!(refused.expect(503).code(), "writes_refused");
    client.get("/healthz").unwrap().expect(200);
    let writes = client.status()["writes"].to_string();
    assert!(writes.contains(what), "{what}: {writes}");
    let logged = || process.log().contains(what);
    assert!(
        eventually(NOTICE_LIMIT, logged),
        "{what}: {}",
        process.log()
    );
}

type Change = fn(&Path, &Path);

/// What is done to the directory, and what it is called.
const CHANGES: [(Change, &str); 8] = [
    (
        |data, _| fs::remove_dir_all(data).unwrap(),
        "data was removed",
    ),
    (
        |data, _| fs::remove_file(data.join(SEGMENT)).unwrap(),
        "was removed",
    ),
    (
        |data, _| {
            fs::remove_dir_all(data.join("journal")).unwrap();
        },
        "journal was removed",
    ),
    (|data, _| cut(&data.join(SEGMENT)), "was cut"),
    (
        |data, other| fs::rename(data, other).unwrap(),
        "data was moved away",
    ),
    (
        |data, other| {
            fs::rename(data, other).unwrap();
            copy_all(other, data);
        },
        "data was replaced by another one",
    ),
    (
        |data, other| fs::rename(data.join("sled"), other).unwrap(),
        "sled was moved away",
    ),
    (
        |data, other| {
            fs::rename(data.join("journal"), other).unwrap();
            copy_all(other, &data.join("journal"));
        },
        "journal was replaced by another one",
    ),
];

fn cut(file: &Path) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(100).unwrap();
}

#[test]
fn what_becomes_of_the_directory_is_told_and_nothing_is_written_elsewhere() {
    for (change, what) in CHANGES {
        let temp = TempDir::new().unwrap();
        let (data, other) = (temp.path().join("data"), temp.path().join("other"));
        let launch = Launch::new(&data);
        let mut process = launch.start();
        push(&process, 20);
        change(&data, &other);
        let refuses = || {
            process
                .admin()
                .get("/readyz")
                .is_ok_and(|reply| reply.status == 503)
        };
        assert!(eventually(NOTICE_LIMIT, refuses), "{what}");
        assert_told(&process, what);
        // sled may write to the end where it is still the one that was opened.
        let found = || {
            let there = data.exists().then(|| look(&data).0);
            let mut found = there.unwrap_or_default();
            found.retain(|path, _| what.contains("data was") || !path.starts_with("sled/"));
            found
        };
        let there = found();
        let status = process.terminate();
        assert_eq!(status.code(), Some(1), "{what}: {}", launch.log());
        assert!(
            launch.log().contains("stopped, but not cleanly"),
            "{}",
            launch.log()
        );
        assert!(found() == there, "{what}: something was written into it");
    }
}

#[test]
fn a_directory_that_comes_back_is_written_again() {
    let temp = TempDir::new().unwrap();
    let (data, other) = (temp.path().join("data"), temp.path().join("other"));
    let mut process = Launch::new(&data).start();
    push(&process, 1);
    fs::rename(&data, &other).unwrap();
    let ready = |status| {
        eventually(NOTICE_LIMIT, || {
            process
                .admin()
                .get("/readyz")
                .is_ok_and(|reply| reply.status == status)
        })
    };
    assert!(ready(503));
    fs::rename(&other, &data).unwrap();
    assert!(ready(200));
    let pushed = || {
        process
            .admin()
            .push_direct("ann", "bob", "1", None)
            .unwrap()
            .status
            == 201
    };
    assert!(eventually(NOTICE_LIMIT, pushed));
    assert!(process.terminate().success(), "{}", process.log());
}

/// Begun on the empty mount point, before the disk was there.
#[test]
fn a_disk_that_is_mounted_over_the_directory_is_left_alone_as_root() {
    let temp = TempDir::new().unwrap();
    let (data, real) = (temp.path().join("data"), temp.path().join("real"));
    let mut process = Launch::new(&real).start();
    push(&process, 30);
    assert!(process.terminate().success());
    let launch = Launch::new(&data).option("--disk-free-min-bytes", "0");
    process = launch.start();
    push(&process, 3);
    let _mounted = Mounted::memory(&data, "64m");
    copy_all(&real.join("."), &data);
    let there = look(&data);
    let refuses = || {
        process
            .admin()
            .get("/readyz")
            .is_ok_and(|reply| reply.status == 503)
    };
    assert!(eventually(NOTICE_LIMIT, refuses));
    assert_told(&process, "is on another file system now");
    assert_eq!(process.terminate().code(), Some(1), "{}", launch.log());
    assert!(look(&data) == there, "the real data was written");
    process = launch.start();
    assert_eq!(process.admin().status()["watermark"]["direct"], 30);
}

#[test]
fn a_link_that_copies_would_share_is_refused() {
    let temp = TempDir::new().unwrap();
    let (data, other) = (temp.path().join("data"), temp.path().join("other"));
    let launch = Launch::new(&data);
    let mut process = launch.start();
    push(&process, 3);
    assert!(process.terminate().success());
    let refused = |what: &str| {
        let there = fs::read(data.join("clean")).unwrap();
        let before = launch.log().len();
        assert_eq!(
            launch.spawn().wait_end(NOTICE_LIMIT).code(),
            Some(1),
            "{what}"
        );
        let log = launch.log().split_off(before);
        assert!(log.contains(what), "{what}: {log}");
        assert_eq!(fs::read(data.join("clean")).unwrap(), there, "{what}");
    };
    for name in ["journal", "sled"] {
        fs::rename(data.join(name), &other).unwrap();
        std::os::unix::fs::symlink(&other, data.join(name)).unwrap();
        refused(&format!("its `{name}` is a symbolic link"));
        fs::remove_file(data.join(name)).unwrap();
        fs::rename(&other, data.join(name)).unwrap();
    }
    fs::hard_link(data.join(SEGMENT), &other).unwrap();
    refused("it has another name (a hard link)");
    fs::remove_file(data.join(SEGMENT)).unwrap();
    std::os::unix::fs::symlink(&other, data.join(SEGMENT)).unwrap();
    refused("it is a symbolic link");
    fs::remove_file(data.join(SEGMENT)).unwrap();
    fs::rename(&other, data.join(SEGMENT)).unwrap();
    launch.start();
}

/// Somebody else may have prepared the directory: what is made in it follows no link.
#[test]
fn what_is_made_in_the_directory_follows_no_link() {
    let temp = TempDir::new().unwrap();
    let (data, victim) = (temp.path().join("data"), temp.path().join("victim"));
    fs::write(&victim, "mine").unwrap();
    let links = [
        "README.new",
        "format.new",
        "admin.key.new",
        "admin.new",
        "token.new",
        "token.secret.new",
    ];
    fs::create_dir(&data).unwrap();
    for name in &links[..2] {
        std::os::unix::fs::symlink(&victim, data.join(name)).unwrap();
    }
    let launch = Launch::new(&data);
    let mut process = launch.start();
    for name in ["begun.new", "clean.new"].iter().chain(&links) {
        // Those that are in use now are made anew later.
        drop(std::os::unix::fs::symlink(&victim, data.join(name)));
    }
    push(&process, 1);
    assert!(process.terminate().success(), "{}", launch.log());
    process = launch.start();
    assert!(process.terminate().success());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    for name in ["README", "format", "clean"] {
        assert!(!data.join(name).is_symlink(), "{name}");
    }
    // LOCK is only opened: a link in its place is refused.
    fs::remove_file(data.join("LOCK")).unwrap();
    std::os::unix::fs::symlink(&victim, data.join("LOCK")).unwrap();
    assert_eq!(launch.spawn().wait_end(NOTICE_LIMIT).code(), Some(1));
}

#[test]
fn the_disk_with_the_least_room_counts_as_root() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    fs::create_dir_all(data.join("journal")).unwrap();
    let _mounted = Mounted::memory(&data.join("journal"), "16m");
    let launch = Launch::new(&data).option("--disk-free-min-bytes", "33554432");
    let process = launch.spawn();
    let full = || {
        let ready = process.admin().get("/readyz");
        ready.is_ok_and(|reply| reply.code() == "disk_full")
    };
    assert!(eventually(NOTICE_LIMIT, full), "{}", launch.log());
    let pushed = process
        .admin()
        .push_direct("ann", "bob", "1", None)
        .unwrap();
    assert_eq!(pushed.expect(503).code(), "disk_full");
    let free = process.admin().status()["disk_free_bytes"]
        .as_u64()
        .unwrap();
    assert!(free <= 16 << 20, "{free}");
    let path = data.join("journal").display().to_string();
    assert!(
        eventually(NOTICE_LIMIT, || launch.log().contains(&path)),
        "{}",
        launch.log()
    );
}

/// Whoever verifies a directory holds it: nobody writes its journal meanwhile, by whatever path.
#[test]
fn a_journal_that_is_mounted_into_two_directories_has_one_owner_as_root() {
    let temp = TempDir::new().unwrap();
    let (data, other) = (temp.path().join("data"), temp.path().join("other"));
    let launch = Launch::new(&data);
    let mut process = launch.start();
    push(&process, 3);
    copy_all(&data, &other);
    let journal = [data.join("journal"), other.join("journal")];
    let mounted = run("mount", &["--bind".as_ref(), &journal[0], &journal[1]]);
    only_root(mounted, "mount a directory");
    let _mounted = Mounted(journal[1].clone());
    let copy = Launch::new(&other);
    assert_eq!(copy.spawn().wait_end(NOTICE_LIMIT).code(), Some(1));
    assert!(
        copy.log().contains("in use by another process"),
        "{}",
        copy.log()
    );
    let verified = halley(&["verify".as_ref(), "--data".as_ref(), other.as_os_str()]);
    assert!(!verified.status.success());
    push(&process, 3);
    assert!(process.terminate().success());
}
