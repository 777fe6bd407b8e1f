//! Both sequences: sled's atomic counters. Ids are granted a range at a time, and none is given that was not granted, so
//! that no id is ever given twice: a grant is on disk before its first id is given.

use super::mark::Heads;
use crate::model::{Position, Sequence};
use crate::store::error::Error;

/// The counters. Each holds the last id that was granted, 8 bytes big-endian.
#[derive(Debug)]
pub(super) struct Sequences {
    tree: sled::Tree,
    /// Those that are on disk.
    granted: Heads,
}

fn key(sequence: Sequence) -> &'static str {
    match sequence {
        Sequence::Direct => "next-direct",
        Sequence::Group => "next-group",
    }
}

impl Sequences {
    /// The counters in a tree. Ids up to the mark were given, also where a view was rebuilt and nothing is counted yet.
    pub(super) fn open(tree: sled::Tree, applied: Position) -> Result<Self, Error> {
        let mut granted = applied;
        for sequence in Sequence::ALL {
            let given = applied.of(sequence);
            *granted.of_mut(sequence) = raise(&tree, sequence, given)?;
        }
        let granted = Heads::new(granted);
        Ok(Self { tree, granted })
    }

    /// The last ids that are granted.
    pub(super) fn granted(&self) -> &Heads {
        &self.granted
    }

    /// Raises a counter, unless it is higher, and returns it; it does not count as granted yet.
    pub(super) fn raise(&self, sequence: Sequence, upto: u64) -> Result<u64, Error> {
        raise(&self.tree, sequence, upto)
    }
}

fn raise(tree: &sled::Tree, sequence: Sequence, upto: u64) -> Result<u64, Error> {
    let counter = tree.get(key(sequence))?;
    // What cannot be read must not count as nothing.
    if counter.is_some_and(|bytes| bytes.len() != 8) {
        return Err(Error::View(format!(
            "the counter of {sequence} is not readable"
        )));
    }
    let raised = tree.update_and_fetch(key(sequence), |counter| {
        let granted = counter.and_then(|bytes| bytes.first_chunk());
        let granted = granted.map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Some(granted.max(upto).to_be_bytes().to_vec())
    })?;
    let raised = raised.as_deref().and_then(|bytes| bytes.first_chunk());
    Ok(raised.map_or(upto, |bytes| u64::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::view::tests::opened;
    use crate::store::view::{View, open_sled};
    use crate::store::{Directory, Writes};

    fn position(direct: u64, group: u64) -> Position {
        Position { direct, group }
    }

    #[test]
    fn what_is_granted_is_on_disk_and_stays_granted() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        assert_eq!(view.granted(), position(0, 0));
        for round in 1..=10 {
            let upto = round * 1000;
            assert_eq!(view.grant(Sequence::Direct, upto).unwrap(), upto);
            // As a kill leaves it: what is not yet written to the file is not there.
            let copy = tempfile::tempdir().unwrap();
            for file in ["db", "conf"] {
                fs::copy(
                    folder.path().join("sled").join(file),
                    copy.path().join(file),
                )
                .unwrap();
            }
            let (db, ..) = open_sled(copy.path(), 1 << 20).unwrap();
            let counter = db.get(key(Sequence::Direct)).unwrap().unwrap();
            assert_eq!(counter, &upto.to_be_bytes());
        }
        assert_eq!(view.grant(Sequence::Direct, 9999).unwrap(), 10_000);
        assert_eq!(view.grant(Sequence::Group, 5).unwrap(), 5);
        for _ in 0..2 {
            assert_eq!(view.granted(), position(10_000, 5));
        }
        drop(view);
        let (view, applied) = opened(folder.path());
        assert_eq!(view.granted(), position(10_000, 5));
        assert_eq!(applied.heads, position(0, 0));
    }

    #[test]
    fn what_was_given_is_granted_also_where_nothing_was_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (view, mut applied) = opened(folder.path());
        view.grant(Sequence::Group, 9).unwrap();
        (applied.offset, applied.heads) = (1, position(7, 7));
        let nothing = Writes::default();
        view.write(&nothing, &applied, &mut |_| Ok(())).unwrap();
        view.db.remove(key(Sequence::Direct)).unwrap();
        drop(view);
        let (view, _) = opened(folder.path());
        assert_eq!(view.granted(), position(7, 9));
        view.db.insert(key(Sequence::Group), vec![1]).unwrap();
        drop(view);
        let again = View::open(&Directory::open(folder.path()).unwrap(), 8 << 20);
        assert!(matches!(again, Err(Error::View(_))));
    }
}
