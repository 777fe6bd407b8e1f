//! How lists grow: the last part of each that gets something is written again; whenever it is full it becomes a row, and
//! the next one begins. All this before the mark is set: nobody looks for ids behind it. Only blocks that are divided
//! wait for it.

use super::View;
use super::aside::Writing;
use super::list::{Count, List, Part, Place, places};
use super::writes::Writes;
use crate::store::error::Error;

impl View {
    /// Adds what a write brings to lists, which are as they are up to the mark. In this order, whoever reads a list's last
    /// part before its rows finds each id in one of them, and a list in one of two blocks.
    pub(super) fn grow(&self, writes: &Writes, writing: &mut Writing<'_>) -> Result<(), Error> {
        let places = places(writes);
        let mut lists = places
            .chunk_by(|one, other| one.list == other.list)
            .filter_map(|places| Some((places.first()?.list, places)))
            .peekable();
        while let Some((list, _)) = lists.peek() {
            let mut block = self.block_of(*list)?;
            let mut entries = Vec::new();
            let mut old = std::mem::take(&mut block.entries).into_iter().peekable();
            while let Some((list, places)) = lists.next_if(|(list, _)| block.reaches(*list)) {
                let prefix = list.prefix();
                while let Some(before) = old.next_if(|(other, _)| *other < prefix) {
                    entries.push(before);
                }
                let part = match old.next_if(|(other, _)| *other == prefix) {
                    Some((_, part)) => list.read_last(&part)?,
                    None => Part::after(Count::default()),
                };
                let part = self.add(list, part, places, writing)?;
                entries.push((prefix, part.encode(list)));
            }
            entries.extend(old);
            block.entries = entries;
            let is_stored = block.is_stored;
            let rows = block.divided();
            let in_place = is_stored && rows.len() == 1;
            for (number, row) in rows.into_iter().enumerate().rev() {
                if in_place {
                    writing.rewrite(row)?;
                } else {
                    writing.put_aside(row, number > 0 || !is_stored)?;
                }
            }
        }
        Ok(())
    }

    /// Adds to a list behind its last part. What is its last part then.
    fn add(
        &self,
        list: List,
        mut part: Part,
        places: &[Place],
        writing: &mut Writing<'_>,
    ) -> Result<Part, Error> {
        let mut recent = None;
        for place in places {
            let follows = part.ids.last().is_none_or(|last| *last < place.id);
            if !follows || (place.n > 0 && place.n != part.count().n + 1) {
                return Err(Error::View(format!(
                    "a list of it does not end before {place:?}"
                )));
            }
            part.push(place);
            let Some(row) = part.row(list) else {
                continue;
            };
            writing.write_new(row)?;
            if let List::Inbox(user) = list {
                let recent = match &mut recent {
                    Some(recent) => recent,
                    empty => empty.insert(self.recent(user)?),
                };
                recent.fold(&part);
            }
            part = Part::after(part.count());
        }
        if let Some(recent) = recent {
            writing.put_all_aside(recent.changes())?;
        }
        Ok(part)
    }
}
