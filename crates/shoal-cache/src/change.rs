//! An unsafe request on its way to the origin, and what of it is to be forgotten, however it ends.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Method, StatusCode};
use shoal_policy::cache::invalidation::{invalidated_urls, is_safe};
use tokio::time::sleep;

use crate::clock::now_ms;
use crate::node::Cache;
use crate::seam::Change;

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
        let config = self.cache.settings.config.load_full();
        let urls = invalidated_urls(&config, &self.method, &self.target, status, fields);
        let changes: Vec<Change> = urls.iter().flat_map(|url| self.cache.changes_of(url)).collect();
        let mut sent = self.sent;
        if let Some(target) = changes.first() {
            let is_overtaken = self.cache.changed_since(target.key, sent.request_ms);
            changes.iter().for_each(|change| self.cache.forget_change(change));
            sent.changed_ms = Some(self.cache.last_change_ms(target.key)).filter(|_| !is_overtaken);
        }
        self.cache.tell_everywhere(changes).await;
        sent
    }

    /// The origin did not answer, but it may have seen the request: as [`Self::settle`], of the target alone.
    pub async fn assume(mut self) {
        if !std::mem::replace(&mut self.is_settled, true) {
            let changes: Vec<Change> = self.cache.changes_of(&self.target).collect();
            changes.iter().for_each(|change| self.cache.forget_change(change));
            self.cache.tell_everywhere(changes).await;
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
            self.cache.changes_of(&self.target).for_each(|change| abandon(&self.cache, change));
        }
    }
}

/// Nobody waits here: other nodes are told as they are reminded, of many changes at once.
fn abandon(cache: &Arc<Cache>, change: Change) {
    cache.forget_soon(&change);
    let Ok(place) = cache.abandoned.clone().try_acquire_owned() else { return };
    let weak = Arc::downgrade(cache);
    cache.control.spawn(async move {
        for pause in ECHOES {
            sleep(pause).await;
            let Some(cache) = weak.upgrade() else { return };
            cache.forget_soon(&change);
        }
        drop(place);
    });
}
