//! What operators have taken nodes out of: duties for the others, or all service.

use serde::{Deserialize, Serialize};

use super::{ConfigState, Refusal, Reply};
use crate::id::NodeId;

/// How far a node takes part, as operators want it. Kept in the log, so that it outlives the process and everybody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeStanding {
    /// In everything.
    #[default]
    Active,
    /// It serves traffic, and does nothing for the others: it owns no objects of the cache, checks no endpoints, and neither
    /// votes nor leads where another node can.
    Cordoned,
    /// It serves nobody, and does nothing for the others.
    Drained {
        /// How long its connections may take to end, milliseconds; `None` = as long as the node itself was told.
        within_ms: Option<u64>,
        /// The process that hears of it ends when it is drained.
        leaves: bool,
    },
}

impl NodeStanding {
    /// It serves nobody.
    pub const fn is_drained(self) -> bool {
        matches!(self, Self::Drained { .. })
    }

    /// What the others may expect of it: everything.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Active)
    }

    /// In a word: `active`, `cordoned`, `drained`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Cordoned => "cordoned",
            Self::Drained { .. } => "drained",
        }
    }
}

/// A standing, and who wanted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingRecord {
    /// What.
    pub standing: NodeStanding,
    /// Index of its entry; 0 = nobody has ever said anything of the node.
    pub index: u64,
    /// Who.
    pub author: String,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// What an operator wants of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingOrder {
    /// Which node.
    pub node_id: NodeId,
    /// From now on.
    pub standing: NodeStanding,
    /// Index of the entry with its standing of before, as the operator saw it: refused if there is another one.
    pub over: u64,
    /// Also when nobody else is left.
    pub force: bool,
    /// Who.
    pub author: String,
    /// Unix milliseconds.
    pub at_ms: u64,
}

impl ConfigState {
    /// What operators want of `node`.
    pub fn standing(&self, node: NodeId) -> StandingRecord {
        self.standings.get(&node).cloned().unwrap_or_default()
    }

    /// The other members that may have `standing` or a better one if `node` gets it: none = nobody is left who would do what
    /// it does now. What it does is done for its region.
    fn left_without(&self, node: NodeId, standing: NodeStanding) -> usize {
        let region = self.nodes.get(&node).map(|member| &member.region);
        let others = self.nodes.iter().filter(|(id, member)| **id != node && Some(&member.region) == region);
        let does_it = |id: &NodeId| match standing {
            NodeStanding::Active => true,
            NodeStanding::Cordoned => self.standing(*id).standing.is_active(),
            NodeStanding::Drained { .. } => !self.standing(*id).standing.is_drained(),
        };
        others.filter(|(id, _)| does_it(id)).count()
    }

    pub(super) fn set_standing(&mut self, index: u64, order: StandingOrder) -> Reply {
        let StandingOrder { node_id, standing, over, force, author, at_ms } = order;
        if !self.nodes.contains_key(&node_id) {
            return Reply::Refused(Refusal::UnknownNode(node_id));
        }
        let known = self.standing(node_id);
        if known.index > over && (known.standing, known.at_ms, &known.author) == (standing, at_ms, &author) {
            // The same order, proposed twice.
            return Reply::Done;
        }
        if known.index != over {
            return Reply::Refused(Refusal::StandingChanged { now: known.standing.name().to_owned() });
        }
        let takes_away = !standing.is_active() && known.standing.name() != standing.name();
        if takes_away && !force && self.left_without(node_id, standing) == 0 {
            let region = self.nodes[&node_id].region.clone();
            return Reply::Refused(Refusal::LastInService { region, standing: standing.name().to_owned() });
        }
        self.standings.insert(node_id, StandingRecord { standing, index, author, at_ms });
        Reply::Done
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, MemberRecord};
    use super::*;

    const DRAINED: NodeStanding = NodeStanding::Drained { within_ms: None, leaves: false };

    /// Nodes 1 and 2 in eu, 3 in us.
    fn state() -> ConfigState {
        let mut state = ConfigState::default();
        let member = |region: &str| MemberRecord { region: region.into(), ..MemberRecord::default() };
        state
            .nodes
            .extend([(1, "eu"), (2, "eu"), (3, "us")].map(|(id, region)| (NodeId(id), member(region))));
        state
    }

    fn order(id: u64, standing: NodeStanding, over: u64) -> StandingOrder {
        StandingOrder { node_id: NodeId(id), standing, over, force: false, author: "ann".into(), at_ms: 7 }
    }

    #[test]
    fn somebody_stays_in_service() {
        let last = |region: &str, standing: &str| {
            Reply::Refused(Refusal::LastInService { region: region.into(), standing: standing.into() })
        };
        let mut state = state();
        let mut index = 10;
        let mut check = |order: StandingOrder, expected: Reply| {
            index += 1;
            let shown = format!("{order:?}");
            assert_eq!(state.apply(index, Command::SetStanding(order)), expected, "{shown}");
        };
        check(order(9, DRAINED, 0), Reply::Refused(Refusal::UnknownNode(NodeId(9))));
        check(order(3, DRAINED, 0), last("us", "drained"));
        check(order(3, NodeStanding::Cordoned, 0), last("us", "cordoned"));
        check(StandingOrder { force: true, ..order(3, DRAINED, 0) }, Reply::Done); // 14
        check(order(1, NodeStanding::Cordoned, 0), Reply::Done); // 15
        check(order(2, NodeStanding::Cordoned, 0), last("eu", "cordoned"));
        check(order(2, DRAINED, 0), Reply::Done); // 17: the cordoned one serves
        check(order(1, DRAINED, 15), last("eu", "drained"));
        check(order(2, NodeStanding::Active, 17), Reply::Done); // 19
        check(order(1, DRAINED, 15), Reply::Done); // 20
        check(order(1, NodeStanding::Drained { within_ms: Some(5), leaves: true }, 20), Reply::Done); // 21
        check(order(3, NodeStanding::Active, 14), Reply::Done);
    }

    #[test]
    fn what_has_changed_meanwhile_is_not_undone() {
        let mut state = state();
        state.apply(11, Command::SetStanding(order(1, NodeStanding::Cordoned, 0)));
        state.apply(12, Command::SetStanding(order(1, DRAINED, 11)));
        let refused = state.apply(13, Command::SetStanding(order(1, NodeStanding::Active, 11)));
        assert_eq!(refused, Reply::Refused(Refusal::StandingChanged { now: "drained".into() }));
        let again = state.apply(14, Command::SetStanding(order(1, DRAINED, 11)));
        assert_eq!(again, Reply::Done, "the same order twice is one");
        let known = state.standing(NodeId(1));
        assert_eq!((known.standing, known.index, known.author.as_str()), (DRAINED, 12, "ann"));
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<ConfigState>(&text).unwrap(), state);
    }

    #[test]
    fn who_is_removed_leaves_no_standing() {
        let mut state = state();
        state.apply(11, Command::SetStanding(order(1, DRAINED, 0)));
        state.apply(12, Command::RemoveNode { node_id: NodeId(1) });
        assert!(state.standings.is_empty());
    }
}
