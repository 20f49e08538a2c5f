//! Since when each node is heard or silent.

use std::collections::{BTreeMap, BTreeSet};

use shoal_model::NodeId;
use tokio::time::Instant;

use super::plan::Hearing;

/// Remembers the last change of every node. Every node keeps it up to date, so that a new leader need not start over.
#[derive(Debug, Default)]
pub struct HearingLog {
    nodes: BTreeMap<NodeId, (bool, Instant)>,
}

impl HearingLog {
    /// `alive` are heard now; of the rest, `members` are silent and all others are forgotten.
    pub fn observe(&mut self, members: &BTreeSet<NodeId>, alive: &BTreeSet<NodeId>, now: Instant) {
        self.nodes.retain(|id, _| members.contains(id));
        for id in members {
            let is_alive = alive.contains(id);
            let known = self.nodes.entry(*id).or_insert((is_alive, now));
            if known.0 != is_alive {
                *known = (is_alive, now);
            }
        }
    }

    /// What is known of a node; one never observed counts as silent since just now.
    pub fn hearing(&self, id: NodeId, now: Instant) -> Hearing {
        let (is_alive, since) = self.nodes.get(&id).copied().unwrap_or((false, now));
        let duration = now.saturating_duration_since(since);
        if is_alive { Hearing::Alive(duration) } else { Hearing::Silent(duration) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_restarts_the_count() {
        let members = BTreeSet::from([NodeId(1), NodeId(2)]);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut log = HearingLog::default();
        log.observe(&members, &BTreeSet::from([NodeId(1)]), at(0));
        log.observe(&members, &BTreeSet::from([NodeId(1)]), at(4));
        assert_eq!(log.hearing(NodeId(1), at(4)), Hearing::Alive(Duration::from_secs(4)));
        assert_eq!(log.hearing(NodeId(2), at(4)), Hearing::Silent(Duration::from_secs(4)));
        log.observe(&members, &BTreeSet::from([NodeId(2)]), at(5));
        assert_eq!(log.hearing(NodeId(1), at(7)), Hearing::Silent(Duration::from_secs(2)));
        assert_eq!(log.hearing(NodeId(2), at(7)), Hearing::Alive(Duration::from_secs(2)));
        assert_eq!(log.hearing(NodeId(3), at(7)), Hearing::Silent(Duration::ZERO));
    }
}
