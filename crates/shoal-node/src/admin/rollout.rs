//! Verbs about a revision that does not stay unless somebody confirms it: stage, confirm, abort.

use std::sync::Arc;

use shoal_model::state::{RevertCause, RolloutStep};
use shoal_proto::admin::{
    self, AbortRequest, ApplyResponse, ConfirmRequest, ConfirmResponse, RollOutRequest, StageRequest,
};
use tonic::{Code, Status};

use super::caller::{Patience, author_of};
use super::change::{self, Written};
use super::failure::{self, Exit, with_exit};
use super::manner::Manner;
use super::request_key::{RequestKey, Subject};
use super::step::AskedStep;
use crate::acks::Acknowledged;
use crate::node::Node;

/// Makes the given site the next revision, until its time is over or somebody has confirmed it.
pub async fn stage(node: &Arc<Node>, request: StageRequest, caller: &str) -> Result<ApplyResponse, Status> {
    let StageRequest { change, confirm_within_ms, canary } = request;
    if confirm_within_ms == 0 {
        return Err(with_exit(Code::InvalidArgument, Exit::Local, "how long it may wait is not said"));
    }
    let manner = admin::Manner { confirm_within_ms, canary, ..admin::Manner::default() };
    let apply = Some(change.unwrap_or_default());
    roll_out(node, RollOutRequest { apply, manner: Some(manner), ..RollOutRequest::default() }, caller).await
}

/// Changes the site in the manner that is asked for.
pub async fn roll_out(
    node: &Arc<Node>,
    request: RollOutRequest,
    caller: &str,
) -> Result<ApplyResponse, Status> {
    let RollOutRequest { apply, edit, rollback, manner } = request;
    let manner = manner.unwrap_or_default();
    let policy = node.log.with_state(|state| state.rollout_policy);
    match (apply, edit, rollback) {
        (Some(apply), None, None) => {
            change::apply(node, apply, caller, Manner::of(manner, policy, || Manner::usual(node))?).await
        }
        (None, Some(edit), None) => {
            change::edit(node, edit, caller, Manner::of(manner, policy, || Manner::usual(node))?).await
        }
        // The way out of trouble takes no detour unless somebody asks for it.
        (None, None, Some(rollback)) => {
            change::rollback(node, rollback, caller, Manner::of(manner, policy, || Manner::AT_ONCE)?).await
        }
        _ => Err(with_exit(Code::InvalidArgument, Exit::Local, "one change is rolled out at a time")),
    }
}

/// The revision stays, and is for everybody from now on.
pub async fn confirm(
    node: &Arc<Node>,
    request: ConfirmRequest,
    caller: &str,
) -> Result<ConfirmResponse, Status> {
    let patience = Patience::of(request.timeout_ms);
    let meaning = [&*request.revision.to_string()];
    let asked = AskedStep {
        key: RequestKey::of(Subject::Confirm, caller, &request.request_id, &meaning)?,
        revision: request.revision,
        step: RolloutStep::Confirm,
        author: author_of(&request.author, caller),
        message: String::new(),
    };
    let revision = asked.carry_out(node).await?.confirmed().map_err(failure::reply)?;
    tracing::info!(%revision, by = caller, "the revision was confirmed");
    let Acknowledged { acks, absent } = node.await_everywhere(0, revision, patience.left()).await;
    Ok(ConfirmResponse { revision: revision.0, acks, absent, elapsed_ms: patience.elapsed_ms() })
}

/// What was before the revision becomes the next one.
pub async fn abort(node: &Arc<Node>, request: AbortRequest, caller: &str) -> Result<ApplyResponse, Status> {
    let patience = Patience::of(request.timeout_ms);
    let meaning = [&*request.revision.to_string()];
    let asked = AskedStep {
        key: RequestKey::of(Subject::Abort, caller, &request.request_id, &meaning)?,
        revision: request.revision,
        step: RolloutStep::Revert(RevertCause::Aborted),
        author: author_of(&request.author, caller),
        message: request.message,
    };
    let revision = asked.carry_out(node).await?.published().map_err(failure::reply)?;
    let changes = change::changes_of(node, revision).await?;
    let written = Written { revision, is_new: true, changes };
    Ok(change::tell_everywhere(node, written, patience, Some(patience.left())).await)
}
