//! How many fills of one upstream this node has under way: what is more waits, for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use shoal_model::view::UpstreamView;
use shoal_policy::failure::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Fills of one upstream that wait on one node: each of them is another object, and holds the requests for it.
const MAX_WAITING: usize = 10_000;

/// The fills under way, by upstream.
#[derive(Default)]
pub(crate) struct FillLimits {
    upstreams: Mutex<FxHashMap<Arc<str>, Arc<Limit>>>,
}

struct Limit {
    most: usize,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A fill that is under way, until it is dropped.
pub(crate) struct UnderWay {
    _limit: Arc<Limit>,
    _place: OwnedSemaphorePermit,
}

/// Somebody waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FillLimits {
    /// Waits until one more fill of `upstream` may be under way.
    pub(crate) async fn begin(&self, upstream: &UpstreamView) -> Result<UnderWay, Failure> {
        let limit = self.limit(upstream);
        let under_way = |place| UnderWay { _limit: limit.clone(), _place: place };
        if let Ok(place) = limit.places.clone().try_acquire_owned() {
            return Ok(under_way(place));
        }
        let waiting = Waiting(&limit.waiting);
        if limit.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            return Err(Failure::Overflow);
        }
        let place = timeout(upstream.fill_queue_timeout, limit.places.clone().acquire_owned()).await;
        drop(waiting);
        match place {
            Ok(Ok(place)) => Ok(under_way(place)),
            Ok(Err(_)) | Err(_) => Err(Failure::Overflow),
        }
    }

    fn limit(&self, upstream: &UpstreamView) -> Arc<Limit> {
        let mut upstreams = self.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(limit) = upstreams.get(&upstream.name).filter(|limit| limit.most == upstream.max_fills) {
            return limit.clone();
        }
        // Those that the site does not know any more go once nothing of them is under way.
        upstreams.retain(|_, limit| Arc::strong_count(limit) > 1);
        let most = upstream.max_fills;
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let limit = Arc::new(Limit { most, places, waiting: AtomicUsize::new(0) });
        upstreams.insert(upstream.name.clone(), limit.clone());
        limit
    }
}
