//! The sockets: listening, accepting, and the life of each connection with hyper and without.

mod accept;
mod connection;
mod exchange;
mod hyper_io;
mod service;

pub use accept::{listen, serve};
