//! Which nodes may vote: all but those that operators have said otherwise of, or that have joined by a token for learners.

use super::{ConfigState, Refusal, Reply, TokenRecord};
use crate::id::NodeId;

/// The role of tokens by which nodes join that may not vote.
pub const ROLE_LEARNER: &str = "learner";

impl TokenRecord {
    /// Who joins by it may not vote.
    pub(super) fn is_for_learners(&self) -> bool {
        self.role == ROLE_LEARNER
    }
}

impl ConfigState {
    /// Whether `node` may have a vote. Which of those have one that may is up to the leader.
    pub fn may_vote(&self, node: NodeId) -> bool {
        !self.voteless.contains(&node)
    }

    /// Whether another member than `node` may.
    pub(super) fn others_may_vote(&self, node: NodeId) -> bool {
        self.nodes.keys().any(|other| *other != node && self.may_vote(*other))
    }

    pub(super) fn set_vote(&mut self, node: NodeId, may_vote: bool) -> Reply {
        if !self.nodes.contains_key(&node) {
            return Reply::Refused(Refusal::UnknownNode(node));
        }
        if may_vote {
            self.voteless.remove(&node);
        } else if self.others_may_vote(node) {
            self.voteless.insert(node);
        } else {
            return Reply::Refused(Refusal::LastVoter);
        }
        Reply::Done
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, Command, MemberRecord, VOTES};
    use super::*;

    fn node(name: &str) -> MemberRecord {
        MemberRecord { name: name.into(), public_key_sha256: name.into(), ..MemberRecord::default() }
    }

    /// Nodes 1 to 3 at `level`, all of which may vote.
    fn state(level: u32) -> ConfigState {
        let mut state = ConfigState::default();
        state.level.number = level;
        state.nodes.extend((1..=3).map(|id| (NodeId(id), node(&format!("n{id}")))));
        state
    }

    fn set(id: u64, may_vote: bool) -> Command {
        Command::SetVote { node_id: NodeId(id), may_vote }
    }

    fn voting(state: &ConfigState) -> Vec<u64> {
        state.nodes.keys().filter(|id| state.may_vote(**id)).map(|id| id.0).collect()
    }

    #[test]
    fn somebody_may_always_vote() {
        let mut state = state(VOTES);
        let last = || Reply::Refused(Refusal::LastVoter);
        let remove = |id| Command::RemoveNode { node_id: NodeId(id) };
        let revoke = |id| Command::RevokeNode { node_id: NodeId(id) };
        for (index, command, expected, left) in [
            (1, set(9, false), Reply::Refused(Refusal::UnknownNode(NodeId(9))), vec![1, 2, 3]),
            (2, set(3, false), Reply::Done, vec![1, 2]),
            (3, set(3, false), Reply::Done, vec![1, 2]),
            (4, set(2, false), Reply::Done, vec![1]),
            (5, set(1, false), last(), vec![1]),
            (6, remove(1), last(), vec![1]),
            (7, revoke(1), last(), vec![1]),
            (8, set(2, true), Reply::Done, vec![1, 2]),
            (9, set(2, true), Reply::Done, vec![1, 2]),
            (10, remove(1), Reply::Done, vec![2]),
            (11, remove(3), Reply::Done, vec![2]),
        ] {
            assert_eq!(state.apply(index, command), expected, "{index}");
            assert_eq!(voting(&state), left, "{index}");
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<ConfigState>(&text).unwrap(), state);
        }
        assert!(state.voteless.is_empty(), "who is removed leaves nothing");
    }

    #[test]
    fn who_goes_on_alone_votes() {
        let mut state = state(VOTES);
        state.apply(4, set(2, false));
        state.apply(5, Command::Recover { survivor: NodeId(2), cluster_epoch: 1 });
        assert_eq!(voting(&state), [2]);
    }

    #[test]
    fn who_joins_by_a_token_for_learners_may_not_vote() {
        let admit = |name: &str, token: &str| {
            let (token_id, secret_sha256) = (token.into(), "s".into());
            Command::Admit(Admission { token_id, secret_sha256, at_ms: 1, node: node(name) })
        };
        let make = |role: &str| {
            let (secret_sha256, role) = ("s".into(), role.into());
            TokenRecord { secret_sha256, expires_at_ms: 100, uses_left: 3, role, ..TokenRecord::default() }
        };
        for (level, expected) in [(VOTES, vec![1, 2, 3, 13]), (VOTES - 1, vec![1, 2, 3, 12, 13])] {
            let mut state = state(level);
            for (index, role) in [(10, ROLE_LEARNER), (11, "node")] {
                let command = Command::CreateToken { id: role.into(), token: make(role) };
                assert_eq!(command.needs(), if role == ROLE_LEARNER { VOTES } else { 0 });
                state.apply(index, command);
            }
            assert_eq!(state.apply(12, admit("b", ROLE_LEARNER)), Reply::Admitted(NodeId(12)));
            assert_eq!(state.apply(13, admit("c", "node")), Reply::Admitted(NodeId(13)));
            assert_eq!(voting(&state), expected, "level {level}");
            // Another token changes nothing of what the node is.
            assert_eq!(state.apply(14, admit("b", "node")), Reply::Admitted(NodeId(12)));
            assert_eq!(voting(&state), expected, "level {level}");
        }
    }
}
