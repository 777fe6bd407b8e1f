//! The `halley` program: runs the command line and turns its outcome into an exit code.
//!
//! 0: done. 2: wrong flags or configuration. 1: anything else, with its causes on standard error.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use halley::cli::{self, Failure};
use halley::logging;

/// sled frees in one thread what another took, for which the system's allocator takes turns.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match cli::run(&arguments, &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    if let Some(error) = failure.as_clap() {
        // Help and version come this way too: clap knows which stream and which code they have.
        return match error.print() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
            _ => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
        };
    }
    if failure.is_closed_pipe() {
        // Whoever read our output, such as `head`, has enough of it.
        return ExitCode::SUCCESS;
    }
    let mut text = format!("halley: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    match logging::say(io::stderr, text + "\n") {
        Ok(()) => ExitCode::from(failure.exit_code()),
        Err(_) => ExitCode::FAILURE,
    }
}
