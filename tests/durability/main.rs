//! Durability of the real binary: kill -9, live copies, full disks, stops, power loss, damage.
//!
//! Every test starts `halley serve` as a process of its own and looks only at what a client or an
//! operator can see. A random test prints its seed; `HALLEY_TEST_SEED` gives it back and
//! `HALLEY_TEST_ROUNDS` says how many rounds to run.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "test helpers stop the test where it fails, and say with which seed"
)]

mod checker;
mod client;
mod copy;
mod crash;
mod damage;
mod disk;
mod fixtures;
#[path = "../http/mod.rs"]
mod http;
mod icomet;
mod image;
mod ledger;
mod load;
mod log;
mod moved;
mod operator;
mod power;
#[path = "../random/mod.rs"]
mod random;
mod reader;
mod restored;
mod shutdown;
mod signals;
mod support;
mod upgrade;
mod writer;
