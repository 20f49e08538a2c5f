//! The lease under which this node serves what it has cached: a majority has said a moment ago how far the log is
//! committed, and so much is applied here.
//!
//! Without one, a purge may have been acknowledged that this node has not heard of; what becomes of hits then is each
//! route's to say (`purge_unverified`). Two clocks end a lease: it is written down in wall-clock time, which goes on while
//! the process is stopped or the machine sleeps, and it is taken back by the steady clock, which nobody can set.

use std::time::{Duration, Instant};

use shoal_configlog::ConfigLog;

use crate::node::{Node, now_ms};

/// Between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// Between two tries while nobody answers.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How long a lease is good from the moment it was asked for. Equal on every node, since whoever waits for a purge has to
/// know when the leases of others have run out. It outlives an election of the slowest timings of a region and the next
/// one's beginning: the death of a leader is seldom a reason to ask the origins about everything.
const LENGTH: Duration = Duration::from_millis(3600);
/// When every lease has run out that was good at the beginning: clocks may differ in their pace by 1 %.
pub const LAPSE: Duration = Duration::from_millis(3640);

/// Keeps the lease of `node`, for as long as it is polled.
pub async fn keep(node: std::sync::Arc<Node>) {
    let mut held_since: Option<Instant> = None;
    loop {
        let (asked, asked_ms) = (Instant::now(), now_ms());
        if is_up_to_date(&node.log).await {
            if held_since.is_none() {
                tracing::info!("every purge is known here: hits are served");
            }
            held_since = Some(asked);
            node.cache.set_lease(asked_ms + LENGTH.as_millis() as u64);
            tokio::time::sleep(RENEW_INTERVAL).await;
            continue;
        }
        if held_since.is_some_and(|since| since.elapsed() >= LENGTH) {
            tracing::warn!("purges may be missing here: hits go by the purge_unverified of their routes");
            held_since = None;
            node.cache.set_lease(0);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Everything that was committed before this was asked is applied here, and has reached the cache.
async fn is_up_to_date(log: &ConfigLog) -> bool {
    let Ok(committed) = log.try_read_index().await else { return false };
    let mut applied = log.applied();
    let caught_up = applied.wait_for(|index| *index >= committed);
    matches!(tokio::time::timeout(LENGTH, caught_up).await, Ok(Ok(_)))
}
