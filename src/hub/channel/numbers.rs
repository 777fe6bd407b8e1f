//! The numbers that channels have given: planning takes the next one here.

use std::collections::HashMap;

use crate::hub::known::Known;
use crate::model::Position;
use crate::store::{Error, View};

/// The last forgotten number of each channel that was ever closed; `None`: it never was.
pub(in crate::hub) type Forgotten = Known<u32, Option<u64>>;

/// By users' numbers.
#[derive(Debug, Default)]
pub(in crate::hub) struct Numbers {
    /// All open channels, and their last numbers once these were looked up.
    open: HashMap<u32, Option<u64>>,
    forgotten: Forgotten,
}

impl Numbers {
    /// Reads which channels are open.
    pub(in crate::hub) fn load(view: &View) -> Result<Self, Error> {
        let open = view.channels().map(|channel| Ok((channel?.0, None)));
        Ok(Self {
            open: open.collect::<Result<_, Error>>()?,
            forgotten: Known::default(),
        })
    }

    /// Whether no channel is open.
    pub(in crate::hub) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Looks up the last number of a user's channel, if it is open: before [`Self::next`] and [`Self::close`].
    pub(in crate::hub) fn look_up(
        &mut self,
        view: &View,
        user: u32,
        heads: Position,
    ) -> Result<(), Error> {
        if let Some(last @ None) = self.open.get_mut(&user) {
            *last = Some(view.last_of_channel(user, heads)?);
        }
        Ok(())
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

    /// Opens a channel. `false`: it is open. Numbers that were forgotten are not given again: clients may still hold
    /// them, and would take others for theirs.
    pub(in crate::hub) fn open(&mut self, user: u32) -> bool {
        if self.open.contains_key(&user) {
            return false;
        }
        let forgotten = self.forgotten.get(&user).flatten();
        let last = forgotten.unwrap_or(0);
        self.open.insert(user, Some(last));
        true
    }

    /// Closes a channel in an entry, and forgets its numbers. The last one; `None`: it is not open.
    pub(in crate::hub) fn close(&mut self, user: u32, offset: u64) -> Option<u64> {
        let last = self.open.remove(&user)?;
        let last = last.expect("the channels of an entry are looked up before it");
        self.forgotten.change(user, Some(last), offset);
        Some(last)
    }

    /// The next number of a channel, given now; `None`: it is not open.
    pub(in crate::hub) fn next(&mut self, user: u32) -> Option<u64> {
        let last = self.open.get_mut(&user)?;
        let number = last.expect("the channels of an entry are looked up before it") + 1;
        *last = Some(number);
        Some(number)
    }

    /// What was forgotten.
    pub(in crate::hub) fn into_forgotten(self) -> Forgotten {
        self.forgotten
    }
}
