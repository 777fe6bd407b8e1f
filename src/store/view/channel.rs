//! What channels need of the view: which are open, how many messages came up to an id, and which.

use super::View;
use super::key;
use super::list::List;
use super::read::Loaded;
use super::record::{Channel, decode, decode_marked};
use crate::model::{Message, Sequence};
use crate::store::error::Error;

impl View {
    /// All open channels, by the users' numbers.
    pub(crate) fn channels(&self) -> impl Iterator<Item = Result<Loaded<Channel>, Error>> + use<> {
        self.index.scan_prefix(b"o").map(|row| {
            let (key, value) = row?;
            let user = key::first_number(&key)
                .ok_or_else(|| Error::View("a channel's key is cut".into()))?;
            Ok((user, decode("a channel", &value)?))
        })
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

    /// How many direct messages up to an id a user got.
    pub(crate) fn received(&self, user: u32, upto: u64) -> Result<u64, Error> {
        self.count(List::Inbox(user), upto)
    }

    /// Ids of the direct messages that a user got, within `after < id <= upto`.
    pub(crate) fn received_ids(
        &self,
        user: u32,
        after: u64,
        upto: u64,
    ) -> impl DoubleEndedIterator<Item = Result<u64, Error>> + use<> {
        self.ids_of(List::Inbox(user), after, upto, true)
    }

    /// How many messages up to an id a user sent to a group while the user's channel was open.
    pub(crate) fn sent(&self, group: u32, user: u32, upto: u64) -> Result<u64, Error> {
        self.count(List::Sent(group, user), upto)
    }

    pub(super) fn count(&self, list: List, upto: u64) -> Result<u64, Error> {
        let upto = self.written(list, upto);
        let part = self.part_at(list, upto)?;
        Ok(part.map_or(0, |mut part| {
            part.truncate(upto);
            part.count().n
        }))
    }

    /// A direct message that is there, and the last group message before it.
    pub(crate) fn placed(&self, id: u64) -> Result<(Message, u64), Error> {
        let row = self.tree(Sequence::Direct).get(id.to_be_bytes())?;
        let row = row.ok_or_else(|| Error::View(format!("direct message {id} is missing")))?;
        decode_marked(id, &row)
    }
}
