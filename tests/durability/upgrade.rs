//! A directory of format 1 is upgraded where it is, as often as that is cut short, and nothing of it is lost.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::checker::check_all;
use crate::ledger::{Position, lock};
use crate::load::Load;
use crate::moved::{Mounted, run};
use crate::random::{Random, rounds};
use crate::support::{Launch, Process, eventually, halley, pause};

/// So many that an upgrade takes some time, and a kill hits it.
const MESSAGES: usize = 1500;
/// Of the upgrade in each round.
const KILLS: u32 = 12;
const FILL_LIMIT: Duration = Duration::from_secs(120);

/// Makes a directory of format 1 of one that no server uses: whatever its view is, it is rebuilt, and the rest is the
/// same. To the server it looks as if nobody had been there.
pub(crate) fn make_format_1(data: &Path) {
    let path = data.join("format");
    let text = fs::read_to_string(&path).unwrap();
    // Into the same file: another one would be a copy's.
    fs::write(&path, text.replace(r#""version": 2"#, r#""version": 1"#)).unwrap();
    assert_eq!(format(data)["version"], 1);
    let inode = fs::metadata(&path).unwrap();
    let changed = format!("{}.{:09}", inode.ctime(), inode.ctime_nsec());
    let begun = data.join("begun");
    if let Ok(text) = fs::read_to_string(&begun) {
        let mark = serde_json::Deserializer::from_str(&text).into_iter().next();
        let mark: Value = mark.unwrap().unwrap();
        let text = text.replace(mark["format"].as_str().unwrap(), &changed);
        fs::write(&begun, text).unwrap();
    }
}

/// What the file `format` says.
pub(crate) fn format(data: &Path) -> Value {
    serde_json::from_slice(&fs::read(data.join("format")).unwrap()).unwrap()
}

/// What an upgrade sets aside until it is complete.
pub(crate) fn set_aside(data: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let aside = |path: &PathBuf| path.to_str().unwrap().contains("/sled.format-1-");
    names.filter(aside).collect()
}

/// How the directory came to rest before the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Stopped,
    Killed,
    /// While it answered before it was on disk.
    KilledRelaxed,
    /// A copy, taken while the server ran.
    Copied,
}

fn log_of(data: &Path) -> (Value, usize) {
    let format = format(data);
    let ancestors = format["ancestors"].as_array().unwrap().len();
    (format["log"].clone(), ancestors)
}

fn verify(data: &Path) -> String {
    let found = halley(&["verify".as_ref(), "--data".as_ref(), data.as_os_str()]);
    assert!(found.status.success(), "{found:?}");
    String::from_utf8(found.stdout).unwrap()
}

/// A server whose directory becomes one of format 1 again and again.
struct Subject {
    rest: Rest,
    rng: Random,
    original: PathBuf,
    filling: Launch,
    process: Process,
    load: Load,
    /// How long an upgrade takes that is not killed.
    limit: Option<u64>,
    // Last, so that it goes after the server in it.
    temp: TempDir,
}

impl Subject {
    fn new(rest: Rest, mut rng: Random) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let original = temp.path().join("data");
        let mut filling = Launch::new(&original);
        if rest == Rest::KilledRelaxed {
            filling = filling.option("--durability", "interval");
        }
        let process = filling.start();
        Self {
            rest,
            load: Load::new(&process, &mut rng),
            rng,
            original,
            filling,
            process,
            limit: None,
            temp,
        }
    }

    /// Pushes until there are so many messages; then the directory, or a copy of it, is one of format 1.
    fn fill(&mut self, messages: usize) -> PathBuf {
        let (rest, original) = (self.rest, &self.original);
        let copy = self.temp.path().join(format!("copy-{messages}"));
        self.load
            .run(&mut self.process, |process, control, ledger| {
                let enough = || lock(ledger).len() >= messages;
                assert!(eventually(FILL_LIMIT, enough), "{}", process.log());
                if rest == Rest::Copied {
                    assert!(run("cp", &["-a".as_ref(), original, &copy]));
                    return;
                }
                control.going_down();
                if rest == Rest::Stopped {
                    assert!(process.terminate().success());
                } else {
                    process.kill9();
                }
            });
        let data = if rest == Rest::Copied {
            copy
        } else {
            original.clone()
        };
        make_format_1(&data);
        data
    }

    /// Kills the upgrade at many moments, and then lets it be; the first time only that, to learn how long it takes. With
    /// the server, how many of those that were killed had the log fork already.
    fn upgrade(&mut self, launch: &Launch) -> (Process, usize) {
        let data = launch.data();
        let (mut too_late, mut forked) = (0, 0);
        for _ in 0..self.limit.map_or(0, |_| KILLS) {
            let (log, _) = log_of(data);
            let mut upgrade = launch.spawn();
            pause(self.rng.millis(self.limit.unwrap_or_default()));
            upgrade.kill9();
            forked += usize::from(log_of(data).0 != log);
            if format(data)["version"] == 2 {
                too_late += 1;
                make_format_1(data);
            }
        }
        let before = launch.log().len();
        let began = Instant::now();
        let upgraded = launch.start();
        let took = u64::try_from(began.elapsed().as_millis()).unwrap();
        let told = launch.log().split_off(before);
        for part in [
            "upgrading the data directory",
            "upgraded the data directory",
        ] {
            assert!(told.contains(part), "{told}");
        }
        self.limit.get_or_insert(took);
        eprintln!("{:?}: {took} ms, {too_late} kills were too late", self.rest);
        (upgraded, forked)
    }

    /// All is there that was acknowledged, or in a copy all that it had.
    fn check(&mut self, upgraded: &Process) {
        let mut client = upgraded.admin();
        if self.rest == Rest::Copied {
            let parted = Position::from_status(&client.status());
            let mut fork = self.load.ledger.get_mut().unwrap().fork(parted);
            fork.note_members(&mut client, parted);
            check_all(&mut client, &mut fork, &mut self.rng, parted);
        } else {
            self.load.settle(upgraded);
            let ledger = self.load.ledger.get_mut().unwrap();
            let last = ledger.last();
            check_all(&mut client, ledger, &mut self.rng, last);
        }
    }
}

