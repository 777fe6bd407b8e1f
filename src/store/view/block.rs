//! Blocks: the last parts of lists that follow each other, in one row. Most lists are short, and sled spends more on a
//! row than such a list has; and what is written again and again stays together, however many full rows there are.
//!
//! A block has the lists from the one in its key on, up to the next block's. What becomes too large is divided, and
//! nothing is ever taken out. Decoding never panics.

use std::ops::Bound::Excluded;

use super::View;
use super::key::{self, Key};
use super::list::{List, Part};
use super::rows::Row;
use super::varint::{put_varint, take_varint};
use crate::store::error::Error;

/// What a block takes at most, unless one part alone takes more. Tests divide more of them.
const BLOCK_BYTES: usize = if cfg!(test) { 96 } else { 1024 };
/// What each piece of a larger one takes: what comes next is as likely in one as in the other, and needs room.
const PIECE_BYTES: usize = BLOCK_BYTES * 2 / 3;
const VERSION: u8 = 1;

/// A list's key up to the id, and its last part as it is stored.
pub(super) type Entry = (Key, Vec<u8>);

/// A block that is added to.
pub(super) struct Block {
    key: Key,
    /// Where the next one begins.
    end: Option<Key>,
    /// Only the first one of all may not be.
    pub(super) is_stored: bool,
    /// In the order of their keys.
    pub(super) entries: Vec<Entry>,
}

impl Block {
    /// Whether a list that is not before it has its place in it.
    pub(super) fn reaches(&self, list: List) -> bool {
        let key = key::block(&list.prefix());
        self.end.as_ref().is_none_or(|end| key < *end)
    }

    /// Its row, however large it is.
    pub(super) fn undivided(self) -> Row {
        let mut encoder = Encoder::new(self.key);
        for (list, part) in &self.entries {
            encoder.put(list, part);
        }
        encoder.row()
    }

    /// Its row, and those of what is divided off it. Any of them stays as it is until it gets more.
    pub(super) fn divided(self) -> Vec<Row> {
        let sizes = || self.entries.iter().map(size);
        let all: usize = sizes().sum();
        let pieces = match all {
            0..=BLOCK_BYTES => 1,
            _ => all.div_ceil(PIECE_BYTES),
        };
        let piece = all.div_ceil(pieces);
        let (mut rows, mut encoder, mut bytes) = (Vec::new(), Encoder::new(self.key), 0);
        for ((list, part), size) in self.entries.iter().zip(sizes()) {
            if bytes > 0 && (bytes >= piece || bytes + size > BLOCK_BYTES) {
                let next = Encoder::new(key::block(list));
                rows.push(std::mem::replace(&mut encoder, next).row());
                bytes = 0;
            }
            encoder.put(list, part);
            bytes += size;
        }
        rows.push(encoder.row());
        rows
    }
}

/// What an entry takes, roughly: parts of its key are those of the one before.
fn size((list, part): &Entry) -> usize {
    list.len() + part.len()
}

/// Makes a row.
struct Encoder {
    key: Key,
    value: Vec<u8>,
    /// The last entry's.
    last: Key,
}

impl Encoder {
    fn new(key: Key) -> Self {
        let (value, last) = (vec![VERSION], Key::new());
        Self { key, value, last }
    }

    fn put(&mut self, list: &[u8], part: &[u8]) {
        let both = self.last.iter().zip(list);
        let shared = both.take_while(|(one, other)| one == other).count();
        let rest = list.get(shared..).unwrap_or_default();
        for length in [shared, rest.len()] {
            self.put_length(length);
        }
        self.value.extend(rest);
        self.put_length(part.len());
        self.value.extend(part);
        list.clone_into(&mut self.last);
    }

    fn put_length(&mut self, length: usize) {
        let length = u64::try_from(length).expect("a length fits 64 bits");
        put_varint(&mut self.value, length);
    }

    fn row(self) -> Row {
        (self.key, self.value)
    }
}

/// Reads the entries of a stored block.
struct Decoder<'a> {
    rest: &'a [u8],
    /// That of the entry that was read last.
    list: Key,
}

impl<'a> Decoder<'a> {
    fn new(value: &'a [u8]) -> Option<Self> {
        let (_, rest) = value
            .split_first()
            .filter(|(found, _)| **found == VERSION)?;
        let list = Key::new();
        Some(Self { rest, list })
    }

