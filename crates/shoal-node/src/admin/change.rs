//! Verbs that change the site: apply, edit and rollback.

use std::sync::Arc;
use std::time::Duration;

use shoal_configlog::SiteChange;
use shoal_model::Revision;
use shoal_model::site::{Action, Change, diff};
use shoal_model::state::{OtherReply, Refusal, Reply, Terms};
use shoal_proto::admin::{ApplyRequest, ApplyResponse, EditRequest, RollbackRequest};
use tonic::{Code, Status};

use super::base::{CATCH_UP_WAIT, blocking, linearizable_base, replaced_site, stored_site};
use super::caller::{Patience, author_of, check_message};
use super::differences::change_message;
use super::draft::{Draft, Goal, draft};
use super::failure::{self, Exit, with_exit};
use super::given::Given;
use super::manner::{Content, Manner};
use super::relapse::Relapse;
use super::request_key::{RequestKey, Subject};
use super::step::unconfirmed;
use crate::acks::Acknowledged;
use crate::node::{Node, now_ms};
use crate::rehearsal::{Says, Verdict};

/// Nodes that are named with what they would refuse.
const MAX_REFUSALS: usize = 5;

/// Makes the given site the next revision and waits for every live node that is to serve it.
pub async fn apply(
    node: &Arc<Node>,
    request: ApplyRequest,
    caller: &str,
    manner: Manner,
) -> Result<ApplyResponse, Status> {
    let terms = format!("{} {:?} {manner:?}", request.prune, request.check_revision);
    let meaning = ["site", &request.site_json, &terms];
    let order = Order {
        patience: Patience::of(request.timeout_ms),
        key: RequestKey::of(Subject::Change, caller, &request.request_id, &meaning)?,
        goal: Goal::given(Given::site(request.site_json, request.prune)),
        expected: request.check_revision.map(Revision),
        author: author_of(&request.author, caller),
        message: request.message,
        no_wait: request.no_wait,
        force: request.force,
        despite_quarantine: request.force,
        overrides: false,
        manner,
    };
    carry_out(node, order).await
}

/// Puts and removes single objects and waits for every live node that is to serve them.
pub async fn edit(
    node: &Arc<Node>,
    request: EditRequest,
    caller: &str,
    manner: Manner,
) -> Result<ApplyResponse, Status> {
    let (removed, since) =
        (format!("{:?}", request.remove), format!("{:?} {manner:?}", request.unchanged_since));
    let meaning = ["objects", &request.put_json, &removed, &since];
    let order = Order {
        patience: Patience::of(request.timeout_ms),
        key: RequestKey::of(Subject::Change, caller, &request.request_id, &meaning)?,
        goal: Goal::given(Given::objects(request.put_json, &request.remove, request.unchanged_since)?),
        expected: None,
        author: author_of(&request.author, caller),
        message: request.message,
        no_wait: request.no_wait,
        force: request.force,
        despite_quarantine: request.force,
        overrides: false,
        manner,
    };
    carry_out(node, order).await
}

/// Makes the content of an old revision the next one, also while the active one waits to be confirmed.
pub async fn rollback(
    node: &Arc<Node>,
    request: RollbackRequest,
    caller: &str,
    manner: Manner,
) -> Result<ApplyResponse, Status> {
    let message = match (request.message, request.to_revision) {
        (message, 0) if message.is_empty() => "rollback to the revision before".to_owned(),
        (message, target) if message.is_empty() => format!("rollback to revision {target}"),
        (message, _) => message,
    };
    let target = format!("{} {:?} {manner:?}", request.to_revision, request.check_revision);
    let order = Order {
        patience: Patience::of(request.timeout_ms),
        key: RequestKey::of(Subject::Change, caller, &request.request_id, &["rollback", &target])?,
        goal: Goal::Content(request.to_revision),
        expected: request.check_revision.map(Revision),
        author: author_of(&request.author, caller),
        message,
        no_wait: request.no_wait,
        // What was in force once is the way out of trouble: nobody is asked first.
        force: true,
        despite_quarantine: request.force,
        overrides: true,
        manner,
    };
    carry_out(node, order).await
}

