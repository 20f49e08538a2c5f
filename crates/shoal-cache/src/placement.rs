//! Who owns an object, as this node sees the cluster now, and who did a while ago.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use shoal_cluster::{ClusterView, NodeView};
use shoal_model::NodeId;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::placement::{Candidate, Owners, former_owners};
use shoal_policy::cache::sources::MAX_PEEKS;

/// For this long after the set of owners changed, a new owner asks those of before.
const SETTLING_MS: u64 = 10 * 60 * 1000;
/// Sets of owners that are remembered.
const MAX_PAST: usize = 8;

/// Who owns an object. Every region is a placement of its own: what follows is about the region of this node, unless it
/// says otherwise.
pub(crate) struct Placement {
    local: NodeId,
    cluster: Arc<ArcSwap<ClusterView>>,
    /// The placement that was seen last.
    seen: AtomicU64,
    history: Mutex<History>,
    /// Another process speaks in the name of this node.
    has_successor: AtomicBool,
}

/// How the cluster came to be as it is.
struct History {
    now: Arc<ClusterView>,
    /// When this node became one of those that own objects, Unix milliseconds.
    serving_since_ms: u64,
    /// Former views, and when each ended, Unix milliseconds; the newest first.
    past: VecDeque<(Arc<ClusterView>, u64)>,
}

impl Placement {
    pub(crate) fn new(local: NodeId, cluster: Arc<ArcSwap<ClusterView>>, now_ms: u64) -> Self {
        let now = cluster.load_full();
        let seen = AtomicU64::new(now.holders_id);
        let history = History { now, serving_since_ms: now_ms, past: VecDeque::new() };
        let has_successor = AtomicBool::new(false);
        Self { local, cluster, seen, history: Mutex::new(history), has_successor }
    }

    /// The owners of `key`. A node that knows of no owner at all is one itself.
    pub(crate) fn owners(&self, key: ObjectKey) -> Owners {
        let view = self.cluster.load();
        let owners = Owners::of(key, candidates(&view, region_of(&view, self.local)));
        if owners.primary.is_none() { Owners { primary: Some(self.local), secondary: None } } else { owners }
    }

    /// The owners of `key` in `region`; `None` = that is the region of this node, or nobody serves there.
    pub(crate) fn owners_in(&self, region: &str, key: ObjectKey) -> Option<Owners> {
        let view = self.cluster.load();
        if region_of(&view, self.local) == Some(region) {
            return None;
        }
        Some(Owners::of(key, candidates(&view, Some(region)))).filter(|owners| owners.primary.is_some())
    }

    /// The owners of `key` once this node is gone.
    pub(crate) fn heirs(&self, key: ObjectKey) -> Owners {
        let view = self.cluster.load();
        let others = candidates(&view, region_of(&view, self.local));
        Owners::of(key, others.filter(|candidate| candidate.id != self.local))
    }

    /// Names those that own objects now, and since when they have been collecting them.
    pub(crate) fn id(&self) -> u64 {
        self.cluster.load().holders_id
    }

    /// The cluster may have changed: remembers what it was.
    pub(crate) fn observe(&self, now_ms: u64) {
        let view = self.cluster.load();
        if self.seen.load(Ordering::Acquire) != view.holders_id {
            self.history().turn(self.local, &view, now_ms);
            self.seen.store(view.holders_id, Ordering::Release);
        }
    }

    /// Nodes that owned `key` within the last [`SETTLING_MS`] when this one did not, and that are still there.
    pub(crate) fn former_owners(&self, key: ObjectKey, now_ms: u64) -> [Option<NodeId>; MAX_PEEKS] {
        self.observe(now_ms);
        let history = self.history();
        let is_recent = |since_ms: u64| now_ms.saturating_sub(since_ms) < SETTLING_MS;
        let view = &history.now;
        let region = region_of(view, self.local);
        // Before it served, everybody else owned what it owns now.
        let without_local: Vec<_> =
            candidates(view, region).filter(|candidate| candidate.id != self.local).collect();
        let is_new = is_recent(history.serving_since_ms);
        let past = history.past.iter().filter(|(_, ended_ms)| is_recent(*ended_ms));
        let past = past.map(|(view, _)| candidates(view, region).collect::<Vec<_>>());
        let past = past.chain(is_new.then_some(without_local)).map(Vec::into_iter);
        former_owners(key, self.local, past, |node| view.node(node).is_some_and(|node| node.alive))
    }

    /// Every other node, as a change of owners leaves objects behind: those that are heard, and those that are not. The
    /// process that has taken the place of this one is among those that are heard, by the id of both.
    pub(crate) fn others(&self) -> (Vec<NodeId>, Vec<NodeId>) {
        let view = self.cluster.load();
        let others = view.nodes.iter().filter(|node| node.id != self.local);
        let (heard, silent): (Vec<_>, Vec<_>) = others.partition(|node| node.alive);
        let successor = self.has_successor().then_some(self.local);
        let heard = heard.into_iter().map(|node| node.id).chain(successor);
        (heard.collect(), silent.into_iter().map(|node| node.id).collect())
    }

