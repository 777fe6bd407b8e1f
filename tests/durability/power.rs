//! Loss of power, simulated: a recorder (`preload.c`) under the real server logs all that it writes
//! and syncs; from the log the test makes the directory as a disk may leave it when the power goes at
//! some moment, with more or less of what was not synced, and starts a server on it.
//!
//! A `kill -9` leaves everything written in the page cache, and so proves nothing of this.

mod disk;
mod file;
mod log;
mod recorder;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use self::disk::{Disk, Fate};
use self::log::{Event, Log};
use self::recorder::{assert_complete, recorded};
use self::world::{Ending, Story, World};
use crate::image::{Entry, Image, Times, below, inside, look, put, set_times, unmarked};
use crate::ledger::Position;
use crate::random::{Random, rounds};
use crate::support::{Launch, Process, halley};

/// Images that are made of one recorded server.
const CUTS: u64 = 4;
/// Recorded servers that one data directory sees, one after the other.
const RECORDINGS: u64 = 5;

/// A data directory that goes through several losses of power.
#[derive(Debug)]
struct Room {
    temp: TempDir,
    /// The directory that holds the data directory and that the recorder watches: the name of the
    /// data directory must be made durable too.
    root: PathBuf,
    count: usize,
}

const DATA: &str = "data";

impl Room {
    fn new() -> Self {
        let mut room = Self {
            temp: TempDir::new().unwrap(),
            root: PathBuf::new(),
            count: 0,
        };
        room.root = room.fresh("root");
        std::fs::create_dir(&room.root).unwrap();
        room
    }

    fn data(&self) -> PathBuf {
        self.root.join(DATA)
    }

    fn fresh(&mut self, name: &str) -> PathBuf {
        self.count += 1;
        self.temp.path().join(format!("{name}{}", self.count))
    }

    /// Runs a recorded server until it ends; gives its log and what it acknowledged.
    fn record(
        &mut self,
        world: World,
        rng: &mut Random,
        options: &[(&str, &str)],
        clean: bool,
    ) -> Recording {
        let disk = Disk::load(&self.root);
        let path = self.fresh("log");
        let launch = recorded(&self.data(), &self.root, &path);
        let launch = options
            .iter()
            .fold(launch, |launch, (name, value)| launch.option(name, value));
        let ending = Ending {
            after: Duration::from_millis(300) + rng.millis(500),
            clean,
            limit: rng.millis(600),
        };
        let mut process = launch.start();
        let story = world.run(&mut process, &path, rng, ending);
        Recording {
            disk,
            log: Log::read(&path),
            story,
            times: look(&self.data()).1,
        }
    }

    /// The directory that the next server runs on: a new one, or the one it was all along. Times of
    /// files are metadata, and may be newer than the contents that were lost.
    fn place(&mut self, image: &Image, times: &Times, in_place: bool) -> Launch {
        if !in_place {
            self.root = self.fresh("root");
        }
        let mut image = below(image, DATA);
        for (path, entry) in &mut image {
            if let Entry::File(bytes) = entry {
                *bytes = unmarked(path, std::mem::take(bytes));
            }
        }
        put(&image, &self.data());
        set_times(&self.data(), times);
        Launch::new(&self.data())
    }
}

/// A recorded server that has ended.
#[derive(Debug)]
struct Recording {
    disk: Disk,
    log: Log,
    story: Story,
    times: Times,
}

impl Recording {
    /// Moments of the power loss, rising, the last one being the end: half of them beside a sync.
    fn cuts(&self, rng: &mut Random) -> Vec<usize> {
        let all = self.log.events.len();
        let syncs: Vec<usize> = (0..all)
            .filter(|index| matches!(self.log.events[*index], Event::SyncEnd { .. }))
            .collect();
        let mut cuts: Vec<usize> = (1..CUTS)
            .map(|_| {
                if rng.percent(50) {
                    syncs[rng.index(syncs.len())] + rng.index(2)
                } else {
                    rng.index(all + 1)
                }
            })
            .collect();
        cuts.push(all);
        cuts.sort_unstable();
        cuts
    }

    /// The recorder has seen everything that happened to the directory.
    fn assert_complete(&self, room: &Room) {
        let mut disk = self.disk.clone();
        disk.advance(&self.log, self.log.events.len());
        assert_complete(&self.log, &disk, &room.root, DATA);
    }

    /// How long the log is before the event `cut`.
    fn length(&self, cut: usize) -> u64 {
        cut.checked_sub(1).map_or(0, |last| self.log.ends[last])
    }
}

fn random_fate(rng: &mut Random) -> Fate {
    Fate {
        pages: [0, 30, 70, 95][rng.index(4)],
        names: rng.percent(60),
    }
}

/// Starts a server on what a loss of power at `cut` left, and checks it; gives what is known then.
fn check(recording: &Recording, launch: &Launch, cut: usize, rng: &mut Random) -> World {
    if recording.story.is_ready_at(recording.length(cut)) {
        let verified = halley(&[
            "verify".as_ref(),
            "--data".as_ref(),
            launch.data().as_os_str(),
        ]);
        assert!(verified.status.success(), "not damage: {verified:?}");
    }
    let mut process = launch.start();
    let world = recording.story.check(&process, recording.length(cut), rng);
    if rng.percent(50) {
        let status = process.terminate();
        assert!(status.success(), "{status}:\n{}", process.log());
    } else {
        process.kill9();
    }
    world
}

