//! A full disk: refused before it hits, and harmless when it does hit.
//!
//! Root gets a small file system of its own. Everybody else gets a limit on the size of a file, which
//! also makes writes fail, but cannot be lifted without a restart.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use tempfile::TempDir;

use crate::checker::check_all;
use crate::client::Client;
use crate::http::Reply;
use crate::image::look;
use crate::ledger::{Draft, Ledger, Target};
use crate::load::{ANCHORS, GROUPS, Load};
use crate::random::Random;
use crate::support::{Launch, Process, eventually, halley, only_root};
use crate::upgrade::{format, make_format_1, set_aside};

const DISK: &str = "size=128m";
const BALLAST: u64 = 48 << 20;
const BODY: usize = 3_000;
/// How long the server may take to notice that there is space again.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);

/// A small file system; unmounted when dropped.
struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("data")).unwrap();
        let disk = Self { directory };
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]);
        let mounted = mount.arg(disk.data()).output();
        let mounted = mounted.is_ok_and(|out| out.status.success());
        only_root(mounted, "mount a small disk");
        disk
    }

    /// The data directory is the mount point, so that what the server prints goes elsewhere.
    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// With `ro`, from now on it may only be read, as a backup may be.
    fn remount(&self, mode: &str) {
        let mut mount = Command::new("mount");
        let mode = format!("remount,{mode}");
        mount.args(["-o", &mode]).arg(self.data());
        assert!(mount.status().unwrap().success());
    }

    /// A file that takes space until it is removed.
    fn put_ballast(&self) -> PathBuf {
        let path = self.data().join("ballast");
        let zeros = vec![0; usize::try_from(BALLAST).unwrap()];
        fs::write(&path, zeros).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nothing is mounted if `new` failed; what is left over goes with the machine.
        drop(Command::new("umount").arg(self.data()).output());
    }
}

/// A server with a ledger of what it has acknowledged.
struct Filler {
    rng: Random,
    process: Process,
    ledger: Ledger,
    client: Client,
    refused: Vec<Draft>,
}

impl Filler {
    fn new(test: &str, launch: &Launch) -> Self {
        let mut rng = Random::from_environment(test);
        let process = launch.start();
        let load = Load::new(&process, &mut rng);
        Self {
            client: process.admin(),
            ledger: load.ledger.into_inner().unwrap(),
            rng,
            process,
            refused: Vec::new(),
        }
    }

    /// Pushes one message; gives the reply if it was refused.
    fn push(&mut self) -> Option<Reply> {
        let (rng, turn) = (&mut self.rng, self.ledger.len() % GROUPS.len());
        let target = if turn == 0 {
            Target::Group(GROUPS[turn].to_owned())
        } else {
            Target::Direct(ANCHORS[0].to_owned())
        };
        let draft = Draft::sized(rng, ANCHORS[turn], target, BODY);
        self.ledger.sent(&draft);
        let reply = draft.push(&mut self.client).unwrap();
        if reply.status == 503 {
            self.refused.push(draft);
            return Some(reply);
        }
        self.ledger.acknowledged(&draft, &reply.receipt());
        None
    }

    /// Pushes until refused; says how.
    fn fill(&mut self) -> String {
        for _ in 0..10_000 {
            if let Some(refused) = self.push() {
                return refused.code();
            }
        }
        panic!("the disk does not get full");
    }

    /// The server says that it is not ready, and why; it lives, reads go on, and pushes are refused.
    fn check_refusing(&mut self, code: &str, reads: fn(&mut Self)) {
        let ready = self.client.get("/readyz").unwrap().expect(503);
        assert_eq!(ready.code(), code);
        self.client.get("/healthz").unwrap().expect(200);
        reads(self);
        let refused = self.push().unwrap();
        assert_eq!(refused.code(), code);
    }

    fn check(&mut self) {
        let last = self.ledger.last();
        check_all(&mut self.client, &mut self.ledger, &mut self.rng, last);
    }

