//! Verbs about the cache: purge, stats, locate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_model::NodeId;
use shoal_model::state::PurgeKind;
use shoal_model::units::millis_u32;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::warming::kept_urls;
use shoal_proto::admin::{
    CacheCounters, CacheLocateRequest, CacheLocateResponse, CacheStatsRequest, CacheStatsResponse,
    DurationBucket, Location, NodeCacheStats, PurgeRequest, PurgeResponse, RouteCacheStats,
};
use shoal_proto::cache::cache_service_server::CacheService;
use shoal_proto::cache::{LookupRequest, LookupResponse};
use tonic::{Code, Request, Status};

use super::caller::author_of;
use super::failure::{self, Exit, with_exit};
use super::purge_scopes as scopes;
use super::request_key::{RequestKey, Subject};
use super::top::{busiest, duration_buckets};
use crate::everybody::ask_all;
use crate::node::Node;
use crate::purge_trail::PurgeTrail;
use crate::purging::{PurgeError, PurgeOrder};
use crate::report::Wanted;

/// Wait for acknowledgements when the caller names no time: longer than any lease.
const DEFAULT_PURGE_WAIT: Duration = Duration::from_secs(10);
/// For an owner's answer to a look-up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Forgets cached objects, in the order of the log, on every node.
pub async fn purge(node: &Arc<Node>, request: PurgeRequest, caller: &str) -> Result<PurgeResponse, Status> {
    let by = author_of(&request.author, caller);
    let order = order(node, request, by).map_err(|why| with_exit(Code::InvalidArgument, Exit::Local, why))?;
    let purged = node.purge(order).await.map_err(refused)?;
    Ok(PurgeResponse {
        seq: purged.seq,
        acks: purged.acks,
        elapsed_ms: millis_u32(purged.elapsed),
        absent: purged.absent,
    })
}

/// What `by` asks for, or what is wrong with it.
pub fn order(node: &Node, request: PurgeRequest, by: String) -> Result<PurgeOrder, String> {
    let PurgeRequest { urls, prefixes, hosts, tags, groups, all, soft, .. } = &request;
    let meaning = format!("{:?}", (urls, prefixes, hosts, tags, groups, all, soft));
    let key = RequestKey::of(Subject::Purge, &by, &request.request_id, &[&meaning]);
    // Who comes again for the same gets the same answer from the log.
    let checked = key.and_then(|key| node.log.with_state(|state| key.answered(state)).map(|_| key));
    let key = checked.map_err(|status| status.message().to_owned())?;
    let scopes = scopes::read(&node.cache, &node.config.load(), &request)?;
    let timeout = match request.timeout_ms {
        0 => DEFAULT_PURGE_WAIT,
        ms => Duration::from_millis(ms.into()),
    };
    Ok(PurgeOrder {
        scopes,
        kind: if request.soft { PurgeKind::Soft } else { PurgeKind::Hard },
        is_limited: true,
        wait: request.wait_complete.then_some(timeout),
        trail: PurgeTrail::of_request(by, &request),
        request_id: key.text(),
    })
}

fn refused(error: PurgeError) -> Status {
    match error {
        PurgeError::TooFast(_) => with_exit(Code::ResourceExhausted, Exit::Remote, error.to_string()),
        PurgeError::Log(error) => failure::propose(error),
        PurgeError::Reply(other) => failure::reply(other),
    }
}

