//! The data directory: the journal, which must never lie, and sled, the view that is read.
//!
//! Blocking code without async and without HTTP. The only folder that names sled.
//!
//! Imports go one way: `held`, `view`, `journal`, `directory`, `error`. So the directory knows of the journal only its
//! files' names and heads, and is told where it ends; the journal is opened with a directory, the view too.

mod command_line;
mod directory;
mod error;
mod held;
mod journal;
mod view;

pub use directory::aside::Aside;
pub use directory::damage::DamageNote;
pub use directory::files::must_exist;
pub use directory::format::FORMAT_VERSION;
pub use directory::mark::JournalEnd;
pub use directory::room::{Room, explain_full};
pub use directory::{Directory, Trust};
pub use error::Error;
pub use held::Held;
pub use journal::command::{Command, Entry, HistoryMode};
pub use journal::follow::{Follower, TryNext};
pub use journal::{Journal, JournalSize};
pub(crate) use view::SLED_OPEN_THREAD;
pub use view::{
    Addition, Applied, Change, Channel, GroupState, KEYS_KEPT_MS, KeyHash, KeyUse, ListedMember,
    Membership, View, Writes, Written,
};
