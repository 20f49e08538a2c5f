//! Changing who takes part. Only the leader can; the autopilot does it for everyone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers, Instant};
use shoal_model::NodeId;
use shoal_policy::recovery::LogEnd;

use super::ConfigLog;
use super::status::Leadership;
use crate::machine::Raft;
use crate::types::TypeConfig;
use crate::unknown::place_of;

/// How long a change may take; adding a learner could wait for ever otherwise.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);

/// The membership was not changed, or it is not known whether it was.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Another node has to be asked.
    #[error("only the leader changes the membership, and this node is not it")]
    NotLeader,
    /// The cluster did not answer.
    #[error("the change was not committed within {0:?}; it may still be")]
    Timeout(Duration),
    /// openraft refused.
    #[error("the change was refused: {0}")]
    Refused(String),
    /// There is nobody to hand over to.
    #[error("no other voter could lead")]
    NoHeir,
}

/// What a leader knows of those it replicates to.
#[derive(Clone, Debug, Default)]
pub struct Replication {
    /// A change is half done.
    pub joint: bool,
    /// Who votes, itself included.
    pub voters: BTreeSet<NodeId>,
    /// Who only listens.
    pub learners: BTreeSet<NodeId>,
    /// Index of the last entry of its own log.
    pub last: u64,
    /// Index up to which each one's log is known to be the same; absent = unknown.
    pub matched: BTreeMap<NodeId, u64>,
    /// For how long each one has not answered; absent = it never did.
    pub unanswered: BTreeMap<NodeId, Duration>,
}

type Change = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

impl ConfigLog {
    /// Replicates to these nodes at these addresses from now on, without a vote: one entry, however many they are.
    pub async fn add_learners(&self, nodes: BTreeMap<NodeId, String>) -> Result<(), MembershipError> {
        let nodes = nodes.into_iter().map(|(id, address)| (id.0, BasicNode::new(address))).collect();
        self.change(self.part()?.change_membership(ChangeMembers::AddNodes(nodes), true)).await
    }

    /// Replicates to these learners no longer; a voter has to lose its vote first.
    pub async fn remove(&self, nodes: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        let change = ChangeMembers::RemoveNodes(nodes.into_iter().map(|id| id.0).collect());
        self.change(self.part()?.change_membership(change, true)).await
    }

    /// Makes exactly these the voters, in one change; who no longer is one stays a learner.
    pub async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        let change = ChangeMembers::ReplaceAllVoters(voters.into_iter().map(|id| id.0).collect());
        self.change(self.part()?.change_membership(change, true)).await
    }

    /// Completes a change whose leader was lost halfway.
    pub(crate) async fn finish_membership_change(&self) -> Result<(), MembershipError> {
        let change = ChangeMembers::AddVoterIds(BTreeSet::new());
        self.change(self.part()?.change_membership(change, true)).await
    }

    /// Hands leadership to `heir`, or to the voter that is closest behind; returns once somebody else leads.
    pub async fn transfer_leader(&self, heir: Option<NodeId>) -> Result<(), MembershipError> {
        let replication = self.replication().ok_or(MembershipError::NotLeader)?;
        let others = replication.voters.iter().filter(|id| **id != self.node_id());
        let closest = replication.closest(others, |id| self.is_in_service(id));
        let heir = heir.or(closest).ok_or(MembershipError::NoHeir)?;
        let refused = |error: String| MembershipError::Refused(error);
        let raft = self.part()?;
        raft.trigger().transfer_leader(heir.0).await.map_err(|error| refused(error.to_string()))?;
        let deadline = self.shared.timings.patience();
        let led_by_other = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.current_leader.is_some_and(|leader| leader != self.node_id().0)
        };
        let changes = raft.wait(Some(deadline));
        let handed_over = changes.metrics(led_by_other, "leadership is handed over").await;
        handed_over.map(|_| ()).map_err(|_| MembershipError::Timeout(deadline))
    }

    /// Before a planned stop: lets another voter lead, if this node does and there is one. Best effort.
    pub async fn hand_over(&self) {
        match self.transfer_leader(None).await {
            Ok(()) | Err(MembershipError::NotLeader | MembershipError::NoHeir) => {}
            Err(error) => tracing::warn!(%error, "leadership was not handed over"),
        }
    }

    /// How far this node's log is, whoever else has it; `None` = it cannot be used.
    pub fn end(&self) -> Option<LogEnd> {
        let Some(raft) = self.raft() else { return self.shared.left_to_another.clone() };
        let last = raft.data_metrics().borrow_watched().last_log;
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let (epoch, revision) = self.with_state(|state| (state.cluster_epoch, state.revisions.active().0.0));
        Some(LogEnd {
            last: last.map(place_of).unwrap_or_default(),
            vote_term: metrics.vote.leader_id.term,
            vote_for: NodeId(metrics.vote.leader_id.node_id),
            committed: metrics.local_committed.map_or(0, |id| id.index),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
            epoch,
            revision,
            unknown: self.shared.unknown.first(),
        })
    }

    /// No trace of `node` is left: it was a member once, and neither the agreed state nor the membership has it any more.
    /// A leader that was removed stays in the membership until its successor leads.
    pub fn has_left(&self, node: NodeId) -> bool {
        let applied = *self.applied().borrow();
        let was_removed = self.with_state(|state| state.was_removed(node, applied));
        was_removed && self.metrics().membership_config.membership().get_node(&node.0).is_none()
    }

    /// Who has not been in the membership until now, as far as this node knows: the leader does not replicate to it yet.
    pub fn is_outside(&self, node: NodeId) -> bool {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        membership.nodes().next().is_some() && membership.get_node(&node.0).is_none()
    }

    /// What this node knows of its followers, if it leads and is followed.
    pub(crate) fn replication(&self) -> Option<Replication> {
        if self.leadership() != Leadership::Here {
            return None;
        }
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.clone().unwrap_or_default().into_iter();
        let answered = metrics.heartbeat.clone().unwrap_or_default().into_iter();
        Some(Replication {
            joint: membership.get_joint_config().len() > 1,
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
            last: metrics.last_log_index.unwrap_or(0),
            matched: matched.filter_map(|(id, matched)| Some((NodeId(id), matched?.index))).collect(),
            unanswered: answered.filter_map(|(id, at)| Some((NodeId(id), at?.elapsed()))).collect(),
        })
    }

    /// Operators want it to have duties, and let it vote.
    pub(super) fn is_in_service(&self, node: NodeId) -> bool {
        self.with_state(|state| state.may_vote(node) && state.standing(node).standing.is_active())
    }

    fn part(&self) -> Result<&Raft, MembershipError> {
        self.raft().ok_or(MembershipError::NotLeader)
    }

    async fn change(&self, change: impl Future<Output = Change>) -> Result<(), MembershipError> {
        match tokio::time::timeout(CHANGE_DEADLINE, Box::pin(change)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.forward_to_leader().is_some() => Err(MembershipError::NotLeader),
            Ok(Err(error)) => Err(MembershipError::Refused(error.to_string())),
            Err(_) => Err(MembershipError::Timeout(CHANGE_DEADLINE)),
        }
    }
}
