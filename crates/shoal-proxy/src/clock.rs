//! Milliseconds since the start of the node, read without a system call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often workers move the clock on: what it says is at most this much behind.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A coarse clock for timeouts, shared by all workers.
pub(crate) struct Clock {
    start: Instant,
    now_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        // Not zero: states use 0 for "never".
        Self { start: Instant::now(), now_ms: AtomicU64::new(1) }
    }

    /// Milliseconds, up to a [`TICK`] behind.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Reads the system's clock; answers the new time.
    pub(crate) fn tick(&self) -> u64 {
        let now_ms = self.start.elapsed().as_millis() as u64 + 1;
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
    }
}
