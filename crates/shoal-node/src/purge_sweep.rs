//! Checks what is cached here against purges, so that the log need not remember them for ever, and says how far that has come.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::node::Node;

/// Between two sweeps, at least.
const PAUSE: Duration = Duration::from_secs(10);
/// And so many times as long as the one before took: most of the time there is none.
const REST: u32 = 20;

/// Sweeps the cache of `node` whenever there were purges, for as long as it is polled.
pub async fn sweep(node: Arc<Node>) {
    node.cache.opened().await;
    let (mut pause, mut last) = (PAUSE, None::<Instant>);
    loop {
        if node.cache.needs_sweep(last.map(|last| last.elapsed())) {
            let began = Instant::now();
            last = Some(began);
            let checked = node.cache.sweep().await;
            node.swept_seq.store(checked, Ordering::Relaxed);
            node.gossip.set_checked_seq(checked);
            pause = PAUSE.max(began.elapsed() * REST);
        }
        tokio::time::sleep(pause).await;
    }
}
