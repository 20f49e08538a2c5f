//! Purges of what requests have changed where a node has not confirmed to have forgotten it: it serves nothing of that any more
//! once it has applied the purge, or its lease has run out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cache::UnconfirmedChange;
use shoal_model::state::{PurgeKind, PurgeScope};
use shoal_policy::tcp::arrival;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::node::Node;
use crate::purge_trail::PurgeTrail;
use crate::purging::PurgeOrder;

/// Changes on their way here; of those beyond, nodes are reminded.
pub const MAX_WAITING: usize = 4096;
/// URLs that are purged in a second, and at once; of those beyond, nodes are reminded. Each is remembered by every node for
/// long.
const URLS_PER_SECOND: u32 = 1000;
/// Purges under way.
const MAX_RUNNING: usize = 256;
/// Between two of them: what changes meanwhile goes into one.
const GATHER: Duration = Duration::from_millis(10);
/// How long a purge is waited for: longer than any lease.
const WAIT: Duration = Duration::from_secs(10);

/// Carries them out, for as long as it is polled.
pub async fn serve(node: Arc<Node>, mut changes: mpsc::Receiver<UnconfirmedChange>) {
    let places = Arc::new(Semaphore::new(MAX_RUNNING));
    let (started, mut rate) = (Instant::now(), 0);
    while let (Some(first), Ok(place)) = (changes.recv().await, places.clone().acquire_owned().await) {
        let mut waiting = Some(first);
        let mut batch = Vec::new();
        while let Some(change) = waiting {
            let now_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            // Without a lease there is no quorum in sight that could purge anything. A process that has handed over has none.
            let may_purge = node.cache.has_lease() || node.log.is_passed_on();
            if may_purge && admits(&mut rate, now_us, change.keys.len()) {
                batch.push(change);
            }
            waiting = changes.try_recv().ok();
        }
        if !batch.is_empty() {
            tokio::spawn(purge(node.clone(), batch, place));
        }
        tokio::time::sleep(GATHER).await;
    }
    // The cache ends after the node does.
    std::future::pending().await
}

fn admits(rate: &mut u64, now_us: u64, urls: usize) -> bool {
    let mut next = *rate;
    let admitted = (0..urls).all(|_| match arrival::admit(next, now_us, URLS_PER_SECOND) {
        Some(state) => {
            next = state;
            true
        }
        None => false,
    });
    if admitted {
        *rate = next;
    }
    admitted
}

async fn purge(node: Arc<Node>, batch: Vec<UnconfirmedChange>, place: OwnedSemaphorePermit) {
    let mut keys: Vec<u128> = batch.iter().flat_map(|change| change.keys.iter().map(|key| key.0)).collect();
    keys.sort_unstable();
    keys.dedup();
    let (scopes, kind) = (keys.into_iter().map(PurgeScope::Url).collect(), PurgeKind::Hard);
    let order = PurgeOrder {
        scopes,
        kind,
        is_limited: false,
        request_id: String::new(),
        wait: Some(WAIT),
        trail: PurgeTrail::default(),
    };
    match node.purge(order).await {
        // Whoever asked may have gone away.
        Ok(purged) if purged.is_complete => batch.into_iter().for_each(|change| _ = change.done.send(())),
        Ok(purged) => tracing::warn!(seq = purged.seq, "a node may serve for a while what has changed"),
        Err(error) => tracing::warn!(%error, "what has changed is not purged: nodes are reminded of it"),
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_purged_whole_or_not_at_all() {
        let mut rate = 0;
        let admitted: Vec<bool> = [600, 600, 400, 1].iter().map(|urls| admits(&mut rate, 0, *urls)).collect();
        assert_eq!(admitted, [true, false, true, false]);
        assert!(admits(&mut rate, 500_000, 500));
    }
}
