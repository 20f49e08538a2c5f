//! Verbs about the cache: purge, stats, locate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_model::state::{Command, PurgeKind, Reply};
use shoal_model::{NodeId, Revision};
use shoal_policy::cache::key::ObjectKey;
use shoal_proto::admin::{
    AckState, CacheLocateRequest, CacheLocateResponse, CacheStatsResponse, Location, NodeCacheStats,
    PurgeRequest, PurgeResponse,
};
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{LookupRequest, LookupResponse};
use tonic::{Code, Request, Status};

use super::failure::{self, Exit, with_exit};
use super::purge_scopes as scopes;
use crate::node::{Node, now_ms};

/// For an owner's answer to a look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Forgets cached objects, in the order of the log, on every node.
pub async fn purge(node: &Arc<Node>, request: PurgeRequest) -> Result<PurgeResponse, Status> {
    let started = Instant::now();
    failure::check_length("the request id", &request.request_id, failure::MAX_REQUEST_ID)?;
    let scopes = scopes::read(&node.cache, &request)
        .map_err(|why| with_exit(Code::InvalidArgument, Exit::Local, why))?;
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
    let absent = if request.wait_complete { node.absent_members() } else { Vec::new() };
    let everywhere = acks.iter().all(|ack| ack.state() == AckState::Applied);
    node.purge_figures.note(Some(started.elapsed()).filter(|_| request.wait_complete && everywhere));
    Ok(PurgeResponse { seq, acks, elapsed_ms: started.elapsed().as_millis() as u32, absent })
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
    let misread = |why: String| with_exit(Code::InvalidArgument, Exit::Local, why);
    let url = scopes::canonical_url(&request.url).map_err(misread)?;
    let (key, owners) =
        node.cache.locate(&url).ok_or_else(|| misread(format!("{:?} is not a URL", request.url)))?;
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
