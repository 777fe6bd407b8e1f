//! Writing, in an order that recovers: sled recovers a prefix of its log, so what stands before the mark is there when
//! the mark is. Names, messages and what lists get are written before it: nobody looks there for what is behind the
//! mark. All else is first written aside, and put in place once the mark is set.

use super::View;
use super::aside::{Writing, insert};
use super::key;
use super::mark::{Applied, Mark};
use super::record::encode_message;
use super::writes::{Addition, Writes, Written};
use crate::store::error::Error;

impl View {
    /// Writes what one or several entries bring, and forgets what is over. `step` is told what was written since the
    /// last time: every few hundred rows, before the mark, and at the end. Where it fails, so does this.
    pub fn write(
        &self,
        writes: &Writes,
        applied: &Applied,
        step: &mut dyn FnMut(Written) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.begin(applied.offset)?;
        let mut writing = Writing::new(self, applied.offset, step);
        // Names, messages, lists: what is cut short is found by them in this order.
        for row in writes.names() {
            writing.write_new(row)?;
        }
        for (message, mark) in writes.additions.iter().filter_map(Addition::marked) {
            let tree = self.tree(message.sequence());
            let row = encode_message(message, mark);
            insert(tree, &message.id.to_be_bytes(), row)?;
            writing.wrote(0, message.body.as_bytes().len())?;
        }
        self.grow(writes, &mut writing)?;
        let mut changes = self.forget(writes)?;
        writes.change(&mut changes);
        writing.put_all_aside(changes)?;
        writing.set_mark(applied)
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Body, UserName};
    use crate::store::Change;
    use crate::store::view::KEYS_KEPT_MS;
    use crate::store::view::aside::{STEP_BYTES, STEP_ROWS};
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
                    let mut rows = 0;
                    let mut step = |more: Written| {
                        rows += more.rows;
                        Ok(())
                    };
                    view.write(&writes, &applied, &mut step).unwrap();
                    assert_eq!(rows, 5, "one that is new, and two aside and in place");
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
        let rows_of = |prefix: &[u8]| view.index.scan_prefix(prefix).count();
        let there = view.index.len() + view.direct.len() + view.group.len();
        let (recent, blocks) = (rows_of(b"p"), rows_of(b"l"));
        assert_eq!((recent, blocks), (3, 4));
        assert_eq!(
            rows,
            there + recent + blocks,
            "what is written aside counts twice"
        );
        assert_eq!(
            steps.iter().map(|step| step.body_bytes).sum::<usize>(),
            1000
        );
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
            most = most.max(written.body_bytes);
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
}
