//! Chance that a seed repeats: `HALLEY_TEST_SEED` gives it back, `HALLEY_TEST_ROUNDS` says how many rounds a random test runs.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses a part"
)]

use std::time::Duration;

/// A small generator of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// From the seed in the environment, or from any; printed either way, to be given back.
    pub(crate) fn from_environment(test: &str) -> Self {
        let seed = number("HALLEY_TEST_SEED").unwrap_or_else(|| {
            let mut bytes = [0; 4];
            getrandom::fill(&mut bytes).unwrap();
            u32::from_be_bytes(bytes).into()
        });
        #[allow(
            clippy::print_stderr,
            clippy::allow_attributes,
            reason = "a failure is repeated with it; some of these tests allow it for all they have"
        )]
        {
            eprintln!("{test}: HALLEY_TEST_SEED={seed}");
        }
        Self(seed)
    }

    /// Another one for part of the work, independent of the order in which the parts are done.
    pub(crate) fn fork(&self, number: u64) -> Self {
        let mut forked = Self(self.0 ^ number.wrapping_mul(0xd605_1559_34e1_2c4d));
        forked.next();
        forked
    }

    /// Another one that depends on what was drawn before.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index below `length`.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    /// True in `percent` of all cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A time up to so many milliseconds, by the microsecond.
    pub(crate) fn millis(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.range(0, most * 1_000))
    }
}

/// How many rounds a random test runs: `HALLEY_TEST_ROUNDS`, or what is usual for it.
pub(crate) fn rounds(usual: u64) -> u64 {
    number("HALLEY_TEST_ROUNDS").unwrap_or(usual)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: {text} is not a number")),
    )
}
