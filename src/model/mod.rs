//! The words of the domain as types: ids, names, cursors, messages, pages.
//!
//! Everything here is plain data without I/O. A value that exists is valid: names and cursors are
//! parsed once, at the edge, and cannot be wrong afterwards.

mod cursor;
mod id;
mod message;
mod name;
mod page;
mod portable;
mod transport;

pub(crate) use cursor::log_text;
pub use cursor::{After, Ancestor, Cursor, CursorError, Lineage, LogTag, Resolution};
pub use id::{LogId, Position, Sequence};
pub use message::{Body, ChainEnd, Draft, IdempotencyKey, Message, Receipt, Receiver};
pub use name::{GroupName, NAME_BYTES_MAX, NameError, UserName};
pub use page::{
    Batch, Bound, ConversationEntry, ConversationPage, ConversationToken, HistoryPage, PageLimit,
    PageRoom,
};
pub use portable::NotPortable;
pub use transport::{Device, Transport};
