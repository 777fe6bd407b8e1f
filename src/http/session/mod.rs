//! What is held for a reader of an inbox: polls, streams and `WebSocket`s.

pub(super) mod close_reason;
pub(super) mod page;
pub(super) mod poll;
mod remembered;
pub(super) mod schedule;
pub(super) mod stream;
pub(super) mod websocket;