    /// Reads after a write has failed. sled cannot read pages whose change it could not write, so a few
    /// reads may be refused until the restart; but none is wrong, and none leaves anything out.
    fn check_readable(&mut self) {
        let (last, mut refused) = (self.ledger.last(), 0);
        for sequence in ["direct", "group"] {
            for id in 1..=last.of(sequence) {
                let path = format!("/v1/messages/{sequence}/{id}");
                let reply = self.client.get(&path).unwrap();
                if reply.status == 503 {
                    refused += 1;
                } else {
                    self.ledger.seen(&reply.message());
                }
            }
        }
        let (mut cursor, mut read, mut more) = ("0".to_owned(), 0, true);
        while more {
            let reply = self.client.inbox(ANCHORS[0], &cursor, 100).unwrap();
            if reply.status == 503 {
                break;
            }
            let page = reply.page();
            for message in page.messages.iter().filter(|message| message.to.is_some()) {
                read += 1;
                assert_eq!(message.id, read, "left out before {message:?}");
            }
            (cursor, more) = (page.next, page.more);
        }
        assert!(more || read == last.direct, "the inbox ends at {read}");
        let told = format!("of {last:?} {refused} were refused, and the inbox after {read}");
        // Those pages were being written. In 36 fills: at most 11 messages, and an inbox that ends after
        // three quarters; a page higher up in a tree might end one of the two sooner.
        let all = last.direct + last.group;
        assert!(refused * 10 <= all || read * 2 >= last.direct, "{told}");
        eprintln!("{told}");
    }

    /// Starts again where writes work: nothing is lost, and pushes go on, also of what was refused.
    fn check_restarted(&mut self, launch: &Launch) {
        self.process.kill9();
        self.process = launch.start();
        self.client = self.process.admin();
        self.check();
        let again = std::mem::take(&mut self.refused);
        for draft in again.iter().filter(|draft| draft.key.is_some()) {
            let receipt = draft.push(&mut self.client).unwrap().receipt();
            self.ledger.acknowledged(draft, &receipt);
        }
        for _ in 0..20 {
            let refused = self.push();
            assert!(refused.is_none(), "{refused:?}");
        }
        self.check();
    }
}

/// How often a log says that the disk is full.
fn told_full(launch: &Launch) -> usize {
    let text = "the disk is nearly full: pushes are refused until there is space";
    launch.log().matches(text).count()
}

#[test]
fn a_nearly_full_disk_is_refused_and_recovers_by_itself_as_root() {
    let disk = SmallDisk::new();
    let launch = Launch::new(&disk.data()).option("--disk-free-min-bytes", "33554432");
    let mut filler = Filler::new("disk full", &launch);
    let ballast = disk.put_ballast();
    assert_eq!(filler.fill(), "disk_full");
    filler.check_refusing("disk_full", Filler::check);
    fs::remove_file(&ballast).unwrap();
    let recovered = eventually(NOTICE_LIMIT, || filler.push().is_none());
    assert!(recovered, "still refusing after {NOTICE_LIMIT:?}");
    filler.client.get("/readyz").unwrap().expect(200);
    filler.check();
    // With little space left it also stops cleanly, and starts.
    assert_eq!(filler.fill(), "disk_full");
    assert!(filler.process.terminate().success());
    let told = told_full(&launch);
    assert!(told > 0, "{}", launch.log());
    // More than the zeros ahead of the journal, which the stop gave back.
    fs::write(&ballast, vec![0; 4 << 20]).unwrap();
    filler.process = launch.spawn();
    filler.client = filler.process.admin();
    let refuses = || {
        filler
            .client
            .get("/readyz")
            .is_ok_and(|r| r.code() == "disk_full")
    };
    assert!(eventually(NOTICE_LIMIT, refuses), "{}", launch.log());
    let told_again = || told_full(&launch) > told;
    assert!(
        eventually(NOTICE_LIMIT, told_again),
        "the start does not tell"
    );
    filler.check_refusing("disk_full", Filler::check);
}

#[test]
fn a_full_disk_fails_writes_and_loses_nothing_as_root() {
    let disk = SmallDisk::new();
    let launch = Launch::new(&disk.data()).option("--disk-free-min-bytes", "0");
    let mut filler = Filler::new("disk overflow", &launch);
    let ballast = disk.put_ballast();
    assert_eq!(filler.fill(), "writes_refused");
    filler.check_refusing("writes_refused", Filler::check_readable);
    fs::remove_file(&ballast).unwrap();
    // What failed once is not tried again: only a restart finds out what is on the disk.
    let refused = filler.push().unwrap();
    assert_eq!(refused.code(), "writes_refused");
    filler.check_restarted(&launch);
}

