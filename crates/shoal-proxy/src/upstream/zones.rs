//! Zones of endpoints, as the nodes of the cluster stand in them.

use shoal_cluster::ClusterView;
use shoal_model::view::UpstreamView;
use shoal_policy::balance::{MAX_ZONES, Zones};

/// The zones that the endpoints of an upstream are in; places as in [`Zones`], one less.
pub(super) fn zones_of(view: &UpstreamView) -> Vec<Box<str>> {
    let mut zones: Vec<Box<str>> = Vec::new();
    for zone in view.endpoints.iter().filter_map(|endpoint| endpoint.zone.as_ref()) {
        if zones.len() < MAX_ZONES - 1 && !zones.contains(zone) {
            zones.push(zone.clone());
        }
    }
    zones
}

/// Place of a zone in [`Zones`]; 0 = none of them.
pub(super) fn place_of(zones: &[Box<str>], zone: &str) -> usize {
    zones.iter().position(|known| **known == *zone).map_or(0, |place| place + 1)
}

/// Where requests come in, taken from where the nodes of this region stand: each is thought to get as many.
pub(super) fn demand(zones: &[Box<str>], cluster: &ClusterView) -> Zones {
    let mut seen = Zones::default();
    let Some(local) = cluster.node(cluster.local) else { return seen };
    seen.own = place_of(zones, &local.zone) as u8;
    let here = || cluster.nodes.iter().filter(|node| node.takes_traffic() && node.region == local.region);
    let share = 1.0 / here().count().max(1) as f32;
    for node in here() {
        seen.demand[place_of(zones, &node.zone)] += share;
    }
    seen
}

#[cfg(test)]
mod tests {
    use shoal_cluster::NodeView;
    use shoal_model::NodeId;

    use super::*;

    #[test]
    fn requests_come_in_where_nodes_stand() {
        let node = |(n, (region, zone)): (usize, &(&str, &str))| NodeView {
            region: (*region).into(),
            zone: (*zone).into(),
            ..NodeView::serving(NodeId(n as u64 + 1))
        };
        let check = |nodes: &[(&str, &str)], own, expected: &[f32]| {
            let nodes = nodes.iter().enumerate().map(node).collect();
            let cluster = ClusterView { local: NodeId(1), nodes, ..ClusterView::default() };
            let seen = demand(&["a".into(), "b".into()], &cluster);
            assert_eq!((seen.own, &seen.demand[..3]), (own, expected));
        };
        check(&[("eu", "a"), ("eu", "b")], 1, &[0.0, 0.5, 0.5]);
        check(&[("eu", "b"), ("us", "a")], 2, &[0.0, 0.0, 1.0]);
        check(&[("eu", "c"), ("eu", "a")], 0, &[0.5, 0.5, 0.0]);
        check(&[], 0, &[0.0, 0.0, 0.0]);
    }
}
