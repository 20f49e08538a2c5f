//! Who is of the cluster, as the log says, and who is not any more: who was removed is neither heard nor told anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use shoal_model::NodeId;

/// Addresses of those that were removed that are remembered, at most.
const MAX_CLOSED: usize = 1000;

/// The log's table of nodes, once it is known.
#[derive(Debug, Default)]
pub(super) struct Members {
    known: Option<BTreeMap<NodeId, SocketAddr>>,
    /// The table is as of this index of the log. Ids are indexes: one above it may belong to a member still to be heard of.
    through: u64,
    /// Where those are reached that were removed.
    closed: BTreeSet<SocketAddr>,
}

impl Members {
    /// The table as of `through`.
    pub(super) fn replace(&mut self, nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>, through: u64) {
        let nodes: BTreeMap<_, _> = nodes.into_iter().collect();
        for (id, address) in self.known.take().unwrap_or_default() {
            if !nodes.contains_key(&id) {
                self.close(address);
            }
        }
        // Somebody else may have the address by now.
        nodes.values().for_each(|address| _ = self.closed.remove(address));
        (self.known, self.through) = (Some(nodes), through);
    }

    /// The members, with their cluster addresses; `None` = the log has not told yet.
    pub(super) fn known(&self) -> Option<&BTreeMap<NodeId, SocketAddr>> {
        self.known.as_ref()
    }

    /// Whether what `sender` says, who is reached at `address`, is to be heard.
    pub(super) fn hears(&mut self, sender: NodeId, address: SocketAddr) -> bool {
        let Some(known) = &self.known else { return true };
        let was_removed = sender.0 <= self.through && !known.contains_key(&sender);
        if was_removed && !known.values().any(|of_member| *of_member == address) {
            self.close(address);
        }
        !was_removed
    }

    /// Whether anything may be sent to `address`.
    pub(super) fn may_be_told(&self, address: SocketAddr) -> bool {
        !self.closed.contains(&address)
    }

    fn close(&mut self, address: SocketAddr) {
        if self.closed.len() >= MAX_CLOSED {
            self.closed.pop_first();
        }
        self.closed.insert(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7400))
    }

    #[test]
    fn who_was_removed_is_neither_heard_nor_told() {
        let mut members = Members::default();
        assert!(members.hears(NodeId(9), at(9)) && members.may_be_told(at(9)), "nothing is known yet");
        members.replace([(NodeId(1), at(1)), (NodeId(9), at(9)), (NodeId(12), at(12))], 12);
        assert!(members.hears(NodeId(9), at(9)));
        members.replace([(NodeId(1), at(1)), (NodeId(12), at(12))], 15);
        assert!(!members.hears(NodeId(9), at(9)) && !members.may_be_told(at(9)));
        // It has moved, or is another process.
        assert!(members.may_be_told(at(99)));
        assert!(!members.hears(NodeId(9), at(99)) && !members.may_be_told(at(99)));
        // It says that it is where a member is.
        assert!(!members.hears(NodeId(9), at(1)) && members.may_be_told(at(1)));
        // A member that is not in the table yet.
        assert!(members.hears(NodeId(16), at(16)));
        // A new machine in its place.
        members.replace([(NodeId(1), at(1)), (NodeId(20), at(9))], 20);
        assert!(members.hears(NodeId(20), at(9)) && members.may_be_told(at(9)));
        assert!(!members.may_be_told(at(12)));
    }

    #[test]
    fn addresses_are_bounded() {
        let mut members = Members::default();
        members.replace([(NodeId(1), at(1))], 10);
        for port in 0..=MAX_CLOSED as u16 {
            assert!(!members.hears(NodeId(2), SocketAddr::from(([10, 0, 0, 2], port))));
        }
        assert_eq!(members.closed.len(), MAX_CLOSED);
    }
}