    /// The part of the next entry, which there is.
    fn next(&mut self) -> Option<&'a [u8]> {
        let (shared, rest) = (self.length()?, self.length()?);
        let rest = self.take(rest)?;
        // Of those that could be shared all are, and keys rise.
        let before = self.list.get(shared..)?;
        let rises = match (before.first(), rest.first()) {
            (Some(before), Some(next)) => before < next,
            (before, _) => before.is_none() && !rest.is_empty(),
        };
        if !rises {
            return None;
        }
        self.list.truncate(shared);
        self.list.extend(rest);
        let part = self.length()?;
        self.take(part)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(take_varint(&mut self.rest)?).ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

/// The entries of a block.
fn decode(value: &[u8]) -> Option<Vec<Entry>> {
    let mut decoder = Decoder::new(value)?;
    let mut entries = Vec::new();
    while !decoder.rest.is_empty() {
        let part = decoder.next()?.to_vec();
        entries.push((decoder.list.clone(), part));
    }
    Some(entries)
}

/// What a block has of a list, if anything.
fn find(key: &[u8], value: &[u8], list: List) -> Result<Option<Part>, Error> {
    let damaged = || unreadable(key);
    let mut decoder = Decoder::new(value).ok_or_else(damaged)?;
    let prefix = list.prefix();
    while !decoder.rest.is_empty() && decoder.list < prefix {
        let part = decoder.next().ok_or_else(damaged)?;
        if decoder.list == prefix {
            return list.read_last(part).map(Some);
        }
    }
    Ok(None)
}

/// The lists of a block's row, with their last parts.
pub(super) fn lists(key: &[u8], value: &[u8]) -> Result<Vec<(List, Part)>, Error> {
    let list = |(prefix, part): Entry| {
        let list = List::of_prefix(&prefix).filter(|_| *key <= *key::block(&prefix))?;
        Some((list, list.decode(&part).filter(|part| !part.is_full())?))
    };
    let lists = decode(value).and_then(|entries| entries.into_iter().map(list).collect());
    lists.ok_or_else(|| unreadable(key))
}

fn unreadable(key: &[u8]) -> Error {
    Error::View(format!("a row of its index is not readable: {key:02x?}"))
}

impl View {
    /// The last part of a list, which no row has and may have no ids. `None`: there is no such list.
    pub(super) fn last_part(&self, list: List) -> Result<Option<Part>, Error> {
        let place = key::block(&list.prefix());
        let mut looked = None;
        loop {
            let mut blocks = self.index.range(key::BLOCKS..=&place);
            let Some((key, value)) = blocks.next_back().transpose()? else {
                return Ok(None);
            };
            let part = find(&key, &value, list)?;
            // sled reads page by page: it may have looked for the block before this one was divided off another, and into that
            // one behind it.
            if part.is_some() || looked.as_ref() == Some(&key) {
                return Ok(part);
            }
            looked = Some(key);
        }
    }

