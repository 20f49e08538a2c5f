//! Numbers that nobody outside can foresee, for decisions that want chance.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// One worker's source (SplitMix64).
pub(crate) struct Entropy(Cell<u64>);

impl Entropy {
    pub(crate) fn new() -> Self {
        Self(Cell::new(RandomState::new().hash_one(0)))
    }

    /// The next number.
    pub(crate) fn draw(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
