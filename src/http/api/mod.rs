//! What the endpoints do that are answered at once, and the shapes of their JSON.

pub(super) mod conversations;
pub(super) mod demo;
pub(super) mod groups;
pub(super) mod history;
pub(super) mod operations;
pub(super) mod push;
pub(super) mod shapes;
pub(super) mod tokens;
