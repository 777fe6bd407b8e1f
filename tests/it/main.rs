//! One binary with all tests over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what tests share stands outside test functions"
)]

mod connections;
mod conversations;
mod crowd;
mod device;
mod floods;
mod hazards;
mod heads;
mod hosts;
mod icomet;
mod names;
mod noise;
mod openapi;
mod pages;
mod polls;
mod portable;
mod promises;
mod pushes;
mod races;
mod refusals;
mod room;
mod secrets;
mod slow;
mod sockets;
mod strict;
mod support;
mod transports;
