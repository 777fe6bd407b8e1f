//! What can go wrong, in the caller's language: fix the request, retry, or give up.
//!
//! Causes stay in the log; `http` turns each variant into a status and a stable code.

use crate::model::{Cursor, Sequence};

/// Why the hub did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cursor is beyond what this log holds or shares with an older one.
    #[error("the cursor is beyond this log: start over at {restart}")]
    CursorAhead {
        /// Where to start over.
        restart: Cursor,
    },
    /// The cursor comes from a log that this one does not continue.
    #[error("the cursor is from another log: start over at {restart}")]
    LogUnknown {
        /// Where to start over.
        restart: Cursor,
    },
    /// The cursor is before the first message that is still kept.
    #[error("the cursor is before the messages that are kept: history begins after {first}")]
    CursorGone {
        /// The cursor before the first kept message.
        first: Cursor,
    },
    /// A history was asked for after an id that has not been given yet.
    #[error("`after` is beyond the last {sequence} message, {last}")]
    AfterAhead {
        /// The sequence.
        sequence: Sequence,
        /// Its watermark.
        last: u64,
    },
    /// No such group, or none that this user may see: which of both is not for this user to know.
    #[error("there is no such group")]
    GroupNotFound,
    /// A user sends to the group of all channels.
    #[error("only backends may send to this group")]
    BackendsOnly,
    /// No message has this id.
    #[error("there is no message with this id")]
    MessageNotFound,
    /// The idempotency key was used for another message.
    #[error("the idempotency key was used within 24 hours for another message")]
    IdempotencyConflict,
    /// The group would have more members than a group may.
    #[error("a group has at most {limit} members")]
    GroupFull {
        /// The limit.
        limit: usize,
    },
    /// The user holds as many requests as one user may.
    #[error("the user already holds {limit} requests, the most that one user may")]
    TooManyWaiters {
        /// The limit.
        limit: usize,
    },
    /// The queue is full: retry soon.
    #[error("the queue of pushes is full: retry soon")]
    Busy,
    /// What is committed waits for sled: retry soon.
    #[error(
        "what is stored and not yet written into sled takes more memory than the {limit} bytes that it may: retry soon"
    )]
    Behind {
        /// The limit, bytes.
        limit: u64,
    },
    /// The server is stopping: reconnect.
    #[error("the server is stopping: connect again")]
    Closing,
    /// Too little disk space is left to write.
    #[error(
        "the disk is nearly full: {free} bytes are free, {needed} are kept free; nothing was written"
    )]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        needed: u64,
    },
    /// The paths of the data directory no longer name what the server opened.
    #[error("{what} while the server runs; nothing was written")]
    DataMoved {
        /// The directory or file, and what became of it.
        what: String,
    },
    /// A write or sync has not come back for long.
    #[error("the disk has not finished a write or sync for {seconds} s")]
    DiskStalled {
        /// How long.
        seconds: u64,
    },
    /// A write or sync failed earlier: nothing more is written until a restart.
    #[error(
        "an earlier write failed: the server refuses writes until it is restarted; what was acknowledged is safe"
    )]
    WritesRefused,
    /// The readable view cannot be read: a restart rebuilds it from the journal.
    #[error("the readable view is damaged: a restart rebuilds it from the journal")]
    StoreDamaged,
}
