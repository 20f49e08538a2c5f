//! The part of the cache that belongs to one worker thread.

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::node::Cache;
use crate::seam::{Answer, Bypass, CacheRequest, Fetch, Lookup};

/// A fill that a peer asked for, on its way to a worker.
pub struct FillJob {}

/// The part of the cache that belongs to one worker thread: its origin, its peer connections, its hottest objects.
pub struct WorkerCache {
    pub(crate) cache: Arc<Cache>,
    pub(crate) fetch: Rc<dyn Fetch>,
}

impl WorkerCache {
    pub(crate) fn new(cache: Arc<Cache>, fetch: Rc<dyn Fetch>) -> Rc<Self> {
        Rc::new(Self { cache, fetch })
    }

    /// The fast path: what the store of this node says, without waiting.
    pub fn hit(&self, _request: &CacheRequest<'_>) -> Lookup {
        Lookup::Bypass(Bypass::Request)
    }

    /// Everything [`Self::hit`] left open: single flight, peers, validation, fill.
    pub async fn answer(self: &Rc<Self>, _request: CacheRequest<'_>, _lookup: Lookup) -> Answer {
        let _ = (&self.cache, &self.fetch);
        Answer::Direct { cache_status: HeaderValue::from_static("shoal; fwd=bypass") }
    }

    /// Forgets what an unsafe request changed, on the owners too. Call it after the origin's answer to every
    /// [`Bypass::Method`] request and before the downstream is answered; it decides by `status` and the response fields.
    pub async fn invalidate_after(&self, _request: &CacheRequest<'_>, _status: StatusCode, _fields: &HeaderMap) {}

    /// Starts a fill that a peer asked for. Returns at once; the fill runs as a local task of this worker.
    pub fn run_job(self: &Rc<Self>, _job: FillJob) {}
}
