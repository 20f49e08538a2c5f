//! The folded gossip: who is there, what they say of themselves, and which endpoints are available.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use shoal_model::{EndpointId, NodeId, UpstreamId};
use shoal_policy::agreement::StateHash;
use shoal_policy::health::{Availability, CHECKERS_PER_ENDPOINT, Candidate, assign};
use shoal_policy::readiness::ReadyIn;

/// What this node knows of the cluster now. Immutable: a change is a new view and one pointer swap.
/// A request reads exactly this and the ConfigView.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterView {
    /// This node.
    pub local: NodeId,
    /// Every known member, this node included, in the order of their ids.
    pub nodes: Vec<NodeView>,
    /// Hash of the ids that may own objects: equal views place objects equally.
    pub placement_id: u64,
    /// Hash of the same ids, and of when each of these processes began: whoever began anew has forgotten what it had.
    pub holders_id: u64,
    /// Endpoints whose availability is not plainly "up": merged from facts of all checkers.
    pub endpoints: FxHashMap<EndpointId, EndpointState>,
}

/// One member as it describes itself, and whether it is heard.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Given out by the log.
    pub id: NodeId,
    /// Its `--name`.
    pub name: Arc<str>,
    /// Gossip and peer RPC.
    pub cluster_addr: SocketAddr,
    /// Operator gRPC, as text.
    pub admin_addr: String,
    /// Its `--region`.
    pub region: Arc<str>,
    /// Its `--zone`.
    pub zone: Arc<str>,
    /// What it is doing.
    pub state: NodeState,
    /// It is heard (the failure detector's word).
    pub alive: bool,
    /// Requests in flight, coarse.
    pub load: u32,
    /// Requests a second that reach it for upstreams with endpoints in several regions; those that have none are left out.
    pub offered: Arc<[(UpstreamId, u32)]>,
    /// The revision it serves.
    pub active_revision: u64,
    /// The log index it has applied.
    pub applied_index: u64,
    /// The log index up to which all that it has cached was checked against purges; 0 = it has not said so.
    pub checked_seq: u64,
    /// Which commands of the log it knows; 0 = it has not said so.
    pub commands: u32,
    /// What its state is after an entry after which all are compared.
    pub state_hash: Option<StateHash>,
    /// Whether it should be sent requests, as it says itself; a version that does not say so, always.
    pub ready: ReadyIn,
    /// Where downstreams reach it, for answers over DNS.
    pub public: Arc<[IpAddr]>,
    /// Its version.
    pub version: Arc<str>,
}

impl NodeView {
    /// One that is heard, serves, and has said no more of itself: what tests and measurements begin with.
    pub fn serving(id: NodeId) -> Self {
        Self {
            id,
            name: Arc::default(),
            cluster_addr: SocketAddr::from(([127, 0, 0, 1], 7400)),
            admin_addr: String::new(),
            region: Arc::default(),
            zone: Arc::default(),
            state: NodeState::Ready,
            alive: true,
            load: 0,
            offered: Arc::default(),
            active_revision: 0,
            applied_index: 0,
            checked_seq: 0,
            commands: 0,
            state_hash: None,
            ready: ReadyIn::default(),
            public: Arc::default(),
            version: Arc::default(),
        }
    }

    /// Requests a second that reach it for `upstream`.
    pub fn offered(&self, upstream: UpstreamId) -> u32 {
        self.offered.iter().find(|(known, _)| *known == upstream).map_or(0, |(_, rate)| *rate)
    }

    /// It may own objects and check endpoints: heard, and neither joining, cordoned, draining nor gone.
    pub fn is_serving(&self) -> bool {
        self.alive && self.state == NodeState::Ready
    }

    /// Requests of downstreams come in there.
    pub fn takes_traffic(&self) -> bool {
        self.alive && matches!(self.state, NodeState::Ready | NodeState::Cordoned)
    }
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// Starting; not an owner yet.
    #[default]
    Joining,
    /// Serving.
    Ready,
    /// Serving, without duties for the others. A version that does not know it takes it for joining.
    Cordoned,
    /// On its way out; serves what it has.
    Draining,
    /// Gone on purpose.
    Left,
}

/// What all checkers together say of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointState {
    /// The merged word.
    pub availability: Availability,
    /// Unix seconds.
    pub since: u64,
}

impl ClusterView {
    /// The member with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok().map(|n| &self.nodes[n])
    }

    /// The nodes that check `endpoint` for this node's region, this node perhaps among them. Every node of the region with
    /// the same [`ClusterView::placement_id`] computes the same.
    pub fn checkers(&self, endpoint: EndpointId) -> Vec<NodeId> {
        let region = self.node(self.local).map(|node| &node.region);
        let here = self.nodes.iter().filter(|node| node.is_serving() && Some(&node.region) == region);
        let candidates: Vec<_> = here.map(|node| Candidate { id: node.id, zone: &node.zone }).collect();
        assign(endpoint, &candidates, CHECKERS_PER_ENDPOINT)
    }

    /// Whether an endpoint may be used, as all checkers together say. Nobody saying anything means up.
    pub fn availability(&self, endpoint: EndpointId) -> Availability {
        self.endpoints.get(&endpoint).map_or(Availability::Up, |state| state.availability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkers_serve_in_the_region_of_this_node() {
        let node = |id, region: &str, state, alive| NodeView {
            name: format!("node-{id}").into(),
            region: region.into(),
            state,
            alive,
            ..NodeView::serving(NodeId(id))
        };
        let nodes = vec![
            node(1, "eu", NodeState::Ready, true),
            node(2, "us", NodeState::Ready, true),
            node(3, "eu", NodeState::Draining, true),
            node(4, "eu", NodeState::Ready, false),
            node(5, "eu", NodeState::Ready, true),
        ];
        let view = ClusterView { local: NodeId(1), nodes, ..ClusterView::default() };
        let check = |local, expected: &[u64]| {
            let view = ClusterView { local: NodeId(local), ..view.clone() };
            let mut checkers: Vec<_> = view.checkers(EndpointId(7)).iter().map(|id| id.0).collect();
            checkers.sort_unstable();
            assert_eq!(checkers, expected, "seen from {local}");
        };
        check(1, &[1, 5]);
        check(2, &[2]);
        check(3, &[1, 5]);
        check(9, &[]);
        assert_eq!(view.node(NodeId(4)).map(|node| node.id), Some(NodeId(4)));
        assert_eq!(view.node(NodeId(6)), None);
        assert_eq!(view.availability(EndpointId(7)), Availability::Up);
    }
}