/// A change of the site that somebody waits for.
struct Order {
    patience: Patience,
    key: RequestKey,
    goal: Goal,
    /// Nothing is done unless this is the active revision.
    expected: Option<Revision>,
    author: String,
    message: String,
    /// Being in the log is enough.
    no_wait: bool,
    /// Also when a live node would refuse it.
    force: bool,
    /// Also when its content is in quarantine.
    despite_quarantine: bool,
    /// Also in the place of a revision that waits to be confirmed.
    overrides: bool,
    manner: Manner,
}

impl Order {
    /// What is proposed for it.
    fn change(&self, draft: &Draft, terms: Terms) -> SiteChange {
        let count = |action| draft.changes.iter().filter(|change| change.action == action).count() as u32;
        SiteChange {
            request_id: self.key.text(),
            expected: Some(draft.base),
            text: draft.text.clone(),
            author: self.author.clone(),
            message: self.message.clone(),
            at_ms: now_ms(),
            counts: [count(Action::Add), count(Action::Remove), count(Action::Change)],
            terms,
        }
    }
}

/// Writes what is wished for over whatever is active, as often as somebody else is faster, and waits for the nodes.
async fn carry_out(node: &Arc<Node>, order: Order) -> Result<ApplyResponse, Status> {
    check_message(&order.message)?;
    let written = write(node, &order).await?;
    let left = (!order.no_wait).then(|| order.patience.left());
    Ok(tell_everywhere(node, written, order.patience, left).await)
}

/// Waits until every live node has decided about what was written, no longer than `left`; `None` = not at all.
pub(super) async fn tell_everywhere(
    node: &Arc<Node>,
    written: Written,
    patience: Patience,
    left: Option<Duration>,
) -> ApplyResponse {
    let Written { revision, is_new, changes } = written;
    let index = match is_new {
        true => {
            node.log.with_state(|state| state.revisions.record(revision).map_or(0, |record| record.index))
        }
        false => 0,
    };
    let Acknowledged { acks, absent } = match left {
        None => Acknowledged { acks: Vec::new(), absent: node.absent_members() },
        Some(left) => node.await_everywhere(index, revision, left).await,
    };
    let rollout = match left {
        None => node.rollout_message(),
        Some(_) => node.rollout_seen().await,
    };
    ApplyResponse {
        revision: revision.0,
        unchanged: !is_new,
        acks,
        elapsed_ms: patience.elapsed_ms(),
        changes: changes.iter().map(change_message).collect(),
        absent,
        rollout: rollout.filter(|rollout| rollout.revision == revision.0),
    }
}

/// What came of an order in the log.
pub(super) struct Written {
    pub revision: Revision,
    /// It was made for this order; else it is what was active already.
    pub is_new: bool,
    pub changes: Vec<Change>,
}

async fn write(node: &Arc<Node>, order: &Order) -> Result<Written, Status> {
    // Writers on one node take turns: of those that start from one revision all but one would have to start over.
    let turn = tokio::time::timeout(order.patience.wait, node.writers.lock()).await;
    let _turn = turn.map_err(|_| {
        with_exit(Code::Aborted, Exit::Remote, "other changes of the site are still under way on this node")
    })?;
    loop {
        let base = linearizable_base(node).await?;
        // A request that comes again, since the node that was asked first died, finds its own revision active.
        if let Some((revision, changes)) = done_before(node, &order.key).await? {
            return Ok(Written { revision, is_new: true, changes });
        }
        let waits = node.waiting_rollout().is_some();
        // What only some nodes serve cannot be what the others go back to.
        if waits && (!order.overrides || order.manner.waits()) {
            return Err(unconfirmed(node));
        }
        if let Some(expected) = order.expected.filter(|expected| *expected != base.revision) {
            let active = base.revision;
            return Err(failure::refusal(&Refusal::RevisionConflict { expected, active }));
        }
        let draft = draft(node, &base, &order.goal).await?;
        if draft.changes.is_empty() && !draft.replaces_unreadable {
            order.manner.check_names(node)?;
            return Ok(Written { revision: draft.base, is_new: false, changes: draft.changes });
        }
        check_harmless(node, order, &draft).await?;
        let (fingerprint, despite_quarantine) = (draft.fingerprint.clone(), order.despite_quarantine);
        let content = Content { fingerprint, despite_quarantine };
        let terms = order.manner.terms(node, draft.base, waits, content).await?;
        let proposed = node.log.propose_site(order.change(&draft, terms)).await.map_err(failure::propose)?;
        if order.manner.waits() {
            // Then this node can tell how long it waits, and for whom.
            node.await_applied(proposed.index, Revision(0), CATCH_UP_WAIT).await;
        }
        match proposed.reply.published() {
            Ok(revision) => {
                return Ok(Written { revision, is_new: true, changes: draft.changes });
            }
            // A writer on another node was faster.
            Err(OtherReply::Refused(Refusal::RevisionConflict { .. }))
                if order.expected.is_none() && !order.patience.is_over() => {}
            // That one waits to be confirmed.
            Err(OtherReply::Refused(Refusal::Unconfirmed(_))) if !order.patience.is_over() => {}
            Err(other) => return Err(failure::reply(other)),
        }
    }
}

