//! Builds the recorder, loads it into a server, and proves that it sees what a program does.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::disk::Disk;
use super::log::{Event, Log};
use crate::image::{Entry, Image, below, look};
use crate::support::Launch;

/// The library, built once a process.
pub(super) fn library() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("preload.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/durability/preload.c");
        let built = Command::new("cc")
            .args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"])
            .args([OsStr::new("-o"), path.as_os_str(), source.as_os_str()])
            .args(["-ldl", "-lpthread"])
            .output()
            .expect("these tests need a C compiler by the name of cc");
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "cc failed:\n{errors}");
        (dir, path)
    });
    path
}

/// The variables that load the recorder: it watches `dir` and writes to `log`.
fn variables(dir: &Path, log: &Path) -> [(&'static str, String); 3] {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    [
        ("LD_PRELOAD", text(library())),
        ("HALLEY_POWER_DIR", text(&dir.canonicalize().unwrap())),
        ("HALLEY_POWER_LOG", text(log)),
    ]
}

/// A server on `data`, with a recorder that watches `dir`.
pub(super) fn recorded(data: &Path, dir: &Path, log: &Path) -> Launch {
    let variables = variables(dir, log);
    variables
        .iter()
        .fold(Launch::new(data), |launch, (name, value)| {
            launch.env(name, value)
        })
}

/// The recorder must have seen everything: what it says is there must be what is there, but for
/// what the kill interrupted, which the last event names.
pub(super) fn assert_complete(log: &Log, disk: &Disk, dir: &Path, inner: &str) {
    assert_eq!(log.odd(), Vec::<&str>::new(), "the recorder cannot follow");
    let (said, found) = (below(&disk.seen(), inner), below(&look(dir).0, inner));
    let interrupted = |path: &str| {
        let whole = format!("{inner}/{path}");
        match log.events.last() {
            Some(Event::Intent { paths }) => paths.contains(&whole),
            Some(Event::Write { inode, .. } | Event::Truncate { inode, .. }) => {
                disk.is_file(&whole, *inode)
            }
            _ => false,
        }
    };
    for path in said.keys().chain(found.keys()) {
        let same = said.get(path) == found.get(path);
        assert!(
            same || interrupted(path),
            "{path} is not what the recorder saw: a call went past it ({} and {} bytes)",
            length(&said, path),
            length(&found, path),
        );
    }
}

fn length(image: &Image, path: &str) -> usize {
    match image.get(path) {
        Some(Entry::File(bytes)) => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::power::disk::Fate;
    use crate::random::Random;

    const STAGE: &str = "HALLEY_POWER_TEST_STAGE";

    /// Not a test of its own: the program that is recorded by the test below.
    #[test]
    fn recorded_program() {
        let Ok(dir) = std::env::var(STAGE) else {
            return;
        };
        let dir = Path::new(&dir);
        let sync = |path: &str| File::open(dir.join(path)).unwrap().sync_all().unwrap();
        fs::create_dir(dir.join("kept")).unwrap();
        let mut synced = File::create(dir.join("kept/synced")).unwrap();
        synced.write_all(b"all of it").unwrap();
        synced.sync_data().unwrap();
        sync("kept");
        sync("");
        synced.write_all(b" and more").unwrap();
        synced.seek(SeekFrom::Start(0)).unwrap();
        synced.try_clone().unwrap().write_all(b"ALL").unwrap();

        let unsynced = File::create(dir.join("unsynced")).unwrap();
        unsynced.write_all_at(b"at", 5000).unwrap();
        unsynced.set_len(6000).unwrap();
        fs::copy(dir.join("kept/synced"), dir.join("copy")).unwrap();
        fs::rename(dir.join("copy"), dir.join("kept/renamed")).unwrap();
        File::open(dir.join("kept/renamed"))
            .unwrap()
            .sync_all()
            .unwrap();

        fs::remove_file(dir.join("old/file")).unwrap();
        fs::remove_dir_all(dir.join("old/tree")).unwrap();
        let mut appended = File::options()
            .append(true)
            .open(dir.join("old/log"))
            .unwrap();
        appended.write_all(b"+").unwrap();
        fs::write(dir.join("old/again"), b"new").unwrap();
    }

    #[test]
    fn the_recorder_sees_what_a_program_does_and_what_it_makes_durable() {
        let temp = TempDir::new().unwrap();
        let (dir, path) = (temp.path().join("watched/dir"), temp.path().join("log"));
        let root = temp.path().join("watched");
        fs::create_dir_all(dir.join("old/tree/deep")).unwrap();
        for (name, bytes) in [("file", "1"), ("log", "2"), ("again", "before")] {
            fs::write(dir.join("old").join(name), bytes).unwrap();
        }
        fs::write(dir.join("old/tree/deep/leaf"), "3").unwrap();
        let mut disk = Disk::load(&root);
        let program = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "power::recorder::tests::recorded_program"])
            .envs(variables(&root, &path))
            .env(STAGE, &dir)
            .output()
            .unwrap();
        assert!(program.status.success(), "{program:?}");

        let log = Log::read(&path);
        disk.advance(&log, log.events.len());
        assert_complete(&log, &disk, &root, "dir");
        assert_eq!(log.syncs(), 4);
        let mut rng = Random::from_environment("recorder");
        let fate = |pages, names| Fate { pages, names };
        let worst = below(&disk.lose_power(fate(0, false), &mut rng), "dir");
        let file = |text: &str| Some(Entry::File(text.into()));
        let (mut expected, _) = look(&dir);
        expected.remove("unsynced");
        expected.remove("kept/renamed");
        for (path, entry) in [
            ("kept/synced", file("all of it")),
            ("old/file", file("1")),
            ("old/log", file("2")),
            ("old/again", file("before")),
            ("old/tree", Some(Entry::Dir)),
            ("old/tree/deep", Some(Entry::Dir)),
            ("old/tree/deep/leaf", file("3")),
        ] {
            expected.insert(path.to_owned(), entry.unwrap());
        }
        assert_eq!(worst, expected, "only what was synced");
        let mut half = 0;
        for _ in 0..200 {
            let image = below(&disk.lose_power(fate(50, true), &mut rng), "dir");
            half += usize::from(image.contains_key("unsynced") && image.contains_key("old/file"));
            if image.contains_key("kept/renamed") {
                let copied = image["kept/renamed"] == Entry::File(b"ALL of it and more".to_vec());
                assert!(copied, "it was synced under its old name");
            }
        }
        assert!(half > 0, "names are lost one after another");
    }
}
