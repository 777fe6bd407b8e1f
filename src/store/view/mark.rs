//! The mark: what has been applied, and how much the index holds.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::record::{decode_as, encode_as};
use crate::model::{LogId, Position, Sequence};
use crate::store::error::Error;

/// Of the layout of all rows: a view with an older one is rebuilt. In 1, messages had no number, and
/// each id a row in its lists; in 2, lists a row for each write, channels one for each number, and memberships could be
/// found by group only; in 3, each list had a row of its own for its last part.
const LAYOUT: u8 = 4;

/// Everything up to here has been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The log whose entries these are.
    pub log: LogId,
    /// The last applied entry.
    pub offset: u64,
    /// The last ids given.
    pub heads: Position,
    /// The position before the first message that is kept.
    pub floor: Position,
    /// The time of the last entry, Unix milliseconds.
    pub at_ms: u64,
    /// Numbers given to users.
    pub users: u32,
    /// Numbers given to groups.
    pub groups: u32,
}

impl Applied {
    /// The mark of an empty view.
    pub fn nothing(log: LogId) -> Self {
        let (heads, floor) = (Position::default(), Position::default());
        Self {
            log,
            offset: 0,
            heads,
            floor,
            at_ms: 0,
            users: 0,
            groups: 0,
        }
    }
}

/// An id of each sequence; never lowered. Those of the mark: up to there scans go.
#[derive(Debug)]
pub(super) struct Heads {
    direct: AtomicU64,
    group: AtomicU64,
}

impl Heads {
    pub(super) fn new(heads: Position) -> Self {
        Self {
            direct: AtomicU64::new(heads.direct),
            group: AtomicU64::new(heads.group),
        }
    }

    pub(super) fn of(&self, sequence: Sequence) -> u64 {
        self.at(sequence).load(Ordering::Acquire)
    }

    /// Both; of one moment only where nobody raises them.
    pub(super) fn get(&self) -> Position {
        Position {
            direct: self.of(Sequence::Direct),
            group: self.of(Sequence::Group),
        }
    }

    pub(super) fn raise(&self, heads: Position) {
        for sequence in Sequence::ALL {
            self.raise_one(sequence, heads.of(sequence));
        }
    }

    pub(super) fn raise_one(&self, sequence: Sequence, head: u64) {
        self.at(sequence).fetch_max(head, Ordering::AcqRel);
    }

    fn at(&self, sequence: Sequence) -> &AtomicU64 {
        match sequence {
            Sequence::Direct => &self.direct,
            Sequence::Group => &self.group,
        }
    }
}

/// The mark as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) applied: Applied,
    /// Rows of the index, so that a lost one is noticed.
    pub(super) rows: u64,
}

impl Mark {
    pub(super) fn encode(&self) -> Vec<u8> {
        encode_as(LAYOUT, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        match bytes.first() {
            Some(layout) if *layout < LAYOUT => Err(Error::OlderView),
            _ => decode_as(LAYOUT, "the applied mark", bytes),
        }
    }
}

/// The mark of a view of format 1: log, last entry, ids, floor, time, numbers of users and groups, rows.
type MarkOfFormat1 = (LogId, u64, Position, Position, u64, u32, u32, u64);

impl Mark {
    /// The last applied entry of a view of format 1. An error for any other view, such as what an upgrade left that
    /// was cut short.
    pub(super) fn offset_in_format_1(bytes: &[u8]) -> Result<u64, Error> {
        decode_as::<MarkOfFormat1>(1, "the applied mark", bytes).map(|mark| mark.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Directory;
    use crate::store::view::{View, key, opened};

    impl View {
        /// Gives the view in a directory the mark of one of format 1.
        pub(crate) fn mark_as_format_1(directory: &Directory, offset: u64) {
            let (db, ..) = opened(&directory.sled(), 8 << 20).unwrap();
            let ids = Position::default();
            let mark: MarkOfFormat1 = (LogId([1; 16]), offset, ids, ids, 300, 300, 300, 300);
            db.insert(key::APPLIED, encode_as(1, &mark)).unwrap();
        }

        /// The view in a directory becomes one of an older layout.
        pub(crate) fn make_older(directory: &Directory) {
            let (view, applied) = Self::open(directory, 8 << 20).unwrap();
            let older = encode_as(LAYOUT - 1, &applied);
            view.db.insert(key::APPLIED, older).unwrap();
            view.flush().unwrap();
            drop(view);
            directory.close(applied.offset).unwrap();
        }
    }

    #[test]
    fn a_mark_of_another_layout_is_not_read() {
        let applied = Applied::nothing(LogId([1; 16]));
        let mark = Mark { applied, rows: 5 };
        let good = mark.encode();
        assert_eq!(Mark::decode(&good).unwrap(), mark);
        let with = |layout| Mark::decode(&[&[layout], &good[1..]].concat());
        assert!(matches!(with(LAYOUT - 1), Err(Error::OlderView)));
        assert!(matches!(with(LAYOUT + 1), Err(Error::View(_))));
        for length in 0..good.len() {
            assert!(matches!(Mark::decode(&good[..length]), Err(Error::View(_))));
        }
    }
}
