//! What the listeners of one worker share: who is here, who comes, and who had better go to another worker.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::spread::Spread;
use crate::connections::Connections;

/// What the listeners of one worker share.
pub(crate) struct Lobby {
    /// Of the worker, counted from 0.
    pub(super) number: usize,
    pub(crate) spread: Arc<Spread>,
    pub(crate) connections: Rc<Connections>,
    /// Connections accepted in this tick, and in the one before.
    arrivals: Cell<(usize, usize)>,
}

impl Lobby {
    pub(crate) fn new(number: usize, spread: Arc<Spread>) -> Rc<Self> {
        Rc::new(Self { number, spread, connections: Rc::default(), arrivals: Cell::default() })
    }

    /// How many are here, or still on their way from another worker.
    pub(crate) fn occupants(&self) -> usize {
        self.connections.len() + self.spread.coming(self.number)
    }

    /// A connection was accepted here.
    pub(super) fn count_arrival(&self) {
        let (now, before) = self.arrivals.get();
        self.arrivals.set((now + 1, before));
    }

    /// More connections came in the last tick than there are: they live so shortly that the kernel spreads them well.
    pub(super) fn has_short_connections(&self) -> bool {
        self.arrivals.get().1 > self.spread.open(self.number)
    }

    /// A tick is over.
    pub(crate) fn turn(&self) {
        let (now, _) = self.arrivals.get();
        self.arrivals.set((0, now));
    }
}
