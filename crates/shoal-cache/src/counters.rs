//! What the cache has done since the start.

use crate::cell::Cell;
use crate::fetch_times::{FetchTimeCells, FetchTimes};

/// Figures since the start of the node; `objects`, `bytes`, `budget_bytes` and those of purges are of now, as are those of
/// what is on disk; `disk_open_ms` is how long it took to read its lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the operator's API, which documents them")]
pub struct Counters {
    pub objects: u64,
    pub bytes: u64,
    pub budget_bytes: u64,
    pub hits: u64,
    pub misses: u64,
    pub stale: u64,
    pub coalesced: u64,
    pub peer_hits: u64,
    pub peer_errors: u64,
    pub origin_fetches: u64,
    pub replicas_sent: u64,
    pub replicas_received: u64,
    pub replicas_refused: u64,
    pub evictions: u64,
    pub purge_seq: u64,
    pub purge_records: u64,
    pub purge_floor: u64,
    pub origin_times: FetchTimes,
    pub peer_times: FetchTimes,
    pub disk_objects: u64,
    pub disk_bytes: u64,
    pub disk_budget_bytes: u64,
    pub disk_hits: u64,
    pub disk_read_bytes: u64,
    pub disk_written: u64,
    pub disk_dropped: u64,
    pub disk_evictions: u64,
    pub disk_damaged: u64,
    pub disk_errors: u64,
    pub disk_open_ms: u64,
}

/// Figures of one writer at a time per cell: each worker has its own, the control runtime shares one.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) hits: Cell,
    pub(crate) misses: Cell,
    pub(crate) stale: Cell,
    pub(crate) coalesced: Cell,
    pub(crate) peer_hits: Cell,
    pub(crate) peer_errors: Cell,
    pub(crate) origin_fetches: Cell,
    pub(crate) replicas_sent: Cell,
    pub(crate) replicas_received: Cell,
    /// For want of room.
    pub(crate) replicas_refused: Cell,
    /// Heads of origins.
    pub(crate) origin_times: FetchTimeCells,
    /// Heads of peers, whatever they said.
    pub(crate) peer_times: FetchTimeCells,
    pub(crate) disk_hits: Cell,
}

impl Cells {
    pub(crate) fn add_to(&self, sum: &mut Counters) {
        sum.hits += self.hits.read();
        sum.misses += self.misses.read();
        sum.stale += self.stale.read();
        sum.coalesced += self.coalesced.read();
        sum.peer_hits += self.peer_hits.read();
        sum.peer_errors += self.peer_errors.read();
        sum.origin_fetches += self.origin_fetches.read();
        sum.replicas_sent += self.replicas_sent.read();
        sum.replicas_received += self.replicas_received.read();
        sum.replicas_refused += self.replicas_refused.read();
        self.origin_times.add_to(&mut sum.origin_times);
        self.peer_times.add_to(&mut sum.peer_times);
        sum.disk_hits += self.disk_hits.read();
    }
}
