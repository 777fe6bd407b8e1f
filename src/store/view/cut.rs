//! Writes that were cut short: what they left behind the mark is taken back before anything is read or written. Lists
//! are written before the mark, and only grow for their readers.

use std::collections::BTreeSet;

use super::View;
use super::aside::{insert, remove};
use super::block::Entry;
use super::key::{self, Key};
use super::list::{Count, List, Part};
use super::record::decode_message;
use crate::model::{Message, Receiver, Sequence};
use crate::store::error::Error;

/// How much is written until sled is flushed, and how many times it is in sled's log, roughly.
const FLUSH_BYTES: usize = 4 << 20;
const LOG_TIMES: usize = 2;

impl View {
    /// A write up to an entry begins.
    pub(super) fn begin(&self, offset: u64) -> Result<(), Error> {
        self.take_back()?;
        self.db.insert(key::WRITING, &offset.to_be_bytes())?;
        Ok(())
    }

    /// The last entry of the write that is under way or was cut short, if one is.
    pub(super) fn cut_write(&self) -> Result<Option<u64>, Error> {
        let Some(row) = self.db.get(key::WRITING)? else {
            return Ok(None);
        };
        let offset = row.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let offset = offset.ok_or_else(|| Error::View("what is being written is cut".into()))?;
        Ok(Some(offset)
            .filter(|offset| *offset > self.mark().map_or(0, |mark| mark.applied.offset)))
    }

    /// Takes back what a write that was cut short left, if one was. Not while anybody reads.
    pub(super) fn take_back(&self) -> Result<(), Error> {
        if self.cut_write()?.is_none() {
            return Ok(());
        }
        let mark = self.mark()?.applied.offset;
        self.redo(mark)?;
        let mut unflushed = 0;
        self.undo(&mut |bytes| {
            unflushed += LOG_TIMES * bytes;
            if unflushed < FLUSH_BYTES {
                return Ok(());
            }
            unflushed = 0;
            self.flush()
        })?;
        // How far the journal was stays known.
        self.note(self.seen()?)?;
        self.db.insert(key::WRITING, &mark.to_be_bytes())?;
        Ok(())
    }

    /// Takes back messages behind the mark, and what lists have of them; `step` is told the bytes of each row that is
    /// written. The messages go last: they say what else there may be. Names and numbers stay: whatever the next write is,
    /// it has the same.
    pub(super) fn undo(
        &self,
        step: &mut dyn FnMut(usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let heads = self.mark()?.applied.heads;
        let behind = |sequence| {
            let first = heads.of(sequence) + 1;
            self.tree(sequence).range(first.to_be_bytes()..)
        };
        let mut lists = BTreeSet::new();
        for row in Sequence::ALL.into_iter().flat_map(behind) {
            let (key, value) = row?;
            let id = key::last_id(&key).unwrap_or(0);
            lists.extend(self.lists_of(&decode_message(id, &value)?)?);
        }
        let mut lists = lists.into_iter().peekable();
        while let Some(list) = lists.peek() {
            let mut block = self.block_of(*list)?;
            let (mut changed, mut rows) = (false, Vec::new());
            while let Some(list) = lists.next_if(|list| block.reaches(*list)) {
                let head = heads.of(list.sequence());
                changed |= self.shorten(list, head, &mut block.entries, &mut rows)?;
            }
            if changed {
                let (key, value) = block.undivided();
                let bytes = value.len();
                insert(&self.index, &key, value)?;
                step(bytes)?;
            }
            // Behind the last parts: they have what they get of them.
            for key in rows {
                remove(&self.index, &key)?;
                step(key.len())?;
            }
        }
        for sequence in Sequence::ALL {
            for row in behind(sequence) {
                let (key, _) = row?;
                remove(self.tree(sequence), &key)?;
                step(key.len())?;
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

    /// Takes from the last part of a list, among those of its block, what is behind a head, and gives it what is not of its
    /// last rows, which are to be removed behind that. Whether it changes.
    fn shorten(
        &self,
        list: List,
        head: u64,
        entries: &mut Vec<Entry>,
        behind: &mut Vec<Key>,
    ) -> Result<bool, Error> {
        let prefix = list.prefix();
        let place = entries.binary_search_by(|(other, _)| other.cmp(&prefix));
        let stored = place.ok().and_then(|place| entries.get_mut(place));
        let mut last = match &stored {
            Some((_, part)) => list.read_last(part)?,
            // Its block was to be divided, and waits for the mark.
            None => Part::after(Count::default()),
        };
        let rows = key::with_id(&prefix, 0)..=key::with_id(&prefix, u64::MAX);
        for row in self.index.range(rows).rev() {
            let (key, value) = row?;
            let part = list.read(&key, &value)?;
            if part.ids.last().is_none_or(|last| *last <= head) {
                break;
            }
            behind.push(key.to_vec());
            last = part;
        }
        last.truncate(head);
        let Some((_, part)) = stored else {
            return Ok(false);
        };
        let shortened = last.encode(list);
        let changed = *part != shortened;
        *part = shortened;
        // One that has nothing did not exist.
        if let Ok(place) = place
            && last.count() == Count::default()
        {
            entries.remove(place);
        }
        Ok(changed)
    }
}