/// Refuses what did harm before, and what a live node would refuse: whoever wants it all the same is told of both.
async fn check_harmless(node: &Arc<Node>, order: &Order, draft: &Draft) -> Result<(), Status> {
    let harm = if order.despite_quarantine { None } else { harm_of(node, draft) };
    let refusals = if order.force { Vec::new() } else { refusals_of(node, draft).await };
    match why_not(harm, &refusals) {
        None => Ok(()),
        Some(why) => Err(with_exit(Code::FailedPrecondition, Exit::Local, why)),
    }
}

fn why_not(harm: Option<String>, refusals: &[String]) -> Option<String> {
    match (harm, refusals) {
        (harm, []) => harm,
        (None, refusals) => Some(format!("nothing was changed, since {}", refusals.join("; "))),
        (Some(harm), refusals) => Some(format!("{harm}; and {}", refusals.join("; "))),
    }
}

/// What of it is in quarantine, as a whole or in what it brings back.
fn harm_of(node: &Node, draft: &Draft) -> Option<String> {
    let known = node.log.with_state(|state| {
        let known = state.revisions.quarantine().find(&draft.fingerprint)?;
        Some(Refusal::Quarantined { revision: known.revision, why: known.why.clone() }.to_string())
    });
    known.or_else(|| draft.relapse.as_ref().map(Relapse::why))
}

/// What live nodes would refuse, as far as that is known. A node that refuses the active revision already, or does not answer, is
/// in nobody's way: it is sick whatever is applied, and catches up.
async fn refusals_of(node: &Arc<Node>, draft: &Draft) -> Vec<String> {
    if !node.may_differ(&draft.changes) {
        return Vec::new();
    }
    let verdicts = node.rehearse_everywhere(draft.base, &draft.delta).await;
    let refusals = verdicts.into_iter().filter_map(|Verdict { node, says, .. }| match says {
        Says::Refuses(why) => Some(format!("{node} would refuse it: {why}")),
        Says::Takes | Says::RefusesAlready(_) | Says::Unknown(_) => None,
    });
    refusals.take(MAX_REFUSALS).collect()
}

/// The revision that the request with this id has made already, and what it changed.
async fn done_before(node: &Arc<Node>, key: &RequestKey) -> Result<Option<(Revision, Vec<Change>)>, Status> {
    let answered = node.log.with_state(|state| key.answered(state))?;
    let Some(Reply::Published(revision)) = answered else { return Ok(None) };
    Ok(Some((revision, changes_of(node, revision).await?)))
}

/// What a revision has changed; nothing where that is not stored any more.
pub(super) async fn changes_of(node: &Arc<Node>, revision: Revision) -> Result<Vec<Change>, Status> {
    let before = Revision(revision.0.saturating_sub(1));
    let contents = node.log.with_state(|state| [before, revision].map(|r| state.revisions.content(r)));
    let [Some(before), Some(after)] = contents else { return Ok(Vec::new()) };
    blocking(move || Ok(diff(&replaced_site(&before), &stored_site(&after)?))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_force_would_override_is_told() {
        let check = |harm: Option<&str>, refusals: &[&str], expected: Option<&str>| {
            let refusals: Vec<String> = refusals.iter().map(|why| (*why).to_owned()).collect();
            assert_eq!(why_not(harm.map(str::to_owned), &refusals).as_deref(), expected);
        };
        check(None, &[], None);
        check(Some("it is bad"), &[], Some("it is bad"));
        check(None, &["n1 won't", "n2 won't"], Some("nothing was changed, since n1 won't; n2 won't"));
        check(Some("it is bad"), &["n1 won't"], Some("it is bad; and n1 won't"));
    }
}
