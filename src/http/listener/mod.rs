//! The sockets: listening, accepting, and the life of each connection with hyper and without.

pub(super) mod accept;
pub(super) mod connection;
pub(super) mod hyper_io;
pub(super) mod service;

pub use accept::{listen, serve};
