//! Writes that were cut short: what they left behind the mark. Done again, a write puts the same rows in the same
//! places. One that ends elsewhere has not all of them, so what is left goes first.

use super::View;
use super::aside::{insert, remove};
use super::key;
use super::list::{Count, List, Part};
use super::record::decode_message;
use crate::model::{Message, Receiver, Sequence};
use crate::store::error::Error;

impl View {
    /// A write up to an entry begins.
    pub(super) fn begin(&self, offset: u64) -> Result<(), Error> {
        if self.cut()?.is_some() {
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

    /// Takes back messages behind the mark, and what lists have of them. The messages go last: they say what else there
    /// may be. Names and numbers stay: whatever the next write is, it has the same.
    pub(super) fn undo(&self) -> Result<(), Error> {
        let heads = self.mark()?.applied.heads;
        for sequence in Sequence::ALL {
            let head = heads.of(sequence);
            let behind = || self.tree(sequence).range((head + 1).to_be_bytes()..);
            for row in behind() {
                let (key, value) = row?;
                let id = key::last_id(&key).unwrap_or(0);
                for list in self.lists_of(&decode_message(id, &value)?)? {
                    self.shorten(list, head)?;
                }
            }
            for row in behind() {
                self.tree(sequence).remove(row?.0)?;
            }
        }
        Ok(())
    }

    /// The lists in which a message may be. Names are written before messages, and lists behind: without a number, there
    /// is no list.
    fn lists_of(&self, message: &Message) -> Result<Vec<List>, Error> {
        let from = self.user(&message.from)?;
        Ok(match &message.to {
            Receiver::Group(group) => {
                let group = self.group(group)?;
                let sent = group.zip(from).map(|(group, from)| List::Sent(group, from));
                group.map(List::Group).into_iter().chain(sent).collect()
            }
            Receiver::User(to) => {
                let to = self.user(to)?;
                let conversation = from.zip(to).map(|(from, to)| List::conversation(from, to));
                let inboxes = from.into_iter().chain(to).map(List::Inbox);
                inboxes.chain(conversation).collect()
            }
        })
    }

    /// Takes from a list what is behind a head.
    fn shorten(&self, list: List, head: u64) -> Result<(), Error> {
        let mut block = self.block_of(list)?;
        let prefix = list.prefix();
        let place = block
            .entries
            .binary_search_by(|(other, _)| other.cmp(&prefix));
        let mut last = match place {
            Ok(place) => list.read_last(&block.entries.remove(place).1)?,
            // Its block was to be divided, and waits for the mark.
            Err(_) => Part::after(Count::default()),
        };
        let rows = key::with_id(&prefix, 0)..=key::with_id(&prefix, u64::MAX);
        let mut behind = Vec::new();
        for row in self.index.range(rows).rev() {
            let (key, value) = row?;
            let part = list.read(&key, &value)?;
            if part.ids.last().is_none_or(|last| *last <= head) {
                break;
            }
            behind.push(key);
            last = part;
        }
        last.truncate(head);
        if let Ok(place) = place {
            // One that has nothing did not exist.
            if last.count() != Count::default() {
                block.entries.insert(place, (prefix, last.encode(list)));
            }
            // Not divided: while one list has all of its ids again, others still have more than before.
            let (key, value) = block.row();
            insert(&self.index, &key, value)?;
        }
        // Behind the last part: they have what it gets of them.
        for key in behind {
            remove(&self.index, &key)?;
        }
        Ok(())
    }
}
