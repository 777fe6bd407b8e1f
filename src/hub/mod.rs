//! The domain: accepts, commits, applies, wakes, reads. Knows no transport and no status codes.
//!
//! A message's way: [`accept`](Hub::push) -> journal stage (one append, one sync) -> apply stage (ids, tail, answers,
//! wakes) -> [`Feed`]; and, behind them, from the tail into the view. Reads see what is in the tail and below it.
//!
//! This file has what all of them share. `lifecycle`, `icomet`, `read` and `write` stand above it and add to [`Hub`];
//! the rest stands below it and does not know it.

mod channel;
mod damage;
mod disk;
mod icomet;
mod known;
mod lifecycle;
mod live;
mod membership;
mod plan;
mod proposal;
mod read;
mod standing;
mod state;
mod tail;
mod threads;
mod write;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use schemars::JsonSchema;
use serde::Serialize;
use tracing::error;

pub use channel::{ChannelPage, icomet_group, icomet_user};
pub use lifecycle::open::Closed;
pub use lifecycle::rebuild::{Rebuilt, rebuild};
pub use lifecycle::verify::{Compared, Verified, verify};
pub use plan::GroupReceipt;
pub use read::feed::{Feed, Unread};
pub use tail::WindowSize;
pub use write::accept::GroupChange;

use crate::clock;
use crate::error::Error;
use crate::model::{Device, GroupName, Lineage, LogId, Position, Transport, UserName};
pub use crate::store::HistoryMode;
use crate::store::{self, JournalSize, View};
use channel::Channels;
use damage::Damage;
use disk::{Disk, Refused};
use live::{Progress, Turns, Waiters, Watermark};
use membership::Memberships;
use proposal::{Pending, Proposal};
use tail::Tail;
use threads::Running;

/// When an acknowledged message is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged or seen.
    Always,
    /// Within 100 ms. A power loss may take what was acknowledged last, and the log then gets a new id.
    Interval,
}

/// What a hub needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub data: PathBuf,
    /// When an acknowledged message is on disk.
    pub durability: Durability,
    /// sled's page cache, bytes.
    pub cache_bytes: u64,
    /// Writes are refused while less than this is free on the disk, bytes.
    pub disk_free_min_bytes: u64,
    /// What may wait to be committed, bytes; beyond, pushes are refused as busy.
    pub queue_bytes_max: usize,
    /// What is committed and not yet written into sled may take in memory, roughly, bytes; beyond, pushes are refused
    /// as busy.
    pub tail_bytes_max: u64,
    /// How much of it is written at once.
    pub window: WindowSize,
    /// How much of what sled holds is kept in memory.
    pub caches: Caches,
    /// Feeds that one user may have open.
    pub waiters_per_user_max: usize,
    /// How many users may have a channel, which numbers what is for them. Those whom the backend sends something get
    /// one while there is room; with 0 nobody does.
    pub channels_max: usize,
}

/// How much of what sled holds of users, groups and keys is kept in memory. What is not sealed yet is kept besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// For readers: when who was a member of which group, bytes.
    pub memberships_bytes: u64,
    /// For applying: values of each kind, which are numbers of users, members of groups, ends of conversations and
    /// idempotency keys.
    pub values: usize,
}

impl Default for Caches {
    /// What 200,000 users take who are in a group or two, so that feeds which wait are not read from sled for each wake; and
    /// some 10 MB of each kind.
    fn default() -> Self {
        Self {
            memberships_bytes: 64 << 20,
            values: 100_000,
        }
    }
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Whether those who join may page back to the beginning.
    pub history: HistoryMode,
    /// Its members now, sorted.
    pub members: Vec<UserName>,
    /// Its last message; 0 without one.
    pub last: u64,
}

/// Figures for operators.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Status {
    /// The log that is written.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub log: String,
    /// The last ids that readers may see.
    pub watermark: Position,
    /// Offset of the last entry, files, bytes.
    pub journal: JournalStatus,
    /// The last applied entry.
    pub applied: u64,
    /// How far the clock is behind the newest message, whose time new ones get until then, milliseconds.
    pub clock_behind_ms: u64,
    /// Bytes of pushes that wait to be committed.
    pub queued_bytes: usize,
    /// Open feeds: held requests and those being answered.
    pub waiters: usize,
    /// Bytes that sled takes on disk.
    pub view_bytes: u64,
    /// Bytes free on the data directory's disk; the least, where it is on several.
    pub disk_free_bytes: u64,
    /// `ok`, or why writes are refused.
    pub writes: String,
}

