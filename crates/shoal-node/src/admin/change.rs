//! Verbs that change the site: plan, apply, edit and rollback.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::identity::sha256_hex;
use shoal_configlog::{ProposeError, SiteChange};
use shoal_model::site::{Action, Change, Delta, diff, holds_private_key};
use shoal_model::state::{Command, Refusal, Reply, Terms};
use shoal_model::{Revision, Site, is_deceptive};
use shoal_proto::admin::{
    ApplyRequest, ApplyResponse, EditRequest, PlanRequest, PlanResponse, RollbackRequest,
};
use tonic::{Code, Status};

use super::differences::change_message;
use super::failure::{self, Exit, with_exit};
use super::given::{Given, forgotten};
use super::manner::{Content, Manner};
use super::request_key::{RequestKey, Subject};
use super::rollout;
use crate::acks::Acknowledged;
use crate::hard_work::{GivenUp, LIMIT, TRIALS};
use crate::node::{Node, now_ms};
use crate::rehearsal::{Says, Verdict};
use crate::sealed_site::redact;

/// Wait for acknowledgements when the caller names no time.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// What is left for acknowledgements at least, however long it took to get the change into the log.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_secs(1);
/// For this node to apply what the cluster has acknowledged.
pub(super) const CATCH_UP_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a site as it is stored. The newest five are kept whatever they weigh, more may be on their way in, written as JSON
/// within JSON a third is added: a node that joins takes 512 MiB of all that.
const MAX_STORED_SITE: usize = 48 << 20;
/// Plans that one node works out at once, for whoever may look: each is as much work as a change, here and on the nodes
/// that are asked what they would make of it.
pub const MAX_PLANS: usize = 2;
/// For a place among them.
const PLAN_PLACE_WAIT: Duration = Duration::from_secs(5);
/// For a plan as a whole. What is being compiled then is compiled to its end, and keeps its place until then.
const PLAN_TIME: Duration = Duration::from_secs(60);
/// Nodes that are named with what they would refuse.
const MAX_REFUSALS: usize = 5;
/// Bytes of a message: the history keeps a thousand.
const MAX_MESSAGE: usize = 4096;

/// The difference between the given site and the active revision, or what this node knows of it: whoever plans while
/// there is no quorum wants to see something all the same.
pub async fn plan(node: &Arc<Node>, request: PlanRequest) -> Result<PlanResponse, Status> {
    plan_wish(node, Wish::given(Given::site(request.site_json, request.prune))).await
}

/// The same for single objects.
pub async fn plan_edit(node: &Arc<Node>, request: EditRequest) -> Result<PlanResponse, Status> {
    let given = Given::objects(request.put_json, &request.remove, request.unchanged_since)?;
    plan_wish(node, Wish::given(given)).await
}