/// Counters per node, per route, and of all together.
pub async fn stats(node: &Arc<Node>, request: &CacheStatsRequest) -> Result<CacheStatsResponse, Status> {
    let asked = named_members(node, &request.node)?;
    let is_asked = |id: NodeId| asked.iter().any(|(asked, _)| *asked == id);
    let mut response = CacheStatsResponse::default();
    let mut routes: BTreeMap<String, RouteCacheStats> = BTreeMap::new();
    let mut reports = node.ask_reports(Wanted::TRAFFIC).await;
    reports.retain(|(id, ..)| is_asked(*id));
    for (id, name, report) in reports {
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
    response.total = Some(total(&response.nodes));
    Ok(response)
}

/// The live members that an operator means: the one with that name, or all of them.
pub(super) fn named_members(node: &Node, name: &str) -> Result<Vec<(NodeId, String)>, Status> {
    let mut members = node.live_members();
    if !name.is_empty() {
        members.retain(|(_, known)| known == name);
        if members.is_empty() {
            let why = format!("there is no live node {name:?}");
            return Err(with_exit(Code::NotFound, Exit::Local, why));
        }
    }
    Ok(members)
}

/// All nodes that have reported, together.
fn total(nodes: &[NodeCacheStats]) -> NodeCacheStats {
    let mut total = NodeCacheStats { counters: Some(CacheCounters::default()), ..NodeCacheStats::default() };
    for node in nodes.iter().filter(|node| node.reported) {
        total.reported = true;
        if let (Some(sum), Some(counters)) = (&mut total.counters, &node.counters) {
            add_counters(sum, counters);
        }
        add_times(&mut total.origin_times, &node.origin_times);
        add_times(&mut total.peer_times, &node.peer_times);
    }
    total
}

fn add_counters(sum: &mut CacheCounters, counters: &CacheCounters) {
    let CacheCounters {
        objects,
        bytes,
        budget_bytes,
        hits,
        misses,
        stale,
        coalesced,
        peer_hits,
        peer_errors,
        origin_fetches,
        replicas_sent,
        replicas_received,
        evictions,
        purge_seq,
        disk_objects,
        disk_bytes,
        disk_budget_bytes,
        disk_hits,
        disk_written,
        disk_dropped,
        disk_evictions,
        disk_damaged,
        disk_errors,
    } = counters;
    for (sum, more) in [
        (&mut sum.objects, objects),
        (&mut sum.bytes, bytes),
        (&mut sum.budget_bytes, budget_bytes),
        (&mut sum.hits, hits),
        (&mut sum.misses, misses),
        (&mut sum.stale, stale),
        (&mut sum.coalesced, coalesced),
        (&mut sum.peer_hits, peer_hits),
        (&mut sum.peer_errors, peer_errors),
        (&mut sum.origin_fetches, origin_fetches),
        (&mut sum.replicas_sent, replicas_sent),
        (&mut sum.replicas_received, replicas_received),
        (&mut sum.evictions, evictions),
        (&mut sum.disk_objects, disk_objects),
        (&mut sum.disk_bytes, disk_bytes),
        (&mut sum.disk_budget_bytes, disk_budget_bytes),
        (&mut sum.disk_hits, disk_hits),
        (&mut sum.disk_written, disk_written),
        (&mut sum.disk_dropped, disk_dropped),
        (&mut sum.disk_evictions, disk_evictions),
        (&mut sum.disk_damaged, disk_damaged),
        (&mut sum.disk_errors, disk_errors),
    ] {
        *sum += more;
    }
    sum.purge_seq = sum.purge_seq.max(*purge_seq);
}

fn add_times(sum: &mut Vec<DurationBucket>, times: &[DurationBucket]) {
    for bucket in times {
        match sum.iter_mut().find(|known| known.at_most_us == bucket.at_most_us) {
            Some(known) => known.requests += bucket.requests,
            None => sum.push(*bucket),
        }
    }
}

/// Which nodes own a URL's object, and which hold it.
pub async fn locate(node: &Arc<Node>, request: &CacheLocateRequest) -> Result<CacheLocateResponse, Status> {
    let Some(kept) = kept_as(node, &request.url)?.into_iter().next() else {
        return Err(not_a_url(&request.url));
    };
    let asked = look_up_on(node, node.live_members(), kept.key, false).await;
    let located = asked
        .into_iter()
        .map(|(id, name, looked_up)| location(id, name, role_of(id, kept.owners), looked_up.as_ref()));
    let mut locations: Vec<Location> = located.collect();
    sort_by_role(&mut locations, |location| &location.role);
    Ok(CacheLocateResponse { key: kept.key.to_string(), locations })
}

/// The key that objects of a URL have, and who owns them.
pub(super) struct Kept {
    pub(super) key: ObjectKey,
    pub(super) owners: Owners,
}

/// What the objects of `url`, as an operator writes it, are kept as: more than one only where routes on several listeners
/// let different parts of its query count, or a response has said that some do not.
pub(super) fn kept_as(node: &Node, url: &str) -> Result<Vec<Kept>, Status> {
    let misread = |why: String| with_exit(Code::InvalidArgument, Exit::Local, why);
    let canonical = scopes::canonical_url(url).map_err(misread)?;
    let urls = kept_urls(&node.config.load(), &canonical);
    let located = urls.iter().flat_map(|url| node.cache.locate(url));
    let kept: Vec<Kept> = located.map(|(key, owners)| Kept { key, owners }).collect();
    if kept.is_empty() { Err(not_a_url(url)) } else { Ok(kept) }
}

fn not_a_url(url: &str) -> Status {
    with_exit(Code::InvalidArgument, Exit::Local, format!("{url:?} is not a URL"))
}

/// What a node has to do with an object.
pub(super) fn role_of(id: NodeId, owners: Owners) -> &'static str {
    match Some(id) {
        owner if owner == owners.primary => "primary",
        owner if owner == owners.secondary => "secondary",
        _ => "none",
    }
}

