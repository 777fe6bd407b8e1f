//! How lists grow: the last row of each that gets something is written again until it is full, then the next one
//! begins. How rows are divided follows from the ids alone, whatever is written at once.

use super::View;
use super::list::{Count, List, Part, Place, places};
use super::rows::{Row, RowChange, RowChanges};
use super::writes::Writes;
use crate::store::error::Error;

/// What writing does to lists.
#[derive(Default)]
pub(super) struct Growth {
    /// Rows that are new, in the order of their keys.
    pub(super) new: Vec<Row>,
    /// Rows that grow.
    pub(super) grown: Vec<RowChange>,
    /// Rows of recent peers, changed or new.
    pub(super) recent: RowChanges,
}

impl View {
    /// What a write does to lists, as they are up to the mark.
    pub(super) fn growth(&self, writes: &Writes) -> Result<Growth, Error> {
        let mut growth = Growth::default();
        let users = self.mark()?.applied.users;
        for places in places(writes).chunk_by(|one, other| one.list == other.list) {
            self.grow(places, users, &mut growth)?;
        }
        Ok(growth)
    }

    /// Adds to one list.
    fn grow(&self, places: &[Place], users: u32, growth: &mut Growth) -> Result<(), Error> {
        let Some(Place { list, n, .. }) = places.first().copied() else {
            return Ok(());
        };
        // Of what was not there before, nothing need be looked up.
        let begins = match list {
            List::Conversation(..) | List::Group(_) => n == 1,
            List::Sent(_, user) | List::Inbox(user) => user > users,
        };
        let head = self.heads.of(list.sequence());
        let last = if begins {
            None
        } else {
            self.part_at(list, head)?
        };
        let mut grows = last.as_ref().is_some_and(|last| !last.is_full());
        let mut part = match last {
            Some(last) if grows => last,
            Some(full) => Part::after(full.count()),
            None => Part::after(Count::default()),
        };
        let mut recent = None;
        for place in places {
            part.push(place);
            if part.is_full() {
                if let List::Inbox(user) = list {
                    let recent = match &mut recent {
                        Some(recent) => recent,
                        empty => empty.insert(self.recent(user)?),
                    };
                    recent.fold(&part);
                }
                let next = Part::after(part.count());
                growth.put(list, &part, grows);
                (part, grows) = (next, false);
            }
        }
        growth.put(list, &part, grows);
        if let Some(recent) = recent {
            recent.changes(&mut growth.recent);
        }
        Ok(())
    }
}

impl Growth {
    fn put(&mut self, list: List, part: &Part, grows: bool) {
        let Some((key, value)) = part.row(list) else {
            return;
        };
        if grows {
            let value = Some(value);
            self.grown.push(RowChange { key, value });
        } else {
            self.new.push((key, value));
        }
    }
}