    /// The block in which a list has its place.
    pub(super) fn block_of(&self, list: List) -> Result<Block, Error> {
        let place = key::block(&list.prefix());
        let mut stored = self.index.range(key::BLOCKS..=&place);
        let behind = (Excluded(&place[..]), Excluded(key::BLOCKS_END));
        let mut behind = self.index.range::<&[u8], _>(behind);
        let end = behind.next().transpose()?.map(|(key, _)| key.to_vec());
        Ok(match stored.next_back().transpose()? {
            Some((key, value)) => Block {
                entries: decode(&value).ok_or_else(|| unreadable(&key))?,
                is_stored: true,
                key: key.to_vec(),
                end,
            },
            None => Block {
                entries: Vec::new(),
                is_stored: false,
                key: key::BLOCKS.to_vec(),
                end,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::store::view::list::Count;
    use crate::store::view::scan::tests::Story;
    use crate::store::view::tests::opened;

    fn block(entries: Vec<Entry>) -> Block {
        let key = key::BLOCKS.to_vec();
        Block {
            key,
            end: None,
            is_stored: true,
            entries,
        }
    }

    /// Keys of lists, with anything.
    fn entries() -> impl Strategy<Value = BTreeMap<Key, Vec<u8>>> {
        let list = prop_oneof![
            (0..300_u32, 0..300_u32).prop_map(|(one, other)| List::conversation(one, other)),
            (0..3000_u32).prop_map(List::Group),
            any::<u32>().prop_map(List::Inbox),
        ];
        let part = prop::collection::vec(any::<u8>(), 0..BLOCK_BYTES * 5 / 4);
        prop::collection::btree_map(list.prop_map(List::prefix), part, 1..200)
    }

    proptest! {
        #[test]
        fn blocks_are_divided_into_few_and_none_is_large(entries in entries()) {
            let all: Vec<_> = entries.into_iter().collect();
            let rows = block(all.clone()).divided();
            prop_assert_eq!(&rows[0].0, key::BLOCKS);
            prop_assert!(rows.is_sorted_by(|one, next| one.0 < next.0));
            let bytes_of = |entries: &[Entry]| entries.iter().map(size).sum::<usize>();
            prop_assert!(rows.len() <= 2 + bytes_of(&all) * 2 / BLOCK_BYTES);
            let mut found = Vec::new();
            for (number, (key, value)) in rows.iter().enumerate() {
                let entries = decode(value).unwrap();
                let bytes = bytes_of(&entries);
                prop_assert!(bytes <= BLOCK_BYTES || entries.len() == 1, "{}", bytes);
                let first = key::block(&entries[0].0);
                prop_assert!(number == 0 || first == *key);
                prop_assert_eq!(block(entries.clone()).divided().len(), 1, "it stays as it is");
                for length in 0..value.len() {
                    let cut = decode(&value[..length]);
                    let shorter = |cut: &Vec<Entry>| cut.len() < entries.len() && entries.starts_with(cut);
                    prop_assert!(cut.as_ref().is_none_or(shorter));
                }
                found.extend(entries);
            }
            prop_assert_eq!(found, all);
        }

        /// Whatever is read is what would be written: nothing can be misread.
        #[test]
        fn any_bytes_are_read_as_they_would_be_written_or_not_at_all(
            rest in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                prop::collection::vec(0..4_u8, 0..40),
            ],
        ) {
            let value = [&[VERSION], &rest[..]].concat();
            if let Some(entries) = decode(&value) {
                prop_assert!(entries.is_sorted_by(|one, next| one.0 < next.0));
                let mut again = Encoder::new(Key::new());
                for (list, part) in &entries {
                    again.put(list, part);
                }
                prop_assert_eq!(again.value, value);
            }
        }
    }

    #[test]
    fn what_is_no_list_or_not_of_the_block_is_not_read() {
        let part = Part::after(Count::default()).encode(List::Group(7));
        let row = |list: &[u8]| {
            block(vec![(list.to_vec(), part.clone())])
                .divided()
                .remove(0)
                .1
        };
        let (group, at) = (
            List::Group(7).prefix(),
            key::block(&List::Group(7).prefix()),
        );
        assert!(lists(&at, &row(&group)).is_ok());
        assert!(lists(&key::block(&List::Group(8).prefix()), &row(&group)).is_err());
        assert!(lists(&at, &row(&group[..4])).is_err());
        assert!(lists(&at, &row(b"x1234")).is_err());
        assert!(find(b"l", &row(&group), List::Group(7)).unwrap().is_some());
        assert!(find(b"l", &row(&group), List::Group(6)).unwrap().is_none());
        assert!(find(b"l", &row(&group), List::Group(8)).unwrap().is_none());
        assert!(find(b"l", &[VERSION, 0, 5, 1], List::Group(7)).is_err());
        assert!(find(b"l", &[], List::Group(7)).is_err());
    }

    /// Blocks are divided and parts become rows under the eyes of who reads.
    #[test]
    fn each_list_is_whole_for_its_readers_while_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let (view, _) = opened(folder.path());
        let messages: Vec<_> = (0..6000)
            .map(|n| (1 + n * 7 % 61 % (1 + n / 60), 1 + n % 3))
            .collect();
        let story = Story::new(&messages, 50);
        let written = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for entry in 0..story.len() {
                    let (writes, applied) = story.window(entry, entry + 1);
                    view.write(&writes, &applied, &mut |_| Ok(())).unwrap();
                    written.store(entry + 1, Ordering::Release);
                }
            });
            while !writer.is_finished() {
                let head = 50 * u64::try_from(written.load(Ordering::Acquire)).unwrap();
                for (list, ids) in story.ids(head) {
                    let found: Result<Vec<_>, _> = view.ids_of(list, 0, head, false).collect();
                    assert_eq!(found.unwrap(), ids, "{list:?} up to {head}");
                    let count = view.part_at(list, head).unwrap().unwrap();
                    assert!(
                        count.ids.contains(ids.last().unwrap()),
                        "{list:?} up to {head}"
                    );
                }
            }
        });
        view.check().unwrap();
        assert!(view.index.scan_prefix(key::BLOCKS).count() > 20);
    }
}
