//! What an operator meets: a disk that fails, hangs or is full at the start, commands run as another user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::image::look;
use crate::moved::{Mounted, run};
use crate::signals::{NOBODY_ELSE, as_nobody_else};
use crate::support::{Launch, Process, eventually, halley, only_root};

const LIMIT: Duration = Duration::from_secs(30);
const ROOMLESS: [&str; 2] = ["--disk-free-min-bytes", "0"];

fn push(process: &Process, count: usize) {
    let mut client = process.admin();
    for number in 0..count {
        let body = number.to_string();
        let pushed = client.push_direct("ann", "bob", &body, None);
        pushed.unwrap().receipt();
    }
}

fn on(data: &Path) -> Launch {
    Launch::new(data).option(ROOMLESS[0], ROOMLESS[1])
}

/// A data directory on a file system of its own, which has stopped cleanly.
fn stopped(mounted: &Mounted, count: usize) -> Launch {
    let launch = on(&mounted.path().join("data"));
    let mut process = launch.start();
    push(&process, count);
    assert!(process.terminate().success(), "{}", launch.log());
    launch
}

#[test]
fn a_disk_that_hangs_is_told_and_pushes_go_on_when_it_answers_as_root() {
    let temp = TempDir::new().unwrap();
    let mounted = Mounted::image(temp.path(), "disk", &[]);
    // What the server prints must not hang with it.
    let data = temp.path().join("data");
    fs::create_dir(mounted.path().join("data")).unwrap();
    std::os::unix::fs::symlink(mounted.path().join("data"), &data).unwrap();
    let launch = on(&data);
    let mut process = launch.start();
    push(&process, 3);
    let frozen = run("fsfreeze", &["-f".as_ref(), mounted.path()]);
    assert!(frozen, "the file system cannot be frozen");
    let mut client = process.admin();
    let late = std::thread::spawn(move || client.push_direct("ann", "bob", "1", None));
    let stalled = eventually(LIMIT, || {
        let ready = process.admin().get("/readyz");
        ready.is_ok_and(|reply| reply.code() == "disk_stalled")
    });
    let writes = process.admin().status()["writes"].to_string();
    let logged = eventually(LIMIT, || {
        launch.log().contains("has not finished a write or sync")
    });
    assert!(run("fsfreeze", &["-u".as_ref(), mounted.path()]));
    assert!(stalled && logged, "{}", launch.log());
    assert!(
        writes.contains("has not finished a write or sync"),
        "{writes}"
    );
    late.join().unwrap().unwrap().expect(201);
    process.admin().get("/readyz").unwrap().expect(200);
    assert!(process.terminate().success(), "{}", launch.log());
}

