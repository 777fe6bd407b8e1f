//! Writing, in an order that recovers: sled recovers a prefix of its log, so what stands before the mark is there when
//! the mark is. Rows that never change are written before it; those that do are first written aside, and put in place
//! once the mark is set.

use super::View;
use super::grow::Growth;
use super::key;
use super::mark::{Applied, Mark};
use super::record::{decode, encode, encode_message};
use super::rows::{Row, RowChange, RowChanges};
use super::writes::{Addition, Writes, Written};
use crate::store::error::Error;

/// A row with changes stays well below what sled keeps in its log.
const REDO_BYTES: usize = 32 << 10;
/// Rows of one step.
const STEP_ROWS: usize = 256;
/// Bytes of bodies in one step, but for the last body.
const STEP_BYTES: usize = 256 << 10;

/// Tells the caller of what is written, step by step.
struct Steps<'a> {
    tell: &'a mut dyn FnMut(Written) -> Result<(), Error>,
    written: Written,
}

impl Steps<'_> {
    fn wrote(&mut self, bytes: usize) -> Result<(), Error> {
        self.written.rows += 1;
        self.written.bytes += bytes;
        if self.written.rows >= STEP_ROWS || self.written.bytes >= STEP_BYTES {
            return self.end();
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        (self.tell)(std::mem::take(&mut self.written))
    }
}

impl View {
    /// Writes what one or several entries bring, and forgets what is over. `step` is told what was written since the
    /// last time: every few hundred rows, before the mark, and at the end. Where it fails, so does this.
    pub fn write(
        &self,
        writes: &Writes,
        applied: &Applied,
        step: &mut dyn FnMut(Written) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut steps = Steps {
            tell: step,
            written: Written::default(),
        };
        self.begin(applied.offset)?;
        let names = writes.names();
        let Growth { new, grown, recent } = self.growth(writes)?;
        // Names, messages, lists: what is cut short is found by them in this order.
        self.insert(&names, &mut steps)?;
        for (message, mark) in writes.additions.iter().filter_map(Addition::marked) {
            let tree = self.tree(message.sequence());
            let row = encode_message(message, mark);
            insert(tree, &message.id.to_be_bytes(), &row)?;
            steps.wrote(message.body.as_bytes().len())?;
        }
        self.insert(&new, &mut steps)?;
        let new = names.len() + new.len();
        // A row that grows is one that changes: until the mark is set, a reader and a restart must find it as it was.
        let mut changes = self.forget(writes)?;
        changes.extend(recent);
        writes.change(&mut changes);
        let mark = Mark {
            applied: *applied,
            rows: self.rows_after(new, &changes)?,
        };
        let changed = changes.into_iter();
        let changed = changed.map(|(key, value)| RowChange { key, value });
        let chunks = redo_rows(grown.into_iter().chain(changed));
        for (number, chunk) in (0..).zip(&chunks) {
            self.db
                .insert(key::redo(applied.offset, number), encode(chunk))?;
            chunk.iter().try_for_each(|_| steps.wrote(0))?;
        }
        steps.end()?;
        self.db.insert(key::APPLIED, mark.encode())?;
        self.heads.raise(applied.heads);
        for change in chunks.iter().flatten() {
            self.change(change)?;
            steps.wrote(0)?;
        }
        for (number, _) in (0..).zip(&chunks) {
            self.db.remove(key::redo(applied.offset, number))?;
        }
        steps.end()
    }

    fn insert(&self, rows: &[Row], steps: &mut Steps<'_>) -> Result<(), Error> {
        for (key, value) in rows {
            insert(&self.index, key, value)?;
            steps.wrote(0)?;
        }
        Ok(())
    }

    /// How many rows the index has once so many are written, which are new, and these are changed. Of those that change
    /// none is in place yet.
    fn rows_after(&self, new: usize, changes: &RowChanges) -> Result<u64, Error> {
        let (mut rows, mut gone) = (u64::try_from(new).expect("a length fits 64 bits"), 0);
        rows += self.mark()?.rows;
        for (key, value) in changes {
            match (self.index.contains_key(key)?, value) {
                (false, Some(_)) => rows += 1,
                (true, None) => gone += 1,
                _ => {}
            }
        }
        let left = rows.checked_sub(gone);
        left.ok_or_else(|| Error::View("it has more rows than its mark says".into()))
    }

    /// The mark.
    pub(super) fn mark(&self) -> Result<Mark, Error> {
        let mark = self.db.get(key::APPLIED)?;
        Mark::decode(&mark.ok_or_else(|| Error::View("its applied mark is missing".into()))?)
    }

    /// Makes durable what was written. sled's own flush does not sync.
    pub fn flush(&self) -> Result<(), Error> {
        self.db.flush()?;
        self.file
            .sync_data()
            .map_err(Error::io("sync the file db in", &self.path))
    }

    fn change(&self, change: &RowChange) -> Result<(), Error> {
        if let Some(value) = &change.value {
            return insert(&self.index, &change.key, value);
        }
        self.index.remove(&change.key)?;
        Ok(())
    }

    /// Does what was written aside for the entry of the mark, and forgets what was for a later one.
    pub(super) fn redo(&self, offset: u64) -> Result<(), Error> {
        let rows: Vec<_> = self.db.scan_prefix(b"r").collect::<Result<_, _>>()?;
        for (key, value) in rows {
            if key.starts_with(&key::redos(offset)) {
                let changes = decode::<Vec<RowChange>>("a change", &value)?;
                changes.iter().try_for_each(|change| self.change(change))?;
            }
            self.db.remove(key)?;
        }
        Ok(())
    }
}

