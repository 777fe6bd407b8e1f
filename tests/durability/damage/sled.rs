//! sled damaged: whatever is left of it, the server starts and every read is right; where the damage shows only behind the
//! start, after the next one.

use super::base::{Base, FOUND, Moment, REBUILT, difference, get};
use crate::client::Client;
use crate::image::{Entry, Image};
use crate::random::Random;

type Damage = fn(&mut Image, &Base, &mut Random);

/// Each way to damage it, and how often to try.
const DAMAGES: &[(&str, usize, Damage)] = &[
    ("nothing", 1, |_, _, _| {}),
    ("missing", 1, |image, _, _| remove(image, "sled")),
    ("empty", 1, |image, _, _| {
        remove(image, "sled");
        image.insert("sled".into(), Entry::Dir);
    }),
    ("a plain file", 1, |image, _, _| {
        remove(image, "sled");
        image.insert("sled".into(), Entry::File(b"not a directory".to_vec()));
    }),
    ("db missing", 1, |image, _, _| remove(image, "sled/db")),
    ("db cut to nothing", 1, |image, _, _| db(image).clear()),
    ("db cut to half", 1, |image, _, _| shorten(image, |n| n / 2)),
    ("db cut by a byte", 1, |image, _, _| {
        shorten(image, |n| n - 1);
    }),
    ("db cut by a segment", 1, |image, _, _| {
        shorten(image, |length| length.saturating_sub(SEGMENT));
    }),
    ("db cut anywhere", 2, |image, _, rng| {
        let bytes = db(image);
        bytes.truncate(rng.index(used(bytes)));
    }),
    ("db zeroed in the middle", 2, |image, _, rng| {
        let bytes = db(image);
        let (start, length) = (rng.index(used(bytes)), rng.index(200_000) + 1);
        let end = bytes.len().min(start + length);
        bytes[start..end].fill(0);
    }),
    ("a byte of db flipped", 4, |image, _, rng| {
        flip(db(image), rng, 1);
    }),
    ("bytes of db flipped", 3, |image, _, rng| {
        flip(db(image), rng, 50);
    }),
    ("the beginning of db flipped", 1, |image, _, rng| {
        flip(&mut db(image)[..20], rng, 3);
    }),
    ("conf missing", 1, |image, _, _| remove(image, "sled/conf")),
    ("conf flipped", 3, |image, _, rng| {
        flip(file(image, "sled/conf"), rng, 2);
    }),
    ("conf empty", 1, |image, _, _| {
        file(image, "sled/conf").clear();
    }),
    ("snapshots removed", 1, |image, _, _| {
        for path in snapshots(image) {
            remove(image, &path);
        }
    }),
    ("snapshots flipped", 3, |image, _, rng| {
        for path in snapshots(image) {
            flip(file(image, &path), rng, 5);
        }
    }),
    ("a snapshot cut", 1, |image, _, rng| {
        for path in snapshots(image) {
            let bytes = file(image, &path);
            bytes.truncate(rng.index(bytes.len()));
        }
    }),
    ("a snapshot half written", 1, |image, _, _| {
        let path = "sled/snap.00000000FFFFFFFF.generating";
        image.insert(path.into(), Entry::File(b"garbage".repeat(100)));
    }),
    ("a snapshot made up", 1, |image, _, _| {
        let path = "sled/snap.00000000FFFFFFFF";
        image.insert(path.into(), Entry::File(b"garbage".repeat(100)));
    }),
    ("blobs removed", 1, |image, _, _| {
        remove(image, "sled/blobs");
    }),
    ("an older one, stopped", 1, |image, base, _| {
        replace(image, "sled", &base.older[0]);
    }),
    ("an older one, killed", 1, |image, base, _| {
        replace(image, "sled", &base.older[1]);
    }),
    ("an older one with its mark", 1, |image, base, _| {
        replace(image, "sled", &base.older[0]);
        replace(image, "clean", &base.older[0]);
    }),
    ("only db of an older one", 1, |image, base, _| {
        replace(image, "sled/db", &base.older[0]);
    }),
    ("all but db of an older one", 1, |image, base, _| {
        let now = db(image).clone();
        replace(image, "sled", &base.older[1]);
        *db(image) = now;
    }),
    ("that of another directory", 1, |image, base, _| {
        replace(image, "sled", &base.stranger);
    }),
    (
        "that of another directory with its mark",
        1,
        |image, base, _| {
            replace(image, "sled", &base.stranger);
            replace(image, "clean", &base.stranger);
        },
    ),
    ("a mark from an earlier stop", 1, |image, base, _| {
        replace(image, "clean", &base.ends[0].image);
    }),
    ("a mark that cannot be read", 1, |image, _, _| {
        image.insert("clean".into(), Entry::File(b"{\"offset\":".to_vec()));
    }),
];

/// sled's own segments, as the server sets them.
const SEGMENT: usize = 8 << 20;