/// Owners first.
pub(super) fn sort_by_role<T>(rows: &mut [T], role: impl Fn(&T) -> &str) {
    rows.sort_by_key(|row| match role(row) {
        "primary" => 0,
        "secondary" => 1,
        _ => 2,
    });
}

/// What each of `members` has of a key, asked all at once; `None` = it does not say.
pub(super) async fn look_up_on(
    node: &Arc<Node>,
    members: Vec<(NodeId, String)>,
    key: ObjectKey,
    everything: bool,
) -> Vec<(NodeId, String, Option<LookupResponse>)> {
    let asked = ask_all(members, |id, _| {
        let node = node.clone();
        async move { look_up(&node, id, key, everything).await }
    });
    asked.await.into_iter().map(|asked| (asked.id, asked.name, asked.answer.ok().flatten())).collect()
}

/// What a node has of a key; `everything` that is there, or what it would answer with.
async fn look_up(node: &Node, id: NodeId, key: ObjectKey, everything: bool) -> Option<LookupResponse> {
    let mut request = Request::new(LookupRequest { key: key.to_bytes().to_vec(), everything });
    request.set_timeout(LOOKUP_TIMEOUT);
    let response = if id == node.id() {
        node.cache.service().lookup(request).await
    } else {
        let mut client = node.peers.cache(id).ok()?;
        tokio::time::timeout(LOOKUP_TIMEOUT, client.lookup(request)).await.ok()?
    };
    response.ok().map(tonic::Response::into_inner)
}

/// A node as the place of an object.
pub(super) fn location(id: NodeId, name: String, role: &str, looked_up: Option<&LookupResponse>) -> Location {
    let state = match looked_up {
        None => "unreachable",
        Some(found) if !found.objects.is_empty() => "held",
        Some(found) if found.filling => "filling",
        Some(_) => "absent",
    };
    let objects = looked_up.map(|found| &found.objects[..]).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_have_not_reported_are_no_part_of_the_sum() {
        let bucket = |at_most_us, requests| DurationBucket { at_most_us, requests };
        let node = |reported, hits, purge_seq| NodeCacheStats {
            reported,
            counters: Some(CacheCounters { hits, purge_seq, disk_errors: 1, ..CacheCounters::default() }),
            origin_times: vec![bucket(100, hits), bucket(0, 1)],
            ..NodeCacheStats::default()
        };
        let sum = total(&[node(true, 3, 9), node(true, 4, 7), node(false, 100, 100)]);
        let counters = sum.counters.unwrap();
        assert_eq!((counters.hits, counters.purge_seq, counters.disk_errors), (7, 9, 2));
        assert_eq!(sum.origin_times, [bucket(100, 7), bucket(0, 2)]);
        assert!(sum.reported && sum.peer_times.is_empty());
        assert!(!total(&[node(false, 1, 1)]).reported);
    }
}
