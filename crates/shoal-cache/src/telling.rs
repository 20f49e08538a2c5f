//! What has changed, told to the other nodes: by a call, and where that is not confirmed, by a purge in the log, without which
//! no node serves hits for long.

use std::sync::Arc;
use std::time::Duration;

use shoal_model::NodeId;
use shoal_policy::cache::key::ObjectKey;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::node::Cache;
use crate::reminders::INVALIDATE_TIMEOUT;
use crate::seam::{Changed, UnconfirmedChange};

/// For a purge in place of a node's word: longer than an election and a usual lease.
const PURGE_PATIENCE: Duration = Duration::from_secs(4);
/// For the process that takes the place of this one: longer than it may take to begin, or the next one in its place.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(80);
/// Between two tries to reach it.
const SUCCESSOR_PAUSE: Duration = Duration::from_millis(50);

impl Cache {
    /// Forgets `key` here, and sees to it that every other node does before long.
    pub(crate) fn forget_soon(&self, key: ObjectKey) {
        self.forget(key);
        let (heard, silent) = self.placement.others();
        heard.into_iter().chain(silent).for_each(|node| self.reminders.add(node, key));
    }

    /// Has every other node forget `keys`, and returns when none serves them any more. Where that cannot be had now, those
    /// who cannot be reached are told as soon as that is possible.
    pub(crate) async fn tell_everywhere(self: &Arc<Self>, keys: Vec<ObjectKey>) {
        if keys.is_empty() {
            return;
        }
        let (heard, silent) = self.placement.others();
        // As tasks of their own: they go on when the request that made the change is given up.
        let told: Vec<_> = heard
            .into_iter()
            .map(|node| self.control.spawn(self.clone().tell(node, keys.clone())))
            .chain(
                (!silent.is_empty()).then(|| self.control.spawn(self.clone().see_to(silent, keys.clone()))),
            )
            .collect();
        self.forgotten().await;
        for telling in told {
            // It fails only when the runtime ends.
            let _ = telling.await;
        }
    }

    async fn tell(self: Arc<Self>, node: NodeId, keys: Vec<ObjectKey>) {
        if node == self.settings.node {
            return self.tell_successor(keys).await;
        }
        let telling = self.settings.peers.invalidate(node, Changed::Keys(keys.clone()));
        match timeout(INVALIDATE_TIMEOUT, telling).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!(%node, %error, "a node was not told of an invalidation yet"),
            Err(_) => tracing::warn!(%node, "a node did not answer to an invalidation in time"),
        }
        self.see_to(vec![node], keys).await;
    }

    /// The process that takes the place of this one answers once it has begun, and until then it serves nothing. While it is
    /// waited for, so is the answer to whoever made the change: there may be no other time to tell it.
    async fn tell_successor(&self, keys: Vec<ObjectKey>) {
        let telling = async {
            while self.placement.has_successor()
                && let Err(error) =
                    self.settings.peers.invalidate(self.settings.node, Changed::Keys(keys.clone())).await
            {
                tracing::debug!(%error, "the process that takes over was not told of an invalidation yet");
                sleep(SUCCESSOR_PAUSE).await;
            }
        };
        if timeout(SUCCESSOR_PATIENCE, telling).await.is_err() {
            tracing::warn!("the process that takes over did not answer to an invalidation in time");
            keys.into_iter().for_each(|key| self.reminders.add(self.settings.node, key));
        }
    }

    /// `nodes` have not said that they have forgotten `keys`: returns when they cannot serve them any more. If that is not
    /// known before long, they are reminded.
    async fn see_to(self: Arc<Self>, nodes: Vec<NodeId>, keys: Vec<ObjectKey>) {
        let (done, is_done) = oneshot::channel();
        let change = UnconfirmedChange { keys: keys.clone(), done };
        let is_purged = self.settings.unconfirmed.try_send(change).is_ok()
            && matches!(timeout(PURGE_PATIENCE, is_done).await, Ok(Ok(())));
        if !is_purged {
            let owed = nodes.iter().flat_map(|node| keys.iter().map(move |key| (*node, *key)));
            owed.for_each(|(node, key)| self.reminders.add(node, key));
        }
    }
}
