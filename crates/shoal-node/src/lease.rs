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
/// A lease outlives so many elections: the death of a leader is no reason to ask the origins about everything.
const ELECTIONS: u32 = 3;

/// Keeps the lease of `node`, for as long as it is polled.
pub async fn keep(node: std::sync::Arc<Node>) {
    let length = node.log.timings().election_max * ELECTIONS;
    let mut held_since: Option<Instant> = None;
    loop {
        let (asked, asked_ms) = (Instant::now(), now_ms());
        if is_up_to_date(&node.log, length).await {
            if held_since.is_none() {
                tracing::info!("every purge is known here: hits are served");
            }
            held_since = Some(asked);
            node.cache.set_lease(asked_ms + u64::try_from(length.as_millis()).unwrap_or(u64::MAX / 2));
            tokio::time::sleep(RENEW_INTERVAL).await;
            continue;
        }
        if held_since.is_some_and(|since| since.elapsed() >= length) {
            tracing::warn!("purges may be missing here: hits go by the purge_unverified of their routes");
            held_since = None;
            node.cache.set_lease(0);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Everything that was committed before this was asked is applied here, and has reached the cache.
async fn is_up_to_date(log: &ConfigLog, patience: Duration) -> bool {
    let Ok(committed) = log.try_read_index().await else { return false };
    let mut applied = log.applied();
    let caught_up = applied.wait_for(|index| *index >= committed);
    matches!(tokio::time::timeout(patience, caught_up).await, Ok(Ok(_)))
}
