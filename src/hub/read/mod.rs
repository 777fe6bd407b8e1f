//! Reads: what the tail has of it, and below that the view.

mod channel;
pub(super) mod conversations;
pub(super) mod feed;
mod history;
mod inbox;
mod list_tail;