#[test]
fn a_failed_write_is_refused_and_loses_nothing() {
    for megabytes in [9, 20] {
        let directory = tempfile::tempdir().unwrap();
        let plain = Launch::new(&directory.path().join("data"));
        let limited = plain.clone().shell(&limit(megabytes));
        let mut filler = Filler::new("file limit", &limited);
        assert_eq!(filler.fill(), "writes_refused");
        let log = limited.log();
        assert!(log.contains("files are limited in size"), "{log}");
        filler.check_refusing("writes_refused", Filler::check_readable);
        filler.check_restarted(&plain);
    }
}

/// Makes writes beyond this size fail; `ulimit` counts 512 bytes.
fn limit(megabytes: u64) -> String {
    format!("ulimit -f {}", megabytes * 2048)
}

#[test]
fn a_backup_that_may_only_be_read_is_verified_as_root() {
    let disk = SmallDisk::new();
    let launch = Launch::new(&disk.data()).option("--disk-free-min-bytes", "33554432");
    let mut process = launch.start();
    for body in ["1", "2"] {
        let pushed = process.admin().push_direct("ann", "bob", body, None);
        pushed.unwrap().receipt();
    }
    assert!(process.terminate().success());
    let verify = || {
        let data = disk.data();
        let verified = halley(&["verify".as_ref(), "--data".as_ref(), data.as_os_str()]);
        assert!(verified.status.success(), "{verified:?}");
        String::from_utf8(verified.stdout).unwrap()
    };
    let said = verify();
    assert!(said.contains("holds the same, row by row"), "{said}");
    disk.remount("ro");
    let said = verify();
    assert!(said.contains("the directory must be writable"), "{said}");
    disk.remount("rw");
    make_format_1(&disk.data());
    for mode in ["rw", "ro"] {
        disk.remount(mode);
        let said = verify();
        assert!(said.contains("the directory is of format 1"), "{said}");
        assert_eq!(format(&disk.data())["version"], 1);
    }
}

#[test]
fn an_upgrade_without_room_changes_nothing_and_one_that_loses_it_begins_again_as_root() {
    let disk = SmallDisk::new();
    let data = disk.data();
    let launch = Launch::new(&data).option("--disk-free-min-bytes", "0");
    let mut filler = Filler::new("disk upgrade", &launch);
    for _ in 0..2000 {
        assert!(filler.push().is_none());
    }
    assert!(filler.process.terminate().success());
    make_format_1(&data);
    let free = || {
        let found = rustix::fs::statvfs(&data).unwrap();
        found.f_bavail * found.f_frsize
    };
    // Too little for another view: it says how much is needed and what to do, and nothing is changed.
    let ballast = data.join("ballast");
    let size = usize::try_from(free() - (20 << 20)).unwrap();
    fs::write(&ballast, vec![0; size]).unwrap();
    let before = look(&data);
    let mut refused = launch.spawn();
    assert!(!refused.wait_end(NOTICE_LIMIT).success());
    let told = launch.log();
    for part in [
        "To upgrade it to format 2",
        "are free",
        "nothing was changed",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let delete = format!("delete {} first", data.join("sled").display());
    assert!(told.contains(&delete), "{told}");
    assert_eq!(look(&data), before);
    // Room that is taken meanwhile by others, sooner or later.
    for bytes in [0, 1, 4].map(|megabytes: u64| megabytes << 20) {
        fs::remove_file(&ballast).unwrap();
        let mut upgrade = launch.spawn();
        let began = || !set_aside(&data).is_empty() || format(&data)["version"] == 2;
        assert!(eventually(NOTICE_LIMIT, began), "{}", launch.log());
        let file = File::create(&ballast).unwrap();
        let size = free().saturating_sub(bytes);
        // At once, before the upgrade is complete. The server writes too, so there may be less room by now.
        fallocate(&file, FallocateFlags::empty(), 0, size).ok();
        let ended = || !upgrade.is_running() || format(&data)["version"] == 2;
        assert!(eventually(NOTICE_LIMIT, ended), "{}", launch.log());
        upgrade.kill9();
        eprintln!("with {bytes} bytes: {}", format(&data)["version"]);
        if format(&data)["version"] == 2 {
            make_format_1(&data);
        }
    }
    fs::remove_file(&ballast).unwrap();
    filler.check_restarted(&launch);
    assert_eq!(format(&data)["version"], 2);
    assert!(set_aside(&data).is_empty());
}
