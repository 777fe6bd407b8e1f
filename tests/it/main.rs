//! One binary with all tests over real sockets.

mod connections;
mod openapi;
mod polls;
mod pushes;
mod refusals;
mod support;
