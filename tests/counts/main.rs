//! What a push and a delivery cost, in numbers that are nearly exact: allocations of memory and system calls. Times vary
//! with the machine, and a regression hides in them; here each is seen.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic, and prints its table"
)]

mod allocations;
mod calls;
mod memory;
mod session;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ADMIN_KEY: &str = "admin-key-of-the-test-that-counts-0123456789";
const TOKEN_SECRET: &str = "token-secret-of-the-test-that-counts-0123456789";

/// What is done again and again over connections that stay open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// A request that asks for nothing: `/healthz`.
    Nothing,
    /// A push to a user who is not there.
    Push,
    /// A push, and its delivery to a poll that waits; each time a new one.
    Poll,
    /// A push, and its delivery as a server-sent event.
    Sse,
    /// A push, and its delivery as a line.
    Stream,
    /// A push, and its delivery over a WebSocket.
    Socket,
}

/// What each may cost, all of it together. A change that makes one cheaper lowers its line. The test prints what it finds:
/// `cargo nextest run --test counts --no-capture`.
const LINES: [Line; 6] = [
    //                   allocations, system calls
    line(Work::Nothing, 64.0, Some(2)),
    line(Work::Push, 79.0, Some(5)),
    // Whether the poll waits when the push comes, only a server in this process tells.
    line(Work::Poll, 102.0, None),
    line(Work::Sse, 92.0, Some(7)),
    line(Work::Stream, 92.0, Some(7)),
    line(Work::Socket, 93.0, Some(6)),
];
/// How many allocations more are no failure: the optimiser leaves some out, and not the same in each profile and version
/// of the compiler, and those of threads in the background are in the average. System calls are held without any.
const ALLOCATIONS_TOLERATED: f64 = 4.0;

struct Line {
    work: Work,
    allocations: f64,
    calls: Option<usize>,
}

const fn line(work: Work, allocations: f64, calls: Option<usize>) -> Line {
    Line {
        work,
        allocations,
        calls,
    }
}
