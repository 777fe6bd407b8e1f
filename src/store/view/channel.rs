//! Channels of the view: contiguous numbers of what is for one user.

use std::ops::Bound as Edge;

use super::View;
use super::key;
use super::record::{decode_numbered, decode_opened};
use crate::model::{Position, Sequence, UserName};
use crate::store::error::Error;

/// A number in a channel, and the message that has it.
pub(crate) type Numbered = (u64, Sequence, u64);

impl View {
    /// All open channels: the user's number, the entry that opened it, the user's name.
    pub(crate) fn channels(
        &self,
    ) -> impl Iterator<Item = Result<(u32, u64, UserName), Error>> + use<> {
        self.index.scan_prefix(b"o").map(|row| {
            let (key, value) = row?;
            let opened = key::first_number(&key).zip(decode_opened(&value));
            let (number, (offset, name)) =
                opened.ok_or_else(|| Error::View("a channel's row is not readable".into()))?;
            Ok((number, offset, name))
        })
    }

    /// The numbers of a channel from one on, and what has them.
    pub(crate) fn channel_from(
        &self,
        user: u32,
        first: u64,
    ) -> impl DoubleEndedIterator<Item = Result<Numbered, Error>> + use<> {
        let prefix = key::channel(user);
        let range = (
            Edge::Included(key::with_id(&prefix, first)),
            Edge::Included(key::with_id(&prefix, u64::MAX)),
        );
        self.index.range::<Vec<u8>, _>(range).map(|row| {
            let (key, value) = row?;
            let numbered = key::last_id(&key).zip(decode_numbered(&value));
            numbered
                .map(|(number, (sequence, id))| (number, sequence, id))
                .ok_or_else(|| Error::View("a channel's number is not readable".into()))
        })
    }

    /// The last number of a channel up to both heads, which must be those of one entry; 0 without one. Those that are
    /// forgotten count.
    pub(crate) fn last_of_channel(&self, user: u32, heads: Position) -> Result<u64, Error> {
        let forgotten = self.forgotten(user)?.unwrap_or(0);
        for row in self.channel_from(user, forgotten + 1).rev() {
            let (number, sequence, id) = row?;
            if id <= heads.of(sequence) {
                return Ok(number);
            }
        }
        Ok(forgotten)
    }

    /// The last number of a channel that is forgotten, if it was ever closed.
    pub(crate) fn forgotten(&self, user: u32) -> Result<Option<u64>, Error> {
        let Some(row) = self.index.get(key::forgotten(user))? else {
            return Ok(None);
        };
        let number = row.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let cut = || Error::View("what is forgotten of a channel is not readable".into());
        number.map(Some).ok_or_else(cut)
    }

    /// The users whose channels have rows of forgotten numbers.
    pub(crate) fn to_drop(&self) -> impl Iterator<Item = Result<u32, Error>> + use<> {
        self.index.scan_prefix(b"F").map(|row| {
            let number = key::first_number(&row?.0);
            number.ok_or_else(|| Error::View("a key of a channel is cut".into()))
        })
    }

    /// Forgotten numbers of a channel that are still kept, at most `limit`.
    pub(crate) fn forgotten_numbers(&self, user: u32, limit: usize) -> Result<Vec<u64>, Error> {
        let prefix = key::channel(user);
        let last = self.forgotten(user)?.unwrap_or(0);
        let range = key::with_id(&prefix, 0)..=key::with_id(&prefix, last);
        let rows = self.index.range(range).take(limit);
        rows.map(|row| {
            let number = key::last_id(&row?.0);
            number.ok_or_else(|| Error::View("a key of a channel is cut".into()))
        })
        .collect()
    }
}
