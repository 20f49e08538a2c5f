//! Verbs about a revision on its way from wave to wave: how far it is, stop it, let it go on; and when that is the usual way.

use std::sync::Arc;

use shoal_model::state::{Command, EndedRollout, Quarantined, Reply, RolloutStep, WAVES};
use shoal_proto::admin::{
    self, GetRolloutResponse, RolloutAction, SetRolloutPolicyRequest, SetRolloutPolicyResponse,
    StepRolloutRequest,
};
use tonic::{Code, Status};

use super::base::{linearizable_base, newest_base, put, staleness_ms};
use super::caller::author_of;
use super::failure::{self, Exit, with_exit};
use super::manner::{check_members_know, pace_of};
use super::request_key::{RequestKey, Subject};
use super::step::AskedStep;
use crate::node::Node;
use crate::rollout::{Silent, pace_message, waves_message};

/// How far the revision is that is not in force for good, and what came of the one before.
pub async fn look(node: &Arc<Node>) -> Result<GetRolloutResponse, Status> {
    let (_, quorum) = newest_base(node).await?;
    let staleness_ms = staleness_ms(node);
    let mut rollout = node.rollout_seen().await;
    if let Some(rollout) = &mut rollout {
        let watch = node.watch_of(rollout).await;
        if let Some(waves) = &mut rollout.waves {
            waves.watch = watch;
        }
    }
    Ok(node.log.with_state(|state| {
        let quarantine = state.revisions.quarantine().newest_first();
        GetRolloutResponse {
            rollout,
            ended: state.revisions.ended_rollout().map(ended_message),
            quarantine: quarantine.into_iter().map(quarantined_message).collect(),
            policy: state.rollout_policy.map(pace_message),
            quorum,
            staleness_ms,
        }
    }))
}

/// Stops it where it is, lets it go on, or has the next wave begin.
pub async fn step(
    node: &Arc<Node>,
    request: StepRolloutRequest,
    caller: &str,
) -> Result<GetRolloutResponse, Status> {
    linearizable_base(node).await?;
    let action = request.action();
    let StepRolloutRequest { revision, author, request_id, .. } = request;
    let meaning = [&*revision.to_string(), action.as_str_name()];
    let key = RequestKey::of(Subject::Step, caller, &request_id, &meaning)?;
    let author = author_of(&author, caller);
    let (step, message) = match action {
        RolloutAction::Pause => (RolloutStep::Pause, String::new()),
        RolloutAction::Resume => (RolloutStep::Resume, String::new()),
        RolloutAction::Promote => {
            let next = match node.waiting_rollout() {
                Some((rollout, _)) => node.next_step(&rollout).await.map_err(passed_over)?,
                None => None,
            };
            // Where nothing goes in waves, the log says so.
            (next.unwrap_or(RolloutStep::Resume), format!("{author} did not wait for more"))
        }
        RolloutAction::Unspecified => {
            return Err(with_exit(Code::InvalidArgument, Exit::Local, "what is to be done is not said"));
        }
    };
    match (AskedStep { key, revision, step, author, message }).carry_out(node).await? {
        Reply::Confirmed(_) => {}
        reply => reply.done().map_err(failure::reply)?,
    }
    look(node).await
}

fn passed_over(silent: Silent) -> Status {
    let advice = "again in a moment, `shoal node drain`, or --all, which has it come to everybody";
    with_exit(Code::Unavailable, Exit::Remote, format!("no wave follows as yet: {silent}; {advice}"))
}

/// How revisions come into force where nobody says.
pub async fn set_policy(
    node: &Arc<Node>,
    request: &SetRolloutPolicyRequest,
) -> Result<SetRolloutPolicyResponse, Status> {
    let policy = node.log.with_state(|state| state.rollout_policy);
    let waves = request.waves.map(|asked| pace_of(asked, policy)).transpose()?;
    check_members_know(node, WAVES, "would have every change at once")?;
    put(node, Command::SetRolloutPolicy { waves }).await?;
    Ok(SetRolloutPolicyResponse {})
}

fn ended_message(ended: &EndedRollout) -> admin::EndedRollout {
    admin::EndedRollout {
        revision: ended.revision.0,
        waves: Some(waves_message(&ended.waves)),
        reverted_by: ended.reverted_by.map_or(0, |by| by.0),
        why: ended.why.clone(),
        at_ms: ended.at_ms,
    }
}

pub(super) fn quarantined_message(quarantined: &Quarantined) -> admin::Quarantined {
    let Quarantined { revision, why, at_ms } = quarantined;
    admin::Quarantined { revision: revision.0, why: why.clone(), at_ms: *at_ms, objects: Vec::new() }
}