/// Inserts a row and reads it. sled divides a page that has become too large when it next meets it, also while it reads;
/// done here, readings need not write, and go on when writes fail. Done at once, while the page is at hand, it costs
/// next to nothing; behind a whole window it was a quarter of all the work.
fn insert(tree: &sled::Tree, key: &[u8], value: &[u8]) -> Result<(), Error> {
    tree.insert(key, value)?;
    tree.contains_key(key)?;
    Ok(())
}

fn redo_rows(changes: impl Iterator<Item = RowChange>) -> Vec<Vec<RowChange>> {
    let mut chunks: Vec<Vec<RowChange>> = Vec::new();
    let mut bytes = REDO_BYTES;
    for change in changes {
        let size = change.key.len() + change.value.as_ref().map_or(0, Vec::len) + 4;
        if bytes + size > REDO_BYTES {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        chunks
            .last_mut()
            .expect("one was pushed first")
            .push(change);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Body, UserName};
    use crate::store::Change;
    use crate::store::view::KEYS_KEPT_MS;
    use crate::store::view::forget::tests::key_used;
    use crate::store::view::scan::tests::Story;
    use crate::store::view::tests::opened;

    /// What stands before the mark is there when the mark is, and what stands behind it is not there earlier: an
    /// entry that is cut short is applied again, and must find what it found.
    #[test]
    fn new_rows_are_written_before_the_mark_and_changes_behind_it() {
        const ENTRIES: u64 = 3000;
        let folder = tempfile::tempdir().unwrap();
        let (view, mut applied) = opened(folder.path());
        let name = |n| UserName::parse(&format!("user-{n}")).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 1..=ENTRIES {
                    applied.offset = n;
                    let writes = Writes {
                        additions: vec![Addition::User {
                            name: name(n),
                            number: 1,
                        }],
                        changes: vec![Change::ChannelClosed { user: 1, last: n }],
                        keys_ms: 0,
                    };
                    let mut written = Written::default();
                    let mut step = |more: Written| {
                        written.rows += more.rows;
                        Ok(())
                    };
                    view.write(&writes, &applied, &mut step).unwrap();
                    // One that is new, and two that are written aside and in place.
                    assert_eq!(written, Written { rows: 5, bytes: 0 });
                }
            });
            let mark = || view.mark().unwrap().applied.offset;
            while !writer.is_finished() {
                let changed = view.forgotten(1).unwrap().unwrap_or(0);
                let marked = mark();
                assert!(changed <= marked, "a change before the mark");
                let there = marked == 0 || view.user(&name(marked)).unwrap().is_some();
                assert!(there, "the mark before a row");
            }
        });
        let left = view.db.scan_prefix("r").count();
        assert_eq!(left, 0, "what was done is forgotten");
    }

    #[test]
    fn a_window_is_written_in_steps_of_few_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let messages: Vec<_> = (0..1000).map(|n| (1 + n % 3, 1 + n % 5)).collect();
        let story = Story::new(&messages, 7);
        let (writes, applied) = story.window(0, story.len());
        let mut steps = Vec::new();
        let mut step = |written: Written| {
            steps.push(written);
            Ok(())
        };
        view.write(&writes, &applied, &mut step).unwrap();
        assert!(steps.iter().all(|step| step.rows <= STEP_ROWS));
        let rows: usize = steps.iter().map(|step| step.rows).sum();
        let there = view.index.len() + view.direct.len() + view.group.len();
        let changed = view.index.scan_prefix(b"p").count();
        assert_eq!(
            (rows, changed),
            (there + changed, 3),
            "what changes counts twice"
        );
        assert_eq!(steps.iter().map(|step| step.bytes).sum::<usize>(), 1000);
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let mut large = Writes::default();
        for (addition, _) in writes.additions.iter().zip(0..20) {
            let mut addition = addition.clone();
            if let Addition::DirectMessage { message, .. } = &mut addition {
                Arc::make_mut(message).body = Body::from(vec![b'1'; 64 << 10]);
            }
            large.additions.push(addition);
        }
        let mut most = 0;
        let mut step = |written: Written| {
            most = most.max(written.bytes);
            Ok(())
        };
        view.write(&large, &applied, &mut step).unwrap();
        assert!((STEP_BYTES..STEP_BYTES + (64 << 10)).contains(&most));
    }

    /// A page that sled must still divide is divided by who reads it, which fails once a write has failed.
    #[test]
    fn readings_leave_nothing_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let mut random = 1_u32;
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            1 + (random >> 16) % below
        };
        let messages: Vec<_> = (0..3000).map(|_| (next(3), next(40))).collect();
        let story = Story::new(&messages, 10);
        let mut written = 0;
        for at in (0..story.len()).step_by(15) {
            let (mut writes, applied) = story.window(at, (at + 15).min(story.len()));
            // Keys that come and go.
            let keys = at..at + 60;
            writes.keys_ms = KEYS_KEPT_MS / 60 * u64::try_from(at).unwrap();
            let used = keys.map(|key| key_used(u32::try_from(key * 7919).unwrap(), writes.keys_ms));
            writes.changes = used.collect();
            view.write(&writes, &applied, &mut |_| Ok(())).unwrap();
            view.db.flush().unwrap();
            for tree in [&view.index, &view.direct, &view.group] {
                for row in tree {
                    assert!(tree.contains_key(row.unwrap().0).unwrap());
                }
            }
            written += view.db.flush().unwrap();
        }
        assert_eq!(written, 0);
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
