//! Verbs about the cache: purge, stats, locate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::NodeId;
use shoal_model::state::PurgeKind;
use shoal_policy::cache::key::ObjectKey;
use shoal_proto::admin::{
    CacheLocateRequest, CacheLocateResponse, CacheStatsResponse, Location, NodeCacheStats, PurgeRequest,
    PurgeResponse, RouteCacheStats,
};
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{LookupRequest, LookupResponse};
use tonic::{Code, Request, Status};

use super::failure::{self, Exit, with_exit};
use super::purge_scopes as scopes;
use super::top::{busiest, duration_buckets};
use crate::node::Node;
use crate::purging::{PurgeError, PurgeOrder};
use crate::report::Wanted;

/// Wait for acknowledgements when the caller names no time: longer than any lease.
const DEFAULT_PURGE_WAIT: Duration = Duration::from_secs(10);
/// For an owner's answer to a look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Forgets cached objects, in the order of the log, on every node.
pub async fn purge(node: &Arc<Node>, request: PurgeRequest) -> Result<PurgeResponse, Status> {
    let order = order(node, request).map_err(|why| with_exit(Code::InvalidArgument, Exit::Local, why))?;
    let purged = node.purge(order).await.map_err(refused)?;
    Ok(PurgeResponse {
        seq: purged.seq,
        acks: purged.acks,
        elapsed_ms: u32::try_from(purged.elapsed.as_millis()).unwrap_or(u32::MAX),
        absent: purged.absent,
    })
}

/// What is asked for, or what is wrong with it.
pub fn order(node: &Node, request: PurgeRequest) -> Result<PurgeOrder, String> {
    if request.request_id.len() > failure::MAX_REQUEST_ID {
        let (bytes, most) = (request.request_id.len(), failure::MAX_REQUEST_ID);
        return Err(format!("the request id has {bytes} bytes; at most {most} are kept"));
    }
    let scopes = scopes::read(&node.cache, &request)?;
    let timeout = match request.timeout_ms {
        0 => DEFAULT_PURGE_WAIT,
        ms => Duration::from_millis(ms.into()),
    };
    Ok(PurgeOrder {
        scopes,
        kind: if request.soft { PurgeKind::Soft } else { PurgeKind::Hard },
        request_id: request.request_id,
        wait: request.wait_complete.then_some(timeout),
    })
}

fn refused(error: PurgeError) -> Status {
    match error {
        PurgeError::TooFast(_) => with_exit(Code::ResourceExhausted, Exit::Remote, error.to_string()),
        PurgeError::Log(error) => failure::propose(error),
        PurgeError::Refused(refusal) => failure::refusal(&refusal),
        PurgeError::Unexpected => failure::unexpected_reply(),
    }
}

/// Counters per node, and per route.
pub async fn stats(node: &Arc<Node>) -> CacheStatsResponse {
    let mut response = CacheStatsResponse::default();
    let mut routes: BTreeMap<String, RouteCacheStats> = BTreeMap::new();
    for (id, name, report) in node.ask_reports(Wanted::TRAFFIC).await {
        let mut stats = NodeCacheStats { node_id: id.0, node: name, ..NodeCacheStats::default() };
        if let Some(report) = report {
            (stats.reported, stats.counters) = (true, Some(report.cache.into()));
            let traffic = report.traffic.unwrap_or_default();
            stats.origin_times = duration_buckets(&traffic.origin_times);
            stats.peer_times = duration_buckets(&traffic.peer_times);
            for (route, counts) in busiest(traffic.routes) {
                let sum = routes.entry(route).or_default();
                sum.hits += counts.cache_hits;
                sum.misses += counts.cache_misses;
                sum.hit_bytes += counts.cache_hit_bytes;
            }
        }
        response.nodes.push(stats);
    }
    let asked = routes.into_iter().filter(|(_, sum)| sum.hits + sum.misses > 0);
    response.routes = asked.map(|(route, sum)| RouteCacheStats { route, ..sum }).collect();
    response
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
