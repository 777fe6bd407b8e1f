//! Memory: what a hub takes after a start does not grow with users, memberships and idempotency keys.

use std::path::Path;

use halley::hub::{Caches, Durability, GroupChange, Hub, Options, WindowSize};
use halley::model::{
    After, Body, Draft, GroupName, IdempotencyKey, PageLimit, Receiver, Transport, UserName,
};
use halley::store::{Directory, View};
use tokio::runtime::Runtime;

use crate::ALLOCATOR;

const GROUPS: usize = 10;
/// Members of each group.
const FEW: usize = 2000;
const MANY: usize = 4 * FEW;
/// How much more a hub may take for many than for few after a start, besides its view. Each membership that is known
/// would add a hundred bytes.
const BYTES_TOLERATED: i64 = 1_000_000;
/// How often it is measured.
const STARTS: usize = 7;

fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        durability: Durability::Interval,
        cache_bytes: 1 << 20,
        disk_free_min_bytes: 0,
        queue_bytes_max: 64 << 20,
        tail_bytes_max: 64 << 20,
        window: WindowSize {
            ids: 1000,
            bytes: 100_000,
        },
        caches: Caches {
            memberships_bytes: 50_000,
            values: 500,
        },
        waiters_per_user_max: 10,
        channels_max: 0,
    }
}

fn user(n: usize) -> UserName {
    UserName::parse(&format!("user-{n:06}")).unwrap()
}

fn group(n: usize) -> GroupName {
    GroupName::parse(&format!("group-{n}")).unwrap()
}

/// Bytes that are allocated now.
fn live() -> i64 {
    let stats = ALLOCATOR.stats();
    let live = stats.bytes_allocated.checked_sub(stats.bytes_deallocated);
    i64::try_from(live.unwrap()).unwrap()
}

/// Every group gets so many members, each of whom writes once, with a key.
async fn fill(hub: &Hub, members: usize) {
    for n in 0..GROUPS {
        let change = GroupChange::Set {
            members: Some((0..members).map(user).collect()),
            history: None,
        };
        hub.change_group(group(n), change).await.unwrap();
    }
    for first in (0..members).step_by(100) {
        let draft = |n| Draft {
            from: user(n),
            to: Receiver::User(user(0)),
            body: Body::from(b"1".to_vec()),
            key: Some(IdempotencyKey::parse(&format!("key-{n}")).unwrap()),
            by_user: true,
        };
        let drafts = (first..first + 100).map(draft).collect();
        let pushed = hub.push(drafts).await.unwrap();
        assert!(pushed.iter().all(Result::is_ok));
    }
}

/// Everybody reads, and a message goes to each group.
async fn use_all(hub: &Hub, members: usize) {
    let limit = PageLimit::count(10);
    for n in 0..members {
        let feed = hub.feed(user(n), After::START, Transport::Poll);
        let batch = feed.unwrap().read(limit).await.unwrap();
        assert!(!batch.messages.is_empty());
    }
    let draft = |n| Draft {
        from: user(members - 1),
        to: Receiver::Group(group(n)),
        body: Body::from(b"1".to_vec()),
        key: None,
        by_user: true,
    };
    let pushed = hub.push((0..GROUPS).map(draft).collect()).await.unwrap();
    assert!(pushed.iter().all(Result::is_ok));
}

/// What a hub takes after a start besides its view, with so many members of each group.
fn taken(members: usize) -> i64 {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let runtime = Runtime::new().unwrap();
    let hub = Hub::open(options(data)).unwrap();
    runtime.block_on(fill(&hub, members));
    runtime.block_on(use_all(&hub, members));
    hub.close();
    drop(hub);
    let mut sealed = None;
    loop {
        let directory = Directory::open(data).unwrap();
        let (view, applied) = View::open(&directory, options(data).cache_bytes).unwrap();
        drop(view);
        // What a stop has no time to seal is applied again by the next start, but for a window that is not full.
        if sealed.replace(applied.offset) == Some(applied.offset) {
            break;
        }
        drop(directory);
        Hub::open(options(data)).unwrap().close();
    }
    let alone = typical(|| {
        let before = live();
        let directory = Directory::open(data).unwrap();
        let _view = View::open(&directory, options(data).cache_bytes).unwrap();
        live() - before
    });
    let whole = typical(|| {
        let before = live();
        let hub = Hub::open(options(data)).unwrap();
        let taken = live() - before;
        hub.close();
        taken
    });
    whole - alone
}

/// The middle of some measurements: sled sometimes has a buffer of 8 MiB more, and lets go of one later.
fn typical(mut measure: impl FnMut() -> i64) -> i64 {
    let mut found: Vec<_> = (0..STARTS).map(|_| measure()).collect();
    found.sort_unstable();
    found[STARTS / 2]
}

#[test]
fn a_hub_takes_as_much_memory_for_many_users_memberships_and_keys_as_for_few() {
    // What is made once in a process is made.
    let folder = tempfile::tempdir().unwrap();
    Hub::open(options(folder.path())).unwrap().close();
    let (few, many) = (taken(FEW), taken(MANY));
    // Below nothing where sled has a buffer less beside a hub than alone; only how they differ counts.
    eprintln!("{few} bytes for few, {many} for many");
    assert!(many - few < BYTES_TOLERATED);
}
