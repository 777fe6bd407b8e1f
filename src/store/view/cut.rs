//! Writes that were cut short: what they left behind the mark. Done again, a write puts the same rows in the same
//! places. One that ends elsewhere would not: it divides lists otherwise, so what is left goes first.

use super::View;
use super::key::{self, Key};
use super::list::List;
use super::record::decode_message;
use crate::model::{Message, Receiver, Sequence};
use crate::store::error::Error;

impl View {
    /// A write up to an entry begins.
    pub(super) fn begin(&self, offset: u64) -> Result<(), Error> {
        if self.cut()?.is_some_and(|cut| cut != offset) {
            self.undo()?;
        }
        let writing = offset.to_be_bytes();
        if self.db.get(key::WRITING)?.as_deref() != Some(&writing) {
            self.db.insert(key::WRITING, &writing)?;
        }
        Ok(())
    }

    /// The last entry of the write that was cut short, if one was.
    pub(super) fn cut(&self) -> Result<Option<u64>, Error> {
        let Some(row) = self.db.get(key::WRITING)? else {
            return Ok(None);
        };
        let offset = row.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let offset = offset.ok_or_else(|| Error::View("what is being written is cut".into()))?;
        Ok(Some(offset)
            .filter(|offset| *offset > self.mark().map_or(0, |mark| mark.applied.offset)))
    }

    /// Removes the messages behind the mark and where they are listed. The messages go last: they say what else there
    /// may be. Names and numbers stay: whatever the next write is, it has the same.
    pub(super) fn undo(&self) -> Result<(), Error> {
        let heads = self.mark()?.applied.heads;
        for sequence in Sequence::ALL {
            let head = heads.of(sequence);
            let behind = || self.tree(sequence).range((head + 1).to_be_bytes()..);
            for row in behind() {
                let (key, value) = row?;
                self.undo_message(
                    head,
                    &decode_message(key::last_id(&key).unwrap_or(0), &value)?,
                )?;
            }
            for row in behind() {
                self.tree(sequence).remove(row?.0)?;
            }
        }
        Ok(())
    }

    fn undo_message(&self, head: u64, message: &Message) -> Result<(), Error> {
        match &message.to {
            Receiver::Group(group) => {
                // Names are written before messages, and lists behind: without a number, there is no list.
                if let Some(group) = self.group(group)? {
                    self.remove_behind(List::Group(group), head)?;
                    if let Some(from) = self.user(&message.from)? {
                        self.remove_behind(List::Sent(group, from), head)?;
                    }
                }
            }
            Receiver::User(to) => {
                let (from, to) = (self.user(&message.from)?, self.user(to)?);
                for inbox in [from, to].into_iter().flatten() {
                    self.remove_behind(List::Inbox(inbox), head)?;
                }
                if let (Some(from), Some(to)) = (from, to) {
                    self.remove_behind(List::conversation(from, to), head)?;
                }
            }
        }
        Ok(())
    }

    /// Removes the rows of a list that begin behind a head.
    fn remove_behind(&self, list: List, head: u64) -> Result<(), Error> {
        let prefix = list.prefix();
        let behind = key::with_id(&prefix, head + 1)..=key::with_id(&prefix, u64::MAX);
        let keys: Vec<Key> = self
            .index
            .range(behind)
            .map(|row| row.map(|(key, _)| key.to_vec()))
            .collect::<Result<_, _>>()?;
        for key in keys {
            self.index.remove(key)?;
        }
        Ok(())
    }
}
