//! What this node knows of the log's state of health.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant, Membership, RaftMetrics, ServerState};
use shoal_model::NodeId;

use super::{ConfigLog, LOOK_AGAIN};
use crate::trouble::Trouble;
use crate::types::TypeConfig;

/// The log as seen from this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Who leads, as far as this node knows. It may be gone: see `quorum`.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Who votes. While that changes, who did before: their majority is needed until the change is complete.
    pub voters: Vec<NodeId>,
    /// Who only listens, or does not vote yet.
    pub learners: Vec<NodeId>,
    /// Index of the newest entry known to be committed; 0 = none.
    pub committed: u64,
    /// Index of the newest entry applied here; 0 = none.
    pub applied: u64,
    /// Index of the newest entry in the newest snapshot here; 0 = there is none.
    pub snapshot: u64,
    /// Writes are possible: a leader is there and was heard a moment ago; on the leader, a majority has answered it. A
    /// follower that shares a minority with the old leader finds out last, since only the leader counts votes.
    pub quorum: bool,
    /// For how long it has been without a quorum; zero while there is one.
    pub staleness: Duration,
    /// Why this node takes no part any more; empty = it does.
    pub broken: String,
    /// What it waits for on its disk, and goes on by itself when there is; empty = nothing.
    pub out_of_space: String,
}

/// Who can be asked to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leadership {
    /// This node, and a majority follows it.
    Here,
    /// Another node, heard a moment ago.
    There(NodeId),
    /// This node leads, but nobody follows.
    Deserted,
    /// Nobody, or nobody who is heard.
    Nobody,
    /// This node takes no part any more.
    Stopped,
}

/// Wakes those who wait for somebody to lead.
pub(super) struct LeaderChanges(Option<WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>>);

impl LeaderChanges {
    /// Resolves when another one may lead; after [`LOOK_AGAIN`] anyway, since how long a leader is silent is nobody's news.
    pub(super) async fn next(&mut self) {
        let pause = tokio::time::sleep(LOOK_AGAIN);
        let Some(changes) = &mut self.0 else { return pause.await };
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() {
                self.0 = None;
            },
            () = pause => {}
        }
    }
}

impl ConfigLog {
    /// What happens to the leader from now on.
    pub(super) fn leader_changes(&self) -> LeaderChanges {
        LeaderChanges(self.raft().map(|raft| {
            let mut changes = raft.server_metrics();
            drop(changes.borrow_and_update());
            changes
        }))
    }

    /// The log as seen from this node, without asking anyone.
    pub fn status(&self) -> LogStatus {
        let metrics = self.metrics();
        let (voters, learners) = settled(metrics.membership_config.membership());
        let quorum = matches!(self.leadership(), Leadership::Here | Leadership::There(_));
        LogStatus {
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            voters,
            learners,
            committed: metrics.local_committed.max(metrics.cluster_committed).map_or(0, |id| id.index),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            snapshot: metrics.snapshot.map_or(0, |id| id.index),
            quorum,
            staleness: if quorum { Duration::ZERO } else { self.unled_for(&metrics) },
            broken: self.why_stopped(&metrics).unwrap_or_default(),
            out_of_space: self.lacks_room_for(Duration::ZERO).unwrap_or_default(),
        }
    }

    /// What this node waits for on its disk, if it has for at least so long.
    pub fn lacks_room_for(&self, at_least: Duration) -> Option<String> {
        self.shared.room.missing_for(at_least)
    }

    fn why_stopped(&self, metrics: &RaftMetrics<TypeConfig>) -> Option<String> {
        let stopped = || metrics.running_state.as_ref().err().map(ToString::to_string);
        let trouble = || self.shared.troubles.iter().find_map(Trouble::text);
        self.shared.raft.as_ref().err().cloned().or_else(trouble).or_else(stopped)
    }

    fn unled_for(&self, metrics: &RaftMetrics<TypeConfig>) -> Duration {
        let acked = metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed());
        let heard = self.shared.heard.age();
        acked.into_iter().chain(heard).min().unwrap_or_else(|| self.shared.opened.elapsed())
    }

    /// A copy: openraft's core waits for whoever holds the original.
    pub(super) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        match self.raft() {
            Some(raft) => raft.metrics().borrow_watched().clone(),
            None => RaftMetrics::new_initial(self.shared.node_id.0),
        }
    }

    pub(super) fn leadership(&self) -> Leadership {
        let metrics = self.metrics();
        if self.shared.raft.is_err() || metrics.running_state.is_err() {
            // Whoever has the log knows who leads.
            return if self.is_passed_on() { Leadership::There(self.node_id()) } else { Leadership::Stopped };
        }
        let silence = self.shared.timings.silence();
        match metrics.current_leader {
            Some(leader) if leader == self.shared.node_id.0 => {
                let followed = followed_ago(&metrics).filter(|ago| *ago <= silence);
                match followed.filter(|_| metrics.state == ServerState::Leader) {
                    Some(ago) => {
                        // openraft forgets it as soon as this node leads no longer.
                        self.shared.heard.note_led(ago);
                        Leadership::Here
                    }
                    None => Leadership::Deserted,
                }
            }
            Some(leader) if self.shared.heard.is_recent(silence) => Leadership::There(NodeId(leader)),
            Some(_) | None => Leadership::Nobody,
        }
    }
}

/// Who votes and who does not. Of a joint configuration (Raft section 6) the old voters do: without a majority of them nothing
/// is decided, so that the new ones replace nobody yet.
fn settled<N: openraft::Node>(membership: &Membership<u64, N>) -> (Vec<NodeId>, Vec<NodeId>) {
    let old = membership.get_joint_config().first();
    membership.nodes().map(|(id, _)| NodeId(*id)).partition(|id| old.is_some_and(|old| old.contains(&id.0)))
}

/// How long ago a majority has followed this leader, whose word alone is not enough: a restarted or cut-off one believes in
/// itself for a while.
fn followed_ago(metrics: &RaftMetrics<TypeConfig>) -> Option<Duration> {
    let mut voters = metrics.membership_config.membership().voter_ids();
    let is_sole_voter = voters.next() == Some(metrics.id) && voters.next().is_none();
    let acked = metrics.last_quorum_acked.as_ref().map(|acked| acked.elapsed());
    if is_sole_voter { Some(Duration::ZERO) } else { acked }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_votes_once_the_change_is_complete() {
        // Numbers are voters, of old and new ones apart; then whoever else is in the membership.
        let check = |configs: &[&[u64]], others: &[u64], voters: &[u64], learners: &[u64]| {
            let configs = configs.iter().map(|ids| ids.iter().copied().collect()).collect();
            let nodes = others.iter().copied();
            let membership = Membership::<u64, openraft::BasicNode>::new_with_defaults(configs, nodes);
            let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
            assert_eq!(settled(&membership), (ids(voters), ids(learners)), "{membership:?}");
        };
        check(&[&[1]], &[2, 3], &[1], &[2, 3]);
        check(&[&[1], &[1, 2, 3]], &[], &[1], &[2, 3]);
        check(&[&[1, 2, 3]], &[], &[1, 2, 3], &[]);
        check(&[&[1, 2, 3], &[1, 2, 4]], &[5], &[1, 2, 3], &[4, 5]);
        check(&[], &[], &[], &[]);
    }
}
