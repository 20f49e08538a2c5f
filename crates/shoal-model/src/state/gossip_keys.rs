//! The keys that seal the gossip: one in use, and another that is still believed, or about to be used.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Index of the entry that brought it. 0 = the one that follows from the cluster's secret.
    pub id: u64,
    /// Sealed with the cluster's secret.
    pub sealed: Vec<u8>,
    /// Unix milliseconds.
    pub made_at_ms: u64,
}

/// A step from one key to the next. Each takes the one before to be applied by every node that is heard, or datagrams would
/// be sealed with what somebody cannot open yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GossipKeyStep {
    /// There is another one, which everybody believes from now on.
    Make {
        /// Sealed with the cluster's secret.
        sealed: Vec<u8>,
        /// The newest that the proposer knows: two that make one at once make one.
        after: u64,
        /// Nodes that were revoked by then: they do not know it.
        without: BTreeSet<NodeId>,
        /// Unix milliseconds.
        at_ms: u64,
    },
    /// The newest one, if it is this, is what everybody seals with.
    Use {
        /// The key.
        id: u64,
    },
    /// None but this one, if it is in use, is believed any more.
    Drop {
        /// The key.
        id: u64,
    },
}

/// All that are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKeys {
    /// The oldest first; at most two. None = the one that follows from the cluster's secret.
    believed: Vec<GossipKey>,
    in_use: u64,
    /// Index of the entry since which it is.
    #[serde(default)]
    in_use_since: u64,
    /// Nodes that were revoked before the newest was made.
    #[serde(default)]
    without: BTreeSet<NodeId>,
}

impl GossipKeys {
    /// What everybody seals with; 0 = see [`GossipKey::id`].
    pub fn in_use(&self) -> u64 {
        self.in_use
    }

    /// Index of the entry since which it is in use.
    pub fn in_use_since(&self) -> u64 {
        self.in_use_since
    }

    /// Those that are believed, the one that is sealed with first. The one that follows from the cluster's secret has nothing
    /// sealed.
    pub fn believed(&self) -> Vec<GossipKey> {
        let usual = GossipKey::default();
        let all = if self.believed.is_empty() { std::slice::from_ref(&usual) } else { &self.believed };
        let (mut first, others): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|key| key.id == self.in_use);
        first.extend(others);
        first
    }

    /// The newest, whether it is in use or not.
    pub fn newest(&self) -> GossipKey {
        self.believed.last().cloned().unwrap_or_default()
    }

    /// Whether all of these were revoked before the newest was made.
    pub fn are_without(&self, revoked: &BTreeSet<NodeId>) -> bool {
        revoked.is_subset(&self.without)
    }

    /// A node that was revoked may know of one that is still believed.
    pub fn is_known_outside(&self) -> bool {
        !self.without.is_empty() && self.believed.len() > 1
    }

    pub(super) fn take(&mut self, index: u64, step: GossipKeyStep) {
        match step {
            GossipKeyStep::Make { sealed, after, without, at_ms } => {
                let newest = self.newest();
                // Somebody else was faster, or the one before is on its way still.
                if newest.id != after || newest.id != self.in_use {
                    return;
                }
                self.believed = vec![newest, GossipKey { id: index, sealed, made_at_ms: at_ms }];
                self.without = without;
            }
            GossipKeyStep::Use { id } if self.newest().id == id && self.in_use != id => {
                (self.in_use, self.in_use_since) = (id, index);
            }
            GossipKeyStep::Drop { id } if self.in_use == id => self.believed.retain(|key| key.id == id),
            GossipKeyStep::Use { .. } | GossipKeyStep::Drop { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(after: u64, without: &[u64]) -> GossipKeyStep {
        let without = without.iter().copied().map(NodeId).collect();
        GossipKeyStep::Make { sealed: vec![7], after, without, at_ms: 5 }
    }

    #[test]
    fn two_are_believed_and_one_is_used() {
        use GossipKeyStep::{Drop, Use};
        let mut keys = GossipKeys::default();
        let mut check = |index, step, expected: &[u64]| {
            keys.take(index, step);
            assert_eq!(keys.believed().iter().map(|key| key.id).collect::<Vec<_>>(), expected, "{index}");
        };
        check(1, Use { id: 3 }, &[0]);
        check(2, Drop { id: 3 }, &[0]);
        check(10, make(0, &[]), &[0, 10]);
        check(11, make(0, &[]), &[0, 10]);
        check(12, make(10, &[]), &[0, 10]);
        check(13, Drop { id: 10 }, &[0, 10]);
        check(14, Use { id: 10 }, &[10, 0]);
        check(20, make(10, &[4]), &[10, 20]);
        check(21, Use { id: 10 }, &[10, 20]);
        check(22, Use { id: 20 }, &[20, 10]);
        check(23, Drop { id: 10 }, &[20, 10]);
        check(24, Drop { id: 20 }, &[20]);
        check(25, Use { id: 20 }, &[20]);
        assert_eq!((keys.in_use(), keys.in_use_since(), keys.newest().made_at_ms), (20, 22, 5));
    }

    #[test]
    fn who_was_revoked_may_know_the_last_one() {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let mut keys = GossipKeys::default();
        assert!(keys.are_without(&ids(&[])) && !keys.are_without(&ids(&[4])));
        keys.take(9, make(0, &[4]));
        assert!(keys.are_without(&ids(&[4])) && !keys.are_without(&ids(&[4, 5])) && keys.is_known_outside());
        keys.take(10, GossipKeyStep::Use { id: 9 });
        keys.take(11, GossipKeyStep::Drop { id: 9 });
        assert!(!keys.is_known_outside());
    }
}
