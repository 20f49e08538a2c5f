//! A step of a revision that does not stay unless somebody confirms it, taken by whoever asks, and what stands in its way.

use shoal_model::Revision;
use shoal_model::state::{Command, Refusal, Reply, RevisionStanding, RolloutStep};
use shoal_proto::admin;
use tonic::{Code, Status};

use super::base::{CATCH_UP_WAIT, linearizable_base};
use super::caller::check_message;
use super::failure::{self, Exit, with_exit, with_revision};
use super::request_key::RequestKey;
use crate::node::{Node, now_ms};

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
pub(super) fn unconfirmed(node: &Node) -> Status {
    let Some(waiting) = node.rollout_message() else {
        // It has just been settled.
        return with_exit(Code::Aborted, Exit::Remote, "a revision was not confirmed until now; try again");
    };
    let (revision, before, left) = (waiting.revision, waiting.before, waiting.left_ms.div_ceil(1000));
    let author = waiting.author;
    let in_the_way =
        |why: String| with_revision(with_exit(Code::AlreadyExists, Exit::Conflict, why), Revision(revision));
    if let Some(admin::Waves { wave, nodes, members, .. }) = waiting.waves {
        let why = format!(
            "revision {revision} by {author} is being rolled out, and {nodes} of {members} nodes serve it in wave {wave}: \
             wait until it is everywhere (`shoal rollout status --watch`), or settle it first"
        );
        return in_the_way(why);
    }
    let why = format!(
        "revision {revision} by {author} is not confirmed: the cluster goes back to revision {before} in {left} s \
         unless it is; settle that first"
    );
    in_the_way(why)
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
        (_, None) if revision == Revision(0) => {
            "no revision is on its way: none waits to be confirmed, and none comes in waves".to_owned()
        }
        (Some(RevisionStanding::Confirmed { author, .. }), _) => {
            format!("{author} has confirmed revision {revision}")
        }
        (Some(RevisionStanding::Reverted { by }), _) => {
            format!("revision {revision} did not stay: revision {by} has taken its place")
        }
        (Some(RevisionStanding::Final), _) => {
            format!("revision {revision} was published for good: `shoal rollback` undoes that")
        }
        (Some(RevisionStanding::Unconfirmed), _) => {
            "the revision has just been settled; try again".to_owned()
        }
        (None, _) => format!("revision {revision} is not on its way: the history has none of that number"),
    };
    let status = with_exit(Code::FailedPrecondition, Exit::Conflict, why);
    if revision == Revision(0) { status } else { with_revision(status, revision) }
}
