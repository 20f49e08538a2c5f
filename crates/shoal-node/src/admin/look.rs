//! Verbs that only look: show, history, health.

use std::sync::Arc;

use shoal_cluster::ClusterView;
use shoal_cluster::health::{Opinion, Says, Verdict};
use shoal_model::state::{RevisionRecord, RevisionStanding};
use shoal_model::units::millis_u64;
use shoal_model::view::{EndpointView, UpstreamView};
use shoal_model::{EndpointId, Revision};
use shoal_policy::health::{Availability, FactState, is_panic};
use shoal_proto::admin::{
    EndpointHealth, HealthOpinion, HealthRequest, HealthResponse, HistoryRequest, HistoryResponse,
    NameFailure, RegionHealth, RevisionInfo, ShowRequest, ShowResponse,
};
use tonic::{Code, Status};

use super::base::{blocking, linearizable_base, stored_site};
use super::failure::{self, Exit, with_exit};
use crate::node::Node;
use crate::sealed_site::redact;

/// Records returned when the caller names no number.
const DEFAULT_HISTORY: usize = 20;

/// The site of a revision, keys left out.
pub async fn show(node: &Node, request: &ShowRequest) -> Result<ShowResponse, Status> {
    failure::check_log(&node.log)?;
    if request.consistent {
        // What is applied by the time it is read may be newer than that, never older.
        linearizable_base(node).await?;
    }
    let (revision, content, on_trial, committed_at_ms) = node.log.with_state(|state| {
        let revisions = &state.revisions;
        let (revision, content) = match request.revision {
            0 => {
                let (revision, content) = revisions.active();
                (revision, Some(content))
            }
            revision => (Revision(revision), revisions.content(Revision(revision))),
        };
        let record = revisions.record(revision);
        let committed_at_ms = record.map_or(0, |record| record.at_ms);
        (revision, content, record.is_some_and(RevisionRecord::is_on_trial), committed_at_ms)
    });
    let content = content.ok_or_else(|| failure::no_such_revision(revision))?;
    let read = move || Ok(redact(stored_site(&content)?).to_canonical_json());
    let site_json = blocking(read).await?;
    let log = node.log.status();
    Ok(ShowResponse {
        revision: revision.0,
        site_json,
        quorum: log.quorum,
        consistent: request.consistent,
        on_trial,
        staleness_ms: millis_u64(log.staleness),
        committed_at_ms,
    })
}

/// Past revisions, newest first.
pub fn history(node: &Node, request: &HistoryRequest) -> Result<HistoryResponse, Status> {
    failure::check_log(&node.log)?;
    let limit = if request.limit == 0 { DEFAULT_HISTORY } else { request.limit as usize };
    let revisions = node.log.with_state(|state| {
        let records = state.revisions.history().take(limit);
        records
            .map(|(revision, record)| {
                let restorable = state.revisions.content(revision).is_some();
                let quarantined = state.revisions.quarantine().find(&record.fingerprint);
                let quarantined = quarantined.map(|known| known.why.clone()).unwrap_or_default();
                let rollout = state.revisions.rollout().filter(|rollout| rollout.revision == revision);
                let wave = rollout.and_then(|rollout| rollout.waves.as_ref()).map_or(0, |waves| waves.wave);
                RevisionInfo { quarantined, wave, ..revision_info(revision, record, restorable) }
            })
            .collect()
    });
    let log = node.log.status();
    let staleness_ms = millis_u64(log.staleness);
    Ok(HistoryResponse { revisions, quorum: Some(log.quorum), staleness_ms })
}

fn revision_info(revision: Revision, record: &RevisionRecord, restorable: bool) -> RevisionInfo {
    let [added, removed, changed] = record.counts;
    let info = RevisionInfo {
        revision: revision.0,
        author: record.author.clone(),
        message: record.message.clone(),
        at_ms: record.at_ms,
        added,
        removed,
        changed,
        restorable,
        ..RevisionInfo::default()
    };
    match &record.standing {
        RevisionStanding::Final => info,
        RevisionStanding::Unconfirmed => RevisionInfo { standing: "unconfirmed".to_owned(), ..info },
        RevisionStanding::Confirmed { author, at_ms } => RevisionInfo {
            standing: "confirmed".to_owned(),
            confirmed_by: author.clone(),
            confirmed_at_ms: *at_ms,
            ..info
        },
        RevisionStanding::Reverted { by } => {
            RevisionInfo { standing: "reverted".to_owned(), reverted_by: by.0, ..info }
        }
    }
}

