//! Both sequences: sled's atomic counters, set at open to what the applied mark says.

use crate::model::{Position, Sequence};
use crate::store::error::Error;

/// The counters. Each holds the last id that was given, 8 bytes big-endian.
#[derive(Debug)]
pub(super) struct Sequences {
    tree: sled::Tree,
}

fn key(sequence: Sequence) -> &'static str {
    match sequence {
        Sequence::Direct => "next-direct",
        Sequence::Group => "next-group",
    }
}

impl Sequences {
    /// The counters in a tree, set back to the mark: ids that were taken for an entry whose application
    /// was cut short are taken again by the same entry.
    pub(super) fn open(tree: sled::Tree, applied: Position) -> Result<Self, Error> {
        for sequence in Sequence::ALL {
            tree.insert(key(sequence), &applied.of(sequence).to_be_bytes())?;
        }
        Ok(Self { tree })
    }

    /// Takes the next `count` ids, and returns the last of them.
    pub(super) fn take(&self, sequence: Sequence, count: u64) -> Result<u64, Error> {
        // A counter that does not move is only read.
        if count == 0 {
            return last_id(sequence, self.tree.get(key(sequence))?.as_deref());
        }
        let last = self.tree.update_and_fetch(key(sequence), |last| {
            let last = last.and_then(|bytes| bytes.first_chunk()).copied()?;
            Some((u64::from_be_bytes(last) + count).to_be_bytes().to_vec())
        })?;
        last_id(sequence, last.as_deref())
    }
}

fn last_id(sequence: Sequence, counter: Option<&[u8]>) -> Result<u64, Error> {
    counter
        .and_then(|bytes| bytes.first_chunk())
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(|| Error::View(format!("the counter of {sequence} is missing")))
}
