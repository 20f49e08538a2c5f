//! Verbs about the cache: purge, stats, locate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_model::state::{Command, PurgeKind, PurgeScope, Reply};
use shoal_model::{NodeId, Revision};
use shoal_policy::cache::key::ObjectKey;
use shoal_proto::admin::{
    CacheLocateRequest, CacheLocateResponse, CacheStatsResponse, Location, NodeCacheStats, PurgeRequest,
    PurgeResponse,
};
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{LookupRequest, LookupResponse};
use tonic::{Code, Request, Status};

use super::failure::{self, Exit, with_exit};
use crate::node::{Node, now_ms};

/// Scopes of one purge.
const MAX_SCOPES: usize = 1000;
/// For an owner's answer to a look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Forgets cached objects, in the order of the log, on every node.
pub async fn purge(node: &Arc<Node>, request: PurgeRequest) -> Result<PurgeResponse, Status> {
    let started = Instant::now();
    failure::check_length("the request id", &request.request_id, failure::MAX_REQUEST_ID)?;
    let scopes = scopes(node, &request).map_err(|why| with_exit(Code::InvalidArgument, Exit::Local, why))?;
    let kind = if request.soft { PurgeKind::Soft } else { PurgeKind::Hard };
    let command = Command::Purge { request_id: request.request_id, scopes, kind, at_ms: now_ms() };
    let proposed = node.log.propose(command).await.map_err(failure::propose)?;
    let seq = match proposed.reply {
        Reply::Purged { seq } => seq,
        Reply::Refused(refusal) => return Err(failure::refusal(&refusal)),
        _ => return Err(failure::unexpected_reply()),
    };
    let timeout =
        Duration::from_millis(if request.timeout_ms == 0 { 10_000 } else { request.timeout_ms.into() });
    let acks = match request.wait_complete {
        true => node.await_everywhere(seq, Revision(0), timeout).await,
        false => Vec::new(),
    };
    Ok(PurgeResponse { seq, acks, elapsed_ms: started.elapsed().as_millis() as u32 })
}

fn scopes(node: &Node, request: &PurgeRequest) -> Result<Vec<PurgeScope>, String> {
    let cache = &node.cache;
    let mut scopes = Vec::new();
    for url in &request.urls {
        let scope = cache.purge_scope_url(url);
        scopes.push(scope.ok_or_else(|| format!("{url:?} is not a URL; write \"http://host/path?query\""))?);
    }
    for prefix in request.prefixes.iter().chain(&request.hosts) {
        let scope = cache.purge_scope_prefix(prefix);
        scopes
            .push(scope.ok_or_else(|| format!("{prefix:?} names no host; write \"host\" or \"host/path\""))?);
    }
    scopes.extend(request.tags.iter().map(|tag| cache.purge_scope_tag(tag)));
    if request.all {
        scopes.push(PurgeScope::All);
    }
    match scopes.len() {
        0 => Err("nothing to purge: name a URL, prefix, host or tag, or all".to_owned()),
        1..=MAX_SCOPES => Ok(scopes),
        n => Err(format!("{n} scopes in one purge; at most {MAX_SCOPES}")),
    }
}

/// Counters per node.
pub async fn stats(node: &Arc<Node>) -> CacheStatsResponse {
    let nodes = node.reports().await.into_iter().map(|(id, name, report)| NodeCacheStats {
        node_id: id.0,
        node: name,
        reported: report.is_some(),
        counters: report.map(|report| report.cache.into()),
    });
    CacheStatsResponse { nodes: nodes.collect() }
}

/// Which nodes own a URL's object, and which hold it.
pub async fn locate(node: &Arc<Node>, request: &CacheLocateRequest) -> Result<CacheLocateResponse, Status> {
    let not_a_url = || {
        let why = format!("{:?} is not a URL; write \"http://host/path?query\"", request.url);
        with_exit(Code::InvalidArgument, Exit::Local, why)
    };
    let (key, owners) = node.cache.locate(&request.url).ok_or_else(not_a_url)?;
    let mut locations = Vec::new();
    for (id, name) in node.live_members() {
        let role = match Some(id) {
            owner if owner == owners.primary => "primary",
            owner if owner == owners.secondary => "secondary",
            _ => "none",
        };
        let looked_up = look_up(node, id, key).await;
        locations.push(location(id, name, role, looked_up));
    }
    locations.sort_by_key(|location| match location.role.as_str() {
        "primary" => 0,
        "secondary" => 1,
        _ => 2,
    });
    Ok(CacheLocateResponse { key: format!("{:032x}", key.0), locations })
}

async fn look_up(node: &Node, id: NodeId, key: ObjectKey) -> Option<LookupResponse> {
    let mut request = Request::new(LookupRequest { key: key.to_bytes().to_vec() });
    request.set_timeout(LOOKUP_TIMEOUT);
    let response = if id == node.id() {
        node.cache.service().lookup(request).await
    } else {
        let mut client = node.peers.cache(id).ok()?;
        tokio::time::timeout(LOOKUP_TIMEOUT, client.lookup(request)).await.ok()?
    };
    response.ok().map(tonic::Response::into_inner)
}

fn location(id: NodeId, name: String, role: &str, looked_up: Option<LookupResponse>) -> Location {
    let state = match &looked_up {
        None => "unreachable",
        Some(found) if !found.objects.is_empty() => "held",
        Some(found) if found.filling => "filling",
        Some(_) => "absent",
    };
    let objects = looked_up.map(|found| found.objects).unwrap_or_default();
    let first = objects.first().cloned().unwrap_or_default();
    Location {
        node_id: id.0,
        node: name,
        role: role.to_owned(),
        state: state.to_owned(),
        body_bytes: first.body_bytes,
        age_seconds: first.age_seconds,
        ttl_seconds: first.ttl_seconds,
        variants: objects.len() as u32,
    }
}
