//! `shoal top`: what goes through every live node, as counters.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_model::NodeId;
use shoal_proto::admin::{DurationBucket, NodeTraffic, RouteTraffic, TopResponse, TrafficCounts};

use crate::node::Node;
use crate::report::{NodeReport, TrafficReport, Wanted};

/// Routes told of per node, the busiest: an answer about a large cluster has to fit into a message.
const MAX_ROUTES: usize = 100;

/// Asks every live node.
pub async fn top(node: &Arc<Node>) -> TopResponse {
    let reports = node.ask_reports(Wanted::TRAFFIC).await;
    TopResponse { nodes: reports.into_iter().map(|(id, name, report)| traffic(id, name, report)).collect() }
}

fn traffic(node_id: NodeId, node: String, report: Option<NodeReport>) -> NodeTraffic {
    let unheard = NodeTraffic { node_id: node_id.0, node, ..NodeTraffic::default() };
    let Some(report) = report else { return unheard };
    let Some(traffic) = report.traffic else { return unheard };
    NodeTraffic {
        reported: true,
        at_ms: traffic.at_ms,
        open_connections: report.open_connections,
        in_flight: traffic.in_flight,
        cache_hits: report.cache.hits + report.cache.stale,
        cache_misses: report.cache.misses,
        total: Some(counts(&traffic.total)),
        routes: busiest(traffic.routes).into_iter().map(route_traffic).collect(),
        ..unheard
    }
}

fn route_traffic((route, sum): (String, TrafficReport)) -> RouteTraffic {
    RouteTraffic { route, counts: Some(counts(&sum)) }
}

/// The busiest of them, so many as there is room for.
pub(super) fn busiest(routes: BTreeMap<String, TrafficReport>) -> Vec<(String, TrafficReport)> {
    let mut routes: Vec<_> = routes.into_iter().collect();
    routes.sort_by_key(|(_, sum)| Reverse(sum.requests));
    routes.truncate(MAX_ROUTES);
    routes
}

fn counts(sum: &TrafficReport) -> TrafficCounts {
    TrafficCounts {
        requests: sum.requests,
        errors: sum.errors,
        durations: duration_buckets(&sum.durations),
        cache_hits: sum.cache_hits,
        cache_misses: sum.cache_misses,
        cache_hit_bytes: sum.cache_hit_bytes,
    }
}

/// Those that are not empty.
pub(super) fn duration_buckets(buckets: &[(Option<u64>, u64)]) -> Vec<DurationBucket> {
    let bucket = |(bound, requests): &(Option<u64>, u64)| DurationBucket {
        at_most_us: bound.unwrap_or(0),
        requests: *requests,
    };
    buckets.iter().filter(|(_, requests)| *requests > 0).map(bucket).collect()
}
