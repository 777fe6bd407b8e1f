//! `tests/run` itself, in a directory of its own with a cargo that only pretends.
#![expect(
    clippy::unwrap_used,
    reason = "what tests share stands outside test functions"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A project with nothing but the script, where every command that it may need is one of ours.
struct Project(tempfile::TempDir);

const CARGO: &str = r#"#!/bin/sh
case "$1" in
    deny | nextest) exit 1 ;; # Not installed.
    build) echo "{\"executable\":\"$BUILT\"}" ;;
    clippy) [ "$2" = --version ] || { echo "a lint"; exit 1; } ;;
esac
"#;

impl Project {
    fn new() -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        project.write(
            "tests/run",
            &fs::read_to_string(manifest.join("tests/run")).unwrap(),
        );
        project.write("Cargo.toml", "rust-version = \"1.80\"\n");
        project.write("bin/cargo", CARGO);
        project.write("bin/rustc", "#!/bin/sh\necho rustc 1.90.0\n");
        project.write("bin/cc", "#!/bin/sh\n");
        project.write("bin/strace", "#!/bin/sh\n");
        project.write("elsewhere/halley", "#!/bin/sh\n");
        for tool in [
            "bash", "sh", "env", "sed", "grep", "dirname", "basename", "sort", "head", "tail",
            "cut", "id", "mktemp", "rm", "timeout", "realpath", "cat",
        ] {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {tool}")])
                .output()
                .unwrap();
            let path = String::from_utf8(found.stdout).unwrap();
            std::os::unix::fs::symlink(path.trim(), project.path(&format!("bin/{tool}"))).unwrap();
        }
        project
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Its exit code, and all that it said.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(self.path("tests/run"))
            .args(arguments)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"))
            .env("BUILT", self.path("elsewhere/halley"))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }
}

#[test]
fn what_is_missing_is_told_before_the_first_step() {
    let project = Project::new();
    let (code, said) = project.run(&["--no-install", "doc", "web"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("sudo apt-get install nodejs npm"), "{said}");
    assert!(!said.contains("=== doc"), "{said}");
    project.write(
        "tests/foreign/far.sh",
        "# needs: no-such-thing sh\n# needs: jdk=a-package\n",
    );
    let (code, said) = project.run(&["--no-install", "foreign"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("sudo apt-get install no-such-thing a-package"),
        "{said}"
    );
}

#[test]
fn steps_that_are_skipped_or_fail_are_counted_as_such() {
    let project = Project::new();
    let (code, said) = project.run(&["fmt", "deny"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 passed, 1 skipped, 0 failed"), "{said}");
    let (code, said) = project.run(&["clippy", "deny", "doc"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("1 passed, 1 skipped, 1 failed"), "{said}");
    assert_eq!(project.run(&["no-such-step"]).0, 2);
}

#[test]
fn what_only_root_can_do_is_a_step_that_others_see_skipped() {
    let project = Project::new();
    for (user, counts) in [(0, "2 passed, 0 skipped"), (1000, "1 passed, 1 skipped")] {
        // Another file: the one that is there leads to the real program.
        fs::remove_file(project.path("bin/id")).unwrap();
        project.write("bin/id", &format!("#!/bin/sh\necho {user}\n"));
        let (code, said) = project.run(&["test", "root"]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(counts), "{said}");
        assert_eq!(said.contains("sudo tests/run root"), user != 0, "{said}");
    }
}

#[test]
fn other_peoples_programs_get_the_built_one_wherever_cargo_puts_it() {
    let project = Project::new();
    let built = project.path("elsewhere/halley").display().to_string();
    project.write(
        "tests/foreign/one.sh",
        &format!(
            "# needs: sh\n[ \"$HALLEY_BIN\" = \"{built}\" ] && [ -d \"$WORK\" ] && echo \"in $WORK\"\n"
        ),
    );
    project.write("tests/foreign/two.sh", "skip 'not today'\necho reached\n");
    project.write("tests/foreign/three.sh", "exit 3\n");
    let (code, said) = project.run(&["foreign", "one", "two"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 passed, 1 skipped, 0 failed"), "{said}");
    assert!(said.contains("SKIPPED: not today") && !said.contains("reached"));
    let work = said.lines().find_map(|line| line.strip_prefix("in "));
    assert!(!Path::new(work.unwrap()).exists(), "{work:?} is left");
    let (code, said) = project.run(&["foreign"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("1 passed, 1 skipped, 1 failed"), "{said}");
    // They are no part of what runs without a name.
    let (_, said) = project.run(&["--no-install", "fmt"]);
    assert!(!said.contains("foreign/"), "{said}");
}
