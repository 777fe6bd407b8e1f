//! A hub's life: opened, recovered, checked while it is served, closed; and a directory that no server uses: rebuilt,
//! verified.

mod check;
mod guard;
pub(super) mod open;
pub(super) mod rebuild;
mod recover;
pub(super) mod verify;
mod watch;
