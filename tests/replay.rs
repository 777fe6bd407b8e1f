//! One journal, applied entry by entry with a restart after each, and applied in one go, gives the same rows in
//! sled, byte for byte.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what tests share stands outside test functions"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use halley::hub::{
    Caches, Durability, Hub, Options, WindowSize, icomet_group, icomet_user, rebuild,
};
use halley::model::{Body, Draft, GroupName, IdempotencyKey, Receiver, UserName};
use halley::store::{Command, Directory, Entry, HistoryMode, Journal};
use random::{Random, rounds};

mod random;

const CACHE: u64 = 8 << 20;
const ENTRIES: u64 = 50;
const COMMANDS: u64 = 6;
const USERS: [&str; 7] = ["ann", "bob", "cem", "dan", "eva", "fay", "gus"];
const GROUPS: [&str; 3] = ["open", "shut", "gone"];
const KEYS: [&str; 5] = ["k1", "k2", "k3", "k4", "k5"];
const HOUR_MS: u64 = 60 * 60 * 1000;

type Rows = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

fn user(random: &mut Random) -> UserName {
    UserName::parse(random.of(&USERS)).unwrap()
}

fn users(random: &mut Random) -> Vec<UserName> {
    (0..random.below(4)).map(|_| user(random)).collect()
}

fn group(random: &mut Random) -> GroupName {
    GroupName::parse(random.of(&GROUPS)).unwrap()
}

fn message(random: &mut Random, from: UserName, to: Receiver) -> Command {
    let key = (random.below(3) == 0).then(|| IdempotencyKey::parse(random.of(&KEYS)).unwrap());
    Command::Message(Draft {
        from,
        to,
        body: Body::from(random.below(4).to_string().into_bytes()),
        key,
        by_user: random.below(2) == 0,
    })
}

fn command(random: &mut Random) -> Command {
    match random.below(100) {
        0..40 => {
            let (from, to) = (user(random), Receiver::User(user(random)));
            message(random, from, to)
        }
        40..60 => {
            let (from, to) = (user(random), Receiver::Group(group(random)));
            message(random, from, to)
        }
        60..66 => message(random, icomet_user(), Receiver::Group(icomet_group())),
        66..76 => Command::SetGroup {
            group: group(random),
            members: users(random),
            history: random.of(&[None, Some(HistoryMode::All), Some(HistoryMode::Member)]),
        },
        76..90 => Command::ChangeMembers {
            group: group(random),
            add: users(random),
            remove: users(random),
        },
        90..94 => Command::DeleteGroup {
            group: group(random),
        },
        _ => Command::OpenChannel { user: user(random) },
    }
}

fn entry(random: &mut Random, n: u64, at_ms: u64) -> Entry {
    let proposer = random.below(3);
    let count = 1 + random.below(COMMANDS);
    let commands = (0..count).map(|_| command(random)).collect();
    Entry {
        proposer,
        n,
        at_ms,
        keys_us: at_ms * 1000,
        commands,
    }
}

fn append(data: &Path, entry: Entry) {
    let directory = Directory::open(data).unwrap();
    let mut journal = Journal::open(&directory, false).unwrap();
    journal.append(entry, |_| unreachable!()).unwrap();
}

fn options(data: &Path) -> Options {
    Options {
        tail_bytes_max: 64 << 20,
        window: WindowSize {
            ids: 50,
            bytes: 1 << 20,
        },
        caches: Caches {
            memberships_bytes: 0,
            values: 0,
        },
        data: data.to_owned(),
        durability: Durability::Always,
        cache_bytes: CACHE,
        disk_free_min_bytes: 0,
        queue_bytes_max: 1 << 20,
        waiters_per_user_max: 10,
        channels_max: 0,
    }
}

/// Starts and stops on what is there; the last entry applied.
fn apply(data: &Path) -> u64 {
    let hub = Hub::open(options(data)).unwrap();
    hub.close();
    hub.status().applied
}

fn sled_of(data: &Path) -> sled::Db {
    let config = sled::Config::new().path(data.join("sled"));
    config.segment_size(1 << 23).open().unwrap()
}

/// What follows from how often and for how long a server ran, not from the journal: the ranges of ids that were granted,
/// and how far the journal was when that was last noted.
const OWN: [&[u8]; 4] = [b"next-direct", b"next-group", b"seen", b"writing"];

/// All rows of all trees.
fn rows(data: &Path) -> Rows {
    let db = sled_of(data);
    let mut found = Rows::new();
    for name in db.tree_names() {
        for row in &db.open_tree(&name).unwrap() {
            let (key, value) = row.unwrap();
            if OWN.contains(&&*key) {
                continue;
            }
            found.insert((name.to_vec(), key.to_vec()), value.to_vec());
        }
    }
    found
}

#[track_caller]
fn assert_same(found: &Rows, expected: &Rows) {
    for (key, value) in expected {
        assert_eq!(found.get(key), Some(value), "row {key:02x?}");
    }
    let more: Vec<_> = found
        .keys()
        .filter(|key| !expected.contains_key(*key))
        .collect();
    assert!(more.is_empty(), "{more:02x?}");
}

#[test]
fn a_journal_cut_at_every_entry_gives_the_same_rows_as_in_one_go() {
    let random = Random::from_environment("replay");
    for round in 0..rounds(1) {
        let mut random = random.fork(round);
        let folder = tempfile::tempdir().unwrap();
        let data = &folder.path().join("data");
        let mut at_ms = 1;
        for n in 1..=ENTRIES {
            // Keys are known for a day.
            at_ms += random.below(if n % 9 == 0 { 30 } else { 2 }) * HOUR_MS;
            append(data, entry(&mut random, n, at_ms));
            assert_eq!(apply(data), n);
        }
        let cut = rows(data);
        assert!(cut.len() > 100, "{} rows", cut.len());
        rebuild(&options(data), false).unwrap();
        assert_same(&rows(data), &cut);
        fs::remove_dir_all(data.join("sled")).unwrap();
        assert_eq!(apply(data), ENTRIES);
        assert_same(&rows(data), &cut);
    }
}

/// sled may come up whole and yet lack something: after a stop that was not clean it is looked through.
#[test]
fn a_row_that_is_missing_after_an_unclean_stop_comes_back() {
    let mut random = Random::from_environment("replay");
    let folder = tempfile::tempdir().unwrap();
    let data = &folder.path().join("data");
    for n in 1..=ENTRIES {
        append(data, entry(&mut random, n, n));
    }
    assert_eq!(apply(data), ENTRIES);
    let whole = rows(data);
    for tree in ["direct", "group", "index"] {
        let keys: Vec<_> = whole
            .keys()
            .filter(|(of, _)| of == tree.as_bytes())
            .collect();
        for (_, key) in [keys[0], random.of(&keys), keys[keys.len() - 1]] {
            fs::remove_file(data.join("clean")).unwrap();
            let db = sled_of(data);
            let removed = db.open_tree(tree).unwrap().remove(key).unwrap();
            assert!(removed.is_some());
            drop(db);
            // The first start finds it, behind what it serves; the second one rebuilds the view.
            for _ in 0..2 {
                assert_eq!(apply(data), ENTRIES);
            }
            assert_same(&rows(data), &whole);
        }
    }
}
