//! Verbs that change the site: plan, apply, rollback, and tokens.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::identity::inspect_certificate;
use shoal_cluster::join::Token;
use shoal_configlog::SiteChange;
use shoal_model::site::{
    Absent, Action, Change, KeyForm, Problem, Problems, check_certificates, diff, merge, read_site, validate,
};
use shoal_model::state::{Command, Reply, TokenRecord};
use shoal_model::{ConfigView, NodeId, Revision, Site};
use shoal_proto::admin::{
    AckState, ApplyRequest, ApplyResponse, ChangeAction, CreateTokenRequest, CreateTokenResponse,
    FieldChange, NodeAck, PlanRequest, PlanResponse, RollbackRequest,
};
use tonic::{Code, Status};

use super::failure::{self, Exit, with_exit};
use crate::node::{Node, now_ms};
use crate::sealed_site::{seal, unseal};

/// How often an apply without `--check-revision` is laid over a newer revision when somebody else was faster.
const MAX_REBASES: usize = 5;
/// Wait for acknowledgements when the caller names no time.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// Longest life of a token.
const MAX_TOKEN_SECONDS: u32 = 7 * 86_400;

/// The difference between the given site and the active revision.
pub async fn plan(node: &Arc<Node>, request: PlanRequest) -> Result<PlanResponse, Status> {
    let base = linearizable_base(node).await?;
    let next = next_site(node, &base.site, &request.site_json, absent(request.prune))?;
    let changes = diff(&base.site, &next).iter().map(change_message).collect();
    Ok(PlanResponse { base_revision: base.revision.0, changes })
}

/// Makes the given site the next revision and waits for every live node.
pub async fn apply(node: &Arc<Node>, request: ApplyRequest, caller: &str) -> Result<ApplyResponse, Status> {
    let started = Instant::now();
    let wanted = request.check_revision.map(Revision);
    for attempt in 0.. {
        let base = linearizable_base(node).await?;
        if let Some(expected) = wanted.filter(|expected| *expected != base.revision) {
            return Err(conflict(expected, base.revision));
        }
        let next = next_site(node, &base.site, &request.site_json, absent(request.prune))?;
        let changes = diff(&base.site, &next);
        if changes.is_empty() {
            let active = node.await_everywhere(0, base.revision, wait_of(request.timeout_ms)).await;
            return Ok(answer(base.revision, true, &changes, active, started));
        }
        let author = author_of(&request.author, caller);
        let id = if attempt == 0 { request.request_id.clone() } else { String::new() };
        let change = site_change(&base, &next, &changes, author, request.message.clone(), id);
        let proposed = node.log.propose_site(change).await.map_err(failure::propose)?;
        match proposed.reply {
            Reply::Published(revision) => {
                let acks = node.await_everywhere(proposed.index, revision, wait_of(request.timeout_ms)).await;
                return Ok(answer(revision, false, &changes, acks, started));
            }
            Reply::Refused(shoal_model::state::Refusal::RevisionConflict { .. })
                if wanted.is_none() && attempt < MAX_REBASES => {}
            Reply::Refused(refusal) => return Err(failure::refusal(&refusal)),
            _ => return Err(failure::unexpected_reply()),
        }
    }
    unreachable!("every turn of the loop but the last few returns, and those are bounded")
}

/// Makes the content of an old revision the next one.
pub async fn rollback(
    node: &Arc<Node>,
    request: RollbackRequest,
    caller: &str,
) -> Result<ApplyResponse, Status> {
    let started = Instant::now();
    let base = linearizable_base(node).await?;
    if let Some(expected) = request.check_revision.map(Revision).filter(|expected| *expected != base.revision)
    {
        return Err(conflict(expected, base.revision));
    }
    let target = match request.to_revision {
        0 => Revision(base.revision.0.saturating_sub(1)),
        revision => Revision(revision),
    };
    let missing = || {
        let why = format!("revision {target} is not stored (any more); `shoal history` lists those that are");
        with_exit(Code::NotFound, Exit::Local, why)
    };
    let content = node.log.with_state(|state| state.revisions.content(target)).ok_or_else(missing)?;
    let next = Site::from_json(&content).map_err(|error| Status::internal(error.to_string()))?;
    let changes = diff(&base.site, &next);
    if changes.is_empty() {
        let acks = node.await_everywhere(0, base.revision, wait_of(request.timeout_ms)).await;
        return Ok(answer(base.revision, true, &changes, acks, started));
    }
    let message = match request.message.is_empty() {
        true => format!("rollback to revision {target}"),
        false => request.message,
    };
    let author = author_of(&request.author, caller);
    let change = site_change(&base, &next, &changes, author, message, request.request_id);
    let proposed = node.log.propose_site(change).await.map_err(failure::propose)?;
    match proposed.reply {
        Reply::Published(revision) => {
            let acks = node.await_everywhere(proposed.index, revision, wait_of(request.timeout_ms)).await;
            Ok(answer(revision, false, &changes, acks, started))
        }
        Reply::Refused(refusal) => Err(failure::refusal(&refusal)),
        _ => Err(failure::unexpected_reply()),
    }
}