/// How large the journal is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct JournalStatus {
    /// Offset of the last entry.
    pub offset: u64,
    /// Files.
    pub segments: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// What is wrong in a segment that no longer changes; such damage harms nothing until sled must be rebuilt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub damage: Option<String>,
}

/// The server without its transports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    lineage: Lineage,
    /// The position before the first kept message.
    floor: Position,
    /// Tells the entries of this process from those of others.
    proposer: u64,
    /// Closed when the hub closes.
    queue: RwLock<Option<SyncSender<Proposal>>>,
    queued_bytes: Arc<AtomicUsize>,
    /// The time of the last entry.
    at_ms: AtomicU64,
    /// Shared by changes of groups, but for those that must be alone.
    group_changes: Arc<tokio::sync::RwLock<()>>,
    pending: Pending,
    progress: Progress,
    journal_size: Arc<Mutex<JournalSize>>,
    journal_damage: OnceLock<String>,
    /// Taken out when the hub closes.
    view: RwLock<Option<Arc<View>>>,
    memberships: Memberships,
    channels: Channels,
    /// What is visible and not yet in the view.
    tail: Arc<Tail>,
    /// Up to here all mailboxes have been told.
    told: Watermark,
    waiters: Waiters,
    /// For lists of conversations.
    lists: Arc<Turns>,
    disk: Disk,
    /// Set when anything that is written fails; also by the sealer.
    refused: Arc<Refused>,
    /// Of the view; also found by the sealer.
    damage: Arc<Damage>,
    /// Whether the view was checked after a stop that was not clean, or need not be.
    checked: AtomicBool,
    closing: AtomicBool,
    running: Mutex<Option<Running>>,
}

/// Why a read failed: an answer for the caller, or a fault of the store.
enum Failure {
    Answer(Error),
    Store(store::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Answer(error)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl Hub {
    /// The log that is written.
    pub fn log(&self) -> LogId {
        self.0.lineage.log
    }

    /// The open feeds of a user: held requests, and those being answered now.
    pub fn devices(&self, user: &UserName) -> Vec<Device> {
        self.0.waiters.of(user)
    }

    /// How many feeds are open by one transport.
    pub fn held(&self, transport: Transport) -> usize {
        self.0.waiters.by(transport)
    }

    /// A group and its members, or [`Error::GroupNotFound`], also when it was deleted.
    pub async fn group(&self, name: GroupName) -> Result<GroupInfo, Error> {
        self.blocking(move |inner, view| {
            let group = inner.memberships.group(&name);
            let number = group.ok_or(Error::GroupNotFound)?.facts.number;
            let (tail, members) = membership::members_with(&inner.tail, view, number)?;
            // At the same moment as its members: by now it may be deleted.
            let group = inner.memberships.group(&name).ok_or(Error::GroupNotFound)?;
            let newest = tail.group(number, 0, tail.heads().group).next_back();
            let (newest, base) = (newest.map(|message| message.id), tail.base());
            drop(tail);
            let last = match newest {
                Some(last) => last,
                None => view.last_of_group(number, base.group)?.last,
            };
            Ok(GroupInfo {
                history: group.history,
                members,
                last,
            })
        })
        .await
    }

    /// Whether the server can do its work.
    pub fn ready(&self) -> Result<(), Error> {
        // First: a write that fails for it refuses the others, too, and this says what helps.
        if self.0.damage.is_found() {
            return Err(Error::StoreDamaged);
        }
        self.0.writable()?;
        let disk = &self.0.disk;
        disk.in_place()?;
        disk.answers()?;
        disk.roomy()
    }

    /// Figures for operators.
    pub fn status(&self) -> Status {
        let inner = &self.0;
        let JournalSize {
            offset,
            segments,
            bytes,
        } = *inner
            .journal_size
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let view = inner.view.read().unwrap_or_else(PoisonError::into_inner);
        Status {
            log: inner.lineage.log.to_string(),
            watermark: inner.tail.heads(),
            journal: JournalStatus {
                offset,
                segments,
                bytes,
                damage: inner.journal_damage.get().cloned(),
            },
            applied: inner.progress.offset(),
            clock_behind_ms: inner
                .at_ms
                .load(Ordering::Relaxed)
                .saturating_sub(clock::now_ms()),
            queued_bytes: inner.queued_bytes.load(Ordering::Relaxed),
            waiters: inner.waiters.count(),
            view_bytes: view.as_ref().map_or(0, |view| view.disk_bytes()),
            disk_free_bytes: inner.disk.room().map_or(0, |room| room.bytes),
            writes: match (self.ready(), inner.refused.cause()) {
                (Err(error), Some(cause)) => format!("{error} ({cause})"),
                (Err(error), None) => error.to_string(),
                (Ok(()), _) => "ok".into(),
            },
        }
    }

    /// Runs a read of the view where it may block. sled panics on some kinds of damage.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Inner, &View) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || {
            let view = inner
                .view
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let view = view.ok_or(Error::Closing)?;
            read(&inner, &view)
        });
        match task.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Answer(error))) => Err(error),
            Ok(Err(Failure::Store(e))) => Err(self.0.read_failed(&e)),
            Err(e) if e.is_panic() => Err(self
                .0
                .read_failed(&store::Error::View("a reading panicked".into()))),
            Err(_) => Err(Error::Closing),
        }
    }
}

