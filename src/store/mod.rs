//! The data directory: the journal, which must never lie, and sled, the view that is read.
//!
//! Blocking code without async and without HTTP. The only folder that names sled.

mod ahead;
pub(crate) mod channel;
mod check;
mod checksum;
mod command;
mod directory;
mod error;
mod files;
mod follow;
mod format;
mod held;
mod journal;
pub(crate) mod key;
mod mark;
mod owner;
mod place;
mod read;
pub(crate) mod record;
mod rest;
mod segment;
mod sequence;
mod view;

pub use command::{Command, Entry, HistoryMode};
pub use directory::{Aside, Directory, Trust};
pub use error::Error;
pub use files::must_exist;
pub use follow::Follower;
pub use format::FORMAT_VERSION;
pub use held::{Held, Room, explain_full};
pub use journal::{Journal, JournalSize};
pub use key::KeyHash;
pub use record::{GroupRow, IntervalRow, KeyRow};
pub(crate) use view::SLED_OPEN_THREAD;
pub use view::{Applied, Change, View, Writes};
