//! Halley: push and instant messages over held HTTP requests, in one binary.

pub mod cli;
pub mod config;
pub mod logging;
pub mod secret;
pub mod server;
pub mod token;

pub mod clock;
