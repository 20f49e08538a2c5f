//! Which idle connections end so that others find room: the oldest of whoever has the most.

use std::collections::{BTreeMap, BinaryHeap};

/// Who has fewer connections is not what fills a node.
const GREEDY: usize = 16;

/// One connection, as far as it could make room for another. `A` = an address, `K` = how the caller knows the connection.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<A, K> {
    /// Whose it is.
    pub address: A,
    /// Since when nothing is asked and nothing owed on it; `None` = something is.
    pub idle_since_ms: Option<u64>,
    /// The connection.
    pub key: K,
}

/// How many of its `own` connections a worker is to end when all workers have `open`, of `most` that they may have: its
/// share of what is beyond four fifths.
pub fn share(open: usize, most: usize, own: usize) -> usize {
    let excess = open.saturating_sub(most - most / 5);
    if excess == 0 { 0 } else { excess.saturating_mul(own).div_ceil(open) }
}

/// Up to `count` idle connections, each the oldest of the address that has the most by then. Addresses with few are spared.
pub fn evicted<A: Ord + Copy, K>(
    connections: impl IntoIterator<Item = Candidate<A, K>>,
    count: usize,
) -> Vec<K> {
    let mut addresses: BTreeMap<A, (usize, Vec<(u64, K)>)> = BTreeMap::new();
    for Candidate { address, idle_since_ms, key } in connections {
        let (all, idle) = addresses.entry(address).or_default();
        *all += 1;
        idle.extend(idle_since_ms.map(|since_ms| (since_ms, key)));
    }
    addresses.retain(|_, (all, _)| *all >= GREEDY);
    for (_, idle) in addresses.values_mut() {
        // The oldest last, so that it is taken first.
        idle.sort_unstable_by_key(|(since_ms, _)| std::cmp::Reverse(*since_ms));
    }
    let mut greediest: BinaryHeap<_> = addresses.iter().map(|(address, (all, _))| (*all, *address)).collect();
    let mut evicted = Vec::new();
    while evicted.len() < count
        && let Some((all, address)) = greediest.pop()
    {
        let oldest = addresses.get_mut(&address).and_then(|(_, idle)| idle.pop());
        let Some((_, key)) = oldest else { continue };
        evicted.push(key);
        if all > GREEDY {
            greediest.push((all - 1, address));
        }
    }
    evicted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_four_fifths_is_shared() {
        let check = |open, most, own, expected| {
            assert_eq!(share(open, most, own), expected, "{open} of {most}, {own} own");
        };
        check(0, 100, 0, 0);
        check(80, 100, 40, 0);
        check(81, 100, 40, 1);
        check(100, 100, 50, 10);
        check(100, 100, 25, 5);
        check(100, 100, 0, 0);
        check(5, 1, 5, 4);
    }

    #[test]
    fn the_greediest_lose_their_oldest() {
        // Connections of each address, busy and idle; the idle ones are as old as their place. What is left of each.
        let check = |addresses: &[(char, usize, usize)], count: usize, expected: &[usize]| {
            let all = addresses.iter().flat_map(|(address, busy, idle)| {
                (0..busy + idle).map(move |n| Candidate {
                    address: *address,
                    idle_since_ms: n.checked_sub(*busy).map(|age| 1_000 - age as u64),
                    key: (*address, n),
                })
            });
            let evicted = evicted(all, count);
            let left: Vec<usize> = addresses
                .iter()
                .map(|(address, busy, idle)| {
                    let gone: Vec<usize> =
                        evicted.iter().filter(|(of, _)| of == address).map(|(_, n)| *n).collect();
                    let oldest: Vec<usize> = (*busy..busy + idle).rev().take(gone.len()).collect();
                    assert_eq!(gone, oldest, "{address}");
                    busy + idle - gone.len()
                })
                .collect();
            assert_eq!(left, expected, "{addresses:?}, {count}");
        };
        check(&[('a', 0, 100), ('b', 0, 20)], 0, &[100, 20]);
        check(&[('a', 0, 100), ('b', 0, 20)], 50, &[50, 20]);
        check(&[('a', 0, 100), ('b', 0, 60)], 60, &[50, 50]);
        check(&[('a', 95, 5), ('b', 0, 60)], 10, &[95, 55]);
        check(&[('a', 100, 0), ('b', 0, 15)], 50, &[100, 15]);
        check(&[('a', 0, 30), ('b', 0, 15)], 50, &[15, 15]);
        check(&[], 5, &[]);
    }
}
