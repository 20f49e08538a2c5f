//! Where the other nodes are, for those that gossip has not told of yet.

use shoal_model::NodeId;

use super::Peers;
use crate::machine::StateMachine;

/// Channels to other nodes, and the log's own knowledge of their addresses.
#[derive(Clone)]
pub struct Directory {
    peers: Peers,
    machine: StateMachine,
}

impl Directory {
    /// Channels are those of `peers`.
    pub fn new(peers: Peers, machine: StateMachine) -> Self {
        Self { peers, machine }
    }

    /// Nobody may tell `node` anything any more.
    pub fn was_revoked(&self, node: NodeId) -> bool {
        self.machine.read().revoked.contains(&node)
    }

    /// The channels, `node` being known: what it gossips of itself wins over its record in the log, and that over the
    /// address it had when it entered the membership.
    pub fn peers_knowing(&self, node: NodeId, first_address: &str) -> &Peers {
        if self.peers.address(node).is_none() {
            let recorded = self.machine.read().nodes.get(&node).map(|record| record.cluster_addr.clone());
            let address = recorded.as_deref().unwrap_or(first_address);
            if let Ok(address) = address.parse() {
                self.peers.set_address(node, address);
            }
        }
        &self.peers
    }
}
