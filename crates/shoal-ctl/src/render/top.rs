//! What goes through the cluster: two answers of its counters as rates, and those as tables.

use std::collections::BTreeMap;

use serde::Serialize;
use shoal_proto::admin::{NodeTraffic, TopResponse, TrafficCounts};

use super::quantile::{bound, latency, quantile_ms};
use super::table::Columns;

/// Routes shown, the busiest.
const MAX_ROWS: usize = 30;

/// What went through the cluster between two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// All nodes.
    cluster: Row,
    nodes: Vec<NodeRow>,
    /// The busiest first.
    routes: Vec<RouteRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct NodeRow {
    node: String,
    /// It answered.
    reported: bool,
    #[serde(flatten)]
    row: Row,
    cache_hit_ratio: Option<f64>,
    open_connections: u64,
    in_flight: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct RouteRow {
    route: String,
    #[serde(flatten)]
    row: Row,
    /// `None` = the cache was not asked.
    cache_hit_ratio: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Row {
    requests_per_second: f64,
    errors_per_second: f64,
    /// `None` = there was no request.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// Counts over a while; the durations by bound, without bound last.
#[derive(Clone, Debug, Default)]
struct Delta {
    requests: f64,
    errors: f64,
    cache_hits: u64,
    cache_misses: u64,
    durations: BTreeMap<u64, u64>,
}

impl Rates {
    /// What happened between `before` and `now`.
    pub fn between(before: &TopResponse, now: &TopResponse) -> Self {
        let mut rates = Self::default();
        let mut cluster = Delta::default();
        let mut routes: BTreeMap<&str, Delta> = BTreeMap::new();
        for node in &now.nodes {
            // A node that was started meanwhile, or was not heard before, is taken from its start.
            let known = before.nodes.iter().find(|known| known.node_id == node.node_id && known.reported);
            let blank = NodeTraffic::default();
            let then = known.filter(|known| known.at_ms < node.at_ms).unwrap_or(&blank);
            let seconds = node.at_ms.saturating_sub(then.at_ms) as f64 / 1000.0;
            let mut own = Delta::default();
            own.add(then.total.as_ref(), node.total.as_ref(), seconds);
            cluster.add(then.total.as_ref(), node.total.as_ref(), seconds);
            for route in &node.routes {
                let then = then.routes.iter().find(|known| known.route == route.route);
                let then = then.and_then(|known| known.counts.as_ref());
                routes.entry(&route.route).or_default().add(then, route.counts.as_ref(), seconds);
            }
            let hits = node.cache_hits.saturating_sub(then.cache_hits);
            let misses = node.cache_misses.saturating_sub(then.cache_misses);
            rates.nodes.push(NodeRow {
                node: node.node.clone(),
                reported: node.reported,
                row: own.row(),
                cache_hit_ratio: ratio(hits, misses),
                open_connections: node.open_connections,
                in_flight: node.in_flight,
            });
        }
        rates.cluster = cluster.row();
        let row = |(route, delta): (&str, Delta)| RouteRow {
            route: route.to_owned(),
            row: delta.row(),
            cache_hit_ratio: ratio(delta.cache_hits, delta.cache_misses),
        };
        rates.routes = routes.into_iter().map(row).collect();
        rates.routes.sort_by(|a, b| b.row.requests_per_second.total_cmp(&a.row.requests_per_second));
        rates
    }
}

impl Delta {
    fn add(&mut self, then: Option<&TrafficCounts>, now: Option<&TrafficCounts>, seconds: f64) {
        let Some(now) = now.filter(|_| seconds > 0.0) else { return };
        let (requests, errors) = then.map_or((0, 0), |then| (then.requests, then.errors));
        self.requests += now.requests.saturating_sub(requests) as f64 / seconds;
        self.errors += now.errors.saturating_sub(errors) as f64 / seconds;
        let then_hits = then.map_or((0, 0), |then| (then.cache_hits, then.cache_misses));
        self.cache_hits += now.cache_hits.saturating_sub(then_hits.0);
        self.cache_misses += now.cache_misses.saturating_sub(then_hits.1);
        for bucket in &now.durations {
            let then =
                then.and_then(|then| then.durations.iter().find(|b| b.at_most_us == bucket.at_most_us));
            *self.durations.entry(bound(bucket)).or_default() +=
                bucket.requests.saturating_sub(then.map_or(0, |then| then.requests));
        }
    }

    fn row(&self) -> Row {
        Row {
            requests_per_second: self.requests,
            errors_per_second: self.errors,
            p50_ms: quantile_ms(&self.durations, 0.5),
            p99_ms: quantile_ms(&self.durations, 0.99),
        }
    }
}

/// Nodes, a line for all of them, and the busiest routes.
pub fn top(rates: &Rates) -> String {
    let mut nodes =
        Columns::new(["NODE", "REQ/S", "ERR/S", "P50", "P99", "CACHE HITS", "CONNECTIONS", "IN FLIGHT"]);
    for node in &rates.nodes {
        if !node.reported {
            let silent = "does not answer".to_owned();
            nodes.row([
                node.node.clone(),
                silent,
                " ".into(),
                " ".into(),
                " ".into(),
                " ".into(),
                " ".into(),
                " ".into(),
            ]);
            continue;
        }
        let [requests, errors, p50, p99] = cells(&node.row);
        let hits = share(node.cache_hit_ratio);
        let (open, in_flight) = (node.open_connections.to_string(), node.in_flight.to_string());
        nodes.row([node.node.clone(), requests, errors, p50, p99, hits, open, in_flight]);
    }
    let [requests, errors, p50, p99] = cells(&rates.cluster);
    let sum = |read: fn(&NodeRow) -> u64| rates.nodes.iter().map(read).sum::<u64>().to_string();
    let (open, in_flight) = (sum(|node| node.open_connections), sum(|node| node.in_flight));
    nodes.row(["all".into(), requests, errors, p50, p99, " ".into(), open, in_flight]);
    let mut routes = Columns::new(["ROUTE", "REQ/S", "ERR/S", "P50", "P99", "CACHE HITS"]);
    for route in rates.routes.iter().take(MAX_ROWS) {
        let [requests, errors, p50, p99] = cells(&route.row);
        routes.row([route.route.clone(), requests, errors, p50, p99, share(route.cache_hit_ratio)]);
    }
    match routes.text() {
        none if none.is_empty() => nodes.text(),
        routes => format!("{}\n{routes}", nodes.text()),
    }
}

/// `None` = nothing was asked for.
fn ratio(hits: u64, misses: u64) -> Option<f64> {
    (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
}

fn share(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{:.0}%", ratio * 100.0))
}

fn cells(row: &Row) -> [String; 4] {
    [rate(row.requests_per_second), rate(row.errors_per_second), latency(row.p50_ms), latency(row.p99_ms)]
}

fn rate(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::{DurationBucket, RouteTraffic};

    use super::super::check_golden;
    use super::*;

    fn counts(requests: u64, errors: u64, durations: &[(u64, u64)]) -> Option<TrafficCounts> {
        let bucket = |(at_most_us, requests): &(u64, u64)| DurationBucket {
            at_most_us: *at_most_us,
            requests: *requests,
        };
        Some(TrafficCounts {
            requests,
            errors,
            durations: durations.iter().map(bucket).collect(),
            cache_hits: requests / 2,
            cache_misses: requests / 10,
            ..TrafficCounts::default()
        })
    }

    fn node(node_id: u64, at_ms: u64, total: Option<TrafficCounts>) -> NodeTraffic {
        let routes = vec![RouteTraffic { route: "shop".into(), counts: total.clone() }];
        let node = format!("node{node_id}");
        NodeTraffic { node_id, node, reported: true, at_ms, total, routes, ..NodeTraffic::default() }
    }

    #[test]
    fn counters_become_rates() {
        let before = TopResponse {
            nodes: vec![
                node(1, 1000, counts(1000, 10, &[(500, 1000)])),
                node(2, 90_000, counts(500, 0, &[(500, 500)])),
            ],
        };
        let mut first = node(1, 3000, counts(1400, 14, &[(500, 1190), (2500, 206), (0, 4)]));
        (first.cache_hits, first.cache_misses, first.open_connections) = (90, 30, 17);
        let second = node(2, 500, counts(50, 0, &[(500, 50)]));
        let mut silent = node(3, 0, None);
        (silent.reported, silent.routes) = (false, Vec::new());
        let rates = Rates::between(&before, &TopResponse { nodes: vec![first, second, silent] });
        let own = &rates.nodes[0];
        assert_eq!((own.row.requests_per_second, own.row.errors_per_second), (200.0, 2.0));
        assert_eq!((own.row.p50_ms, own.row.p99_ms), (Some(2.5), Some(2.5)));
        assert_eq!(own.cache_hit_ratio, Some(0.75));
        assert_eq!(rates.nodes[1].row.requests_per_second, 100.0, "it was started anew");
        assert_eq!(rates.cluster.requests_per_second, 300.0);
        assert_eq!(rates.routes[0].row.requests_per_second, 300.0);
        check_golden("top", &top(&rates));
    }
}
