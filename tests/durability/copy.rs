//! A copy of the data directory is a backup, and a history of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::checker::{check_all, check_reader};
use crate::client::Client;
use crate::ledger::{Draft, Ledger, Position, Target, lock};
use crate::load::Load;
use crate::random::{Random, rounds};
use crate::support::{Launch, Process, eventually, halley};

/// A server under test, its load, and a place for copies of it.
struct Original {
    process: Process,
    launch: Launch,
    load: Load,
    rng: Random,
    // Last, so that it goes after the server in it.
    directory: TempDir,
}

impl Original {
    fn new(test: &str) -> Self {
        let mut rng = Random::from_environment(test);
        let directory = tempfile::tempdir().unwrap();
        let launch = Launch::new(&directory.path().join("data"));
        let process = launch.start();
        let load = Load::new(&process, &mut rng);
        Self {
            process,
            launch,
            load,
            rng,
            directory,
        }
    }

    /// Pushes some; with `copy`, copies the directory meanwhile, and says what was there before.
    fn run(&mut self, copy: Option<&str>) -> Position {
        let data = self.directory.path().join("data");
        let copy = copy.map(|name| self.directory.path().join(name));
        self.load.run(&mut self.process, |_, _, ledger| {
            wait_for_more(ledger);
            let before = lock(ledger).last();
            if let Some(copy) = copy {
                copy_all(&data, &copy);
            }
            wait_for_more(ledger);
            before
        })
    }

    /// Checks everything in a copy, and says what is known of it: all that was acknowledged before
    /// it was made, and perhaps more.
    fn check_copy(&mut self, copy: &Process, before: Position) -> (Ledger, Position) {
        let mut client = copy.admin();
        let parted = Position::from_status(&client.status());
        let mut fork = self.load.ledger.get_mut().unwrap().fork(parted);
        fork.note_members(&mut client, parted);
        check_all(&mut client, &mut fork, &mut self.rng, before);
        (fork, parted)
    }

    fn log(&self) -> String {
        log_of(&self.process)
    }
}

#[test]
fn a_live_copy_is_a_backup_and_a_history_of_its_own() {
    let mut original = Original::new("copy");
    for round in 0..rounds(20) {
        let name = format!("copy{round}");
        let mut readers = original.load.readers.clone();
        let before = original.run(Some(&name));
        let copied = original.directory.path().join(&name);
        verify(&copied);
        let launch = Launch::new(&copied);
        let mut copy = launch.start();
        let log = log_of(&copy);
        assert_ne!(log, original.log());
        let (mut fork, parted) = original.check_copy(&copy, before);
        for reader in &mut readers {
            let ledger = &original.load.ledger;
            check_reader(&mut copy.admin(), &mut original.rng, reader, ledger);
        }
        // A cursor from beyond the parting is told so, even when the copy has got as far.
        let ahead = beyond(&mut original, parted);
        let start = refused(&mut copy.admin(), &ahead);
        let goal = Position::from_status(&original.process.admin().status());
        while !Position::from_status(&copy.admin().status()).covers(goal) {
            push(&mut copy.admin(), &mut fork, &mut original.rng);
        }
        assert_eq!(refused(&mut copy.admin(), &ahead), start);
        if round % 2 == 0 {
            copy.kill9();
        } else {
            assert!(copy.terminate().success());
        }
        copy = launch.start();
        assert_eq!(log_of(&copy), log, "a copy changes its log once");
        let last = fork.last();
        check_all(&mut copy.admin(), &mut fork, &mut original.rng, last);
        drop(copy);
        fs::remove_dir_all(&copied).unwrap();
    }
}

#[test]
fn a_copy_of_a_copy_goes_on_from_both() {
    let mut original = Original::new("copy of a copy");
    original.run(None);
    let mut readers = original.load.readers.clone();
    let before = original.run(Some("first"));
    let paths = ["first", "second"].map(|name| original.directory.path().join(name));
    let first = Launch::new(&paths[0]).start();
    let (mut fork, parted) = original.check_copy(&first, before);
    let mut of_first = readers.clone();
    for reader in &mut of_first {
        let ledger = &original.load.ledger;
        check_reader(&mut first.admin(), &mut original.rng, reader, ledger);
    }
    let ahead = beyond(&mut original, parted);
    for _ in 0..20 {
        push(&mut first.admin(), &mut fork, &mut original.rng);
    }
    copy_all(&paths[0], &paths[1]);
    verify(&paths[1]);
    let second = Launch::new(&paths[1]).start();
    let logs = [original.log(), log_of(&first), log_of(&second)];
    assert!(logs[0] != logs[1] && logs[1] != logs[2] && logs[0] != logs[2]);
    let last = fork.last();
    check_all(&mut second.admin(), &mut fork, &mut original.rng, last);
    let fork = Mutex::new(fork);
    for reader in readers.iter_mut().chain(&mut of_first) {
        check_reader(&mut second.admin(), &mut original.rng, reader, &fork);
    }
    refused(&mut second.admin(), &ahead);
}

