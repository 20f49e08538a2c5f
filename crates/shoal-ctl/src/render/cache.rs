//! Cache counters, purges and locations.

use std::collections::BTreeMap;

use shoal_proto::admin::{
    CacheCounters, CacheLocateResponse, CacheStatsResponse, DurationBucket, NodeCacheStats, PurgeResponse,
};

use super::changes::acknowledged;
use super::quantile::{bound, latency, quantile_ms};
use super::table::Columns;
use super::units::{bytes, percent, span};
use crate::failure::one_line;

/// A row per node, and one of all together; below how long fetches took, and what each route had of the cache.
pub fn cache_stats(response: &CacheStatsResponse) -> String {
    let mut columns = Columns::new([
        "NODE",
        "OBJECTS",
        "MEMORY",
        "DISK",
        "HITS",
        "MISSES",
        "STALE",
        "RATIO",
        "FROM DISK",
        "COALESCED",
        "FROM PEERS",
        "PEER ERRORS",
        "ORIGIN",
        "EVICTED",
        "DISK EVICTED",
        "PURGE SEQ",
    ]);
    for (name, node) in rows(response) {
        let mut cells = std::array::from_fn(|_| String::new());
        cells[0] = name.to_owned();
        if let (true, Some(counters)) = (node.reported, &node.counters) {
            cells[1..].clone_from_slice(&[
                counters.objects.to_string(),
                format!("{} of {}", bytes(counters.bytes), bytes(counters.budget_bytes)),
                match counters.disk_budget_bytes {
                    0 => String::new(),
                    budget => format!("{} of {}", bytes(counters.disk_bytes), bytes(budget)),
                },
                counters.hits.to_string(),
                counters.misses.to_string(),
                counters.stale.to_string(),
                hit_ratio(counters),
                counters.disk_hits.to_string(),
                counters.coalesced.to_string(),
                counters.peer_hits.to_string(),
                counters.peer_errors.to_string(),
                counters.origin_fetches.to_string(),
                counters.evictions.to_string(),
                counters.disk_evictions.to_string(),
                counters.purge_seq.to_string(),
            ]);
        }
        columns.row::<16>(cells);
    }
    let parts = [columns.text(), fetch_times(response), route_stats(response)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// How much was answered out of the cluster's cache. What a peer had is a miss of this node's memory, and no miss of the cluster.
pub(super) fn hit_ratio(counters: &CacheCounters) -> String {
    percent(counters.hits + counters.peer_hits, counters.hits + counters.misses + counters.stale)
}

/// The nodes with their names, and behind several all of them together.
fn rows(response: &CacheStatsResponse) -> impl Iterator<Item = (&str, &NodeCacheStats)> {
    let nodes = response.nodes.iter().map(|node| (&*node.node, node));
    let total = response.total.as_ref().filter(|_| response.nodes.len() > 1);
    nodes.chain(total.map(|total| ("(all)", total)))
}

fn fetch_times(response: &CacheStatsResponse) -> String {
    let mut columns = Columns::new(["NODE", "ASKED", "TIMES", "P50", "P99"]);
    for (name, node) in rows(response) {
        for (asked, times) in [("origins", &node.origin_times), ("peers", &node.peer_times)] {
            let count: u64 = times.iter().map(|bucket| bucket.requests).sum();
            if count > 0 {
                let (p50, p99) = (at_most(times, 0.5), at_most(times, 0.99));
                columns.row([name.to_owned(), asked.to_owned(), count.to_string(), p50, p99]);
            }
        }
    }
    columns.text()
}

fn route_stats(response: &CacheStatsResponse) -> String {
    let mut columns = Columns::new(["ROUTE", "HITS", "MISSES", "RATIO", "SAVED"]);
    for route in &response.routes {
        columns.row([
            route.route.clone(),
            route.hits.to_string(),
            route.misses.to_string(),
            percent(route.hits, route.hits + route.misses),
            bytes(route.hit_bytes),
        ]);
    }
    columns.text()
}

/// The bound below which this share of them lies.
fn at_most(times: &[DurationBucket], share: f64) -> String {
    let by_bound: BTreeMap<u64, u64> = times.iter().map(|bucket| (bound(bucket), bucket.requests)).collect();
    latency(quantile_ms(&by_bound, share))
}

/// What a purge reached.
pub fn purged(response: &PurgeResponse) -> String {
    if response.acks.is_empty() {
        return format!("purge {} is in the log after {} ms\n", response.seq, response.elapsed_ms);
    }
    let by = acknowledged("acknowledged by", &response.acks, &response.absent, response.elapsed_ms);
    format!("purge {}: {by}", response.seq)
}

/// The key of a URL and a row per node that owns or holds its object.
pub fn locations(response: &CacheLocateResponse) -> String {
    let mut columns = Columns::new(["NODE", "OWNER", "STATE", "SIZE", "AGE", "FRESH FOR", "VARIANTS"]);
    for location in &response.locations {
        let mut cells = std::array::from_fn(|_| String::new());
        cells[..3].clone_from_slice(&[location.node.clone(), location.role.clone(), location.state.clone()]);
        if location.state == "held" {
            let fresh = match location.ttl_seconds {
                ..=0 => format!("stale since {}", span(location.ttl_seconds.unsigned_abs())),
                ttl => span(ttl.unsigned_abs()),
            };
            let age = span(u64::try_from(location.age_seconds).unwrap_or_default());
            cells[3..].clone_from_slice(&[
                bytes(location.body_bytes),
                age,
                fresh,
                location.variants.to_string(),
            ]);
        }
        columns.row::<7>(cells);
    }
    format!("key {}\n{}", one_line(&response.key), columns.text())
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::{AckState, ApplyResponse, CacheCounters, Location, NodeAck, RouteCacheStats};

    use super::super::check_golden;
    use super::*;
    use crate::output::to_json;

    #[test]
    fn stats_are_a_row_per_node() {
        let counters = CacheCounters {
            objects: 300,
            bytes: 3 << 20,
            budget_bytes: 256 << 20,
            hits: 990,
            misses: 8,
            stale: 2,
            coalesced: 49,
            peer_hits: 17,
            peer_errors: 1,
            origin_fetches: 8,
            evictions: 4,
            disk_evictions: 29,
            purge_seq: 42,
            disk_bytes: 5 << 20,
            disk_budget_bytes: 10 << 30,
            disk_hits: 12,
            ..CacheCounters::default()
        };
        let node = |name: &str, reported| NodeCacheStats {
            node_id: 1,
            node: name.into(),
            reported,
            counters: reported.then_some(counters),
            ..NodeCacheStats::default()
        };
        let bucket = |at_most_us, requests| DurationBucket { at_most_us, requests };
        let mut first = node("node1", true);
        first.origin_times = vec![bucket(50_000, 6), bucket(0, 2)];
        first.peer_times = vec![bucket(500, 17)];
        let route = RouteCacheStats { route: "shop".into(), hits: 990, misses: 10, hit_bytes: 7 << 20 };
        let total = Some(NodeCacheStats { node: String::new(), node_id: 0, ..first.clone() });
        let nodes = vec![first, node("node2", false)];
        let response = CacheStatsResponse { nodes, routes: vec![route], total };
        check_golden("cache_stats", &cache_stats(&response));
    }

    #[test]
    fn a_purge_is_acknowledged_where_a_revision_is_applied() {
        let check = |state: AckState, of_purge: &str, of_revision: &str| {
            let acks = vec![NodeAck { node_id: 7, state: state.into(), elapsed_ms: 3, ..NodeAck::default() }];
            let revision = ApplyResponse { acks: acks.clone(), ..ApplyResponse::default() };
            let purge = PurgeResponse { acks, ..PurgeResponse::default() };
            let line = |state: &str| format!("\"state\": \"{state}\"");
            let (purge, revision) = (to_json(&purge).unwrap(), to_json(&revision).unwrap());
            assert!(revision.contains(&line(of_revision)), "{revision}");
            let acks = |text: &str| text[text.find("\"acks\"").unwrap()..text.find(']').unwrap()].to_owned();
            let expected = acks(&revision).replace(&line(of_revision), &line(of_purge));
            // A purge is no revision that one could serve instead of another.
            let expected = expected.replace(",\n      \"serves\": 0", "");
            assert_eq!(acks(&purge), expected, "all but the word is the same");
        };
        check(AckState::Applied, "acknowledged", "applied");
        check(AckState::Lapsed, "lapsed", "lapsed");
        check(AckState::Silent, "silent", "silent");
    }

    #[test]
    fn a_purge_names_who_is_missing() {
        let ack = |node: &str, state: AckState, detail: &str| NodeAck {
            node: node.into(),
            state: state.into(),
            detail: detail.into(),
            ..NodeAck::default()
        };
        let mut response = PurgeResponse { seq: 42, elapsed_ms: 12, ..PurgeResponse::default() };
        assert_eq!(purged(&response), "purge 42 is in the log after 12 ms\n");
        response.acks.push(ack("node1", AckState::Applied, ""));
        assert_eq!(purged(&response), "purge 42: acknowledged by 1/1 nodes in 12 ms\n");
        response.acks.push(ack("node2", AckState::Silent, "no answer"));
        assert_eq!(
            purged(&response),
            "purge 42: acknowledged by 1/2 nodes in 12 ms\n  node2 silent: no answer\n"
        );
    }

    #[test]
    fn locations_say_who_owns_and_holds() {
        let location = |node: &str, role: &str, state: &str, ttl_seconds| Location {
            node_id: 1,
            node: node.into(),
            role: role.into(),
            state: state.into(),
            body_bytes: 1536,
            age_seconds: 12,
            ttl_seconds,
            variants: 2,
        };
        let response = CacheLocateResponse {
            key: "http://shop.example.com/logo.svg".into(),
            locations: vec![
                location("node2", "primary", "held", 48),
                location("node1", "secondary", "held", -5),
                location("node3", "none", "absent", 0),
            ],
        };
        check_golden("locations", &locations(&response));
    }
}