    /// Whether another process speaks in the name of this node from now on.
    pub(crate) fn set_successor(&self, has_successor: bool) {
        self.has_successor.store(has_successor, Ordering::SeqCst);
    }

    pub(crate) fn has_successor(&self) -> bool {
        self.has_successor.load(Ordering::SeqCst)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn turn(&mut self, local: NodeId, view: &Arc<ClusterView>, now_ms: u64) {
        if self.now.holders_id == view.holders_id {
            return;
        }
        let serves = |view: &ClusterView| view.node(local).is_some_and(NodeView::is_serving);
        let before = std::mem::replace(&mut self.now, view.clone());
        if serves(view) && !serves(&before) {
            self.serving_since_ms = now_ms;
        }
        self.past.truncate(MAX_PAST - 1);
        self.past.push_front((before, now_ms));
    }
}

/// The region of a node; `None` = it is not in the view.
fn region_of(view: &ClusterView, node: NodeId) -> Option<&str> {
    view.node(node).map(|node| &*node.region)
}

/// The nodes of `region` that may own objects; `None` = of any.
fn candidates<'a>(
    view: &'a ClusterView,
    region: Option<&'a str>,
) -> impl Iterator<Item = Candidate<'a>> + Clone {
    let serving = view
        .nodes
        .iter()
        .filter(move |node| node.is_serving() && region.is_none_or(|region| *node.region == *region));
    serving.map(|node| Candidate { id: node.id, zone: &node.zone, weight: 1 })
}

#[cfg(test)]
mod tests {
    use shoal_cluster::NodeState;

    use super::*;

    const LOCAL: NodeId = NodeId(1);

    fn view(members: &[(u64, &str, NodeState)]) -> ClusterView {
        let node = |(id, region, state): &(u64, &str, NodeState)| NodeView {
            region: (*region).into(),
            state: *state,
            active_revision: 1,
            ..NodeView::serving(NodeId(*id))
        };
        let nodes: Vec<_> = members.iter().map(node).collect();
        let serving = nodes.iter().filter(|node| node.is_serving());
        let holders_id = serving.fold(1, |sum, node| sum * 31 + node.id.0);
        ClusterView { nodes, holders_id, ..ClusterView::default() }
    }

    const READY: NodeState = NodeState::Ready;
    const JOINING: NodeState = NodeState::Joining;

    fn former(placement: &Placement, now_ms: u64) -> Vec<u64> {
        let former = placement.former_owners(ObjectKey(7), now_ms);
        let mut former: Vec<u64> = former.into_iter().flatten().map(|node| node.0).collect();
        former.sort_unstable();
        former
    }

    #[test]
    fn for_ten_minutes_a_new_owner_knows_those_of_before() {
        let two = view(&[(1, "", JOINING), (2, "", READY), (3, "", READY)]);
        let cluster = Arc::new(ArcSwap::from_pointee(two));
        let placement = Placement::new(LOCAL, cluster.clone(), 0);
        cluster.store(Arc::new(view(&[(1, "", READY), (2, "", READY), (3, "", READY)])));
        let joined_ms = 100_000;
        assert_eq!(former(&placement, joined_ms), [2, 3]);
        assert_eq!(former(&placement, joined_ms + SETTLING_MS - 1), [2, 3]);
        assert!(former(&placement, joined_ms + SETTLING_MS).is_empty(), "it has all that is in use by now");

        // Others come and go: what this node had owned all the time is not looked for elsewhere.
        cluster.store(Arc::new(view(&[(1, "", READY), (2, "", READY)])));
        let left_ms = joined_ms + 2 * SETTLING_MS;
        let owned = Owners::of(ObjectKey(7), candidates(&placement.history().now, None)).includes(LOCAL);
        assert_eq!(former(&placement, left_ms).is_empty(), owned);
    }

    #[test]
    fn regions_do_not_own_each_others_objects() {
        let members = [(1, "here", READY), (2, "here", READY), (3, "far", READY), (4, "far", JOINING)];
        let cluster = Arc::new(ArcSwap::from_pointee(view(&members)));
        let placement = Placement::new(LOCAL, cluster, 0);
        let key = ObjectKey(7);
        let here = placement.owners(key);
        assert!(here.includes(NodeId(1)) && here.includes(NodeId(2)));
        let far = Owners { primary: Some(NodeId(3)), secondary: None };
        assert_eq!(placement.owners_in("far", key), Some(far));
        assert_eq!(placement.owners_in("here", key), None);
        assert_eq!(placement.owners_in("nowhere", key), None);
        assert_eq!(placement.heirs(key), Owners { primary: Some(NodeId(2)), secondary: None });
    }
}
