//! Halley: push and instant messages over held HTTP requests, in one binary.
