//! Verbs about a revision that does not stay unless somebody confirms it: stage, confirm, abort.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_model::state::{
    CANARIES, Command, LONGEST_CONFIRM, MemberRecord, ROLLOUTS, Refusal, Reply, RevertCause, RolloutStep,
    SHORTEST_CONFIRM, Standing,
};
use shoal_model::{NodeId, Revision};
use shoal_policy::rollout::{Canary, Candidate, choose};
use shoal_proto::admin::{self, AbortRequest, ApplyResponse, ConfirmRequest, ConfirmResponse, StageRequest};
use tonic::{Code, Status};

use super::change::{
    self, CATCH_UP_WAIT, Manner, SHORTEST_WAIT, Written, author_of, linearizable_base, wait_of,
};
use super::failure::{self, Exit, with_exit};
use super::request_key::{RequestKey, Subject};
use crate::node::{Node, now_ms};

/// Makes the given site the next revision, until its time is over or somebody has confirmed it.
pub async fn stage(node: &Arc<Node>, request: StageRequest, caller: &str) -> Result<ApplyResponse, Status> {
    let within = Duration::from_millis(request.confirm_within_ms);
    if !(SHORTEST_CONFIRM..=LONGEST_CONFIRM).contains(&within) {
        let why =
            format!("{within:?} to confirm it: {SHORTEST_CONFIRM:?} to {LONGEST_CONFIRM:?} are possible");
        return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
    }
    let canary = request.canary.map(canary_of).transpose()?;
    let unaware = node.members_without(if canary.is_some() { CANARIES } else { ROLLOUTS });
    if !unaware.is_empty() {
        let why = format!(
            "a node that does not know of unconfirmed revisions would keep this one, and so may {}: upgrade it, start \
             it, or remove it from the cluster",
            unaware.join(", ")
        );
        return Err(with_exit(Code::FailedPrecondition, Exit::Remote, why));
    }
    let manner = Manner { overrides: false, confirm_within_ms: Some(request.confirm_within_ms), canary };
    change::apply_as(node, request.change.unwrap_or_default(), caller, manner).await
}

/// Whom the caller wants to try it.
fn canary_of(canary: admin::Canary) -> Result<Canary, Status> {
    let admin::Canary { nodes, region, percent } = canary;
    match (nodes.is_empty(), region.is_empty(), percent) {
        (false, true, 0) => Ok(Canary::Nodes(nodes.into_iter().collect())),
        (true, false, 0) => Ok(Canary::Region(region)),
        (true, true, 1..=99) => Ok(Canary::Percent(percent as u8)),
        _ => {
            let why = "a canary is some nodes, a region, or 1 to 99 percent of the nodes";
            Err(with_exit(Code::InvalidArgument, Exit::Local, why))
        }
    }
}

/// Those that try `revision`.
pub fn choose_canary(node: &Node, canary: &Canary, revision: Revision) -> Result<BTreeSet<NodeId>, Status> {
    let live = node.live_members();
    let candidate = |(id, member): (NodeId, MemberRecord)| {
        let is_alive = live.iter().any(|(alive, _)| *alive == id);
        Candidate { id, name: member.name, region: member.region, is_alive }
    };
    let members: Vec<Candidate> = node.members().into_iter().map(candidate).collect();
    choose(canary, revision, &members)
        .map_err(|why| with_exit(Code::InvalidArgument, Exit::Local, why.to_string()))
}

/// The revision stays, and is for everybody from now on.
pub async fn confirm(
    node: &Arc<Node>,
    request: ConfirmRequest,
    caller: &str,
) -> Result<ConfirmResponse, Status> {
    let (started, wait) = (Instant::now(), wait_of(request.timeout_ms));
    let meaning = [&*request.revision.to_string()];
    let wish = Wish {
        key: RequestKey::of(Subject::Confirm, caller, &request.request_id, &meaning)?,
        revision: request.revision,
        step: RolloutStep::Confirm,
        author: author_of(&request.author, caller),
        message: String::new(),
    };
    match wish.carry_out(node).await? {
        Reply::Confirmed(revision) => {
            tracing::info!(%revision, by = caller, "the revision was confirmed");
            let left = wait.saturating_sub(started.elapsed()).max(SHORTEST_WAIT);
            let acks = node.await_everywhere(0, revision, left).await;
            let elapsed_ms = started.elapsed().as_millis() as u32;
            Ok(ConfirmResponse { revision: revision.0, acks, absent: node.absent_members(), elapsed_ms })
        }
        _ => Err(failure::unexpected_reply()),
    }
}

/// What was before the revision becomes the next one.
pub async fn abort(node: &Arc<Node>, request: AbortRequest, caller: &str) -> Result<ApplyResponse, Status> {
    let (started, wait) = (Instant::now(), wait_of(request.timeout_ms));
    let meaning = [&*request.revision.to_string()];
    let wish = Wish {
        key: RequestKey::of(Subject::Abort, caller, &request.request_id, &meaning)?,
        revision: request.revision,
        step: RolloutStep::Revert(RevertCause::Aborted),
        author: author_of(&request.author, caller),
        message: request.message,
    };
    let Reply::Published(revision) = wish.carry_out(node).await? else {
        return Err(failure::unexpected_reply());
    };
    let changes = change::changes_of(node, revision).await?;
    let left = wait.saturating_sub(started.elapsed()).max(SHORTEST_WAIT);
    let written = Written { revision, is_new: true, changes };
    Ok(change::tell_everywhere(node, written, started, Some(left)).await)
}

/// A step that somebody wants to be taken.
struct Wish {
    key: RequestKey,
    /// Of this revision; 0 = whichever waits.
    revision: u64,
    step: RolloutStep,
    author: String,
    message: String,
}

impl Wish {
    /// What the log answers. This node has applied it then, if it can be waited for.
    async fn carry_out(self, node: &Node) -> Result<Reply, Status> {
        change::check_message(&self.message)?;
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
        (Some(Standing::Confirmed { author, .. }), _) => {
            format!("{author} has confirmed revision {revision}")
        }
        (Some(Standing::Reverted { by }), _) => {
            format!("revision {revision} was not confirmed, and revision {by} has taken its place")
        }
        (Some(Standing::Final), _) => {
            format!("revision {revision} was published for good: `shoal rollback` undoes that")
        }
        (Some(Standing::Unconfirmed), _) => "the revision has just been settled; try again".to_owned(),
        (None, _) => return failure::no_such_revision(revision),
    };
    with_exit(Code::FailedPrecondition, Exit::Conflict, why)
}
