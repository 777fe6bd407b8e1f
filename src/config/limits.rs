//! The limits that the system sets to this process. One that is too low is named at the start: later, it would be
//! a panic, a hang or a file that cannot be written.

use std::io;
use std::sync::mpsc;
use std::thread::{self, Builder};

use rustix::process::{Resource, getrlimit};

/// Open files kept for the journal, sled, the listeners and the log when connections are counted, besides those for
/// each processor.
const FILES_RESERVED: usize = 128;
/// A reactor for each processor has its epoll, and what wakes it.
const FILES_PER_CORE: usize = 2;
/// A server for fewer connections serves nobody.
const CONNECTIONS_LEAST: u64 = 16;
/// With an unlimited number of open files, this many connections are the default.
const CONNECTIONS_DEFAULT_MAX: u64 = 1_000_000;
/// Threads besides those for each processor: of the hub, of sled, for reads and for the log. Eighteen were counted in
/// a server that had just started, on two processors.
const THREADS: usize = 24;
/// One of the runtime, and a reactor.
const THREADS_PER_CORE: usize = 2;

/// Why the server cannot run within the limits of this process.
pub(super) fn check(connections_max: usize) -> Result<(), String> {
    files(u64::try_from(connections_max).unwrap_or(u64::MAX))?;
    warn_of_file_size();
    threads().map_err(|(possible, wanted, error)| {
        format!(
            "only {possible} of {wanted} threads could be started ({error}): raise the limit of processes \
             (ulimit -u, LimitNPROC) or that of the container (TasksMax, pids)"
        )
    })
}

/// As many connections as the limit of open files allows.
pub(super) fn connections_default() -> usize {
    let connections = open_files_max()
        .unwrap_or(u64::MAX)
        .saturating_sub(files_reserved())
        .clamp(CONNECTIONS_LEAST, CONNECTIONS_DEFAULT_MAX);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

fn files(connections: u64) -> Result<(), String> {
    let reserved = files_reserved();
    match open_files_max() {
        Some(files) if connections.saturating_add(reserved) > files => Err(format!(
            "connections-max is {connections}, but this process may open {files} files, of which Halley keeps \
             {reserved} for itself: raise the limit (ulimit -n, LimitNOFILE) or lower connections-max"
        )),
        _ => Ok(()),
    }
}

fn files_reserved() -> u64 {
    let files = FILES_RESERVED.saturating_add(FILES_PER_CORE.saturating_mul(cores()));
    u64::try_from(files).unwrap_or(u64::MAX)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The soft limit of open files; `None` is without limit.
fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

fn warn_of_file_size() {
    if let Some(bytes) = getrlimit(Resource::Fsize).current {
        tracing::warn!(
            bytes,
            "files are limited in size (ulimit -f, LimitFSIZE): pushes will be refused when one has reached it"
        );
    }
}

/// Starts as many threads as the server has, and ends them: nothing else tells of every limit there is. How many
/// could be started, of how many.
fn threads() -> Result<(), (usize, usize, io::Error)> {
    let wanted = THREADS.saturating_add(THREADS_PER_CORE.saturating_mul(cores()));
    let mut started = Vec::with_capacity(wanted);
    for possible in 0..wanted {
        let (end, ended) = mpsc::sync_channel::<()>(0);
        // Each lives until its end of the channel is dropped, with the others.
        let thread = Builder::new()
            .name("probe".to_owned())
            .spawn(move || ended.recv().is_err());
        match thread {
            Ok(thread) => started.push((end, thread)),
            Err(error) => return Err((possible, wanted, error)),
        }
    }
    for (end, thread) in started {
        drop(end);
        // They cannot panic.
        drop(thread.join());
    }
    Ok(())
}