#[test]
fn what_was_acknowledged_survives_a_loss_of_power() {
    let mut rng = Random::from_environment("power");
    let mut room = Room::new();
    let mut world = World::default();
    let recordings = rounds(16).div_ceil(CUTS);
    for number in 1..=recordings {
        if number % RECORDINGS == 0 {
            // A longer history only takes longer to read.
            (room, world) = (Room::new(), World::default());
        }
        let clean = rng.percent(30);
        let mut recording = room.record(world, &mut rng, &[], clean);
        recording.assert_complete(&room);
        let in_place = rng.percent(70);
        world = World::default();
        for cut in recording.cuts(&mut rng) {
            let fate = random_fate(&mut rng);
            eprintln!(
                "{number}: {} messages, cut at {cut} of {}, {fate:?}, in place: {in_place}",
                recording.story.world().len(),
                recording.log.events.len()
            );
            recording.disk.advance(&recording.log, cut);
            let image = recording.disk.lose_power(fate, &mut rng);
            let launch = room.place(&image, &recording.times, in_place);
            world = check(&recording, &launch, cut, &mut rng);
        }
    }
}

/// With `--durability interval` the last moments may be lost: if this test never sees that, the one
/// above proves nothing. The server starts all the same, and what is left is right.
#[test]
fn a_server_that_answers_before_it_syncs_is_found_out() {
    let mut rng = Random::from_environment("power, interval");
    let mut lost = 0;
    for pages in [0, 0, 0, 30, 70, 95] {
        let mut room = Room::new();
        let options = [("--durability", "interval")];
        // A clean stop may lose nothing, so most of them are killed.
        let clean = pages == 95;
        let mut recording = room.record(World::default(), &mut rng, &options, clean);
        let end = recording.log.events.len();
        recording.disk.advance(&recording.log, end);
        let names = pages > 0;
        let image = recording.disk.lose_power(Fate { pages, names }, &mut rng);
        let launch = room.place(&image, &recording.times, rng.percent(50));
        let process = launch.start();
        let watermark = Position::from_status(&process.admin().status());
        let lost_now = recording.story.lost(recording.length(end), watermark);
        eprintln!("{pages} % of pages: {lost_now} messages lost, {watermark:?} left");
        lost += lost_now;
        let length = recording.length(end);
        let story = recording.story.with_nothing_promised();
        story.check(&process, length, &mut rng);
    }
    eprintln!("{lost} acknowledged messages were lost, as they may be");
    assert!(lost > 0, "this test would not see a loss");
}

/// The mark of a clean stop vouches for sled as it is: a loss of power right after it may take names
/// of sled's files, which is seen, but nothing of their contents, which is not (but for sled's `conf`,
/// which sled itself never syncs, and checks).
#[test]
fn a_clean_stop_leaves_no_contents_unsynced() {
    let mut rng = Random::from_environment("power, clean stop");
    let mut room = Room::new();
    let mut disk = Disk::load(&room.root);
    let path = room.fresh("log");
    let mut process = recorded(&room.data(), &room.root, &path).start();
    let ending = Ending {
        after: Duration::from_millis(600),
        clean: true,
        limit: Duration::from_secs(20),
    };
    World::default().run(&mut process, &path, &mut rng, ending);
    let log = Log::read(&path);
    disk.advance(&log, log.events.len());
    let seen = disk.seen();
    assert!(seen.contains_key("data/clean"), "it left no mark");
    for names in [false, true, true, true] {
        let image = disk.lose_power(Fate { pages: 0, names }, &mut rng);
        for (path, entry) in &seen {
            let same = image.get(path) == Some(entry);
            let nameless = path.starts_with("data/sled/") && !image.contains_key(path);
            let conf = path == "data/sled/conf";
            assert!(same || nameless || conf, "{path} was not synced");
        }
    }
}

/// Killed anywhere while it first opens, also when what it promises of its syncs has changed since.
#[test]
fn a_copy_becomes_a_log_of_its_own_though_it_is_killed_while_it_first_opens() {
    let mut rng = Random::from_environment("power, copy");
    for [original, copy] in [["always", "interval"], ["interval", "always"]] {
        let mut room = Room::new();
        let durability = |launch: Launch, kind| launch.option("--durability", kind);
        let mut process = durability(Launch::new(&room.data()), original).start();
        let mut client = process.admin();
        for number in 0..50 {
            let body = number.to_string();
            let pushed = client.push_direct("ann", "bob", &body, None);
            pushed.unwrap().receipt();
        }
        let status = client.status();
        process.kill9();
        let (image, times) = look(&room.data());
        let image = inside(&image, DATA);
        let mut start_copy = |stop: Option<usize>| {
            room.place(&image, &times, false);
            let path = room.fresh("log");
            let mut launch = durability(recorded(&room.data(), &room.root, &path), copy);
            if let Some(events) = stop {
                launch = launch.env("HALLEY_POWER_STOP", &events.to_string());
                launch.spawn().wait_end(Duration::from_secs(60));
            } else {
                launch.start().kill9();
            }
            let events = Log::read(&path).events.len();
            (events, durability(Launch::new(&room.data()), copy))
        };
        let (all, _) = start_copy(None);
        let step = all.div_ceil(10);
        // What sled writes by itself varies: the last events may not come to pass another time.
        for events in (1 + rng.index(step)..all - 8).step_by(step) {
            let (_, launch) = start_copy(Some(events));
            let process = launch.start();
            let now = process.admin().status();
            assert_ne!(
                now["log"], status["log"],
                "{original}, then {copy}, killed after {events} events of {all}"
            );
            assert_eq!(now["watermark"], status["watermark"]);
        }
    }
}

