//! What an entry of the log changes in the rooms that know no log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use shoal_cache::Cache;
use shoal_cluster::channel::Peers;
use shoal_cluster::gossip::Gossip;
use shoal_cluster::identity::Identity;
use shoal_configlog::Applied;
use shoal_model::state::{Keys, MemberRecord};
use shoal_model::{NodeId, Revision};
use tokio::sync::watch;

use crate::keys::open_gossip_keys;
use crate::node::now_ms;
use crate::purge_history::PurgeHistory;

/// What an applied entry means to the other rooms. Called on the log's own task: quick, and never blocking.
pub struct Effects {
    /// Where the others are, and who is not trusted any more.
    pub peers: Peers,
    /// Who the members are, and what seals their words.
    pub gossip: Arc<Gossip>,
    /// What it forgets.
    pub cache: Arc<Cache>,
    /// What was purged lately.
    pub purge_history: Arc<PurgeHistory>,
    /// This node.
    pub identity: Arc<Identity>,
    /// What it is to serve.
    pub newest: watch::Sender<Revision>,
}

impl Effects {
    /// Tells them.
    pub fn follow(&self, applied: &Applied<'_>) {
        match applied {
            Applied::Revision { revisions, index, .. } => {
                self.newest.send_replace(revisions.served_by(self.identity.node_id));
                self.cache.set_applied(*index);
            }
            Applied::Purge { seq, scopes, kind } => {
                self.cache.record_purge(*seq, scopes, *kind);
                self.cache.set_applied(*seq);
                self.purge_history.note(*seq, scopes.len(), *kind, now_ms());
            }
            Applied::PurgesForgotten { up_to, index } => self.cache.forget_purges(*up_to, *index),
            Applied::Keys { keys } => self.take_keys(keys),
            Applied::Members { nodes, revoked, index } => self.meet(nodes, revoked, *index),
            Applied::Snapshot { state, index } => {
                self.meet(&state.nodes, &state.revoked, *index);
                // A log that has not begun says nothing of them.
                if !state.nodes.is_empty() {
                    self.take_keys(&state.keys);
                }
                self.cache.replace_purges(&state.purges, *index);
                self.newest.send_replace(state.revisions.served_by(self.identity.node_id));
            }
        }
    }

    fn take_keys(&self, keys: &Keys) {
        match open_gossip_keys(&self.identity, &keys.gossip) {
            Some(ring) => self.gossip.set_keys(ring),
            None => tracing::error!("a key of the gossip cannot be opened: this node keeps those it has"),
        }
    }

    fn meet(&self, nodes: &BTreeMap<NodeId, MemberRecord>, revoked: &BTreeSet<NodeId>, through: u64) {
        self.peers.expel(revoked.iter().copied());
        for (id, node) in nodes {
            self.peers.set_key(*id, &node.public_key_sha256);
        }
        let known = nodes.iter().filter_map(|(id, node)| Some((*id, node.cluster_addr.parse().ok()?)));
        let known: Vec<(NodeId, SocketAddr)> = known.collect();
        for (id, address) in &known {
            self.peers.set_address(*id, *address);
        }
        if !known.is_empty() {
            self.gossip.set_members(known, through);
        }
    }
}