/// The next start finds all as a clean stop leaves it.
fn check_quiet(launch: &Launch, mut upgraded: Process) {
    let before = launch.log().len();
    upgraded.restart();
    let told = launch.log().split_off(before);
    for no in ["upgrad", "rebuil", "checking", "WARN"] {
        assert!(!told.contains(no), "{told}");
    }
    assert!(upgraded.terminate().success());
    let said = verify(launch.data());
    assert!(said.contains("holds the same, row by row"), "{said}");
}

#[test]
fn an_upgrade_that_is_killed_at_any_moment_begins_again_and_loses_nothing() {
    let mut rng = Random::from_environment("upgrade");
    for (rest, forks) in [
        (Rest::Stopped, 0),
        (Rest::Killed, 0),
        (Rest::KilledRelaxed, 1),
        (Rest::Copied, 1),
    ] {
        let mut subject = Subject::new(rest, rng.split());
        for round in 0..rounds(2) {
            let data = subject.fill(MESSAGES + 50 * usize::try_from(round).unwrap());
            let (log, ancestors) = log_of(&data);
            let said = verify(&data);
            assert!(said.contains("the directory is of format 1"), "{said}");
            let launch = Launch::new(&data);
            let (upgraded, forked) = subject.upgrade(&launch);
            assert_eq!(format(&data)["version"], 2);
            assert!(set_aside(&data).is_empty());
            subject.check(&upgraded);
            check_quiet(&launch, upgraded);
            // However often it was killed, unless that was between the two files that a fork writes.
            let (log_now, ancestors_now) = log_of(&data);
            let expected = ancestors + forks..=ancestors + forks + forked;
            assert!(
                expected.contains(&ancestors_now),
                "{rest:?}: {ancestors_now}"
            );
            assert!(forked == 0 || forks == 1, "{rest:?}");
            assert_eq!(log_now != log, forks == 1, "{rest:?}");
            if rest != Rest::Copied {
                subject.process = subject.filling.start();
            }
        }
    }
}

/// A mount point has no other name, so the view in it cannot be set aside.
#[test]
fn a_view_on_a_disk_of_its_own_is_upgraded_once_it_is_emptied_as_root() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let sled = data.join("sled");
    let launch = Launch::new(&data).option("--disk-free-min-bytes", "0");
    let mut process = launch.start();
    assert!(process.terminate().success());
    fs::remove_dir_all(&sled).unwrap();
    fs::create_dir(&sled).unwrap();
    let _disk = Mounted::memory(&sled, "64m");
    process = launch.start();
    let pushed = process.admin().push_direct("ann", "bob", "1", None);
    pushed.unwrap().receipt();
    assert!(process.terminate().success());
    make_format_1(&data);
    let mut refused = launch.spawn();
    assert!(!refused.wait_end(FILL_LIMIT).success());
    let told = launch.log();
    assert!(told.contains("its `sled` is a mount point"), "{told}");
    assert_eq!(format(&data)["version"], 1);
    for entry in fs::read_dir(&sled).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    process = launch.start();
    assert_eq!(format(&data)["version"], 2);
    let status = process.admin().status();
    assert_eq!(Position::from_status(&status).direct, 1);
    check_quiet(&launch, process);
}
