//! Which numbers channels may have given, as planning knows it.
//!
//! Planning counts nothing: a channel that is closed has given at most a number for each message that there was since it
//! was opened, and goes on behind that.

use std::collections::HashMap;

use crate::hub::known::Known;
use crate::model::Position;
use crate::store::{Error, View};

/// By users' numbers.
#[derive(Debug)]
pub(in crate::hub) struct Numbers {
    /// All open channels: the number before the first, and how many messages there were before.
    open: HashMap<u32, (u64, u64)>,
    /// The last forgotten number of each channel that was ever closed; `None`: it never was.
    forgotten: Known<u32, Option<u64>>,
}

/// How many messages there are up to a position.
fn messages(heads: Position) -> u64 {
    heads.direct + heads.group
}

impl Numbers {
    /// No channel is open. Of what is forgotten of channels, so many values are kept.
    pub(in crate::hub) fn new(kept: usize) -> Self {
        Self {
            open: HashMap::new(),
            forgotten: Known::new(kept),
        }
    }

    /// Reads which channels are open.
    pub(in crate::hub) fn load(view: &View, kept: usize) -> Result<Self, Error> {
        let open = view.channels().map(|channel| {
            let (user, channel) = channel?;
            Ok((user, (channel.base, messages(channel.opened))))
        });
        Ok(Self {
            open: open.collect::<Result<_, Error>>()?,
            forgotten: Known::new(kept),
        })
    }

    /// Whether no channel is open.
    pub(in crate::hub) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a user's channel is open.
    pub(in crate::hub) fn is_open(&self, user: u32) -> bool {
        self.open.contains_key(&user)
    }

    /// Looks up what was forgotten of a user's channel: before [`Self::open`].
    pub(in crate::hub) fn look_up_forgotten(
        &mut self,
        view: &View,
        user: u32,
    ) -> Result<(), Error> {
        let look_up = || view.forgotten(user);
        self.forgotten.look_up(user, look_up).map(drop)
    }

    /// Forgets what is in the view, which has all up to an entry, where too much is known.
    pub(in crate::hub) fn forget(&mut self, sealed: u64) {
        self.forgotten.forget(sealed);
    }

    /// Opens a channel behind a position: the number before its first. `None`: it is open. Numbers that were forgotten
    /// are not given again: clients may still hold them, and would take others for theirs.
    pub(in crate::hub) fn open(&mut self, user: u32, heads: Position) -> Option<u64> {
        if self.is_open(user) {
            return None;
        }
        let base = self.forgotten.get(&user).flatten().unwrap_or(0);
        self.open.insert(user, (base, messages(heads)));
        Some(base)
    }

    /// Closes a channel in an entry, behind a position, and forgets its numbers. The last that it may have given;
    /// `None`: it is not open.
    pub(in crate::hub) fn close(&mut self, user: u32, heads: Position, offset: u64) -> Option<u64> {
        let (base, before) = self.open.remove(&user)?;
        let last = base + (messages(heads) - before);
        self.forgotten.change(user, Some(last), offset);
        Some(last)
    }
}
