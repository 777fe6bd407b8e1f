//! Writes: proposals are accepted, become entries of the journal, and are applied.

pub(super) mod accept;
pub(super) mod apply;
pub(super) mod journal;
pub(super) mod times;