/// A token with which nodes may join.
pub async fn create_token(
    node: &Arc<Node>,
    request: &CreateTokenRequest,
) -> Result<CreateTokenResponse, Status> {
    let ttl = request.ttl_seconds;
    if ttl == 0 || ttl > MAX_TOKEN_SECONDS || request.uses == 0 || request.uses > 1000 {
        let why = format!("a token lives 1 to {MAX_TOKEN_SECONDS} seconds and has 1 to 1000 uses");
        return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
    }
    let token = Token::create(&node.identity.ca_der, "node");
    let expires_at_ms = now_ms() + u64::from(ttl) * 1000;
    let record = TokenRecord {
        secret_sha256: token.secret_sha256(),
        expires_at_ms,
        uses_left: request.uses,
        role: "node".to_owned(),
    };
    let command = Command::CreateToken { id: token.id.clone(), token: record };
    node.log.propose(command).await.map_err(failure::propose)?;
    Ok(CreateTokenResponse { token: token.reveal(), expires_at_ms })
}

/// Applies a site file that lies on this machine: `shoal run --apply`.
pub async fn apply_file(node: &Arc<Node>, path: &Path) -> anyhow::Result<ApplyResponse> {
    let name = path.display().to_string();
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| anyhow::anyhow!("cannot read {name}: {error}"))?;
    let mut site = read_site(&name, &text)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    for (certificate, files) in &mut site.certificates {
        for (file, text) in
            [(&mut files.chain_file, &mut files.chain_pem), (&mut files.key_file, &mut files.key_pem)]
        {
            let Some(relative) = file.take() else { continue };
            let full = directory.join(relative);
            let read = tokio::fs::read_to_string(&full).await;
            let read = read.map_err(|error| {
                anyhow::anyhow!("{name}: certificates.{certificate}: cannot read {}: {error}", full.display())
            })?;
            *text = Some(read);
        }
    }
    let request = ApplyRequest {
        site_json: site.to_canonical_json(),
        message: format!("applied from {name} at start"),
        ..ApplyRequest::default()
    };
    apply(node, request, "local").await.map_err(|status| anyhow::anyhow!("{}", status.message()))
}

struct Base {
    revision: Revision,
    site: Site,
}

/// The active revision, no older than any that was acknowledged before now.
async fn linearizable_base(node: &Node) -> Result<Base, Status> {
    let index = node.log.read_index().await.map_err(failure::propose)?;
    node.await_applied(index, Revision(0), Duration::from_secs(5)).await;
    let (revision, content) = node.log.with_state(|state| state.revisions.active());
    let site = Site::from_json(&content).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Base { revision, site })
}

/// The given site laid over the active one: validated, compiled once, keys sealed.
fn next_site(node: &Node, active: &Site, site_json: &str, absent: Absent) -> Result<Site, Status> {
    let given = Site::from_json(site_json).map_err(|error| {
        with_exit(Code::InvalidArgument, Exit::Local, format!("the site cannot be read: {error}"))
    })?;
    let merged = merge(active, given, absent);
    if merged.is_empty() && !active.is_empty() {
        let why = "the result would be an empty site, and every request would be refused";
        return Err(with_exit(Code::InvalidArgument, Exit::Local, why));
    }
    let mut problems = validate(&merged);
    problems.extend(check_certificates(&merged, inspect_certificate));
    for (name, certificate) in &merged.certificates {
        if matches!(certificate.key_form(), KeyForm::File | KeyForm::Fingerprint) {
            let why = "the key was not sent, and the cluster has no key with that fingerprint";
            problems.push(Problem::at(format!("certificates.{name}"), why));
        }
    }
    if !problems.is_empty() {
        return Err(failure::site(&Problems(problems)));
    }
    let sealed = seal(merged, &node.identity.secret);
    let clear =
        unseal(sealed.clone(), &node.identity.secret).map_err(|error| Status::internal(error.to_string()))?;
    ConfigView::compile(Revision(0), &clear).map_err(|problems| failure::site(&problems))?;
    Ok(keep_equal_seals(active, sealed))
}

