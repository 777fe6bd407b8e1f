//! One file of a disk that loses power: what is synced, and what was written since.

use std::collections::BTreeMap;

use crate::random::Random;

/// A page: on a loss of power each one is written back or not, on its own.
const PAGE: usize = 4096;
/// A sector: a page may be torn between two of them.
const SECTOR: usize = 512;

/// A change of a file's contents.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { at: usize, data: Vec<u8> },
    Truncate(usize),
}

/// The contents at the last sync that ended, and the changes since, each with its place in the log.
#[derive(Clone, Debug)]
pub(super) struct File {
    durable: Vec<u8>,
    pending: Vec<(usize, Change)>,
}

impl Change {
    fn length(&self, before: usize) -> usize {
        match self {
            Self::Write { at, data } => before.max(at + data.len()),
            Self::Truncate(length) => *length,
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        bytes.resize(self.length(bytes.len()), 0);
        if let Self::Write { at, data } = self {
            bytes[*at..at + data.len()].copy_from_slice(data);
        }
    }
}

impl File {
    pub(super) fn new(durable: Vec<u8>) -> Self {
        let pending = Vec::new();
        Self { durable, pending }
    }

    pub(super) fn push(&mut self, when: usize, change: Change) {
        self.pending.push((when, change));
    }

    /// A sync that began at `begun` has ended: it covers the changes before.
    pub(super) fn sync(&mut self, begun: usize) {
        let covered = self.pending.partition_point(|(when, _)| *when < begun);
        for (_, change) in self.pending.drain(..covered) {
            change.apply(&mut self.durable);
        }
    }

    /// What a reader of the running system sees.
    pub(super) fn current(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (_, change) in &self.pending {
            change.apply(&mut bytes);
        }
        bytes
    }

    /// What may be found after a loss of power, where `pages` of a hundred unsynced pages survive.
    ///
    /// Lengths are metadata and stay in order: those of a prefix of the changes survive, the last
    /// one perhaps in part. A truncation that did not survive takes with it what was written after
    /// it, which went to blocks that are not the file's.
    pub(super) fn lose_power(&self, pages: u64, rng: &mut Random) -> Vec<u8> {
        let mut lengths = vec![self.durable.len()];
        for (_, change) in &self.pending {
            lengths.push(change.length(lengths[lengths.len() - 1]));
        }
        let last = self.pending.len();
        let kept = match rng.range(0, 2) {
            0 => 0,
            1 => last,
            _ => rng.index(last + 1),
        };
        let kept = if pages == 0 { 0 } else { kept };
        let shrinks = |at: &usize| lengths[at + 1] < lengths[*at];
        let usable = (kept..last).find(shrinks).unwrap_or(last);

        let mut chances = Chances::new(pages, usable);
        let mut bytes = self.durable.clone();
        for (index, (_, change)) in self.pending[..usable].iter().enumerate() {
            match change {
                Change::Truncate(length) if index < kept => bytes.resize(*length, 0),
                Change::Truncate(_) => {}
                Change::Write { at, data } => {
                    bytes.resize(bytes.len().max(at + data.len()), 0);
                    write_some(&mut bytes, *at, data, |page| chances.of(page, index, rng));
                }
            }
        }
        bytes.resize(cut_length(&lengths, kept, rng), 0);
        bytes
    }
}

/// For every page, how many of the changes it has seen, and up to which sector the last of them.
#[derive(Debug)]
struct Chances {
    percent: u64,
    changes: usize,
    pages: BTreeMap<usize, (usize, usize)>,
}

impl Chances {
    fn new(percent: u64, changes: usize) -> Self {
        Self {
            percent,
            changes,
            pages: BTreeMap::new(),
        }
    }

    /// How many bytes of the page take the change.
    fn of(&mut self, page: usize, change: usize, rng: &mut Random) -> usize {
        let (percent, changes) = (self.percent, self.changes);
        let (seen, torn) = *self.pages.entry(page).or_insert_with(|| {
            let seen = match (rng.percent(percent), rng.percent(70)) {
                (false, _) => 0,
                (true, true) => changes,
                (true, false) => rng.index(changes + 1),
            };
            let torn = if rng.percent(90) {
                PAGE
            } else {
                SECTOR * rng.index(PAGE / SECTOR)
            };
            (seen, torn)
        });
        match change + 1 {
            number if number < seen => PAGE,
            number if number == seen => torn,
            _ => 0,
        }
    }
}

/// Writes `data` page by page, of each page only the first bytes that `take` allows.
fn write_some(bytes: &mut [u8], at: usize, data: &[u8], mut take: impl FnMut(usize) -> usize) {
    let end = at + data.len();
    for page in at / PAGE..end.div_ceil(PAGE) {
        let from = at.max(page * PAGE);
        let to = end.min(page * PAGE + take(page));
        if from < to {
            bytes[from..to].copy_from_slice(&data[from - at..to - at]);
        }
    }
}

/// The length after `kept` changes; if the last of them made the file longer, perhaps half-way.
fn cut_length(lengths: &[usize], kept: usize, rng: &mut Random) -> usize {
    let now = lengths[kept];
    match kept.checked_sub(1).map(|index| lengths[index]) {
        Some(before) if before < now && rng.percent(30) => before + rng.index(now - before + 1),
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synced_file_loses_nothing_and_an_unsynced_one_everything_at_zero_percent() {
        let mut rng = Random::from_environment("file");
        let mut file = File::new(Vec::new());
        let data = vec![7; 3 * PAGE];
        file.push(1, Change::Write { at: 10, data });
        assert!(file.lose_power(0, &mut rng).is_empty());
        file.sync(1);
        assert!(
            file.lose_power(0, &mut rng).is_empty(),
            "the sync began before"
        );
        file.sync(2);
        file.push(3, Change::Truncate(5));
        assert_eq!(file.lose_power(0, &mut rng).len(), 10 + 3 * PAGE);
        assert_eq!(file.current().len(), 5);
    }

    #[test]
    fn unsynced_pages_come_and_go_alone_within_lengths_that_were() {
        let mut rng = Random::from_environment("file");
        let mut file = File::new(vec![1; 2 * PAGE]);
        let data = vec![2; 4 * PAGE];
        file.push(1, Change::Write { at: 0, data });
        let (mut mixed, mut longer) = (false, false);
        for _ in 0..200 {
            let bytes = file.lose_power(50, &mut rng);
            assert!((2 * PAGE..=4 * PAGE).contains(&bytes.len()));
            assert!(bytes[..2 * PAGE].iter().all(|byte| [1, 2].contains(byte)));
            assert!(bytes[2 * PAGE..].iter().all(|byte| [0, 2].contains(byte)));
            mixed |= bytes[0] == 1 && bytes[PAGE] == 2;
            longer |= bytes.len() > 2 * PAGE;
        }
        assert!(mixed && longer);
    }
}
