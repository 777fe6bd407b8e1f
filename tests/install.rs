//! `install.sh`, run into a directory of its own: no root, no systemd, nothing of this machine is touched.
#![expect(
    clippy::unwrap_used,
    reason = "what tests share stands outside test functions"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BINARY: &str = env!("CARGO_BIN_EXE_halley");

struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside.trim_start_matches('/'))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("install.sh");
        Command::new("sh")
            .arg(script)
            .args(arguments)
            .env("DESTDIR", self.folder.path())
            .env("HOME", "/home/someone")
            .output()
            .unwrap()
    }

    /// Runs it, and gives what it said.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it expecting a refusal, and gives the reason.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} was done");
        String::from_utf8(output.stderr).unwrap()
    }

    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.folder.path(), &mut found);
        let inside = |path: PathBuf| {
            path.strip_prefix(self.folder.path())
                .unwrap()
                .display()
                .to_string()
        };
        let mut files: Vec<String> = found.into_iter().map(inside).collect();
        files.sort();
        files
    }

    fn mode(&self, inside: &str) -> u32 {
        fs::metadata(self.path(inside))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    }
}

const SYSTEM: &[&str] = &["--system", "--binary", BINARY];

#[test]
fn for_a_user_it_is_one_file_and_goes_away_again() {
    let root = Root::new();
    for _ in 0..2 {
        root.done(&["--binary", BINARY]);
        assert_eq!(root.files(), ["home/someone/.local/bin/halley"]);
    }
    assert_eq!(root.mode("home/someone/.local/bin/halley"), 0o755);
    let version = Command::new(root.path("home/someone/.local/bin/halley"))
        .arg("version")
        .output();
    assert!(version.unwrap().status.success());

    root.done(&["--uninstall"]);
    assert!(root.files().is_empty());
    // Elsewhere it may still be there.
    assert!(root.done(&["--uninstall"]).contains("there is no "));
}

#[test]
fn for_the_machine_it_is_program_unit_and_settings() {
    let root = Root::new();
    let said = root.done(SYSTEM);
    assert_eq!(
        root.files(),
        [
            "etc/halley/halley.toml",
            "etc/systemd/system/halley.service",
            "usr/local/bin/halley"
        ]
    );
    for file in root.files() {
        assert!(said.contains(&file), "nothing was said of {file}:\n{said}");
    }
    assert!(said.contains("Nothing has been started"));
    assert_eq!(root.mode("etc/halley/halley.toml"), 0o640);
    assert_eq!(root.mode("etc/systemd/system/halley.service"), 0o644);

    let unit = fs::read_to_string(root.path("etc/systemd/system/halley.service")).unwrap();
    for line in [
        "Type=notify",
        "ExecStart=/usr/local/bin/halley serve",
        "User=halley",
        "StateDirectory=halley",
        "LimitNOFILE=1048576",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "SystemCallFilter=@system-service",
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        "TimeoutStopSec=60",
    ] {
        assert!(
            unit.lines().any(|of_unit| of_unit == line),
            "the unit lacks {line}"
        );
    }
}

#[test]
fn the_settings_it_installs_are_a_valid_configuration() {
    let root = Root::new();
    root.done(SYSTEM);
    let path = root.path("etc/halley/halley.toml");
    let text = fs::read_to_string(&path).unwrap();
    // The examples in it must be valid too when their marks are taken away.
    let uncommented: String = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .fold(String::new(), |all, line| all + line + "\n");
    assert!(uncommented.contains("listen"));
    fs::write(root.path("examples.toml"), uncommented).unwrap();
    for file in [path, root.path("examples.toml")] {
        let check = Command::new(BINARY)
            .args(["config", "check", "--config"])
            .arg(file)
            .output()
            .unwrap();
        assert!(
            check.status.success(),
            "{}",
            String::from_utf8_lossy(&check.stderr)
        );
    }
}