async fn plan_wish(node: &Arc<Node>, wish: Wish) -> Result<PlanResponse, Status> {
    let place = tokio::time::timeout(PLAN_PLACE_WAIT, node.planning.clone().acquire_owned()).await;
    let Ok(Ok(place)) = place else {
        let why = format!(
            "{MAX_PLANS} plans are being worked out on this node already; try again, or ask another one"
        );
        return Err(with_exit(Code::ResourceExhausted, Exit::Remote, why));
    };
    // A task of its own: work that cannot be stopped keeps its place, also when nobody waits for it any more.
    let node = node.clone();
    let planning = tokio::spawn(async move {
        let plan = work_out(&node, wish).await;
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

async fn work_out(node: &Arc<Node>, wish: Wish) -> Result<PlanResponse, Status> {
    let (base, quorum) = newest_base(node).await?;
    let draft = draft(node, &base, &wish).await?;
    let verdicts = match draft.changes.is_empty() {
        true => Vec::new(),
        false => node.rehearse_everywhere(draft.base, &draft.delta).await,
    };
    Ok(PlanResponse {
        base_revision: draft.base.0,
        changes: draft.changes.iter().map(change_message).collect(),
        quorum,
        verdicts: verdicts.into_iter().map(Verdict::message).collect(),
    })
}

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
        started: Instant::now(),
        wait: wait_of(request.timeout_ms),
        key: RequestKey::of(Subject::Change, caller, &request.request_id, &meaning)?,
        wish: Wish::given(Given::site(request.site_json, request.prune)),
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
        started: Instant::now(),
        wait: wait_of(request.timeout_ms),
        key: RequestKey::of(Subject::Change, caller, &request.request_id, &meaning)?,
        wish: Wish::given(Given::objects(request.put_json, &request.remove, request.unchanged_since)?),
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
        started: Instant::now(),
        wait: wait_of(request.timeout_ms),
        key: RequestKey::of(Subject::Change, caller, &request.request_id, &["rollback", &target])?,
        wish: Wish::Content(request.to_revision),
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
    started: Instant,
    wait: Duration,
    key: RequestKey,
    wish: Wish,
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

/// What the site is to become.
enum Wish {
    /// This, laid over what is active.
    Given(Arc<Given>),
    /// What it was in this revision; 0 = the one before the active one.
    Content(u64),
}

/// The same with everything at hand, so that it can be worked on elsewhere.
enum Source {
    /// With the content of the revision since which nothing may have changed, if another one is active.
    Given(Arc<Given>, Option<Arc<str>>),
    Stored(Arc<str>),
}

impl Wish {
    fn given(given: Given) -> Self {
        Self::Given(Arc::new(given))
    }
}

impl Order {
    /// How much longer the caller waits: what was spent on the way to the log is gone.
    fn left(&self) -> Duration {
        self.wait.saturating_sub(self.started.elapsed()).max(SHORTEST_WAIT)
    }
}

/// Writes what is wished for over whatever is active, as often as somebody else is faster, and waits for the nodes.
async fn carry_out(node: &Arc<Node>, order: Order) -> Result<ApplyResponse, Status> {
    check_message(&order.message)?;
    let written = write(node, &order).await?;
    let left = (!order.no_wait).then(|| order.left());
    Ok(tell_everywhere(node, written, order.started, left).await)
}

/// What is kept with a change is short.
pub(super) fn check_message(message: &str) -> Result<(), Status> {
    failure::check_length("the message", message, MAX_MESSAGE)
}

/// Waits until every live node has decided about what was written, no longer than `left`; `None` = not at all.
pub(super) async fn tell_everywhere(
    node: &Arc<Node>,
    written: Written,
    started: Instant,
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
        elapsed_ms: started.elapsed().as_millis() as u32,
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
    let turn = tokio::time::timeout(order.wait, node.writers.lock()).await;
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
            return Err(rollout::unconfirmed(node));
        }
        if let Some(expected) = order.expected.filter(|expected| *expected != base.revision) {
            let active = base.revision;
            return Err(failure::refusal(&Refusal::RevisionConflict { expected, active }));
        }
        let draft = draft(node, &base, &order.wish).await?;
        if draft.changes.is_empty() {
            return Ok(Written { revision: draft.base, is_new: false, changes: draft.changes });
        }
        if !order.force {
            check_takers(node, &draft).await?;
        }
        let (fingerprint, despite_quarantine) = (draft.fingerprint.clone(), order.despite_quarantine);
        let content = Content { fingerprint, despite_quarantine };
        let terms = order.manner.terms(node, draft.base, waits, content).await?;
        let proposed = node.log.propose_site(draft.change(order, terms)).await.map_err(failure::propose)?;
        if order.manner.waits() {
            // Then this node can tell how long it waits, and for whom.
            node.await_applied(proposed.index, Revision(0), CATCH_UP_WAIT).await;
        }
        match proposed.reply {
            Reply::Published(revision) => {
                return Ok(Written { revision, is_new: true, changes: draft.changes });
            }
            // A writer on another node was faster.
            Reply::Refused(Refusal::RevisionConflict { .. })
                if order.expected.is_none() && order.started.elapsed() < order.wait => {}
            // That one waits to be confirmed.
            Reply::Refused(Refusal::Unconfirmed(_)) if order.started.elapsed() < order.wait => {}
            Reply::Refused(refusal) => return Err(failure::refusal(&refusal)),
            _ => return Err(failure::unexpected_reply()),
        }
    }
}

/// Refuses what a live node would refuse, as far as that is known. A node that refuses the active revision already, or does not
/// answer, is in nobody's way: it is sick whatever is applied, and catches up.
async fn check_takers(node: &Arc<Node>, draft: &Draft) -> Result<(), Status> {
    if !node.may_differ(&draft.changes) {
        return Ok(());
    }
    let verdicts = node.rehearse_everywhere(draft.base, &draft.delta).await;
    let refusals: Vec<String> = verdicts
        .into_iter()
        .filter_map(|Verdict { node, says, .. }| match says {
            Says::Refuses(why) => Some(format!("{node} would refuse it: {why}")),
            Says::Takes | Says::RefusesAlready(_) | Says::Unknown(_) => None,
        })
        .take(MAX_REFUSALS)
        .collect();
    match refusals.is_empty() {
        true => Ok(()),
        false => {
            let why = format!("nothing was changed, since {}", refusals.join("; "));
            Err(with_exit(Code::FailedPrecondition, Exit::Local, why))
        }
    }
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
    blocking(move || Ok(diff(&stored_site(&before)?, &stored_site(&after)?))).await
}

/// Puts a command into the log that is answered by nothing but that it is done.
pub(super) async fn put(node: &Node, command: Command) -> Result<(), Status> {
    let proposed = node.log.propose(command).await.map_err(failure::propose)?;
    match proposed.reply {
        Reply::Done => Ok(()),
        Reply::Refused(refusal) => Err(failure::refusal(&refusal)),
        _ => Err(failure::unexpected_reply()),
    }
}

/// What is active, no older than anything that was acknowledged before now.
pub struct Base {
    /// The revision.
    pub(super) revision: Revision,
    pub(super) content: Arc<str>,
}

/// No older than anything that was acknowledged before now; fails without a majority.
pub(super) async fn linearizable_base(node: &Node) -> Result<Base, Status> {
    let index = node.log.read_index().await.map_err(failure::propose)?;
    base_at(node, index).await
}

/// What is active, and whether a majority says so; without one it is what this node has, which is possibly old.
pub async fn newest_base(node: &Node) -> Result<(Base, bool), Status> {
    match node.log.try_read_index().await {
        Ok(index) => Ok((base_at(node, index).await?, true)),
        Err(error @ (ProposeError::Broken { .. } | ProposeError::Diverged { .. })) => {
            Err(failure::propose(error))
        }
        Err(_) => Ok((applied_base(node), false)),
    }
}

/// What is active once this node has applied `index`.
async fn base_at(node: &Node, index: u64) -> Result<Base, Status> {
    let reached = node.await_applied(index, Revision(0), CATCH_UP_WAIT).await;
    if reached.applied_index < index {
        let why =
            format!("this node has applied {} of {index} entries; ask another one", reached.applied_index);
        return Err(with_exit(Code::Unavailable, Exit::Remote, why));
    }
    Ok(applied_base(node))
}

/// What is active as far as this node has applied the log.
fn applied_base(node: &Node) -> Base {
    let (revision, content) = node.log.with_state(|state| state.revisions.active());
    Base { revision, content }
}

/// The next revision, ready to be proposed.
struct Draft {
    base: Revision,
    text: String,
    changes: Vec<Change>,
    /// What nodes are asked about.
    delta: Delta,
    /// By which the content is known again.
    fingerprint: String,
}

impl Draft {
    fn change(&self, order: &Order, terms: Terms) -> SiteChange {
        let count = |action| self.changes.iter().filter(|change| change.action == action).count() as u32;
        SiteChange {
            request_id: order.key.text(),
            expected: Some(self.base),
            text: self.text.clone(),
            author: order.author.clone(),
            message: order.message.clone(),
            at_ms: now_ms(),
            counts: [count(Action::Add), count(Action::Remove), count(Action::Change)],
            terms,
        }
    }
}

async fn draft(node: &Arc<Node>, base: &Base, wish: &Wish) -> Result<Draft, Status> {
    let (revision, active) = (base.revision, base.content.clone());
    let stored = |target| node.log.with_state(|state| state.revisions.content(target));
    let source = match wish {
        Wish::Given(given) => {
            let since = given.since.filter(|since| *since != revision);
            let then = since.map(|since| stored(since).ok_or_else(|| forgotten(since))).transpose()?;
            Source::Given(given.clone(), then)
        }
        Wish::Content(target) => {
            let target = Revision(if *target == 0 { revision.0.saturating_sub(1) } else { *target });
            Source::Stored(stored(target).ok_or_else(|| failure::no_such_revision(target))?)
        }
    };
    let identity = node.identity.clone();
    let work = move || {
        let active = stored_site(&active)?;
        let was_stored = matches!(source, Source::Stored(_));
        let (next, changes) = match source {
            Source::Given(given, then) => {
                let then = then.map(|then| stored_site(&then)).transpose()?;
                given.over(&identity.secret, &active, then.as_ref())?
            }
            Source::Stored(content) => {
                let next = stored_site(&content)?;
                let changes = diff(&active, &next);
                (next, changes)
            }
        };
        let delta = Delta::between(&active, &next);
        let text = next.to_canonical_json();
        if text.len() > MAX_STORED_SITE && !was_stored {
            let why =
                format!("the site has {} bytes as it is stored; at most {MAX_STORED_SITE} are", text.len());
            return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
        }
        // Wherever it stands: what is in the log, everybody may read.
        if holds_private_key(&text) {
            let why = "the site holds a private key in clear; keys belong into `key_file` or `key_pem`";
            return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
        }
        let fingerprint = fingerprint(next, &text);
        Ok(Draft { base: revision, text, changes, delta, fingerprint })
    };
    blocking(move || TRIALS.within(LIMIT, work).unwrap_or_else(|given_up| Err(indigestible(given_up)))).await
}

/// Nodes would not take it, whatever else it is.
fn indigestible(given_up: GivenUp) -> Status {
    match given_up.is_final() {
        true => with_exit(Code::InvalidArgument, Exit::Local, format!("nothing was changed: {given_up}")),
        false => with_exit(Code::ResourceExhausted, Exit::Remote, given_up.to_string()),
    }
}

/// The same for the same content: a key that is sealed again is another text, and is named by its own fingerprint.
fn fingerprint(site: Site, text: &str) -> String {
    match site.certificates.is_empty() {
        true => sha256_hex(text.as_bytes()),
        false => sha256_hex(redact(site).to_canonical_json().as_bytes()),
    }
}

/// The site of the log's text. What an older version has let in beside certificates is left out.
pub(super) fn stored_site(content: &str) -> Result<Site, Status> {
    Site::from_json(content)
        .map(Site::with_own_blocks)
        .map_err(|error| Status::internal(format!("a stored site cannot be read: {error}")))
}

/// Sites are large: reading and comparing them must not hold up heartbeats on the control runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Status::internal("checking the site panicked")))
}

pub(super) fn wait_of(timeout_ms: u32) -> Duration {
    if timeout_ms == 0 { DEFAULT_WAIT } else { Duration::from_millis(timeout_ms.into()) }
}

/// What the caller calls itself, and who it is proven to be.
pub(super) fn author_of(claimed: &str, proven: &str) -> String {
    let claimed: String = claimed.chars().filter(|c| !is_deceptive(*c)).take(100).collect();
    if claimed.is_empty() { proven.to_owned() } else { format!("{claimed} ({proven})") }
}
