//! Connections of all workers, and the way of a new one to the worker that has the fewest.
//!
//! The kernel chooses the worker of a connection by a hash. Over many short connections that is even; of few long ones one
//! worker may get twice its share (64 over 4: a quarter more in the median, 1.75 times in the worst of 60 draws; 17 over 4:
//! up to 2.35 times). So a connection moves once, right after it was accepted and before a byte of it was read, and then
//! lives where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use shoal_policy::balance::better_worker;

use crate::metrics;

/// How many connections each worker has.
pub(crate) struct Spread {
    workers: Vec<Seats>,
    /// Connections that all workers may have together.
    most: Option<usize>,
}

#[derive(Default)]
struct Seats {
    open: AtomicUsize,
    coming: AtomicUsize,
}

impl Spread {
    pub(crate) fn over(workers: usize, most: Option<usize>) -> Arc<Self> {
        Arc::new(Self { workers: (0..workers).map(|_| Seats::default()).collect(), most })
    }

    /// A worker that has clearly fewer than `here`.
    pub(super) fn better_than(&self, here: usize) -> Option<usize> {
        better_worker(here, (0..self.workers.len()).map(|worker| self.open(worker)))
    }

    /// Connections of `worker`, those on their way to it included.
    pub(crate) fn open(&self, worker: usize) -> usize {
        self.workers[worker].open.load(SeqCst) + self.coming(worker)
    }

    /// More connections than there may be, the newest included.
    pub(super) fn is_overfull(&self) -> bool {
        self.room().is_some_and(|(open, most)| open > most)
    }

    /// Connections of all workers, and how many they may have; `None` = as many as their listeners.
    pub(crate) fn room(&self) -> Option<(usize, usize)> {
        self.most.map(|most| ((0..self.workers.len()).map(|worker| self.open(worker)).sum(), most))
    }

    /// Connections on their way to `worker`.
    pub(crate) fn coming(&self, worker: usize) -> usize {
        self.workers[worker].coming.load(SeqCst)
    }

    /// Appends the figures as Prometheus text.
    pub(crate) fn render(&self, out: &mut String) {
        metrics::head(out, "shoal_worker_connections", "gauge", "Connections that a worker has open.");
        for worker in 0..self.workers.len() {
            let labels = format!("worker=\"{worker}\"");
            metrics::line(out, "shoal_worker_connections", &labels, self.open(worker) as u64);
        }
    }
}

/// A connection's place among those of its worker, or among those on their way to it.
pub(crate) struct Seat {
    spread: Arc<Spread>,
    worker: usize,
    is_coming: bool,
}

impl Seat {
    /// Of a connection that `worker` serves.
    pub(super) fn take(spread: &Arc<Spread>, worker: usize) -> Self {
        Self::of(spread, worker, false)
    }

    /// Of a connection on its way to `worker`.
    pub(super) fn reserve(spread: &Arc<Spread>, worker: usize) -> Self {
        Self::of(spread, worker, true)
    }

    fn of(spread: &Arc<Spread>, worker: usize, is_coming: bool) -> Self {
        let seat = Self { spread: spread.clone(), worker, is_coming };
        // In one order with the word to close: either whoever hands over sees that, or the worker that ends sees this.
        seat.count().fetch_add(1, SeqCst);
        seat
    }

    fn count(&self) -> &AtomicUsize {
        let seats = &self.spread.workers[self.worker];
        if self.is_coming { &seats.coming } else { &seats.open }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.count().fetch_sub(1, SeqCst);
    }
}
