//! Open feeds, what wakes them, and what threads and readers wait for.

mod turns;
mod wake;
mod watermark;

pub(super) use turns::Turns;
pub(super) use wake::{Mailbox, Waiters};
pub(super) use watermark::{Progress, Watermark};
