//! Members by whether they are heard, as an alarm wants them counted.

use std::time::Duration;

use shoal_cluster::{ClusterView, NodeState};
use shoal_model::NodeId;

/// A process that has just started has heard nobody yet, and holds nobody to be dead for so long.
pub const GRACE: Duration = Duration::from_secs(10);

/// How many members are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headcount {
    /// Heard, this node included.
    pub heard: u64,
    /// Neither heard nor known to have left; never heard at all is dead as well.
    pub dead: u64,
    /// Stopped on purpose.
    pub left: u64,
}

/// Counts `members` after `uptime`.
pub fn count(members: impl IntoIterator<Item = NodeId>, view: &ClusterView, uptime: Duration) -> Headcount {
    let mut count = Headcount::default();
    for id in members {
        match view.node(id) {
            _ if id == view.local => count.heard += 1,
            Some(node) if node.state == NodeState::Left => count.left += 1,
            Some(node) if node.alive => count.heard += 1,
            Some(_) | None if uptime >= GRACE => count.dead += 1,
            Some(_) | None => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use shoal_cluster::NodeView;

    use super::*;

    fn node(id: u64, state: NodeState, alive: bool) -> NodeView {
        NodeView { state, alive, ..NodeView::serving(NodeId(id)) }
    }

    #[test]
    fn the_dead_are_those_that_nobody_stopped() {
        let check =
            |others: &[NodeView], members: &[u64], uptime: Duration, [heard, dead, left]: [u64; 3]| {
                let mut nodes = vec![node(1, NodeState::Joining, false)]; // itself, which does not hear itself
                nodes.extend_from_slice(others);
                let view = ClusterView { local: NodeId(1), nodes, ..ClusterView::default() };
                let counted = count(members.iter().copied().map(NodeId), &view, uptime);
                assert_eq!(counted, Headcount { heard, dead, left }, "{others:?}");
            };
        let (ready, left) = (NodeState::Ready, NodeState::Left);
        check(&[node(2, ready, true), node(3, ready, true)], &[1, 2, 3], GRACE, [3, 0, 0]);
        check(&[node(2, ready, true), node(3, ready, false)], &[1, 2, 3], GRACE, [2, 1, 0]);
        check(&[node(2, left, true), node(3, left, false)], &[1, 2, 3], GRACE, [1, 0, 2]);
        check(&[node(2, ready, true)], &[1, 2, 3], GRACE, [2, 1, 0]); // never heard
        check(&[node(2, ready, false)], &[1, 2, 3], Duration::ZERO, [1, 0, 0]); // has only just begun to listen
        check(&[node(2, ready, false)], &[1], GRACE, [1, 0, 0]); // removed
    }
}
