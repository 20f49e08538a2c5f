//! How many requests a second come in for upstreams whose endpoints stand in several regions, on the whole node.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use shoal_model::UpstreamId;

/// How long requests are counted for one figure, ms.
const WINDOW_MS: u64 = 1_000;

/// Those of all upstreams that need to know.
#[derive(Default)]
pub(crate) struct Offers(Mutex<FxHashMap<Arc<str>, Arc<Offered>>>);

impl Offers {
    pub(super) fn of(&self, upstream: &Arc<str>) -> Arc<Offered> {
        self.lock().entry(upstream.clone()).or_default().clone()
    }

    /// Requests a second by upstream. Those that no worker knows any more are forgotten.
    pub(crate) fn rates(&self) -> Vec<(UpstreamId, u32)> {
        let mut offers = self.lock();
        offers.retain(|_, offered| Arc::strong_count(offered) > 1);
        offers.iter().map(|(name, offered)| (UpstreamId::of(name), offered.rate.load(Relaxed))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<Arc<str>, Arc<Offered>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests of one upstream. All workers add to it: a share of one would say little of the node.
#[derive(Debug, Default)]
pub(super) struct Offered {
    count: AtomicU64,
    since_ms: AtomicU64,
    rate: AtomicU32,
}

impl Offered {
    pub(super) fn count(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// Requests a second; whoever comes first after a window begins the next one.
    pub(super) fn rate(&self, now_ms: u64) -> u32 {
        let since_ms = self.since_ms.load(Relaxed);
        let elapsed_ms = now_ms.saturating_sub(since_ms);
        if elapsed_ms >= WINDOW_MS
            && self.since_ms.compare_exchange(since_ms, now_ms, Relaxed, Relaxed).is_ok()
        {
            let rate = self.count.swap(0, Relaxed).saturating_mul(1000) / elapsed_ms;
            self.rate.store(u32::try_from(rate).unwrap_or(u32::MAX), Relaxed);
        }
        self.rate.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_whole_window() {
        let offers = Offers::default();
        let offered = offers.of(&"app".into());
        let come = |count| (0..count).for_each(|_| offered.count());
        come(30);
        assert_eq!(offered.rate(500), 0);
        assert_eq!(offered.rate(1_000), 30);
        come(50);
        assert_eq!(offered.rate(1_900), 30);
        assert_eq!(offered.rate(2_000), 50);
        come(60);
        assert_eq!(offered.rate(5_000), 20);
        assert_eq!(offers.rates(), [(UpstreamId::of("app"), 20)]);
        drop(offered);
        assert_eq!(offers.rates(), []);
    }
}
