//! Channels of the view: contiguous numbers of what is for one user.

use std::ops::Bound as Edge;

use super::View;
use super::key;
use super::read::Loaded;
use super::record::decode_numbered;
use crate::model::{Position, Sequence, UserName};
use crate::store::error::Error;

/// A number in a channel, and the message that has it.
pub(crate) type Numbered = (u64, Sequence, u64);

impl View {
    /// All open channels: the users' numbers and names.
    pub(crate) fn channels(&self) -> impl Iterator<Item = Result<Loaded<UserName>, Error>> + use<> {
        self.index.scan_prefix(b"o").map(|row| {
            let (key, value) = row?;
            let name = str::from_utf8(&value)
                .ok()
                .and_then(|name| UserName::parse(name).ok());
            key::first_number(&key)
                .zip(name)
                .ok_or_else(|| Error::View("a channel's row is not readable".into()))
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
}
