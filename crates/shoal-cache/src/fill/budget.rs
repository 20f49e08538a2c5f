//! What all running fills of a node may hold together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that running fills hold. Beyond the limit they are passed on at the pace of their readers and not stored: a
/// crowd of large misses is no reason to run out of memory.
pub(crate) struct FillBudget {
    held_bytes: AtomicU64,
    most_bytes: u64,
}

impl FillBudget {
    pub(crate) const fn new(most_bytes: u64) -> Self {
        Self { held_bytes: AtomicU64::new(0), most_bytes }
    }

    /// So many more are held; `false` = that is too much.
    pub(super) fn take(&self, bytes: u64) -> bool {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.most_bytes
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
