//! How long those took who were asked for objects.

use std::time::Duration;

use crate::cell::Cell;

/// Upper bounds of the buckets, µs; one more has none.
pub const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// From a question to the head of its answer: how many took at most so long, and all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchTimes {
    /// Those that took at most as long as [`BOUNDS_US`] says at this place, and longer than at the one before; the last
    /// has no bound.
    pub buckets: [u64; BUCKETS],
    /// All of them, µs.
    pub sum_us: u64,
}

impl FetchTimes {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The same, as one thread counts it.
#[derive(Debug, Default)]
pub(crate) struct FetchTimeCells {
    buckets: [Cell; BUCKETS],
    sum_us: Cell,
}

impl FetchTimeCells {
    pub(crate) fn note(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < took_us)].count();
        self.sum_us.add(took_us);
    }

    pub(crate) fn add_to(&self, sum: &mut FetchTimes) {
        for (sum, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.read();
        }
        sum.sum_us += self.sum_us.read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_land_in_their_buckets() {
        let cells = FetchTimeCells::default();
        for took_us in [0, 250, 251, 30_000_001] {
            cells.note(Duration::from_micros(took_us));
        }
        let mut times = FetchTimes::default();
        cells.add_to(&mut times);
        cells.add_to(&mut times);
        assert_eq!((times.buckets[0], times.buckets[1], times.buckets[BUCKETS - 1]), (4, 2, 2));
        assert_eq!((times.count(), times.sum_us), (8, 2 * 30_000_502));
    }
}
