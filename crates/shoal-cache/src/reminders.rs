//! Invalidations that a node has not confirmed: it is told again until it has, or is no member any more.
//!
//! A node that was cut off for a while comes back with all it had: without this it would serve what has changed meanwhile
//! until that expires.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::{FxHashMap, FxHashSet};
use shoal_cluster::ClusterView;
use shoal_model::NodeId;
use shoal_policy::cache::key::ObjectKey;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::node::INVALIDATE_TIMEOUT;
use crate::seam::PeerLink;

/// Keys that one node may still have to be told of.
const MAX_PENDING: usize = 10_000;
/// Reminders on their way to the task that sends them.
const MAX_WAITING: usize = 4096;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Invalidations that a node has not confirmed.
#[derive(Clone)]
pub(crate) struct Reminders {
    queue: mpsc::Sender<(NodeId, ObjectKey)>,
}

/// Who has to be told of what.
struct Crier {
    link: Arc<dyn PeerLink>,
    cluster: Arc<ArcSwap<ClusterView>>,
    pending: FxHashMap<NodeId, FxHashSet<ObjectKey>>,
}

impl Reminders {
    /// Starts telling, on the runtime this is called on. It ends when the cache is dropped.
    pub(crate) fn start(link: Arc<dyn PeerLink>, cluster: Arc<ArcSwap<ClusterView>>) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(Crier { link, cluster, pending: FxHashMap::default() }.run(waiting));
        Self { queue }
    }

    /// `node` is to be told that `key` has changed.
    pub(crate) fn add(&self, node: NodeId, key: ObjectKey) {
        if self.queue.try_send((node, key)).is_err() {
            tracing::debug!(%node, %key, "too many invalidations wait: this one is not repeated");
        }
    }
}

impl Crier {
    async fn run(mut self, mut waiting: mpsc::Receiver<(NodeId, ObjectKey)>) {
        let mut rounds = interval(PAUSE);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                reminder = waiting.recv() => match reminder {
                    Some((node, key)) => self.take(node, key),
                    None => return,
                },
                _ = rounds.tick(), if !self.pending.is_empty() => self.tell_all().await,
            }
        }
    }

    fn take(&mut self, node: NodeId, key: ObjectKey) {
        let keys = self.pending.entry(node).or_default();
        if keys.len() < MAX_PENDING {
            keys.insert(key);
            if keys.len() == MAX_PENDING {
                tracing::warn!(%node, "too many invalidations wait for a node: it may serve what has changed");
            }
        }
    }

    /// Tells every node that is heard; what it does not confirm stays for the next time.
    async fn tell_all(&mut self) {
        let view = self.cluster.load_full();
        self.pending.retain(|node, _| view.node(*node).is_some());
        for (node, keys) in &mut self.pending {
            if view.node(*node).is_some_and(|node| node.alive) {
                tell(&*self.link, *node, keys).await;
            }
        }
        self.pending.retain(|_, keys| !keys.is_empty());
    }
}

/// Tells `node` of one key after the other, until it fails to confirm one.
async fn tell(link: &dyn PeerLink, node: NodeId, keys: &mut FxHashSet<ObjectKey>) {
    while let Some(key) = keys.iter().next().copied() {
        match timeout(INVALIDATE_TIMEOUT, link.invalidate(node, key.to_bytes())).await {
            Ok(Ok(())) => _ = keys.remove(&key),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
