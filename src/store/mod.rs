//! The data directory: the journal, which must never lie, and sled, the view that is read.
//!
//! Blocking code without async and without HTTP. The only folder that names sled.

pub(crate) mod channel;
mod check;
mod command;
mod directory;
mod error;
mod files;
mod follow;
mod journal;
pub(crate) mod key;
mod read;
pub(crate) mod record;
mod segment;
mod sequence;
mod view;

pub use command::{Command, Entry, HistoryMode};
pub use directory::{Directory, FORMAT_VERSION, Trust};
pub use error::Error;
pub use files::{free_bytes, must_exist};
pub use follow::Follower;
pub use journal::{Journal, JournalSize};
pub use key::KeyHash;
pub use record::{GroupRow, IntervalRow, KeyRow};
pub(crate) use view::SLED_OPEN_THREAD;
pub use view::{Applied, Change, View, Writes};