/// Every endpoint: who says what, since when, and why, and what each region makes of it.
pub fn health(node: &Node, request: &HealthRequest) -> Result<HealthResponse, Status> {
    let config = node.config.load_full();
    if !request.upstream.is_empty() && config.upstream(&request.upstream).is_none() {
        let why = format!("there is no upstream {:?}", request.upstream);
        return Err(with_exit(Code::NotFound, Exit::Local, why));
    }
    let wanted =
        |upstream: &&Arc<UpstreamView>| request.upstream.is_empty() || *upstream.name == *request.upstream;
    let view = node.gossip.view().load_full();
    let upstreams = node.proxy.names().upstreams(&config);
    let endpoints = upstreams.iter().filter(wanted).flat_map(|upstream| {
        let panic = is_in_panic(upstream, &view);
        let view = &view;
        upstream.endpoints.iter().map(move |endpoint| EndpointHealth {
            upstream: upstream.name.to_string(),
            endpoint: endpoint.text.to_string(),
            availability: match is_ejected_here(node, endpoint.id) {
                true => FactState::Ejected.name(),
                false => view.availability(endpoint.id).name(),
            }
            .to_owned(),
            panic,
            opinions: node
                .gossip
                .opinions(endpoint.id)
                .iter()
                // Where nothing is checked, silence is no word: only what traffic has shown counts.
                .filter(|opinion| upstream.health.is_some() || matches!(opinion.says, Says::Fact(_)))
                .map(|opinion| opinion_message(opinion, view))
                .collect(),
            checked: upstream.health.is_some(),
            regions: upstream
                .health
                .iter()
                .flat_map(|_| node.gossip.verdicts(endpoint.id))
                .map(|verdict| region_message(&verdict, view))
                .collect(),
        })
    });
    let is_wanted = |failure: &shoal_proxy::NameFailure| {
        request.upstream.is_empty() || *failure.upstream == *request.upstream
    };
    Ok(HealthResponse { endpoints: endpoints.collect(), name_failures: name_failures(node, is_wanted) })
}

/// Names of endpoints that this node cannot look up.
pub fn name_failures(node: &Node, is_wanted: impl Fn(&shoal_proxy::NameFailure) -> bool) -> Vec<NameFailure> {
    let failures = node.proxy.names().failures(&node.config.load());
    let message = |failure: shoal_proxy::NameFailure| NameFailure {
        upstream: failure.upstream.to_string(),
        endpoint: failure.endpoint.to_string(),
        why: failure.why,
        since_unix: failure.since_unix,
        kept: failure.kept as u32,
    };
    failures.into_iter().filter(is_wanted).map(message).collect()
}

/// This node sends nothing there, for what its own requests have shown.
pub fn is_ejected_here(node: &Node, endpoint: EndpointId) -> bool {
    let is_own =
        |opinion: &Opinion| opinion.node == node.id() && opinion.says == Says::Fact(FactState::Ejected);
    node.gossip.opinions(endpoint).iter().any(is_own)
}

/// So little of it is available that health is ignored.
pub fn is_in_panic(upstream: &UpstreamView, view: &ClusterView) -> bool {
    let down = |endpoint: &&EndpointView| view.availability(endpoint.id) == Availability::Down;
    let total = upstream.endpoints.len();
    let available = total - upstream.endpoints.iter().filter(down).count();
    is_panic(available, total, upstream.panic_threshold_percent)
}

fn region_message(verdict: &Verdict, view: &ClusterView) -> RegionHealth {
    RegionHealth {
        region: verdict.region.to_string(),
        availability: verdict.availability.name().to_owned(),
        checkers: verdict.checkers as u32,
        agreeing: verdict.agreeing as u32,
        exceptions: verdict.exceptions.iter().map(|opinion| opinion_message(opinion, view)).collect(),
    }
}

fn opinion_message(opinion: &Opinion, view: &ClusterView) -> HealthOpinion {
    let by_traffic = opinion.says == Says::Fact(FactState::Ejected);
    HealthOpinion {
        node_id: opinion.node.0,
        node: view.node(opinion.node).map_or_else(String::new, |node| node.name.to_string()),
        says: opinion.says.to_string(),
        since_unix: opinion.since,
        reason: opinion.reason.to_owned(),
        source: if by_traffic { "traffic" } else { "check" }.to_owned(),
    }
}
