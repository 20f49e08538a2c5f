//! A connection's place among those of its endpoint.

use std::cell::Cell;
use std::rc::Rc;

/// A connection's place among those of its endpoint, until dropped.
pub(crate) struct Occupied(Rc<Cell<usize>>);

impl Occupied {
    /// One more of `connections`.
    pub(super) fn one_of(connections: &Rc<Cell<usize>>) -> Self {
        connections.set(connections.get() + 1);
        Self(connections.clone())
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
