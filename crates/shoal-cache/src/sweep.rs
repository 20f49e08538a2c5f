//! All that is stored here, checked against purges: what was purged goes, and the log need not remember what everybody has
//! checked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use shoal_policy::cache::forgetting::is_worthwhile;
use tokio::task::spawn_blocking;

use crate::node::Cache;

/// So many objects in memory are checked between two pauses.
const AT_ONCE: usize = 1024;
/// A pause.
const PAUSE: Duration = Duration::from_millis(1);

impl Cache {
    /// There were enough purges that not all was checked against that is stored here, or one long ago: `since` is when
    /// [`Self::sweep`] was called last.
    pub fn needs_sweep(&self, since: Option<Duration>) -> bool {
        let unchecked = self.purges.recorded() - self.swept_records.load(Ordering::Relaxed);
        is_worthwhile(usize::try_from(unchecked).unwrap_or(usize::MAX), since)
    }

    /// Checks all that is stored against the purges known now, at its leisure. Answers the log index up to which that is
    /// done. What the disk does not say of it after a crash is older there than it could be, and asked about once.
    pub async fn sweep(self: &Arc<Self>) -> u64 {
        // These first: tables read later know at least as much.
        let (records, applied) = (self.purges.recorded(), self.purges.applied());
        let cache = self.clone();
        match spawn_blocking(move || cache.sweep_stored(applied)).await {
            Ok(gone) => {
                self.swept_records.fetch_max(records, Ordering::Relaxed);
                tracing::debug!(applied, gone, "what is stored was checked against purges");
                applied
            }
            // It has panicked, and has said so.
            Err(_) => 0,
        }
    }

    fn sweep_stored(&self, applied: u64) -> usize {
        let (mut seen, mut gone) = (0, 0);
        self.store.each(|object| {
            if self.purges.check(object).is_none() {
                self.store.remove(object);
                gone += 1;
            }
            seen += 1;
            if seen % AT_ONCE == 0 {
                sleep(PAUSE);
            }
        });
        gone + self.disk.as_ref().map_or(0, |disk| disk.sweep(&self.purges, applied))
    }
}
