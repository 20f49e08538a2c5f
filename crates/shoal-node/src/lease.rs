//! The lease under which this node serves what it has cached: a majority has said a moment ago how far the log is
//! committed, and so much is applied here.
//!
//! Without one, a purge may have been acknowledged that this node has not heard of; what becomes of hits then is each
//! route's to say (`purge_unverified`). Two clocks end a lease: it is written down in wall-clock time, which goes on while
//! the process is stopped or the machine sleeps, and it is taken back by the steady clock, which nobody can set. Why others
//! know when it has run out: [`shoal_policy::cache::lease`].

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_configlog::ConfigLog;
use shoal_policy::cache::lease::{lease_said, outlasts};

use crate::node::{Node, now_ms};

/// Between two renewals.
const RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// Between two tries while nobody answers.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Keeps the lease of `node`, for as long as it is polled.
pub async fn keep(node: Arc<Node>) {
    warn_of_elections(&node);
    // Until when by the steady clock.
    let mut held: Option<Instant> = None;
    loop {
        let (asked, asked_ms, length) = (Instant::now(), now_ms(), length(&node));
        let mut asking = pin!(is_up_to_date(&node.log, length));
        let is_known = tokio::select! {
            biased;
            // Whoever is asked may take his time.
            () = run_out(held) => {
                tracing::warn!("purges may be missing here: hits go by the purge_unverified of their routes");
                held = None;
                node.cache.set_lease(0);
                asking.await
            }
            is_known = &mut asking => is_known,
        };
        if is_known {
            if held.is_none() {
                tracing::info!(lease = ?length, "every purge is known here: hits are served");
            }
            held = Some(asked + length);
            node.cache.set_lease(asked_ms + length.as_millis() as u64);
            tokio::time::sleep(RENEW_INTERVAL).await;
        } else {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

/// Resolves when the lease that lasts until `held` has run out; without one, never.
async fn run_out(held: Option<Instant>) {
    match held {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// How long it may be now: as long as this node was told, but no longer than it has said in the log, for others wait no
/// longer than that.
fn length(node: &Node) -> Duration {
    let said = node.log.with_state(|state| state.nodes.get(&node.id()).map(|member| member.purge_lease_ms));
    node.settings.purge_lease.min(lease_said(said.unwrap_or(0)))
}

/// Everything that was committed before this was asked is applied here, and has reached the cache. Later than `length` it
/// would be of no use.
async fn is_up_to_date(log: &ConfigLog, length: Duration) -> bool {
    let asking = async {
        let committed = log.try_read_index().await.ok()?;
        log.applied().wait_for(|index| *index >= committed).await.ok().map(drop)
    };
    matches!(tokio::time::timeout(length, asking).await, Ok(Some(())))
}

fn warn_of_elections(node: &Node) {
    let (lease, election) = (node.settings.purge_lease, node.log.timings().silence());
    if !outlasts(lease, RENEW_INTERVAL, election) {
        tracing::warn!(
            ?lease,
            ?election,
            "the lease of the cache is shorter than an election and a renewal: whenever a leader dies, hits go by the \
             purge_unverified of their routes for a moment; a longer --purge-lease prevents it"
        );
    }
}
