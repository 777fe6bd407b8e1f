//! What the view forgets by itself while it is written, some rows each time: idempotency keys whose time is over. It
//! follows from what is kept and what is written alone, so that a write that was cut short forgets the same when it is
//! done again.

use super::View;
use super::key::{self, KeyHash};
use super::record::KEYS_KEPT_MS;
use super::rows::RowChanges;
use super::writes::{Change, Writes};
use crate::store::error::Error;

/// Rows that go with each write, besides twice as many as it brings: so they become fewer, and no
/// write takes much longer for it.
const FORGOTTEN: usize = 64;

impl View {
    /// What is forgotten with this write, whose new rows are there. A change of the same row counts more.
    pub(super) fn forget(&self, writes: &Writes) -> Result<RowChanges, Error> {
        let used = |change: &&Change| matches!(change, Change::KeyUsed { .. });
        let keys = writes.changes.iter().filter(used).count();
        let mut rows = RowChanges::new();
        let before = writes.keys_ms.saturating_sub(KEYS_KEPT_MS);
        for (at_ms, hash) in self.keys_before(before, FORGOTTEN + 2 * keys)? {
            rows.insert(key::expiry(at_ms, hash), None);
            // Used again since, it has a later time of its own.
            if self.key(hash)?.is_some_and(|first| first.keys_ms == at_ms) {
                rows.insert(key::idempotency(hash), None);
            }
        }
        Ok(rows)
    }

    /// Times and hashes of at most `limit` idempotency keys kept before a time, oldest first.
    fn keys_before(&self, at_ms: u64, limit: usize) -> Result<Vec<(u64, KeyHash)>, Error> {
        let mut found = Vec::new();
        for row in self
            .index
            .range(b"x".to_vec()..key::expiries_before(at_ms))
            .take(limit)
        {
            let (key, value) = row?;
            let both = key::expiry_time(&key).zip(value.first_chunk().copied());
            let (at, hash) = both.ok_or_else(|| Error::View("an expiry is cut".into()))?;
            found.push((at, KeyHash(hash)));
        }
        Ok(found)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Receipt, Sequence};
    use crate::store::KeyUse;
    use crate::store::view::Applied;
    use crate::store::view::tests::opened;

    const DAY_MS: u64 = KEYS_KEPT_MS;

    fn hash(n: u32) -> KeyHash {
        let mut hash = [7; 16];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        KeyHash(hash)
    }

    pub(in crate::store::view) fn key_used(n: u32, keys_ms: u64) -> Change {
        let receipt = Receipt {
            sequence: Sequence::Direct,
            id: 1,
            prev: 0,
            at_ms: 1,
            duplicate: false,
        };
        let first = KeyUse {
            receipt,
            keys_ms,
            content: [1; 16],
        };
        let hash = hash(n);
        Change::KeyUsed { hash, first }
    }

    /// A write of so many changes, done whole after one that is cut before its mark.
    fn write(view: &View, applied: &mut Applied, writes: &Writes) {
        applied.offset += 1;
        let cut = view.write(writes, applied, &mut |_| Err(Error::OlderView));
        assert!(cut.is_err());
        view.write(writes, applied, &mut |_| Ok(())).unwrap();
        view.check().unwrap();
    }

    fn keys(changes: Vec<Change>, keys_ms: u64) -> Writes {
        Writes {
            changes,
            keys_ms,
            ..Writes::default()
        }
    }

    fn rows(view: &View, prefix: &[u8]) -> usize {
        view.index.scan_prefix(prefix).count()
    }

    #[test]
    fn keys_are_forgotten_a_day_after_their_use_some_with_each_write() {
        const MANY: u32 = 300;
        let folder = tempfile::tempdir().unwrap();
        let (view, mut applied) = opened(folder.path());
        let used = (0..MANY).map(|n| key_used(n, 1)).collect();
        write(&view, &mut applied, &keys(used, 1));
        for keys_ms in [2, DAY_MS, DAY_MS + 1] {
            write(&view, &mut applied, &keys(vec![], keys_ms));
            assert_eq!((rows(&view, b"x"), rows(&view, b"k")), (300, 300));
        }
        // Those that are used again stay, also one that is used twice in this write.
        let again = [
            key_used(0, DAY_MS + 1),
            key_used(1, DAY_MS + 1),
            key_used(1, DAY_MS + 2),
        ];
        write(&view, &mut applied, &keys(again.to_vec(), DAY_MS + 2));
        let first = FORGOTTEN + 2 * 3;
        assert_eq!(rows(&view, b"x"), 300 + 3 - first);
        assert_eq!(rows(&view, b"k"), 300 + 2 - first);
        assert_eq!(view.key(hash(0)).unwrap().unwrap().keys_ms, DAY_MS + 1);
        assert_eq!(view.key(hash(1)).unwrap().unwrap().keys_ms, DAY_MS + 2);
        assert!(view.key(hash(2)).unwrap().is_none());
        for left in [169, 105, 41, 3, 3] {
            write(&view, &mut applied, &keys(vec![], DAY_MS + 2));
            assert_eq!(rows(&view, b"x"), left);
        }
        assert!(view.key(hash(0)).unwrap().is_some());
        write(&view, &mut applied, &keys(vec![], 3 * DAY_MS));
        assert_eq!((rows(&view, b"x"), rows(&view, b"k")), (0, 0));
    }
}