#[test]
fn on_a_disk_that_failed_the_cause_is_told_the_stop_is_honest_and_verify_reads_as_root() {
    let temp = TempDir::new().unwrap();
    let mounted = Mounted::image(temp.path(), "disk", &[]);
    let data = temp.path().join("data");
    fs::create_dir(mounted.path().join("data")).unwrap();
    std::os::unix::fs::symlink(mounted.path().join("data"), &data).unwrap();
    let launch = on(&data);
    let mut process = launch.start();
    push(&process, 20);
    fail(mounted.path());
    let refused = eventually(LIMIT, || {
        let pushed = process.admin().push_direct("ann", "bob", "1", None);
        pushed.unwrap().status == 503
    });
    assert!(refused);
    let writes = process.admin().status()["writes"].to_string();
    assert!(
        writes.contains("(cannot ") && writes.contains("os error"),
        "{writes}"
    );
    assert_eq!(process.terminate().code(), Some(1), "{}", launch.log());
    let log = launch.log();
    assert!(log.contains("stopped, but not cleanly"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let verified = halley(&["verify".as_ref(), "--data".as_ref(), data.as_os_str()]);
    assert!(verified.status.success(), "{verified:?}");
}

/// The kernel finds the file system damaged, and makes it read-only.
fn fail(mount: &Path) {
    let find = Command::new("findmnt")
        .args(["-no", "SOURCE"])
        .arg(mount)
        .output();
    let source = String::from_utf8(find.unwrap().stdout).unwrap();
    let name = source.trim().strip_prefix("/dev/").expect("a device");
    let failed = fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1");
    failed.expect("the kernel can fail an ext4");
}

#[test]
fn a_start_without_room_says_which_disk_is_full_and_changes_nothing_as_root() {
    for (size, full_of) in [("64m", "bytes"), ("64m,nr_inodes=60", "files")] {
        let temp = TempDir::new().unwrap();
        let at = temp.path().join("disk");
        fs::create_dir(&at).unwrap();
        let mounted = Mounted::memory(&at, size);
        let launch = stopped(&mounted, 10);
        let ballast = mounted.path().join("ballast");
        fs::create_dir(&ballast).unwrap();
        if full_of == "bytes" {
            // As much as there is.
            drop(fs::write(ballast.join("0"), vec![0; 64 << 20]));
        } else {
            let made = (0..100).map(|number| fs::write(ballast.join(number.to_string()), ""));
            assert!(made.filter(Result::is_err).count() > 0);
        }
        let there = look(launch.data());
        let before = launch.log().len();
        let output = halley(&[
            "serve".as_ref(),
            "--data".as_ref(),
            launch.data().as_os_str(),
            "--listen".as_ref(),
            "127.0.0.1:0".as_ref(),
            "--admin-listen".as_ref(),
            "127.0.0.1:0".as_ref(),
        ]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{full_of}: {said}");
        let path = launch.data().display().to_string();
        assert!(
            said.contains(" is full: ") && said.contains(&path),
            "{full_of}: {said}"
        );
        assert!(said.contains("free at least"), "{full_of}: {said}");
        assert!(
            look(launch.data()) == there,
            "{full_of}: {}",
            launch.log().split_off(before)
        );
        fs::remove_dir_all(&ballast).unwrap();
        assert_eq!(launch.start().admin().status()["watermark"]["direct"], 10);
    }
}

#[test]
fn root_leaves_a_service_s_directory_alone_and_says_who_may_run_it_as_root() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    let launch = Launch::new(&data);
    let mut process = launch.start();
    push(&process, 3);
    assert!(process.terminate().success());
    let given = run("chown", &["-R".as_ref(), "54321:54321".as_ref(), &data]);
    only_root(given, "give files away");
    let there = look(&data);
    let path = data.display().to_string();
    let rebuilt = halley(&["rebuild".as_ref(), "--data".as_ref(), data.as_os_str()]);
    let said = String::from_utf8_lossy(&rebuilt.stderr).into_owned();
    assert_eq!(rebuilt.status.code(), Some(1), "{said}");
    let advice = format!("sudo -u '#54321' halley rebuild --data '{path}'");
    assert!(said.contains(&advice), "{said}");
    let other = format!("chown -R 0: '{path}'");
    assert!(said.contains(&other), "{said}");
    assert_eq!(launch.spawn().wait_end(LIMIT).code(), Some(1));
    let verified = halley(&["verify".as_ref(), "--data".as_ref(), data.as_os_str()]);
    assert!(verified.status.success(), "{verified:?}");
    assert!(look(&data) == there, "something was written");
    for name in ["", "LOCK", "clean", "sled", "sled/db", "journal"] {
        assert_eq!(
            fs::metadata(data.join(name)).unwrap().uid(),
            54321,
            "{name}"
        );
    }
}

/// On a disk of its own there is `lost+found`, and keys may be root's.
#[test]
fn what_the_server_does_not_write_may_belong_to_others_as_root() {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    let launch = Launch::new(&data);
    let mut process = launch.start();
    push(&process, 3);
    assert!(process.terminate().success());
    let mut rebuild = as_nobody_else(temp.path(), 1000);
    let owner = format!("{NOBODY_ELSE}:{NOBODY_ELSE}");
    assert!(run("chown", &["-R".as_ref(), owner.as_ref(), &data]));
    for name in ["lost+found", "journal/lost+found", "sled/lost+found"] {
        fs::create_dir(data.join(name)).unwrap();
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::write(data.join("token.secret"), "of the operator, for the server").unwrap();
    rebuild.args(["rebuild", "--data"]).arg(&data);
    let rebuilt = rebuild.output().unwrap();
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    assert!(data.join("clean").exists());
    // But what it writes may not.
    std::os::unix::fs::chown(data.join("LOCK"), Some(0), Some(0)).unwrap();
    let refused = rebuild.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("`LOCK` in it belongs to user root"), "{said}");
}

#[test]
fn views_that_were_put_aside_are_removed_at_a_good_start() {
    let temp = TempDir::new().unwrap();
    let launch = Launch::new(&temp.path().join("data"));
    let mut process = launch.start();
    push(&process, 3);
    assert!(process.terminate().success());
    for time in 1..=4 {
        fs::create_dir(launch.data().join(format!("sled.damaged-{time}"))).unwrap();
    }
    fs::create_dir(launch.data().join("sled.ahead-5")).unwrap();
    let _process = launch.start();
    let left: Vec<_> = look(launch.data())
        .0
        .into_keys()
        .filter(|name| name.starts_with("sled."))
        .collect();
    assert_eq!(left, ["sled.ahead-5"]);
}

/// As the first process of a container, which has no default for signals: as good as one that ignores them.
#[test]
fn a_signal_ends_a_rebuild_from_its_first_moment() {
    let temp = TempDir::new().unwrap();
    let launch = Launch::new(&temp.path().join("data"));
    let mut process = launch.start();
    push(&process, 3);
    process.kill9();
    // It waits here, as if it took long.
    let segment = launch.data().join("journal/00000000000000000001.journal");
    let (away, pipe) = (temp.path().join("segment"), segment.clone());
    fs::rename(&segment, &away).unwrap();
    assert!(run("mkfifo", &[&pipe]));
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM; exec \"$0\" rebuild --data \"$1\""]);
    command.arg(env!("CARGO_BIN_EXE_halley")).arg(launch.data());
    let mut child = command.spawn().unwrap();
    let id = child.id();
    let mut status = None;
    let exe = format!("/proc/{id}/exe");
    let begun = eventually(LIMIT, || {
        fs::read_link(&exe).is_ok_and(|exe| exe.ends_with("halley"))
    });
    assert!(begun);
    let ended = eventually(LIMIT, || {
        let pid = rustix::process::Pid::from_child(&child);
        // It may have ended already.
        let _sent = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        status = child.try_wait().unwrap();
        status.is_some()
    });
    if !ended {
        child.kill().unwrap();
    }
    assert!(ended, "SIGTERM is lost");
    assert_eq!(status.unwrap().code(), Some(1));
    fs::remove_file(&pipe).unwrap();
    fs::rename(&away, &segment).unwrap();
    launch.start();
}
