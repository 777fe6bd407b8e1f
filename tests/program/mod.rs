//! The built program, run as a user runs it.

use std::process::{Command, Output, Stdio};

/// An admin key or token secret.
pub(crate) const KEY: &str = "0123456789abcdef0123456789abcdef";

/// The program, without what this environment says to it.
pub(crate) fn halley(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halley"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HALLEY_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a run that must succeed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Standard error of a run that must end with this code and print nothing.
pub(crate) fn fail(command: &mut Command, code: i32) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    assert_eq!(status.code(), Some(code), "{command:?}: {}", text(&stderr));
    assert!(stdout.is_empty(), "{command:?}: {}", text(&stdout));
    text(&stderr)
}
