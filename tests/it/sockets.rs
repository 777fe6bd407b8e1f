//! `WebSocket`: the handshake, what clients send, and RFC 6455 to the letter.

mod conformance;
mod foreign;
mod handshake;
mod sends;
mod tokens;
