//! Requests as they come: who asks, for what, and whether they may.

pub(super) mod auth;
pub(super) mod body;
pub(super) mod call;
pub(super) mod host;
pub(super) mod json;
pub(super) mod query;
