//! What a new leader asks the voters, so that a purge need not wait for leases from before its election as if they had been
//! given until then.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use shoal_model::NodeId;
use shoal_policy::cache::confirmed::{Mandate, last_confirmed, time_of};
use shoal_proto::raft as proto;

use super::{ConfigLog, lock};

/// How long they are waited for, at least. Whoever is lost has an own reason to be silent.
const DEADLINE: Duration = Duration::from_millis(250);

impl ConfigLog {
    /// The askers of this node, which has led in `term` a moment ago, are known as well as the voters know them. Returns at
    /// once where that was so already, or would not shorten a wait.
    pub(super) async fn settle_askers(&self, term: u64) {
        let mandate = Mandate { term, leader: self.node_id() };
        let unsettled = lock(&self.shared.askers).unsettled(term, self.shared.opened.elapsed());
        let Some(leads_since) = unsettled else { return };
        let metrics = self.metrics();
        let membership = &metrics.membership_config;
        let is_own_change = membership
            .log_id()
            .is_some_and(|id| id.leader_id.term == term && id.leader_id.node_id == mandate.leader.0);
        if is_own_change {
            return;
        }
        let voters: Vec<_> = membership
            .get_joint_config()
            .iter()
            .map(|voters| voters.iter().copied().map(NodeId).collect())
            .collect();
        let asking: FuturesUnordered<_> =
            membership.voter_ids().map(|voter| self.ask_last_confirmed(NodeId(voter), mandate)).collect();
        let mut said = BTreeMap::new();
        // A heartbeat is longer than the way to any of them and back.
        let deadline = self.shared.timings.heartbeat.max(DEADLINE);
        let mut answers = asking.take_until(Box::pin(tokio::time::sleep(deadline)));
        while let Some(answer) = answers.next().await {
            said.extend(answer);
            let confirmed = last_confirmed(&voters, &said, leads_since);
            if confirmed < leads_since {
                lock(&self.shared.askers).settle(term, confirmed);
                return;
            }
        }
        tracing::debug!(%mandate, ?said, "no majority says when it last confirmed other leaders");
    }

    /// When `voter` has last confirmed leaders before the one with `mandate`, by the clock of this node.
    async fn ask_last_confirmed(&self, voter: NodeId, mandate: Mandate) -> Option<(NodeId, Duration)> {
        if voter == self.node_id() {
            let silent = self.shared.heard.confirmed_none_before(mandate)?;
            return Some((voter, self.shared.opened.elapsed().saturating_sub(silent)));
        }
        let mut client = self.consensus_peer(voter).ok()?;
        let answer = client.last_confirmed(proto::LastConfirmedRequest { term: mandate.term }).await.ok()?;
        let ago = Duration::from_millis(answer.into_inner().at_least_ms);
        Some((voter, time_of(ago, self.shared.opened.elapsed())))
    }
}
