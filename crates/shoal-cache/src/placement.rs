//! Who owns an object, as this node sees the cluster now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use shoal_cluster::ClusterView;
use shoal_model::NodeId;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::placement::{Candidate, Owners};

/// For this long after the set of owners changed, an owner asks the other one before the origin.
const SETTLING_MS: u64 = 10 * 60 * 1000;

/// Who owns an object.
pub(crate) struct Placement {
    local: NodeId,
    cluster: Arc<ArcSwap<ClusterView>>,
    /// The last placement seen, and since when, Unix milliseconds.
    seen: AtomicU64,
    since_ms: AtomicU64,
}

impl Placement {
    pub(crate) fn new(local: NodeId, cluster: Arc<ArcSwap<ClusterView>>, now_ms: u64) -> Self {
        let seen = AtomicU64::new(cluster.load().placement_id);
        Self { local, cluster, seen, since_ms: AtomicU64::new(now_ms) }
    }

    /// The owners of `key`. A node that knows of no owner at all is one itself.
    pub(crate) fn owners(&self, key: ObjectKey) -> Owners {
        let view = self.cluster.load();
        let candidates = view.nodes.iter().filter(|node| node.is_serving());
        let owners =
            Owners::of(key, candidates.map(|node| Candidate { id: node.id, zone: &node.zone, weight: 1 }));
        if owners.primary.is_none() { Owners { primary: Some(self.local), secondary: None } } else { owners }
    }

    /// Names the present set of owners.
    pub(crate) fn id(&self) -> u64 {
        self.cluster.load().placement_id
    }

    /// The owners changed a short while ago: what we own now may lie with the other owner.
    pub(crate) fn is_settling(&self, now_ms: u64) -> bool {
        let id = self.id();
        if self.seen.swap(id, Ordering::AcqRel) != id {
            self.since_ms.store(now_ms, Ordering::Release);
        }
        now_ms.saturating_sub(self.since_ms.load(Ordering::Acquire)) < SETTLING_MS
    }

    /// Every other node, as a change of owners leaves objects behind: those that are heard, and those that are not.
    pub(crate) fn others(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let view = self.cluster.load();
        let others = view.nodes.iter().filter(|node| node.id != self.local);
        let (heard, silent): (Vec<_>, Vec<_>) = others.partition(|node| node.alive);
        (heard.into_iter().map(|node| node.id).collect(), silent.into_iter().map(|node| node.id).collect())
    }
}
