//! What is kept of heads that were read, until others have taken its place.

use std::cell::Cell;

/// Of so many heads that differ from the one that is kept, one takes its place.
pub(super) const PATIENCE: u8 = 16;

/// Keeps what is worth knowing of one head.
#[derive(Debug)]
pub(super) struct Keeper<T> {
    kept: Option<Box<T>>,
    /// Heads since then that were not the same.
    differed: Cell<u8>,
}

impl<T> Keeper<T> {
    /// What is kept.
    pub fn kept(&self) -> Option<&T> {
        self.kept.as_deref()
    }

    /// Counts a head that is not the same; answers whether it is time that one of those takes its place.
    pub fn note_difference(&self) -> bool {
        self.differed.set(self.differed.get().saturating_add(1));
        self.differed.get() >= PATIENCE
    }

    /// Counts a head that was not known; answers whether it is to be kept. Of those before anything is kept it is the
    /// one that is number `first`.
    pub fn wants(&self, first: u8) -> bool {
        self.note_difference() || self.kept.is_none() && self.differed.get() >= first
    }

    /// From now on it is this.
    pub fn keep(&mut self, kept: T) {
        *self = Self { kept: Some(Box::new(kept)), differed: Cell::new(0) };
    }
}

impl<T> Default for Keeper<T> {
    fn default() -> Self {
        Self { kept: None, differed: Cell::new(0) }
    }
}
