//! Halley: push and instant messages over held HTTP requests, in one binary.

pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod http;
pub mod hub;
pub mod logging;
pub mod model;
pub mod secret;
pub mod server;
pub mod store;
pub mod token;