#[test]
fn systemd_understands_the_unit() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        return; // Not a machine with systemd.
    }
    let root = Root::new();
    root.done(SYSTEM);
    // It also looks whether the program is there, so the unit is given one that is.
    let unit = fs::read_to_string(root.path("etc/systemd/system/halley.service")).unwrap();
    let path = root.path("halley.service");
    fs::write(&path, unit.replace("/usr/local/bin/halley", "/bin/true")).unwrap();
    let checked = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(!said.contains("halley.service"), "{said}");
}

#[test]
fn installing_again_keeps_changed_settings_and_so_does_removing() {
    let root = Root::new();
    root.done(SYSTEM);
    let settings = root.path("etc/halley/halley.toml");
    fs::write(&settings, "listen = \"127.0.0.1:9\"\n").unwrap();
    let data = root.path("var/lib/halley");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("admin.key"), "kept").unwrap();

    root.done(SYSTEM);
    root.done(&["--system", "--uninstall"]);
    assert_eq!(
        root.files(),
        ["etc/halley/halley.toml", "var/lib/halley/admin.key"]
    );
    assert_eq!(
        fs::read_to_string(&settings).unwrap(),
        "listen = \"127.0.0.1:9\"\n"
    );
}

#[test]
fn removing_takes_unchanged_settings_along() {
    let root = Root::new();
    root.done(SYSTEM);
    root.done(&["--system", "--uninstall"]);
    assert!(root.files().is_empty());
    assert!(!root.path("etc/halley").exists());
}

#[test]
fn a_dry_run_does_nothing() {
    let root = Root::new();
    for arguments in [
        &["--dry-run"][..],
        &["--dry-run", "--system"],
        &["--dry-run", "--uninstall"],
    ] {
        root.done(arguments);
        assert!(root.files().is_empty(), "{arguments:?}");
    }
    assert!(
        root.done(&["--dry-run"])
            .contains("would build the program")
    );
    root.done(SYSTEM);
    let before = root.files();
    assert!(
        root.done(&["--dry-run", "--system", "--uninstall"])
            .contains("would remove")
    );
    assert_eq!(root.files(), before);
}

#[test]
fn another_prefix_is_also_in_the_unit() {
    let root = Root::new();
    root.done(&["--system", "--binary", BINARY, "--prefix", "/opt/halley/"]);
    let unit = fs::read_to_string(root.path("etc/systemd/system/halley.service")).unwrap();
    assert!(unit.contains("ExecStart=/opt/halley/bin/halley serve"));
    assert!(root.path("opt/halley/bin/halley").exists());
}

#[test]
fn mistakes_are_told_and_change_nothing() {
    let root = Root::new();
    for (arguments, reason) in [
        (&["--sytem"][..], "unknown option --sytem"),
        (&["--prefix"], "--prefix needs a value"),
        (&["--prefix", "relative"], "absolute path"),
        (&["--system", "--prefix", "/with space"], "only letters"),
        (
            &["--binary", "/nonexistent/halley"],
            "there is no program at /nonexistent/halley",
        ),
        (&["--binary", "/bin/false"], "/bin/false does not run"),
    ] {
        let said = root.refused(arguments);
        assert!(said.contains(reason), "{arguments:?}: {said}");
        assert!(root.files().is_empty());
    }
}

#[test]
fn nothing_is_written_through_a_link_that_somebody_prepared() {
    let root = Root::new();
    let victim = root.path("victim");
    fs::write(&victim, "untouched").unwrap();
    let files = [
        "usr/local/bin/halley",
        "etc/halley/halley.toml",
        "etc/systemd/system/halley.service",
    ];
    for file in files {
        let path = root.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&victim, root.path(&format!("{file}.new"))).unwrap();
    }
    // The program and the unit may be links themselves; settings that are there are kept.
    for file in [files[0], files[2]] {
        std::os::unix::fs::symlink(&victim, root.path(file)).unwrap();
    }
    root.done(SYSTEM);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    for file in files {
        assert!(!root.path(file).is_symlink(), "{file}");
        fs::remove_file(root.path(&format!("{file}.new"))).unwrap();
    }
    let mut expected = vec!["victim"];
    expected.extend(files);
    expected.sort_unstable();
    assert_eq!(root.files(), expected, "nothing is left");
}
