//! Verbs that say what a change would do, and do not do it.

use std::sync::Arc;
use std::time::Duration;

use shoal_proto::admin::{EditRequest, PlanRequest, PlanResponse};
use tonic::{Code, Status};

use super::base::{newest_base, staleness_ms};
use super::differences::change_message;
use super::draft::{Goal, draft};
use super::failure::{Exit, with_exit};
use super::given::Given;
use super::relapse::Relapse;
use super::waves::quarantined_message;
use crate::node::Node;
use crate::rehearsal::Verdict;

/// Plans that one node works out at once, for whoever may look: each is as much work as a change, here and on the nodes
/// that are asked what they would make of it.
pub const MAX_PLANS: usize = 2;
/// Bytes of the sites of these plans, the given ones and the active one with each: a site takes a hundred times as much while
/// it is read, compared and compiled. A plan that has more than its part of that is worked out alone.
const PLAN_BYTES: usize = 2 << 20;
/// For a place among them.
const PLAN_PLACE_WAIT: Duration = Duration::from_secs(5);
/// For a plan as a whole. What is being compiled then is compiled to its end, and keeps its place until then.
const PLAN_TIME: Duration = Duration::from_secs(60);

/// The difference between the given site and the active revision, or what this node knows of it: whoever plans while
/// there is no quorum wants to see something all the same.
pub async fn plan(node: &Arc<Node>, request: PlanRequest) -> Result<PlanResponse, Status> {
    plan_given(node, Given::site(request.site_json, request.prune)).await
}

/// The same for single objects.
pub async fn plan_edit(node: &Arc<Node>, request: EditRequest) -> Result<PlanResponse, Status> {
    let given = Given::objects(request.put_json, &request.remove, request.unchanged_since)?;
    plan_given(node, given).await
}

/// How many of the places a plan takes.
fn places(bytes: usize) -> u32 {
    if bytes <= PLAN_BYTES / MAX_PLANS { 1 } else { MAX_PLANS as u32 }
}

async fn plan_given(node: &Arc<Node>, given: Given) -> Result<PlanResponse, Status> {
    let active = node.log.with_state(|state| state.revisions.active().1.len());
    let places = places(given.bytes() + active);
    let place = node.planning.clone().acquire_many_owned(places);
    let Ok(Ok(place)) = tokio::time::timeout(PLAN_PLACE_WAIT, place).await else {
        let why = format!(
            "{MAX_PLANS} plans, or one of a large site, are being worked out on this node already; try again, or ask another \
             one"
        );
        return Err(with_exit(Code::ResourceExhausted, Exit::Remote, why));
    };
    // A task of its own: work that cannot be stopped keeps its place, also when nobody waits for it any more.
    let (node, goal) = (node.clone(), Goal::given(given));
    let planning = tokio::spawn(async move {
        let plan = work_out(&node, goal).await;
        drop(place);
        plan
    });
    match tokio::time::timeout(PLAN_TIME, planning).await {
        Ok(Ok(plan)) => plan,
        Ok(Err(_)) => Err(Status::internal("planning the change panicked")),
        Err(_) => {
            let why = format!("the plan is not worked out within {} s", PLAN_TIME.as_secs());
            Err(with_exit(Code::DeadlineExceeded, Exit::Remote, why))
        }
    }
}

async fn work_out(node: &Arc<Node>, goal: Goal) -> Result<PlanResponse, Status> {
    let (base, quorum) = newest_base(node).await?;
    let draft = draft(node, &base, &goal).await?;
    let verdicts = match draft.changes.is_empty() {
        true => Vec::new(),
        false => node.rehearse_everywhere(draft.base, &draft.delta).await,
    };
    let quarantined = node.log.with_state(|state| {
        let known = state.revisions.quarantine().find(&draft.fingerprint);
        known.filter(|_| !draft.changes.is_empty()).map(quarantined_message)
    });
    let quarantined = quarantined.or_else(|| draft.relapse.as_ref().map(Relapse::message));
    Ok(PlanResponse {
        base_revision: draft.base.0,
        changes: draft.changes.iter().map(change_message).collect(),
        quorum,
        verdicts: verdicts.into_iter().map(Verdict::message).collect(),
        quarantined,
        rollout: node.rollout_message(),
        staleness_ms: staleness_ms(node),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_of_large_sites_are_worked_out_alone() {
        for (bytes, expected) in [(0, 1), (1 << 20, 1), ((1 << 20) + 1, 2), (64 << 20, 2)] {
            assert_eq!(places(bytes), expected, "{bytes}");
        }
    }
}
