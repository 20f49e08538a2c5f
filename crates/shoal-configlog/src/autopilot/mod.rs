//! Keeps the right nodes voting: on the leader, one step per round towards what [`plan()`] says.

mod hearing;
mod learners;
mod plan;
mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shoal_model::NodeId;
use shoal_model::state::{ClusterSetup, ConfigState, MemberRecord};
use tokio::time::{Instant, MissedTickBehavior};

use self::hearing::HearingLog;
use self::plan::{Member, Picture, Rules, Step, names, plan};
use crate::log::{ConfigLog, MembershipError, Replication};
use crate::timings::Timings;

pub use self::learners::learners_problem;

/// The nodes that are heard now, this one included. Asked once a round.
pub type Liveness = Arc<dyn Fn() -> BTreeSet<NodeId> + Send + Sync>;

/// Between two rounds: about one second in one region.
fn round(timings: Timings) -> Duration {
    timings.silence().mul_f32(0.8).min(Duration::from_secs(5))
}

/// A learner whose log answers votes after having been heard for as long as the timing says (10 s in one region), and the
/// first ones of a cluster after 2.5 times as long as a leader may be silent (3 s); a silent voter is replaced after 4.2 times
/// (5 s).
fn rules(timings: Timings, setup: ClusterSetup) -> Rules {
    Rules {
        most_voters: setup.max_voters.into(),
        answers_within: timings.silence(),
        stable_at_first: timings.silence().mul_f32(2.5).min(timings.stable),
        stable_after: timings.stable,
        dead_after: timings.silence().mul_f32(4.2),
    }
}

/// Runs until it is aborted.
pub async fn run(log: ConfigLog, liveness: Liveness) {
    let mut rounds = tokio::time::interval(round(log.timings()));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hearing = HearingLog::default();
    let mut last_before = None;
    let mut was_told = false;
    loop {
        rounds.tick().await;
        let members = log.with_state(|state| state.nodes.keys().copied().collect());
        hearing.observe(&members, &liveness(), Instant::now());
        let problem = log.learners_problem();
        if let Some(why) = problem.as_ref().filter(|_| !was_told) {
            tracing::warn!("{why}");
        }
        was_told = problem.is_some();
        let replication = log.replication();
        // Who has just begun to lead does not yet know what it had a round ago.
        let before = std::mem::replace(&mut last_before, replication.as_ref().map(|known| known.last));
        let picture = replication.and_then(|replication| take_picture(&log, &hearing, replication, before));
        let Some(picture) = picture else { continue };
        let rules = rules(log.timings(), log.with_state(|state| state.setup));
        let Some(step) = plan(&picture, rules) else { continue };
        let (voters, learners) = (names(&picture.voters), names(&picture.learners));
        tracing::info!(%step, voters, learners, "changing who votes");
        if let Err(error) = Box::pin(carry_out(&log, step)).await {
            tracing::warn!(%error, "the membership was not changed; trying again");
        }
    }
}

/// What this leader sees, `last_before` being the end of its log a round ago.
fn take_picture(
    log: &ConfigLog,
    hearing: &HearingLog,
    replication: Replication,
    last_before: Option<u64>,
) -> Option<Picture> {
    let lag = |id: &NodeId| Some(last_before?.saturating_sub(*replication.matched.get(id)?));
    let now = Instant::now();
    let members: BTreeMap<NodeId, Member> = log.with_state(|state| {
        let member = |(id, record): (&NodeId, &MemberRecord)| {
            let member = Member {
                hearing: hearing.hearing(*id, now),
                lag: lag(id),
                unanswered: replication.unanswered.get(id).copied(),
                region: record.region.clone(),
                zone: record.zone.clone(),
                in_service: state.standing(*id).standing.is_active(),
                may_vote: state.may_vote(*id),
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
        Step::AddLearners(nodes) => {
            // Who was removed since the picture was taken has no address any more.
            let address = |state: &ConfigState, id| Some((id, state.nodes.get(&id)?.cluster_addr.clone()));
            let found =
                log.with_state(|state| nodes.into_iter().filter_map(|id| address(state, id)).collect());
            log.add_learners(found).await
        }
        Step::SetVoters(voters) => log.set_voters(voters).await,
        Step::TransferLeader(heir) => log.transfer_leader(Some(heir)).await,
        Step::Remove(nodes) => log.remove(nodes).await,
    }
}
