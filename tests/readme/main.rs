//! The documents and the program say the same.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what tests share stands outside test functions"
)]

mod examples;
mod links;
#[allow(
    dead_code,
    clippy::allow_attributes,
    reason = "other tests use the rest"
)]
#[path = "../program/mod.rs"]
mod program;
mod server;
mod tables;
