//! Chance that a seed repeats.

/// A small generator of random numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// From the seed in the environment, or from any.
    pub(crate) fn from_environment() -> Self {
        let given = std::env::var("HALLEY_TEST_SEED").ok();
        let seed = given.map_or_else(halley::clock::now_ms, |seed| seed.parse().unwrap());
        #[expect(clippy::print_stdout, reason = "a failure is repeated with it")]
        {
            println!("HALLEY_TEST_SEED={seed}");
        }
        Self(seed)
    }

    /// Another one for part of the work, independent of the order in which the parts are done.
    pub(crate) fn fork(&self, number: u64) -> Self {
        let mut forked = Self(self.0 ^ number.wrapping_mul(0xd605_1559_34e1_2c4d));
        forked.next();
        forked
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

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        let count = u64::try_from(all.len()).unwrap();
        all[usize::try_from(self.below(count)).unwrap()]
    }
}

/// How many rounds a random test runs: `HALLEY_TEST_ROUNDS`, or what is usual for it.
pub(crate) fn rounds(usual: u64) -> u64 {
    let given = std::env::var("HALLEY_TEST_ROUNDS").ok();
    given.map_or(usual, |rounds| rounds.parse().unwrap())
}
