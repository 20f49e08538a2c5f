//! Verbs about a revision that does not stay unless somebody confirms it: stage, confirm, abort.

use std::sync::Arc;

use shoal_model::Revision;
use shoal_model::state::{Command, Refusal, Reply, RevertCause, RevisionStanding, RolloutStep};
use shoal_proto::admin::{
    self, AbortRequest, ApplyResponse, ConfirmRequest, ConfirmResponse, RollOutRequest, StageRequest,
};
use tonic::{Code, Status};

use super::base::{CATCH_UP_WAIT, linearizable_base};
use super::caller::{Patience, author_of, check_message};
use super::change::{self, Written};
use super::failure::{self, Exit, with_exit};
use super::manner::Manner;
use super::request_key::{RequestKey, Subject};
use crate::acks::Acknowledged;
use crate::node::{Node, now_ms};

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
    match (apply, edit, rollback) {
        (Some(apply), None, None) => {
            change::apply(node, apply, caller, Manner::of(manner, || Manner::usual(node))?).await
        }
        (None, Some(edit), None) => {
            change::edit(node, edit, caller, Manner::of(manner, || Manner::usual(node))?).await
        }
        // The way out of trouble takes no detour unless somebody asks for it.
        (None, None, Some(rollback)) => {
            change::rollback(node, rollback, caller, Manner::of(manner, || Manner::AT_ONCE)?).await
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

/// A step that somebody wants to be taken.
pub(super) struct AskedStep {
    pub key: RequestKey,
    /// Of this revision; 0 = whichever waits.
    pub revision: u64,
    pub step: RolloutStep,
    pub author: String,
    pub message: String,
}

impl AskedStep {
    /// What the log answers. This node has applied it then, if it can be waited for.
    pub(super) async fn carry_out(self, node: &Node) -> Result<Reply, Status> {
        check_message(&self.message)?;
        linearizable_base(node).await?;
        // A request that comes again, since the node that was asked first died.
        if let Some(reply) = node.log.with_state(|state| self.key.answered(state))? {
            return Ok(reply);
        }
        let waiting = node.waiting_rollout().map(|(rollout, _)| rollout.revision);
        let Some(revision) = waiting.filter(|waiting| [0, waiting.0].contains(&self.revision)) else {
            return Err(nothing_to_settle(node, Revision(self.revision)));
        };
        let Self { key, step, author, message, .. } = self;
        let (request_id, at_ms) = (key.text(), now_ms());
        let command = Command::Rollout { request_id, revision, step, author, message, at_ms };
        let proposed = node.log.propose(command).await.map_err(failure::propose)?;
        node.await_applied(proposed.index, Revision(0), CATCH_UP_WAIT).await;
        match proposed.reply {
            Reply::Refused(Refusal::NotUnconfirmed(_)) => Err(nothing_to_settle(node, revision)),
            Reply::Refused(refusal) => Err(failure::refusal(&refusal)),
            reply => Ok(reply),
        }
    }
}

/// Nothing can follow a revision that may have to be taken back, but what ends that.
pub fn unconfirmed(node: &Node) -> Status {
    let Some(waiting) = node.rollout_message() else {
        // It has just been settled.
        return with_exit(Code::Aborted, Exit::Remote, "a revision was not confirmed until now; try again");
    };
    let (revision, before, left) = (waiting.revision, waiting.before, waiting.left_ms.div_ceil(1000));
    let author = waiting.author;
    if let Some(admin::Waves { wave, nodes, members, .. }) = waiting.waves {
        let why = format!(
            "revision {revision} by {author} is being rolled out, and {nodes} of {members} nodes serve it in wave {wave}: \
             wait until it is everywhere (`shoal rollout status --watch`), or settle it first"
        );
        return with_exit(Code::AlreadyExists, Exit::Conflict, why);
    }
    let why = format!(
        "revision {revision} by {author} is not confirmed: the cluster goes back to revision {before} in {left} s \
         unless it is; settle that first"
    );
    with_exit(Code::AlreadyExists, Exit::Conflict, why)
}

/// Why `revision` (0 = whichever waits) cannot be confirmed or aborted.
fn nothing_to_settle(node: &Node, revision: Revision) -> Status {
    let (standing, waiting) = node.log.with_state(|state| {
        let record = state.revisions.record(revision);
        (
            record.map(|record| record.standing.clone()),
            state.revisions.rollout().map(|rollout| rollout.revision),
        )
    });
    let why = match (standing, waiting) {
        (_, None) if revision == Revision(0) => "no revision waits to be confirmed".to_owned(),
        (Some(RevisionStanding::Confirmed { author, .. }), _) => {
            format!("{author} has confirmed revision {revision}")
        }
        (Some(RevisionStanding::Reverted { by }), _) => {
            format!("revision {revision} was not confirmed, and revision {by} has taken its place")
        }
        (Some(RevisionStanding::Final), _) => {
            format!("revision {revision} was published for good: `shoal rollback` undoes that")
        }
        (Some(RevisionStanding::Unconfirmed), _) => {
            "the revision has just been settled; try again".to_owned()
        }
        (None, _) => return failure::no_such_revision(revision),
    };
    with_exit(Code::FailedPrecondition, Exit::Conflict, why)
}
