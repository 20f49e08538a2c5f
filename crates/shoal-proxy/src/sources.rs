//! Where the answers of one worker come from: its part of the cache, and its upstreams.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use shoal_cache::{Cache, WorkerCache};
use shoal_policy::forwarding::OwnName;

use crate::fetch::OriginFetch;
use crate::upstream::{Standings, StickySeed, Upstreams};
use crate::worker::Worker;

/// What the sources of a worker start from.
#[derive(Clone)]
pub(crate) struct SourcesSeed {
    pub(crate) cache: Arc<Cache>,
    pub(crate) standings: Arc<Standings>,
    pub(crate) sticky_seed: StickySeed,
}

/// Where the answers of one worker come from.
pub(crate) struct Sources {
    pub(crate) cache: Rc<WorkerCache>,
    pub(crate) cache_statuses: CacheStatuses,
    pub(crate) upstreams: Rc<Upstreams>,
}

impl Sources {
    pub(crate) fn new(worker: &Rc<Worker>, seed: SourcesSeed) -> Rc<Self> {
        let upstreams = Rc::new(Upstreams::new(seed.standings, worker.names.clone(), &seed.sticky_seed));
        let origin = OriginFetch::new(worker.clone(), upstreams.clone(), OwnName::new(&worker.node_name));
        Rc::new(Self {
            cache: seed.cache.worker(Rc::new(origin)),
            cache_statuses: CacheStatuses::new(&worker.node_name),
            upstreams,
        })
    }
}

/// `Cache-Status` of what passes by the cache (RFC 9211 §2.2).
pub(crate) struct CacheStatuses {
    pub(crate) method: HeaderValue,
    pub(crate) bypass: HeaderValue,
}

impl CacheStatuses {
    fn new(node: &str) -> Self {
        // A name that is no token goes as a string (RFC 8941 §3.3).
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_token = node.starts_with(|c: char| c.is_ascii_alphabetic()) && node.chars().all(is_plain);
        let plain: String =
            node.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
        let name = if is_token { plain } else { format!("\"{plain}\"") };
        let member = |forward: &str| {
            let text = format!("{name}; fwd={forward}");
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("shoal; fwd=bypass"))
        };
        Self { method: member("method"), bypass: member("bypass") }
    }
}