fn file<'a>(image: &'a mut Image, path: &str) -> &'a mut Vec<u8> {
    match image.get_mut(path) {
        Some(Entry::File(bytes)) => bytes,
        other => panic!("{path} is {other:?}"),
    }
}

fn db(image: &mut Image) -> &mut Vec<u8> {
    file(image, "sled/db")
}

fn shorten(image: &mut Image, to: fn(usize) -> usize) {
    let bytes = db(image);
    bytes.truncate(to(bytes.len()));
}

fn snapshots(image: &Image) -> Vec<String> {
    let snapshots = image.keys().filter(|path| path.starts_with("sled/snap."));
    snapshots.cloned().collect()
}

/// Removes a file, or a directory with all that is in it.
pub(super) fn remove(image: &mut Image, path: &str) {
    let below = format!("{path}/");
    image.retain(|name, _| name != path && !name.starts_with(&below));
}

/// Takes a file or directory from another image.
fn replace(image: &mut Image, path: &str, other: &Image) {
    remove(image, path);
    let below = format!("{path}/");
    let wanted = other
        .iter()
        .filter(|(name, _)| *name == path || name.starts_with(&below));
    image.extend(wanted.map(|(name, entry)| (name.clone(), entry.clone())));
}

/// Up to where something is written.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// Flips a bit of several bytes that hold something.
fn flip(bytes: &mut [u8], rng: &mut Random, count: usize) {
    let used = used(bytes);
    for _ in 0..count {
        let mut at = rng.index(used);
        while bytes[at] == 0 {
            at = rng.index(used);
        }
        bytes[at] ^= 1 << rng.index(8);
    }
}

fn damage_and_start(base: &Base, moment: &Moment, rng: &mut Random) {
    for (name, times, damage) in DAMAGES {
        for _ in 0..*times {
            let mut image = moment.image.clone();
            damage(&mut image, base, rng);
            base.put(&image, None);
            let said = base.assert_heals(moment, &format!("{}, sled: {name}", moment.name));
            // Else every case would only prove that a rebuild works.
            let rebuilt = said.contains(REBUILT) || said.contains(FOUND);
            assert!(*name != "nothing" || !rebuilt, "an intact sled: {said}");
        }
    }
}

#[test]
fn damaged_sled_heals_after_a_clean_stop() {
    let mut rng = Random::from_environment("sled damaged, stopped");
    let base = Base::new(&mut rng);
    damage_and_start(&base, &base.ends[0], &mut rng);
}

#[test]
fn damaged_sled_heals_after_a_kill() {
    let mut rng = Random::from_environment("sled damaged, killed");
    let base = Base::new(&mut rng);
    damage_and_start(&base, &base.ends[1], &mut rng);
}

/// Nothing that a start can see has changed: the bytes on the disk have, before the start or after
/// it. A read may then fail, and say so; none may be wrong, and the next start heals.
#[test]
fn rotten_bytes_of_sled_are_never_served() {
    let mut rng = Random::from_environment("sled rotten");
    let base = Base::new(&mut rng);
    let moment = &base.ends[0];
    // With little in memory the rotten bytes are read again.
    let launch = base.launch.clone().option("--cache-bytes", CACHE);
    let mut told = 0;
    for (running, flips) in [(false, 1), (false, 500), (true, 50), (true, 5_000)] {
        let mut image = moment.image.clone();
        if !running {
            flip(db(&mut image), &mut rng, flips);
        }
        base.put(&image, Some(&moment.times));
        let mut process = launch.start();
        if running {
            let path = base.data.join("sled/db");
            let mut bytes = std::fs::read(&path).unwrap();
            flip(&mut bytes, &mut rng, flips);
            std::fs::write(&path, bytes).unwrap();
        }
        let refused = count_refused(moment, &mut process.admin());
        eprintln!("{refused} of {} reads refused", moment.reading.len());
        assert!(refused > 0 || flips < 5_000, "no rotten byte was read");
        if rng.percent(50) {
            process.kill9();
        } else {
            process.terminate();
        }
        let found = process.log().matches(FOUND).count();
        let said = base.assert_heals(moment, "after rotten bytes");
        // What is told before a kill is known after it.
        let rebuilt = said.contains(REBUILT);
        assert!(rebuilt || found == told, "not rebuilt: {said}");
        told = base.launch.log().matches(FOUND).count();
    }
}

/// The smallest cache that may be asked for.
const CACHE: &str = "1048576";

/// Every read is right, or refused as a damaged store; how many are refused.
fn count_refused(moment: &Moment, client: &mut Client) -> usize {
    let mut refused = 0;
    for (path, expected) in &moment.reading {
        let (status, text) = get(client, path);
        if status == 503 && text.contains("store_damaged") {
            refused += 1;
        } else {
            let difference = difference(&text, expected);
            assert!(text == *expected, "{path} gave {status}, {difference}");
        }
    }
    refused
}
