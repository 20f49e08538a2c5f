//! An unsafe request on its way to the origin, and what of it is to be forgotten, however it ends.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Method, StatusCode};
use shoal_policy::cache::invalidation::{invalidated_keys, is_safe};
use shoal_policy::cache::key::ObjectKey;
use tokio::time::sleep;

use crate::clock::now_ms;
use crate::node::Cache;

/// When what a given-up request may have changed is forgotten again, each time after the one before: nobody sees when the
/// origin is done with it.
const ECHOES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(9)];

/// An unsafe request that the origin has not answered yet (RFC 9111 §4.4). Dropping it says that nobody waits for the
/// answer any more: what it may change is forgotten here at once and elsewhere soon, and again 1 s and 10 s later.
#[must_use = "dropping it forgets what the request may have changed"]
pub struct PendingChange {
    cache: Arc<Cache>,
    method: Method,
    /// The URL, as in the text of its key.
    target: String,
    sent: Sent,
    is_settled: bool,
}

/// When an unsafe request was sent, and what was known then.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Unix milliseconds.
    pub(crate) request_ms: u64,
    /// The log index applied.
    pub(crate) fill_seq: u64,
    /// When the resource changed last, once the answer is there, Unix milliseconds; `None` = also by somebody else
    /// meanwhile: nobody knows what came first.
    pub(crate) changed_ms: Option<u64>,
}

impl PendingChange {
    pub(crate) fn new(cache: &Arc<Cache>, method: &Method, target: String) -> Self {
        let sent = Sent { request_ms: now_ms(), fill_seq: cache.purges.applied(), changed_ms: None };
        Self { cache: cache.clone(), method: method.clone(), target, sent, is_settled: is_safe(method) }
    }

    /// The origin answered: returns when what it changed is forgotten on every node, or purged for those that cannot be
    /// reached; some seconds later at most. A status that is no success or redirection changes nothing. Call it before the
    /// downstream is answered.
    pub async fn settle(mut self, status: StatusCode, fields: &HeaderMap) -> Sent {
        self.is_settled = true;
        let texts = invalidated_keys(&self.method, &self.target, status, fields);
        let keys: Vec<ObjectKey> = texts.iter().flat_map(|text| self.cache.keys_of(text)).collect();
        let mut sent = self.sent;
        if let Some(target) = keys.first() {
            let is_overtaken = self.cache.changed_since(*target, sent.request_ms);
            keys.iter().for_each(|key| _ = self.cache.forget(*key));
            sent.changed_ms = Some(self.cache.last_change_ms(*target)).filter(|_| !is_overtaken);
        }
        self.cache.tell_everywhere(keys).await;
        sent
    }

    /// The origin did not answer, but it may have seen the request: as [`Self::settle`], of the target alone.
    pub async fn assume(mut self) {
        if !std::mem::replace(&mut self.is_settled, true) {
            let keys: Vec<ObjectKey> = self.cache.keys_of(&self.target).collect();
            keys.iter().for_each(|key| _ = self.cache.forget(*key));
            self.cache.tell_everywhere(keys).await;
        }
    }

    /// The origin never saw the request.
    pub fn spare(mut self) {
        self.is_settled = true;
    }
}

impl Drop for PendingChange {
    fn drop(&mut self) {
        if !self.is_settled {
            self.cache.keys_of(&self.target).for_each(|key| abandon(&self.cache, key));
        }
    }
}

/// Nobody waits here: other nodes are told as they are reminded, many keys at once.
fn abandon(cache: &Arc<Cache>, key: ObjectKey) {
    cache.forget_soon(key);
    let Ok(place) = cache.abandoned.clone().try_acquire_owned() else { return };
    let weak = Arc::downgrade(cache);
    cache.control.spawn(async move {
        for pause in ECHOES {
            sleep(pause).await;
            let Some(cache) = weak.upgrade() else { return };
            cache.forget_soon(key);
        }
        drop(place);
    });
}
