//! The mark: what has been applied, and how much the index holds.

use serde::{Deserialize, Serialize};

use super::record::{decode_as, encode_as};
use crate::model::{LogId, Position};
use crate::store::error::Error;

/// Of the layout of all rows: a view with an older one is rebuilt. In 1, messages had no number.
const LAYOUT: u8 = 2;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Directory;
    use crate::store::view::{View, key};

    impl View {
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
