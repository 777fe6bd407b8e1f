//! Whether the view is what its mark says: every row readable, every id there, no row missing.

use super::key;
use super::record::decode_message;
use super::{Addition, Applied, View};
use crate::model::Sequence;
use crate::store::error::Error;

impl View {
    /// Reads everything once. Pages carry checksums of sled's own; a page that is lost or stale shows in the
    /// counts. Must be called with nothing half applied.
    pub fn check(&self, applied: &Applied) -> Result<(), Error> {
        let last = self.last_ids()?;
        if last != applied.heads {
            return Err(Error::View(format!(
                "its last ids are {} and {}, its mark says {} and {}",
                last.direct, last.group, applied.heads.direct, applied.heads.group
            )));
        }
        for sequence in Sequence::ALL {
            let ids = applied.floor.of(sequence) + 1..;
            for (next, row) in ids.zip(self.tree(sequence)) {
                let (key, value) = row?;
                if key::last_id(&key) != Some(next) {
                    return Err(Error::View(format!("{sequence} message {next} is missing")));
                }
                decode_message(next, &value)?;
            }
        }
        let mut rows = 0;
        for row in &self.index {
            row?;
            rows += 1;
        }
        let marked = self.mark()?.rows;
        if rows != marked {
            return Err(Error::View(format!(
                "its index has {rows} rows, its mark says {marked}"
            )));
        }
        Ok(())
    }

    /// Whether something that was added is kept as it was written.
    pub fn check_addition(&self, addition: &Addition) -> Result<(), Error> {
        if let Some(message) = addition.message() {
            let (sequence, id) = (message.sequence(), message.id);
            if self.indexed(sequence, id)? != **message {
                return Err(Error::View(format!(
                    "{sequence} message {id} is not as in the journal"
                )));
            }
        }
        let mut rows = Vec::new();
        addition.rows(&mut rows);
        match rows.iter().find(|(key, value)| !self.has(key, value)) {
            Some((key, _)) => Err(Error::View(format!(
                "a row of its index is missing: {key:02x?}"
            ))),
            None => Ok(()),
        }
    }
}
