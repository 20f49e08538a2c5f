//! What the cluster has agreed on about its own certificates and keys.

use serde::{Deserialize, Serialize};

use super::{ConfigState, GossipKeyStep, GossipKeys, Refusal, Reply, Succession, SuccessionStep};

/// How long a node's certificate lasts where nothing else was agreed on, seconds.
const USUAL_NODE_SECONDS: u32 = 7 * 86_400;
/// The shortest life of one, seconds.
pub const MIN_NODE_SECONDS: u32 = 10;
/// The longest.
pub const MAX_NODE_SECONDS: u32 = 90 * 86_400;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// 0 = nothing was agreed on.
    node_seconds: u32,
    /// What seals the gossip.
    #[serde(default)]
    pub gossip: GossipKeys,
    /// While one authority takes the place of another.
    #[serde(default)]
    pub succession: Option<Succession>,
    /// SHA-256 of certificates of authorities that have retired, hex, the oldest first.
    #[serde(default)]
    pub retired: Vec<String>,
}

/// A change of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyOrder {
    /// Certificates of nodes last so long from now on; those that last longer are renewed soon.
    NodeLife {
        /// [`MIN_NODE_SECONDS`] to [`MAX_NODE_SECONDS`].
        seconds: u32,
    },
    /// The gossip is sealed otherwise.
    Gossip(GossipKeyStep),
    /// Another authority.
    Authority(SuccessionStep),
}

impl Keys {
    /// How long certificates of nodes last, seconds.
    pub fn node_seconds(&self) -> u32 {
        if self.node_seconds == 0 { USUAL_NODE_SECONDS } else { self.node_seconds }
    }

    /// Something was agreed on about that.
    pub fn is_node_life_agreed(&self) -> bool {
        self.node_seconds != 0
    }

    /// Those of a new cluster that begins with this state: how long certificates last is what people have said. The keys are
    /// of the secret and the authority of before.
    pub(super) fn refounded(self) -> Self {
        Self { node_seconds: self.node_seconds, ..Self::default() }
    }

    /// Nothing was agreed on.
    pub(super) fn are_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl ConfigState {
    pub(super) fn keep_keys(&mut self, index: u64, order: KeyOrder) -> Reply {
        match order {
            KeyOrder::NodeLife { seconds } if (MIN_NODE_SECONDS..=MAX_NODE_SECONDS).contains(&seconds) => {
                self.keys.node_seconds = seconds;
                Reply::Done
            }
            KeyOrder::NodeLife { seconds } => Reply::Refused(Refusal::NodeLife { seconds }),
            KeyOrder::Gossip(step) => {
                self.keys.gossip.take(index, step);
                Reply::Done
            }
            KeyOrder::Authority(step) => self.succeed(index, step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Command;

    #[test]
    fn lives_are_bounded() {
        let mut state = ConfigState::default();
        assert_eq!((state.keys.node_seconds(), state.keys.are_usual()), (USUAL_NODE_SECONDS, true));
        for (seconds, expected) in [(9, false), (10, true), (90 * 86_400, true), (90 * 86_400 + 1, false)] {
            let before = state.keys.node_seconds();
            let reply = state.apply(1, Command::KeepKeys(KeyOrder::NodeLife { seconds }));
            assert_eq!(reply == Reply::Done, expected, "{reply:?}");
            assert_eq!(state.keys.node_seconds(), if expected { seconds } else { before });
        }
    }
}
