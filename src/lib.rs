//! Halley: push and instant messages over held HTTP requests, in one binary.

pub mod error;
pub mod model;
