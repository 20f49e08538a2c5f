//! An unsafe request on its way to the origin, and what of it is to be forgotten, however it ends.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Method, StatusCode};
use shoal_policy::cache::invalidation::{invalidated_keys, is_safe};
use shoal_policy::cache::key::ObjectKey;
use tokio::time::sleep;

use crate::node::Cache;

/// When what a given-up request may have changed is forgotten again, each time after the one before: nobody sees when the
/// origin is done with it.
const ECHOES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(9)];

/// An unsafe request that the origin has not answered yet. Dropping it says that nobody waits for the answer any more:
/// what it may change is forgotten.
#[must_use = "dropping it forgets what the request may have changed"]
pub struct PendingChange {
    cache: Arc<Cache>,
    method: Method,
    /// The URL, as in the text of its key.
    target: String,
    is_settled: bool,
}

impl PendingChange {
    pub(crate) fn new(cache: &Arc<Cache>, method: &Method, target: String) -> Self {
        Self { cache: cache.clone(), method: method.clone(), target, is_settled: is_safe(method) }
    }

    /// The origin answered: returns when what it changed is forgotten on every node that can be reached. Call it before
    /// the downstream is answered.
    pub async fn settle(mut self, status: StatusCode, fields: &HeaderMap) {
        self.is_settled = true;
        let texts = invalidated_keys(&self.method, &self.target, status, fields);
        self.cache.forget_everywhere(texts.iter().map(|text| self.cache.key_of(text)).collect()).await;
    }

    /// The origin did not answer, but it may have seen the request.
    pub async fn assume(mut self) {
        if !std::mem::replace(&mut self.is_settled, true) {
            self.cache.forget_everywhere(vec![self.cache.key_of(&self.target)]).await;
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
            abandon(&self.cache, self.cache.key_of(&self.target));
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