#[test]
fn a_moved_directory_keeps_its_log() {
    let mut original = Original::new("move");
    for (round, name) in ["moved", "moved again"].into_iter().enumerate() {
        original.run(None);
        let log = original.log();
        if round == 0 {
            assert!(original.process.terminate().success());
        } else {
            original.process.kill9();
        }
        let moved = original.directory.path().join(name);
        fs::rename(original.launch.data(), &moved).unwrap();
        original.launch = Launch::new(&moved);
        original.process = original.launch.start();
        assert_eq!(original.log(), log);
        let mut client = original.process.admin();
        let Load {
            readers, ledger, ..
        } = &mut original.load;
        for reader in readers {
            check_reader(&mut client, &mut original.rng, reader, ledger);
        }
    }
}

/// A copy of a stopped directory is whole: it opens as it is.
#[test]
fn a_copy_of_a_stopped_directory_opens_without_a_rebuild() {
    let mut original = Original::new("stopped copy");
    original.run(None);
    let log = original.log();
    assert!(original.process.terminate().success());
    let copied = original.directory.path().join("copy");
    copy_all(original.launch.data(), &copied);
    verify(&copied);
    let launch = Launch::new(&copied);
    let copy = launch.start();
    assert!(!launch.log().contains("rebuilt"), "{}", launch.log());
    assert!(!was_set_aside(&copied), "the readable view was rebuilt");
    assert_ne!(log_of(&copy), log);
    let ledger = original.load.ledger.get_mut().unwrap();
    let last = ledger.last();
    check_all(&mut copy.admin(), ledger, &mut original.rng, last);
    original.process = original.launch.start();
    assert_eq!(
        original.log(),
        log,
        "the original changed because it was copied"
    );
}

fn was_set_aside(data: &Path) -> bool {
    let names = fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .into_iter()
        .any(|name| name.to_string_lossy().starts_with("sled.damaged-"))
}

fn copy_all(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    let status = copy.arg("-a").args([from, to]).status().unwrap();
    assert!(status.success(), "cp -a: {status}");
}

fn verify(data: &Path) {
    let output = halley(&[OsStr::new("verify"), OsStr::new("--data"), data.as_os_str()]);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {printed}", output.status);
}

fn log_of(process: &Process) -> String {
    let status = process.admin().status();
    status["log"].as_str().unwrap().to_owned()
}

fn wait_for_more(ledger: &Mutex<Ledger>) {
    let start = lock(ledger).len();
    let more = || lock(ledger).len() >= start + 100;
    assert!(eventually(Duration::from_secs(30), more), "no pushes");
}

/// A cursor of the original that is beyond `parted` in both sequences.
fn beyond(original: &mut Original, parted: Position) -> String {
    let mut client = original.process.admin();
    loop {
        let last = Position::from_status(&client.status());
        if last.direct > parted.direct && last.group > parted.group {
            return client.inbox("a0", "now", 1).unwrap().page().next;
        }
        let ledger = original.load.ledger.get_mut().unwrap();
        push(&mut client, ledger, &mut original.rng);
    }
}

/// Asks with a cursor from beyond the parting: says where to start over, which must work.
fn refused(client: &mut Client, cursor: &str) -> Value {
    let reply = client.inbox("a0", cursor, 1).unwrap().expect(409);
    assert_eq!(reply.code(), "cursor_ahead");
    let restart = reply.json()["restart"].clone();
    client
        .inbox("a0", restart.as_str().unwrap(), 1)
        .unwrap()
        .expect(200);
    restart
}

/// One direct and one group message.
fn push(client: &mut Client, ledger: &mut Ledger, rng: &mut Random) {
    let direct = Draft::new(rng, "a0", Target::Direct("u3".to_owned()));
    let group = Draft::new(rng, "a1", Target::Group("g1".to_owned()));
    for draft in [direct, group] {
        ledger.sent(&draft);
        let receipt = draft.push(client).unwrap().receipt();
        ledger.acknowledged(&draft, &receipt);
    }
}
