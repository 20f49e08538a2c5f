//! Keeps the right nodes voting: on the leader, one step per round towards what [`plan()`] says.

mod hearing;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_model::NodeId;
use tokio::time::MissedTickBehavior;

use self::hearing::HearingLog;
use self::plan::{Member, Picture, Rules, Step, plan};
use crate::log::{ConfigLog, MembershipError};
use crate::timings::Timings;

/// The nodes that are heard now, this one included. Asked once a round.
pub type Liveness = Arc<dyn Fn() -> BTreeSet<NodeId> + Send + Sync>;

/// Between two rounds, in elections: about one second in one region.
fn round(timings: Timings) -> Duration {
    timings.election_max.mul_f32(0.8).min(Duration::from_secs(5))
}

/// A learner votes after 2.5 elections of being heard (3 s in one region), a silent voter is replaced after 4 (5 s).
fn rules(timings: Timings) -> Rules {
    Rules { stable_after: timings.election_max.mul_f32(2.5), dead_after: timings.election_max.mul_f32(4.2) }
}

/// Runs until it is aborted.
pub async fn run(log: ConfigLog, liveness: Liveness) {
    let rules = rules(log.timings());
    let mut rounds = tokio::time::interval(round(log.timings()));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hearing = HearingLog::default();
    loop {
        rounds.tick().await;
        let members = log.with_state(|state| state.nodes.keys().copied().collect());
        hearing.observe(&members, &liveness(), Instant::now());
        let Some(picture) = take_picture(&log, &hearing) else { continue };
        let Some(step) = plan(&picture, rules) else { continue };
        tracing::info!(?step, voters = ?picture.voters, learners = ?picture.learners, "changing who votes");
        if let Err(error) = Box::pin(carry_out(&log, step)).await {
            tracing::warn!(%error, "the membership was not changed; trying again");
        }
    }
}

/// What this node sees, if it leads.
fn take_picture(log: &ConfigLog, hearing: &HearingLog) -> Option<Picture> {
    let replication = log.replication()?;
    let now = Instant::now();
    let members: BTreeMap<NodeId, Member> = log.with_state(|state| {
        let member = |(id, record): (&NodeId, &shoal_model::state::MemberRecord)| {
            let member = Member {
                hearing: hearing.hearing(*id, now),
                lag: replication.lag.get(id).copied(),
                region: record.region.clone(),
                zone: record.zone.clone(),
            };
            (*id, member)
        };
        state.nodes.iter().map(member).collect()
    });
    // Before the first entry is applied nobody is a member, and nobody is to be removed for it.
    (!members.is_empty()).then_some(Picture {
        leader: log.node_id(),
        joint: replication.joint,
        voters: replication.voters,
        learners: replication.learners,
        members,
    })
}

async fn carry_out(log: &ConfigLog, step: Step) -> Result<(), MembershipError> {
    match step {
        Step::FinishChange => log.finish_membership_change().await,
        Step::AddLearner(node) => {
            let address =
                log.with_state(|state| state.nodes.get(&node).map(|record| record.cluster_addr.clone()));
            match address {
                Some(address) => log.add_learner(node, &address).await,
                None => Ok(()), // removed since the picture was taken
            }
        }
        Step::SetVoters(voters) => log.set_voters(voters).await,
        Step::TransferLeader(heir) => log.transfer_leader(Some(heir)).await,
        Step::Remove(node) => log.remove(node).await,
    }
}
