//! A write under way. What readers could not do with before the write's mark is set is first written aside, and put in
//! place behind the mark: until then, they and a restart find it as it was.

use super::View;
use super::key;
use super::mark::{Applied, Mark};
use super::record::{decode, encode};
use super::rows::{Row, RowChange, RowChanges};
use super::writes::Written;
use crate::store::error::Error;

/// Rows of one step.
pub(super) const STEP_ROWS: usize = if cfg!(test) { 8 } else { 256 };
/// Bytes of bodies in one step, but for the last body.
pub(super) const STEP_BYTES: usize = 256 << 10;
/// A row with changes stays well below what sled keeps in its log.
const ASIDE_BYTES: usize = 32 << 10;

/// Writes rows of the index: some at once, and others aside, in the order in which they are put in place.
pub(super) struct Writing<'a> {
    view: &'a View,
    /// The last entry of the write.
    offset: u64,
    /// Is told what was written, step by step.
    step: &'a mut dyn FnMut(Written) -> Result<(), Error>,
    /// Since the last step.
    written: Written,
    /// What is written aside next, and its bytes.
    changes: Vec<RowChange>,
    bytes: usize,
    /// Rows that hold what was written aside.
    aside: u32,
    /// Rows that the index gets, and that it loses.
    new: u64,
    gone: u64,
}

impl<'a> Writing<'a> {
    pub(super) fn new(
        view: &'a View,
        offset: u64,
        step: &'a mut dyn FnMut(Written) -> Result<(), Error>,
    ) -> Self {
        Self {
            view,
            offset,
            step,
            written: Written::default(),
            changes: Vec::new(),
            bytes: 0,
            aside: 0,
            new: 0,
            gone: 0,
        }
    }

    /// A row was written, of so many bytes, or with a body of so many.
    pub(super) fn wrote(&mut self, row: usize, body: usize) -> Result<(), Error> {
        self.written.rows += 1;
        self.written.row_bytes += row;
        self.written.body_bytes += body;
        if self.written.rows >= STEP_ROWS || self.written.body_bytes >= STEP_BYTES {
            return self.end_step();
        }
        Ok(())
    }

    fn end_step(&mut self) -> Result<(), Error> {
        (self.step)(std::mem::take(&mut self.written))
    }

    /// Writes a row that is new at once.
    pub(super) fn write_new(&mut self, row: Row) -> Result<(), Error> {
        self.new += 1;
        self.rewrite(row)
    }

    /// Writes at once a row that is there.
    pub(super) fn rewrite(&mut self, (key, value): Row) -> Result<(), Error> {
        let bytes = value.len();
        insert(&self.view.index, &key, value)?;
        self.wrote(bytes, 0)
    }

    /// Puts aside a row, of which it is known whether there is one with its key.
    pub(super) fn put_aside(&mut self, (key, value): Row, is_new: bool) -> Result<(), Error> {
        self.new += u64::from(is_new);
        let value = Some(value);
        self.put(RowChange { key, value })
    }

    /// Puts aside rows that change.
    pub(super) fn put_all_aside(&mut self, changes: RowChanges) -> Result<(), Error> {
        for (key, value) in changes {
            match (self.view.index.contains_key(&key)?, &value) {
                (false, Some(_)) => self.new += 1,
                (true, None) => self.gone += 1,
                _ => {}
            }
            self.put(RowChange { key, value })?;
        }
        Ok(())
    }

    fn put(&mut self, change: RowChange) -> Result<(), Error> {
        let size = change.key.len() + change.value.as_ref().map_or(0, Vec::len) + 4;
        if self.bytes + size > ASIDE_BYTES {
            self.write_aside()?;
        }
        self.bytes += size;
        self.changes.push(change);
        self.wrote(size, 0)
    }

