//! What has changed, told to the other nodes: by a call, and where that is not confirmed, by a purge in the log, without which
//! no node serves hits for long.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::NodeId;
use shoal_policy::cache::search::has_query;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::clock::now_ms;
use crate::node::Cache;
use crate::reminders::INVALIDATE_TIMEOUT;
use crate::seam::{Change, Changed, UnconfirmedChange};

/// For a purge in place of a node's word: longer than an election and a usual lease.
const PURGE_PATIENCE: Duration = Duration::from_secs(4);
/// For the process that takes the place of this one: longer than it may take to begin, or the next one in its place.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(80);
/// Between two tries to reach it.
const SUCCESSOR_PAUSE: Duration = Duration::from_millis(50);

impl Cache {
    /// What has changed with this URL, as far as this node knows: its own objects first, and those that it is equal to.
    pub(crate) fn changes_of(&self, url: &str) -> impl Iterator<Item = Change> + use<> {
        let travels = has_query(url.as_bytes()).then(|| url.into());
        let mut urls = iter::once(travels).chain(iter::repeat(None));
        self.keys_of(url).map(move |key| Change { key, url: urls.next().flatten() })
    }

    /// Forgets here what has changed.
    pub(crate) fn forget_change(&self, change: &Change) {
        self.forget(change.key);
        change.url.iter().for_each(|url| _ = self.forget_equal(url));
    }

    /// Forgets here what this URL is equal to, by what is known of its path; says how much was stored.
    pub(crate) fn forget_equal(&self, url: &str) -> usize {
        self.search.note_change(url, now_ms());
        self.search.equal(url).map_or(0, |key| self.forget(key))
    }

    /// Forgets `change` here, and sees to it that every other node does before long.
    pub(crate) fn forget_soon(&self, change: &Change) {
        self.forget_change(change);
        let (heard, silent) = self.placement.others();
        heard.into_iter().chain(silent).for_each(|node| self.reminders.add(node, change.clone()));
    }

    /// Has every other node forget `changes`, and returns when none serves them any more. Where that cannot be had now, those
    /// who cannot be reached are told as soon as that is possible.
    pub(crate) async fn tell_everywhere(self: &Arc<Self>, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let (heard, silent) = self.placement.others();
        // As tasks of their own: they go on when the request that made the change is given up.
        let told: Vec<_> = heard
            .into_iter()
            .map(|node| self.control.spawn(self.clone().tell(node, changes.clone())))
            .chain(
                (!silent.is_empty())
                    .then(|| self.control.spawn(self.clone().see_to(silent, changes.clone()))),
            )
            .collect();
        self.forgotten().await;
        for telling in told {
            // It fails only when the runtime ends.
            let _ = telling.await;
        }
    }

    async fn tell(self: Arc<Self>, node: NodeId, changes: Vec<Change>) {
        if node == self.settings.node {
            return self.tell_successor(changes).await;
        }
        let telling = self.settings.peers.invalidate(node, Changed::Some(changes.clone()));
        match timeout(INVALIDATE_TIMEOUT, telling).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!(%node, %error, "a node was not told of an invalidation yet"),
            Err(_) => tracing::warn!(%node, "a node did not answer to an invalidation in time"),
        }
        self.see_to(vec![node], changes).await;
    }

    /// The process that takes the place of this one answers once it has begun, and until then it serves nothing. While it is
    /// waited for, so is the answer to whoever made the change: there may be no other time to tell it.
    async fn tell_successor(&self, changes: Vec<Change>) {
        let telling = async {
            while self.placement.has_successor()
                && let Err(error) =
                    self.settings.peers.invalidate(self.settings.node, Changed::Some(changes.clone())).await
            {
                tracing::debug!(%error, "the process that takes over was not told of an invalidation yet");
                sleep(SUCCESSOR_PAUSE).await;
            }
        };
        if timeout(SUCCESSOR_PATIENCE, telling).await.is_err() {
            tracing::warn!("the process that takes over did not answer to an invalidation in time");
            changes.into_iter().for_each(|change| self.reminders.add(self.settings.node, change));
        }
    }

    /// `nodes` have not said that they have forgotten `changes`: returns when they cannot serve them any more. If that is not
    /// known before long, they are reminded.
    async fn see_to(self: Arc<Self>, nodes: Vec<NodeId>, changes: Vec<Change>) {
        let (done, is_done) = oneshot::channel();
        let keys = changes.iter().map(|change| change.key).collect();
        let change = UnconfirmedChange { keys, done };
        let is_purged = self.settings.unconfirmed.try_send(change).is_ok()
            && matches!(timeout(PURGE_PATIENCE, is_done).await, Ok(Ok(())));
        if !is_purged {
            let owed =
                nodes.iter().flat_map(|node| changes.iter().map(move |change| (*node, change.clone())));
            owed.for_each(|(node, change)| self.reminders.add(node, change));
        }
    }
}
