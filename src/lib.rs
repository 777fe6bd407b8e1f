//! Halley: push and instant messages over held HTTP requests, in one binary.

pub mod clock;
pub mod error;
pub mod hub;
pub mod model;
pub mod store;