impl Inner {
    /// Logs a failed read and maps it to the error that the caller sees.
    fn read_failed(&self, error: &store::Error) -> Error {
        // sled writes also while it reads, to split and to evict pages: after a failed write it refuses the few
        // readings that would.
        if matches!(error, store::Error::Io { .. }) {
            if self.not_refused().is_ok() {
                error!(
                    error = error.cause(),
                    "the readable view cannot be written: writes are refused until a restart"
                );
                self.refuse_writes(error);
            }
            return Error::WritesRefused;
        }
        self.damage.tell(error);
        Error::StoreDamaged
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether feeds may be opened.
    fn open(&self) -> Result<(), Error> {
        if self.closing() {
            Err(Error::Closing)
        } else {
            Ok(())
        }
    }

    /// Whether anything may be written.
    fn writable(&self) -> Result<(), Error> {
        self.not_refused()?;
        self.open()
    }

    /// Whether what was accepted may still be written.
    fn not_refused(&self) -> Result<(), Error> {
        self.refused.check()
    }

    fn refuse_writes(&self, cause: &(dyn std::error::Error + 'static)) {
        self.refused.set(cause);
    }

    /// A thread that writes has ended in a panic, which the log has.
    fn refuse_after_panic(&self) {
        self.refuse_writes(&store::Error::View("a thread that writes panicked".into()));
    }
}

#[cfg(test)]
impl Options {
    /// Of a small hub, for tests.
    fn small(data: &std::path::Path) -> Self {
        Self {
            data: data.to_owned(),
            durability: Durability::Always,
            cache_bytes: 8 << 20,
            disk_free_min_bytes: 0,
            queue_bytes_max: 1 << 20,
            tail_bytes_max: 64 << 20,
            // So that each boundary is crossed.
            window: WindowSize {
                ids: 3,
                bytes: 1 << 20,
            },
            // Those of a few users, and of none.
            caches: Caches {
                memberships_bytes: 1000,
                values: 2,
            },
            waiters_per_user_max: 10,
            channels_max: 0,
        }
    }
}

#[cfg(test)]
impl Hub {
    /// Waits until all that is visible is in the view.
    fn seal_all(&self) {
        let tail = &self.0.tail;
        tail.close_window();
        let begun = std::time::Instant::now();
        // One reading for both: a second within the first would wait behind a writer that waits for the first.
        let all = |tail: tail::Reading<'_>| tail.base() == tail.heads();
        while !all(tail.read()) {
            assert!(begun.elapsed().as_secs() < 30, "nothing is sealed");
            std::thread::yield_now();
        }
    }
}
