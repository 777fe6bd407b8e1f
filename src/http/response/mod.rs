//! Replies: their status, headers and JSON.

pub(super) mod cors;
pub(super) mod head;
pub(super) mod json;
pub(super) mod problem;
pub(super) mod reply;