    fn write_aside(&mut self) -> Result<(), Error> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let row = key::redo(self.offset, self.aside);
        self.view.db.insert(row, encode(&self.changes))?;
        self.changes.clear();
        self.bytes = 0;
        self.aside += 1;
        Ok(())
    }

    /// Sets the mark, and puts in place what was written aside.
    pub(super) fn set_mark(mut self, applied: &Applied) -> Result<(), Error> {
        self.write_aside()?;
        let rows = (self.view.mark()?.rows + self.new).checked_sub(self.gone);
        let rows = rows.ok_or_else(|| Error::View("it has more rows than its mark says".into()))?;
        self.end_step()?;
        let applied = *applied;
        let mark = Mark { applied, rows };
        self.view.db.insert(key::APPLIED, mark.encode())?;
        self.view.heads.raise(applied.heads);
        for number in 0..self.aside {
            let key = key::redo(self.offset, number);
            let row = self.view.db.get(&key)?;
            let row = row.ok_or_else(|| Error::View("what was written aside is gone".into()))?;
            for change in decode::<Vec<RowChange>>("a change", &row)? {
                let bytes = change.value.as_ref().map_or(0, Vec::len);
                self.view.change(change)?;
                self.wrote(bytes, 0)?;
            }
            remove(&self.view.db, &key)?;
        }
        self.end_step()
    }
}

impl View {
    /// Does what was written aside for the entry of the mark, and forgets what was for a later one.
    pub(super) fn redo(&self, offset: u64) -> Result<(), Error> {
        let rows: Vec<_> = self.db.scan_prefix(b"r").collect::<Result<_, _>>()?;
        for (key, value) in rows {
            if key.starts_with(&key::redos(offset)) {
                for change in decode::<Vec<RowChange>>("a change", &value)? {
                    self.change(change)?;
                }
            }
            remove(&self.db, &key)?;
        }
        Ok(())
    }

    fn change(&self, RowChange { key, value }: RowChange) -> Result<(), Error> {
        match value {
            Some(value) => insert(&self.index, &key, value),
            None => remove(&self.index, &key),
        }
    }
}

/// Inserts a row and reads it. sled divides a page that has become too large, and joins one that has become too small to
/// the next, when it next meets it, also while it reads; done here, readings need not write, and go on when writes fail.
/// Done at once, while the page is at hand, it costs next to nothing; behind a whole window it was a quarter of all the
/// work.
pub(super) fn insert(tree: &sled::Tree, key: &[u8], value: Vec<u8>) -> Result<(), Error> {
    tree.insert(key, value)?;
    tree.contains_key(key)?;
    Ok(())
}

/// Removes a row, in the same way.
pub(super) fn remove(tree: &sled::Tree, key: &[u8]) -> Result<(), Error> {
    tree.remove(key)?;
    tree.contains_key(key)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::view::mark::Mark;
    use crate::store::view::scan::tests::Story;
    use crate::store::view::tests::opened;

    #[test]
    fn what_a_write_that_was_cut_short_put_aside_is_forgotten_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let story = Story::new(&[(1, 2), (2, 3)], 1);
        let (writes, applied) = story.window(0, 2);
        let cut = view.write(&writes, &applied, &mut |_| Err(Error::OlderView));
        assert!(cut.is_err());
        let aside = || view.db.scan_prefix("r").count();
        assert_eq!(aside(), 1);
        let (writes, applied) = story.window(0, 1);
        view.write(&writes, &applied, &mut |_| Ok(())).unwrap();
        assert_eq!(aside(), 0);
        view.check().unwrap();
    }

    #[test]
    fn an_open_finishes_the_changes_of_the_mark_and_forgets_those_of_a_later_entry() {
        let folder = tempfile::tempdir().unwrap();
        let (view, mut applied) = opened(folder.path());
        applied.offset = 7;
        for offset in [7, 8] {
            let change = RowChange {
                key: vec![b'0' + u8::try_from(offset).unwrap()],
                value: Some(vec![1]),
            };
            let row = key::redo(offset, 0);
            view.db.insert(row, encode(&vec![change])).unwrap();
        }
        let mark = Mark { applied, rows: 1 };
        view.db.insert(key::APPLIED, mark.encode()).unwrap();
        drop(view);
        let (view, again) = opened(folder.path());
        assert_eq!(again, applied);
        assert!(view.has(b"7", &[1]));
        assert!(!view.has(b"8", &[1]));
        assert_eq!(view.db.scan_prefix("r").count(), 0);
    }
}
