//! What readers get: batches of the inbox, pages of a history, lists of conversations.

use std::sync::Arc;

use super::cursor::Cursor;
use super::id::Sequence;
use super::message::Message;
use super::name::{GroupName, UserName};

/// A part of an inbox: everything for its user after the asked cursor, up to `next`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In id order within each sequence.
    pub messages: Vec<Arc<Message>>,
    /// All that the user may see up to here has been given.
    pub next: Cursor,
    /// Whether more was there already: ask again at once.
    pub more: bool,
}

/// How much one page may hold. It always holds one message, however long that is.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// The most messages.
    pub messages: usize,
    /// The most bytes, counted by `size_of`.
    pub bytes: usize,
    /// The bytes that a message takes in the form in which the page is written.
    pub size_of: fn(&Message) -> usize,
}

impl PageLimit {
    /// Room for that many messages, of any length.
    pub fn count(messages: usize) -> Self {
        Self {
            messages,
            bytes: usize::MAX,
            size_of: |_| 0,
        }
    }

    /// An empty page.
    pub fn page(&self) -> PageRoom {
        PageRoom {
            messages: self.messages,
            bytes: self.bytes,
            empty: true,
        }
    }
}

/// What is left of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageRoom {
    messages: usize,
    bytes: usize,
    empty: bool,
}

impl PageRoom {
    /// Takes the room for one more entry. Returns false, and ends the page, if it does not fit.
    pub fn take(&mut self, bytes: usize) -> bool {
        let fits = self.messages > 0 && (self.empty || bytes <= self.bytes);
        self.messages = if fits { self.messages - 1 } else { 0 };
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty = false;
        fits
    }
}

/// Which way a history page goes from an id; bounds are exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The newest page.
    Newest,
    /// The page just before this id.
    Before(u64),
    /// The page just after this id.
    After(u64),
}

/// A page of one conversation or group, in id order.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The messages.
    pub messages: Vec<Arc<Message>>,
    /// Whether the asked direction goes on.
    pub more: bool,
}

/// One line of a user's list of conversations.
#[derive(Clone, Debug)]
pub enum ConversationEntry {
    /// A 1:1 history.
    Direct {
        /// The other user.
        peer: UserName,
        /// Its last message.
        last: Arc<Message>,
    },
    /// A group.
    Group {
        /// Its name.
        group: GroupName,
        /// Whether the user is a member now.
        member: bool,
        /// The last message that the user may see.
        last: Option<Arc<Message>>,
    },
}

/// Where a list of conversations goes on: the place of its last line in newest-first order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConversationToken {
    /// Time of the last message; of a group without one that the user may see, when they joined.
    pub at_ms: u64,
    /// Its sequence.
    pub sequence: Sequence,
    /// Its id, or, where there is no message, a number of the group beyond all ids.
    pub id: u64,
}

/// Part of a user's list of conversations, newest first.
#[derive(Clone, Debug)]
pub struct ConversationPage {
    /// The lines.
    pub entries: Vec<ConversationEntry>,
    /// Where the next page begins, if there is one.
    pub next: Option<ConversationToken>,
}
