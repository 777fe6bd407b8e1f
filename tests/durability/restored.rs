//! Backups that lack something, and backups copied over a directory: no id is given twice under one log id, and
//! nothing that is known to be missing passes for whole.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::image::look;
use crate::moved::{Mounted, run};
use crate::support::{Launch, Process, eventually, halley};

const END_LIMIT: Duration = Duration::from_secs(20);
const SEGMENT: &str = "journal/00000000000000000001.journal";

/// A data directory and a place for its backup.
struct Room {
    _temp: TempDir,
    data: PathBuf,
    backup: PathBuf,
    launch: Launch,
}

impl Room {
    fn new() -> Self {
        let temp = TempDir::new().unwrap();
        let data = temp.path().join("data");
        Self {
            backup: temp.path().join("backup"),
            launch: Launch::new(&data),
            data,
            _temp: temp,
        }
    }
}

fn push(process: &Process, count: usize) {
    let mut client = process.admin();
    for number in 0..count {
        let body = format!("\"{number} {}\"", "x".repeat(200));
        client
            .push_direct("ann", "bob", &body, None)
            .unwrap()
            .receipt();
    }
}

fn copy_all(from: &Path, to: &Path) {
    assert!(run("cp", &["-a".as_ref(), from, to]));
}

fn log_of(process: &Process) -> String {
    process.admin().status()["log"].as_str().unwrap().to_owned()
}

fn cut_to_half(file: &Path) {
    let length = fs::metadata(file).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(length / 2).unwrap();
}