/// Sealing twice gives two texts; a key that did not change keeps the one it has, so that it is no difference.
fn keep_equal_seals(active: &Site, mut next: Site) -> Site {
    for (name, certificate) in &mut next.certificates {
        let Some(before) = active.certificates.get(name) else { continue };
        if before.key_sha256 == certificate.key_sha256 {
            certificate.key_sealed = before.key_sealed.clone();
        }
    }
    next
}

fn site_change(
    base: &Base,
    next: &Site,
    changes: &[Change],
    author: String,
    message: String,
    request_id: String,
) -> SiteChange {
    let count = |action: Action| changes.iter().filter(|change| change.action == action).count() as u32;
    SiteChange {
        request_id,
        expected: Some(base.revision),
        text: next.to_canonical_json(),
        author,
        message,
        at_ms: now_ms(),
        counts: [count(Action::Add), count(Action::Remove), count(Action::Change)],
    }
}

fn absent(prune: bool) -> Absent {
    if prune { Absent::Remove } else { Absent::Keep }
}

fn wait_of(timeout_ms: u32) -> Duration {
    if timeout_ms == 0 { DEFAULT_WAIT } else { Duration::from_millis(timeout_ms.into()) }
}

fn conflict(expected: Revision, active: Revision) -> Status {
    failure::refusal(&shoal_model::state::Refusal::RevisionConflict { expected, active })
}

/// What the caller calls itself, and who it is proven to be.
fn author_of(claimed: &str, proven: &str) -> String {
    let claimed: String = claimed.chars().filter(|c| !c.is_control()).take(100).collect();
    if claimed.is_empty() { proven.to_owned() } else { format!("{claimed} ({proven})") }
}

fn answer(
    revision: Revision,
    unchanged: bool,
    changes: &[Change],
    acks: Vec<NodeAck>,
    started: Instant,
) -> ApplyResponse {
    ApplyResponse {
        revision: revision.0,
        unchanged,
        acks,
        elapsed_ms: started.elapsed().as_millis() as u32,
        changes: changes.iter().map(change_message).collect(),
    }
}

fn change_message(change: &Change) -> shoal_proto::admin::Change {
    let action = match change.action {
        Action::Add => ChangeAction::Add,
        Action::Remove => ChangeAction::Remove,
        Action::Change => ChangeAction::Change,
    };
    let field = |field: &shoal_model::site::FieldChange| FieldChange {
        path: field.path.clone(),
        old: field.old.clone().unwrap_or_default(),
        new: field.new.clone().unwrap_or_default(),
    };
    shoal_proto::admin::Change {
        action: action.into(),
        kind: change.kind.to_owned(),
        name: change.name.clone(),
        fields: change.fields.iter().map(field).collect(),
    }
}

impl Node {
    /// Waits until every live node has applied `index` and decided about `revision`; nodes that die meanwhile are
    /// left out once the others have noticed.
    pub(super) async fn await_everywhere(
        self: &Arc<Self>,
        index: u64,
        revision: Revision,
        timeout: Duration,
    ) -> Vec<NodeAck> {
        let waits = self.live_members().into_iter().map(|(id, name)| {
            let node = self.clone();
            tokio::spawn(async move { node.await_one(id, name, index, revision, timeout).await })
        });
        let mut acks = Vec::new();
        for wait in waits.collect::<Vec<_>>() {
            if let Ok(Some(ack)) = wait.await {
                acks.push(ack);
            }
        }
        acks
    }

    /// `None` = the node is not alive any more.
    async fn await_one(
        &self,
        id: NodeId,
        name: String,
        index: u64,
        revision: Revision,
        timeout: Duration,
    ) -> Option<NodeAck> {
        let started = Instant::now();
        let mut trouble = "it did not answer in time".to_owned();
        while let Some(left) = timeout.checked_sub(started.elapsed()) {
            let ack = |state: AckState, detail: String| NodeAck {
                node_id: id.0,
                node: name.clone(),
                state: state.into(),
                detail,
                elapsed_ms: started.elapsed().as_millis() as u32,
            };
            match self.await_applied_on(id, index, revision, left).await {
                Ok(reached) if reached.refused.is_some() => {
                    return Some(ack(AckState::Refused, reached.refused.unwrap_or_default()));
                }
                Ok(reached) if reached.applied_index >= index && reached.active >= revision => {
                    return Some(ack(AckState::Applied, String::new()));
                }
                Ok(_) => {}
                Err(status) => trouble = status.message().to_owned(),
            }
            if !self.live_members().iter().any(|(live, _)| *live == id) {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(NodeAck {
            node_id: id.0,
            node: name,
            state: AckState::Silent.into(),
            detail: trouble,
            elapsed_ms: started.elapsed().as_millis() as u32,
        })
    }
}
