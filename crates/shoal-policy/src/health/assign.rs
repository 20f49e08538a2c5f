//! Which nodes check an endpoint: rendezvous hashing, so that every node computes the same answer and none votes on it.

use shoal_model::{EndpointId, NodeId};
use xxhash_rust::xxh3::xxh3_64;

/// Checkers of one endpoint: enough for a majority that survives one liar.
pub const CHECKERS_PER_ENDPOINT: usize = 3;

/// A node that may check endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its id.
    pub id: NodeId,
    /// Where it stands; an empty zone is a zone like any other.
    pub zone: &'a str,
}

/// The `count` nodes that check `endpoint`, or all of them when there are fewer, by falling weight: the best of each
/// zone first, then the rest. The order of `nodes` does not matter. (Rendezvous hashing: Thaler, Ravishankar 1998.)
pub fn assign(endpoint: EndpointId, nodes: &[Candidate<'_>], count: usize) -> Vec<NodeId> {
    let mut ranked: Vec<_> = nodes.iter().map(|node| (weight(endpoint, node.id), *node)).collect();
    ranked.sort_unstable_by(|(left_weight, left), (right_weight, right)| {
        right_weight.cmp(left_weight).then(left.id.cmp(&right.id))
    });
    let mut chosen: Vec<Candidate<'_>> = Vec::with_capacity(count.min(ranked.len()));
    for (_, node) in &ranked {
        if chosen.len() < count && chosen.iter().all(|other| other.zone != node.zone) {
            chosen.push(*node);
        }
    }
    for (_, node) in &ranked {
        if chosen.len() < count && chosen.iter().all(|other| other.id != node.id) {
            chosen.push(*node);
        }
    }
    chosen.into_iter().map(|node| node.id).collect()
}

fn weight(endpoint: EndpointId, node: NodeId) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&endpoint.0.to_be_bytes());
    bytes[8..].copy_from_slice(&node.0.to_be_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(zones: &[&'static str]) -> Vec<Candidate<'static>> {
        zones.iter().enumerate().map(|(n, zone)| Candidate { id: NodeId(n as u64 + 1), zone }).collect()
    }

    #[test]
    fn chooses_distinct_zones_first() {
        let check = |zones: &[&'static str], count: usize, expected_nodes: usize, expected_zones: usize| {
            let nodes = nodes(zones);
            for endpoint in 0..200 {
                let chosen = assign(EndpointId(endpoint), &nodes, count);
                let mut ids = chosen.clone();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), expected_nodes, "{zones:?} endpoint {endpoint}");
                let mut seen: Vec<_> = chosen.iter().map(|id| zones[id.0 as usize - 1]).collect();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), expected_zones, "{zones:?} endpoint {endpoint}");
            }
        };
        check(&[], 3, 0, 0);
        check(&["a"], 3, 1, 1);
        check(&["", "", ""], 3, 3, 1);
        check(&["a", "a", "a", "a", "b"], 3, 3, 2);
        check(&["a", "a", "b", "b", "c", "c"], 3, 3, 3);
        check(&["a", "b", "c", "d", "e"], 3, 3, 3);
    }

    #[test]
    fn order_of_nodes_does_not_matter() {
        let mut there = nodes(&["a", "b", "a", "b", "a"]);
        let one_way = assign(EndpointId(7), &there, 3);
        there.reverse();
        assert_eq!(one_way, assign(EndpointId(7), &there, 3));
    }

    #[test]
    fn a_death_moves_only_the_work_of_the_dead() {
        let all = nodes(&["z"; 10]);
        let without: Vec<_> = all.iter().copied().filter(|node| node.id != NodeId(4)).collect();
        let mut moved = 0;
        for endpoint in 0..1000 {
            let before = assign(EndpointId(endpoint), &all, 3);
            let after = assign(EndpointId(endpoint), &without, 3);
            if before.contains(&NodeId(4)) {
                moved += 1;
            } else {
                assert_eq!(before, after, "endpoint {endpoint}");
            }
        }
        assert!((200..400).contains(&moved), "{moved} of 1000 endpoints were checked by the dead node");
    }
}