/// Runs a command on a directory; its exit code and all that it printed.
fn command(name: &str, data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut all = vec![name.as_ref(), "--data".as_ref(), data.as_os_str()];
    all.extend(more.iter().map(std::ffi::OsStr::new));
    let output = halley(&all);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Neither is it taken for whole, nor started, and sled stays where it is.
#[track_caller]
fn assert_refused(data: &Path, what: &str) {
    let sled = || fs::metadata(data.join("sled")).unwrap().ino();
    let there = sled();
    let (code, text) = command("verify", data, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(what), "{text}");
    let launch = Launch::new(data);
    assert_eq!(
        launch.spawn().wait_end(END_LIMIT).code(),
        Some(1),
        "{}",
        launch.log()
    );
    assert!(launch.log().contains(what), "{}", launch.log());
    let (code, text) = command("rebuild", data, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(sled(), there, "sled was put aside");
}

#[test]
fn a_backup_that_lacks_the_end_of_the_journal_is_not_whole() {
    let room = Room::new();
    let mut process = room.launch.start();
    push(&process, 400);
    assert!(process.terminate().success());
    copy_all(&room.data, &room.backup);
    cut_to_half(&room.backup.join(SEGMENT));
    assert_refused(&room.backup, "but entry 400 had been applied");
    // Accepted, what sled has alone stays there.
    let (code, text) = command("rebuild", &room.backup, &["--accept-loss"]);
    assert_eq!(code, Some(0), "{text}");
    let mut names = fs::read_dir(&room.backup).unwrap();
    let kept = names.any(|name| {
        let name = name.unwrap().file_name();
        name.to_string_lossy().starts_with("sled.ahead-")
    });
    assert!(kept, "sled's messages were thrown away");
    let copy = Launch::new(&room.backup).start();
    process = room.launch.start();
    assert_ne!(log_of(&copy), log_of(&process));
}

#[test]
fn a_directory_that_was_killed_and_lost_the_end_of_its_journal_is_not_whole() {
    let room = Room::new();
    let mut process = room.launch.start();
    push(&process, 100);
    // The view tells what it has, once it is written.
    assert!(process.terminate().success());
    process = room.launch.start();
    process.kill9();
    cut_to_half(&room.data.join(SEGMENT));
    assert_refused(&room.data, "but entry 100 had been applied");
    // So does the mark of the start alone.
    fs::remove_dir_all(room.data.join("sled")).unwrap();
    let (code, text) = command("verify", &room.data, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("but entry 100 had been applied"), "{text}");
}

/// What it is called, what does it, and the entries that are left at least.
type Damage<'a> = (&'a str, &'a dyn Fn(), u64);

/// What verify says is good is what a rebuild that accepts the loss keeps.
#[test]
fn verify_reads_up_to_the_first_bad_segment() {
    let temp = TempDir::new().unwrap();
    let mut data = temp.path().join("copy0");
    for number in 1..=4 {
        let mut process = Launch::new(&data).start();
        push(&process, 10);
        process.kill9();
        // A copy goes on in a segment of its own.
        let next = temp.path().join(format!("copy{number}"));
        copy_all(&data, &next);
        data = next;
    }
    let segment = |entry: u64| data.join(format!("journal/{entry:020}.journal"));
    let sound = look(&data).0;
    let damages: [Damage<'_>; 3] = [
        ("missing", &|| fs::remove_file(segment(21)).unwrap(), 20),
        ("short", &|| cut_to_half(&segment(11)), 14),
        ("foreign", &|| foreign(&segment(31)), 30),
    ];
    for (what, damage, least) in damages {
        crate::image::put(&sound, &data);
        damage();
        let (code, text) = command("verify", &data, &[]);
        assert_eq!(code, Some(1), "{what}: {text}");
        let said = text.split("Good up to there: ").nth(1).unwrap();
        let good: u64 = said.split(' ').next().unwrap().parse().unwrap();
        assert!(good >= least && good < 40, "{what}: {text}");
        let (_, json) = command("verify", &data, &["--json"]);
        assert!(json.contains(&format!("\"entries\":{good}")), "{json}");
        let (code, text) = command("rebuild", &data, &["--accept-loss"]);
        assert_eq!(code, Some(0), "{what}: {text}");
        assert!(
            text.contains(&format!("from {good} entries")),
            "{what}: {good}: {text}"
        );
    }
}

/// A segment of another directory.
fn foreign(segment: &Path) {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    let mut process = Launch::new(&data).start();
    push(&process, 3);
    process.kill9();
    fs::copy(data.join(SEGMENT), segment).unwrap();
}

/// Either the log has another id, and says of the lost cursor that it is beyond, or the server does not start.
#[track_caller]
fn assert_forked_or_refused(room: &Room, log: &str, cursor: &str, what: &str) {
    let mut process = room.launch.spawn();
    let mut client = process.admin();
    let mut ended = false;
    let decided = eventually(END_LIMIT, || {
        ended = !process.is_running();
        ended || client.get("/readyz").is_ok_and(|reply| reply.status == 200)
    });
    assert!(decided, "{what}: {}", room.launch.log());
    if ended {
        assert!(
            room.launch.log().contains("ahead of the journal"),
            "{what}: {}",
            room.launch.log()
        );
        return;
    }
    assert_ne!(
        log_of(&process),
        log,
        "{what}: ids are given again under the same log"
    );
    let reply = process.admin().inbox("bob", cursor, 1).unwrap();
    assert_eq!(reply.expect(409).code(), "cursor_ahead", "{what}");
    process.kill9();
    process = room.launch.start();
    assert_ne!(log_of(&process), log, "{what}");
}

#[test]
fn a_backup_copied_over_a_directory_gives_no_id_again() {
    let cases = [
        (false, false, false),
        (true, false, false),
        (true, true, false),
        (false, true, false),
        (true, false, true),
        (true, true, true),
    ];
    for (stopped_backup, clean_end, verified) in cases {
        let room = Room::new();
        let mut process = room.launch.start();
        push(&process, 20);
        if stopped_backup {
            assert!(process.terminate().success());
            copy_all(&room.data, &room.backup);
            process = room.launch.start();
        } else {
            copy_all(&room.data, &room.backup);
        }
        push(&process, 20);
        let log = log_of(&process);
        let cursor = process.admin().inbox("bob", "now", 1).unwrap().page().next;
        if clean_end {
            assert!(process.terminate().success());
        } else {
            process.kill9();
        }
        copy_all(&room.backup.join("."), &room.data);
        if verified {
            command("verify", &room.data, &[]);
        }
        let what = format!(
            "stopped backup: {stopped_backup}, clean end: {clean_end}, verified: {verified}"
        );
        assert_forked_or_refused(&room, &log, &cursor, &what);
    }
}

#[test]
fn a_journal_copied_into_a_directory_gives_no_id_again() {
    for (clean_end, with_sled) in [(false, true), (false, false), (true, true), (true, false)] {
        let room = Room::new();
        let mut process = room.launch.start();
        push(&process, 20);
        copy_all(&room.data, &room.backup);
        push(&process, 20);
        assert!(process.terminate().success());
        process = room.launch.start();
        let log = log_of(&process);
        let cursor = process.admin().inbox("bob", "now", 1).unwrap().page().next;
        if clean_end {
            assert!(process.terminate().success());
        } else {
            process.kill9();
        }
        copy_all(&room.backup.join("journal/."), &room.data.join("journal"));
        if !with_sled {
            fs::remove_dir_all(room.data.join("sled")).unwrap();
        }
        let what = format!("clean end: {clean_end}, with sled: {with_sled}");
        assert_forked_or_refused(&room, &log, &cursor, &what);
    }
}

/// Restores as rsync does: what differs in length or time is written beside it and renamed into its place, all else
/// stays. With `delete`, what the backup does not have goes.
fn sync_over(backup: &Path, data: &Path, delete: bool) {
    let names = |dir: &Path| -> Vec<_> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    for name in names(backup) {
        let (from, to) = (backup.join(&name), data.join(&name));
        if from.is_dir() {
            fs::create_dir_all(&to).unwrap();
            sync_over(&from, &to, delete);
            continue;
        }
        let seen =
            |path: &Path| fs::metadata(path).map(|data| (data.len(), data.modified().unwrap()));
        if seen(&to).is_ok_and(|there| there == seen(&from).unwrap()) {
            continue;
        }
        let beside = data.join(format!(".{}.new", name.display()));
        copy_all(&from, &beside);
        fs::rename(&beside, &to).unwrap();
    }
    for name in names(data) {
        let path = data.join(&name);
        match delete && !backup.join(&name).exists() {
            true if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
            true => fs::remove_file(&path).unwrap(),
            false => {}
        }
    }
}

#[test]
fn a_backup_synchronised_into_a_directory_gives_no_id_again() {
    // Of the journal alone: sled is gone.
    let all = ["restarted", "clean end", "delete", "journal alone"];
    for number in 0..16 {
        let how: Vec<&str> = (0..)
            .zip(all)
            .filter(|(bit, _)| number >> bit & 1 == 1)
            .map(|(_, step)| step)
            .chain((number % 3 == 0).then_some("verified"))
            .collect();
        let is = |step| how.contains(&step);
        let room = Room::new();
        let mut process = room.launch.start();
        push(&process, 20);
        copy_all(&room.data, &room.backup);
        push(&process, 20);
        if is("restarted") {
            process.kill9();
            process = room.launch.start();
            push(&process, 1);
        }
        let log = log_of(&process);
        let cursor = process.admin().inbox("bob", "now", 1).unwrap().page().next;
        if is("clean end") {
            assert!(process.terminate().success());
        } else {
            process.kill9();
        }
        let of_format = || fs::metadata(room.data.join("format")).unwrap().ino();
        let format = of_format();
        if is("journal alone") {
            sync_over(
                &room.backup.join("journal"),
                &room.data.join("journal"),
                is("delete"),
            );
            fs::remove_dir_all(room.data.join("sled")).unwrap();
        } else {
            sync_over(&room.backup, &room.data, is("delete"));
        }
        assert_eq!(of_format(), format, "otherwise it is another case");
        if is("verified") {
            command("verify", &room.data, &[]);
        }
        assert_forked_or_refused(&room, &log, &cursor, &format!("{how:?}"));
    }
}

/// A server whose journal begins a second file while copies of it are made in steps; and these.
struct Stepwise {
    room: Room,
    process: Process,
    /// The copies have the first file: as it became, as it was at first, and so with the second.
    copies: [PathBuf; 3],
}

impl Stepwise {
    /// Messages before the copies were begun.
    const KNOWN: usize = 3;

    fn new() -> Self {
        let room = Room::new();
        let process = room.launch.start();
        push(&process, Self::KNOWN);
        let copies = ["late", "early", "with next"].map(|name| room.backup.join(name));
        let step = |copy: &Path, name: &str| copy_all(&room.data.join(name), &copy.join(name));
        for copy in &copies {
            fs::create_dir_all(copy.join("journal")).unwrap();
        }
        step(&copies[1], SEGMENT);
        step(&copies[2], SEGMENT);
        let segments = || {
            let listed = fs::read_dir(room.data.join("journal")).unwrap();
            let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let (mut client, body) = (process.admin(), format!("\"{}\"", "x".repeat(64_000)));
        while segments().len() == 1 {
            let pushed = client.push_direct("ann", "bob", &body, None).unwrap();
            pushed.receipt();
        }
        push(&process, 3);
        step(&copies[0], SEGMENT);
        step(&copies[2], &format!("journal/{}", segments()[1].display()));
        for copy in &copies {
            for name in ["sled", "format", "begun"] {
                step(copy, name);
            }
        }
        Self {
            room,
            process,
            copies,
        }
    }
}

/// What was acknowledged before the copy was begun is there, under a log id of its own.
#[track_caller]
fn assert_backup(copy: &Path, log: &str) {
    let (code, text) = command("verify", copy, &[]);
    assert_eq!(code, Some(0), "{text}");
    let process = Launch::new(copy).start();
    assert_ne!(log_of(&process), log);
    let watermark = process.admin().status()["watermark"]["direct"].clone();
    assert!(
        watermark.as_u64() >= u64::try_from(Stepwise::KNOWN).ok(),
        "{watermark}"
    );
}

#[test]
fn a_copy_is_a_backup_though_the_journal_begins_another_file_meanwhile() {
    let Stepwise {
        room,
        process,
        copies: [late, early, with_next],
    } = Stepwise::new();
    let log = log_of(&process);
    for copy in [&late, &early] {
        assert_backup(copy, &log);
    }
    // Of two files the first was copied too early. It may as well have been cut by a full disk.
    assert_refused(
        &with_next,
        "the file to replace is 00000000000000000001.journal",
    );
    copy_all(&room.data.join(SEGMENT), &with_next.join(SEGMENT));
    assert_backup(&with_next, &log);
}

/// A file system whose files have no time of birth: a copy made in the same order has the same numbers.
#[test]
fn a_copy_on_a_file_system_without_birth_times_is_a_history_of_its_own_as_root() {
    let temp = TempDir::new().unwrap();
    let small = ["-I", "128"];
    let [first, second] = ["first", "second"].map(|name| Mounted::image(temp.path(), name, &small));
    // The server's output is beside the data.
    fs::write(second.path().join("data.log"), "").unwrap();
    for clean in [true, false] {
        let (data, copied) = (first.path().join("data"), second.path().join("data"));
        let launch = Launch::new(&data).option("--disk-free-min-bytes", "0");
        let mut process = launch.start();
        let log = log_of(&process);
        push(&process, 10);
        if clean {
            assert!(process.terminate().success());
        } else {
            process.kill9();
        }
        // The times have whole seconds.
        let now = || {
            let probe = temp.path().join("now");
            fs::write(&probe, "").unwrap();
            fs::metadata(&probe).unwrap().mtime()
        };
        let killed = now();
        assert!(eventually(END_LIMIT, || now() > killed + 1));
        // In the order in which they were made.
        for name in ["", "LOCK", "journal", "README", "format"] {
            if data.join(name).is_dir() {
                fs::create_dir(copied.join(name)).unwrap();
            } else {
                copy_all(&data.join(name), &copied.join(name));
            }
            if name == "journal" {
                copy_all(&data.join("journal/."), &copied.join("journal"));
            }
        }
        copy_all(&data.join("."), &copied);
        // Otherwise nothing is shown.
        let numbers = |data: &Path| {
            ["", "journal", "format"].map(|name| fs::metadata(data.join(name)).unwrap().ino())
        };
        assert_eq!(numbers(&copied), numbers(&data));
        let copy = Launch::new(&copied).option("--disk-free-min-bytes", "0");
        assert_ne!(log_of(&copy.start()), log, "clean: {clean}");
        process = launch.start();
        assert_eq!(
            log_of(&process),
            log,
            "the original keeps it, clean: {clean}"
        );
        assert!(process.terminate().success());
        fs::remove_dir_all(&copied).unwrap();
        fs::remove_dir_all(&data).unwrap();
    }
}

/// Whoever restores finds nothing in the log that looks like damage; damage is a warning.
#[test]
fn a_restore_into_an_empty_place_is_told_in_plain_words_and_damage_is_a_warning() {
    let room = Room::new();
    let mut process = room.launch.start();
    push(&process, 20);
    copy_all(&room.data, &room.backup);
    process.kill9();
    let again = |log: &str| log.contains("rebuilt the readable view from the journal");

    let restored = Launch::new(&room.backup);
    let mut process = restored.start();
    let log = restored.log();
    assert!(
        log.contains("this directory is a copy") && log.contains("sled.damaged-") && again(&log),
        "{log}"
    );
    assert!(!log.contains("WARN"), "{log}");
    assert!(process.terminate().success());

    let before = restored.log().len();
    for entry in fs::read_dir(room.backup.join("sled")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(path, "damaged").unwrap();
        }
    }
    let _process = restored.start();
    let log = restored.log().split_off(before);
    assert!(log.contains("WARN") && again(&log), "{log}");
    assert!(log.contains("the readable view is damaged"), "{log}");
    assert!(!log.contains("this directory is a copy"), "{log}");
}
