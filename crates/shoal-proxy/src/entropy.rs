//! Numbers that are no secrets: ids, and choices among equals.

use std::cell::Cell;

/// A sequence of numbers (xorshift64*).
pub(crate) struct Entropy(Cell<u64>);

impl Entropy {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed | 1))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Another one in every process, as far as the machine can tell.
pub(crate) fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    // Only ids and choices among equals hang on it.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => std::process::id().into(),
    }
}
