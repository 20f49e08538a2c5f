//! What this node knows of the purges it was asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of purges, for `/metrics`.
#[derive(Debug, Default)]
pub struct PurgeFigures {
    purges: AtomicU64,
    acknowledged: AtomicU64,
    waited_us: AtomicU64,
    refused: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeCounts {
    /// Purges that are in the log.
    pub purges: u64,
    /// Of these, those of which it was known, while the caller waited, that no node serves what they forget.
    pub acknowledged: u64,
    /// What these took together, from the request to the last acknowledgement.
    pub waited: Duration,
    /// Purges that were refused, since too many were asked for.
    pub refused: u64,
}

impl PurgeFigures {
    /// One was refused for its haste.
    pub fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A purge is in the log; `waited` = how long it took until no node served what it forgets, if that was awaited.
    pub fn note(&self, waited: Option<Duration>) {
        self.purges.fetch_add(1, Ordering::Relaxed);
        if let Some(waited) = waited {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
            self.waited_us.fetch_add(us, Ordering::Relaxed);
        }
    }

    /// The counters now.
    pub fn counts(&self) -> PurgeCounts {
        PurgeCounts {
            purges: self.purges.load(Ordering::Relaxed),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            waited: Duration::from_micros(self.waited_us.load(Ordering::Relaxed)),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}
