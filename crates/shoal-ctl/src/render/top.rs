//! What goes through the cluster: two answers of its counters as rates, and those as tables.

use std::collections::BTreeMap;

use serde::Serialize;
use shoal_proto::admin::{NodeTraffic, TopResponse, TrafficCounts};

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
            let looks = hits + node.cache_misses.saturating_sub(then.cache_misses);
            rates.nodes.push(NodeRow {
                node: node.node.clone(),
                reported: node.reported,
                row: own.row(),
                cache_hit_ratio: (looks > 0).then(|| hits as f64 / looks as f64),
                open_connections: node.open_connections,
                in_flight: node.in_flight,
            });
        }
        rates.cluster = cluster.row();
        let rows =
            routes.into_iter().map(|(route, delta)| RouteRow { route: route.to_owned(), row: delta.row() });
        rates.routes = rows.collect();
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
        for bucket in &now.durations {
            let then =
                then.and_then(|then| then.durations.iter().find(|b| b.at_most_us == bucket.at_most_us));
            let bound = if bucket.at_most_us == 0 { u64::MAX } else { bucket.at_most_us };
            *self.durations.entry(bound).or_default() +=
                bucket.requests.saturating_sub(then.map_or(0, |then| then.requests));
        }
    }

    fn row(&self) -> Row {
        Row {
            requests_per_second: self.requests,
            errors_per_second: self.errors,
            p50_ms: self.at_most_ms(0.5),
            p99_ms: self.at_most_ms(0.99),
        }
    }

    /// The bound below which this share of requests lies; infinite beyond the last bound.
    fn at_most_ms(&self, share: f64) -> Option<f64> {
        let all: u64 = self.durations.values().sum();
        let wanted = (all as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let bound = self.durations.iter().find_map(|(bound, requests)| {
            below += requests;
            (below >= wanted).then_some(*bound)
        })?;
        Some(if bound == u64::MAX { f64::INFINITY } else { bound as f64 / 1000.0 })
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
        let hits = node.cache_hit_ratio.map_or_else(String::new, |ratio| format!("{:.0}%", ratio * 100.0));
        let (open, in_flight) = (node.open_connections.to_string(), node.in_flight.to_string());
        nodes.row([node.node.clone(), requests, errors, p50, p99, hits, open, in_flight]);
    }
    let [requests, errors, p50, p99] = cells(&rates.cluster);
    let sum = |read: fn(&NodeRow) -> u64| rates.nodes.iter().map(read).sum::<u64>().to_string();
    let (open, in_flight) = (sum(|node| node.open_connections), sum(|node| node.in_flight));
    nodes.row(["all".into(), requests, errors, p50, p99, " ".into(), open, in_flight]);
    let mut routes = Columns::new(["ROUTE", "REQ/S", "ERR/S", "P50", "P99"]);
    for route in rates.routes.iter().take(MAX_ROWS) {
        let [requests, errors, p50, p99] = cells(&route.row);
        routes.row([route.route.clone(), requests, errors, p50, p99]);
    }
    match routes.text() {
        none if none.is_empty() => nodes.text(),
        routes => format!("{}\n{routes}", nodes.text()),
    }
}

fn cells(row: &Row) -> [String; 4] {
    [rate(row.requests_per_second), rate(row.errors_per_second), latency(row.p50_ms), latency(row.p99_ms)]
}

fn rate(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// Buckets are what is known: an upper bound.
fn latency(at_most_ms: Option<f64>) -> String {
    match at_most_ms {
        None => String::new(),
        Some(ms) if ms.is_infinite() => ">10s".to_owned(),
        Some(ms) if ms >= 1000.0 => format!("<{}s", ms / 1000.0),
        Some(ms) => format!("<{ms}ms"),
    }
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
        Some(TrafficCounts { requests, errors, durations: durations.iter().map(bucket).collect() })
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

    #[test]
    fn quantiles_are_bounds() {
        let check = |durations: &[(u64, u64)], share: f64, expected: Option<f64>| {
            let delta = Delta { durations: durations.iter().copied().collect(), ..Delta::default() };
            assert_eq!(delta.at_most_ms(share), expected, "{durations:?}");
        };
        check(&[], 0.5, None);
        check(&[(500, 0)], 0.5, None);
        check(&[(500, 1)], 0.99, Some(0.5));
        check(&[(500, 99), (1000, 1)], 0.99, Some(0.5));
        check(&[(500, 98), (1000, 2)], 0.99, Some(1.0));
        check(&[(500, 1), (u64::MAX, 9)], 0.5, Some(f64::INFINITY));
    }
}