/// What is left when nothing survives that was not synced.
const NOTHING: Fate = Fate {
    pages: 0,
    names: false,
};

/// Starts a server, which may be recorded, and pushes a message; gives its id.
fn push_one(launch: &Launch) -> (Process, u64) {
    let process = launch.start();
    let pushed = process.admin().push_direct("ann", "bob", "1", None);
    let id = pushed.unwrap().receipt().id;
    (process, id)
}

/// Frames are only written behind a header that was synced, so that one that is not whole is no damage.
#[track_caller]
fn assert_header_is_synced_first(log: &Log) {
    let mut events = log.events.iter();
    let segment = events.find_map(|event| match event {
        Event::Create { inode, path } if path.ends_with(".journal") => Some(*inode),
        _ => None,
    });
    let segment = segment.expect("a segment was made");
    // Only what came after: the inode may have been that of a file that is gone.
    let steps = events.filter_map(|event| match event {
        Event::Write { inode, .. } if *inode == segment => Some("write"),
        Event::SyncBegin { inode, .. } if *inode == segment => Some("sync"),
        _ => None,
    });
    let steps: Vec<_> = steps.take(4).collect();
    assert_eq!(steps, ["write", "sync", "write", "sync"]);
}

/// Who copies files seldom syncs them: what a copy acknowledges is worth nothing without what was before it.
#[test]
fn a_copy_is_durable_before_it_acknowledges() {
    let mut rng = Random::from_environment("power, unsynced copy");
    let mut room = Room::new();
    let (mut process, _) = push_one(&Launch::new(&room.data()));
    process.kill9();
    // A copy goes on in a segment of its own: this one has three, and has stopped.
    for clean in [false, true] {
        let (image, times) = look(&room.data());
        let launch = room.place(&inside(&image, DATA), &times, false);
        (process, _) = push_one(&launch);
        if clean {
            assert!(process.terminate().success());
        } else {
            process.kill9();
        }
    }
    let segments = look(&room.data()).0;
    let segments = segments.keys().filter(|path| path.starts_with("journal/"));
    assert_eq!(segments.count(), 3);
    for clean in [true, false] {
        let (mut image, times) = look(&room.data());
        if !clean {
            image.remove("clean");
        }
        room.place(&inside(&image, DATA), &times, false);
        let disk = Disk::load(&room.root);
        let mut disk = disk.with_unsynced_contents().with_unsynced_names();
        let path = room.fresh("log");
        let (mut process, id) = push_one(&recorded(&room.data(), &room.root, &path));
        process.kill9();
        let log = Log::read(&path);
        assert_header_is_synced_first(&log);
        disk.advance(&log, log.events.len());
        let left = disk.lose_power(NOTHING, &mut rng);
        for key in ["data/admin.key", "data/token.secret"] {
            assert_eq!(left.get(key), disk.seen().get(key), "{key}");
        }
        let launch = room.place(&left, &times, false);
        let (mut process, next) = push_one(&launch);
        assert_eq!(next, id + 1, "clean: {clean}");
        process.kill9();
    }
}

/// A kill leaves what is only in the memory of the system: whoever reads it after the next start must be able to
/// rely on it. And the mark of the stop before is gone for good, for it vouches for a sled that is no more.
#[test]
fn what_a_start_finds_is_durable_before_it_is_visible_and_the_mark_does_not_come_back() {
    let mut rng = Random::from_environment("power, second start");
    for clean in [false, true] {
        let mut room = Room::new();
        let (mut process, _) = push_one(&Launch::new(&room.data()));
        if clean {
            assert!(process.terminate().success());
        } else {
            process.kill9();
        }
        let disk = Disk::load(&room.root);
        let mut disk = if clean {
            disk
        } else {
            disk.with_unsynced_contents()
        };
        let path = room.fresh("log");
        recorded(&room.data(), &room.root, &path).start().kill9();
        let log = Log::read(&path);
        disk.advance(&log, log.events.len());
        let (left, seen) = (disk.lose_power(NOTHING, &mut rng), disk.seen());
        assert!(!left.contains_key("data/clean"));
        let segment = "data/journal/00000000000000000001.journal";
        assert_eq!(left.get(segment), seen.get(segment), "clean: {clean}");
    }
}
