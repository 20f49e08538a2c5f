//! Which nodes' addresses an answer has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use shoal_model::NodeId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A node that may be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: NodeId,
    /// Where it stands.
    pub region: Arc<str>,
    /// Where in the region.
    pub zone: Arc<str>,
    /// It is heard, in service and ready.
    pub ready: bool,
    /// Where downstreams reach it.
    pub addresses: Arc<[IpAddr]>,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `A` records.
    V4,
    /// `AAAA` records.
    V6,
}

impl Family {
    /// Whether `address` is of it.
    pub const fn has(self, address: &IpAddr) -> bool {
        matches!((self, address), (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)))
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Of which family.
    pub family: Family,
    /// The region that comes first.
    pub region: &'a str,
    /// Those that come next; others follow by their names.
    pub regions: &'a [Box<str>],
    /// Most addresses.
    pub max: usize,
    /// With fewer, the next region is asked as well.
    pub min: usize,
    /// Which of equals comes first; another for each answer.
    pub turn: u64,
}

/// The addresses of an answer: of the first region that has any, of distinct zones as far as there are, and of the next
/// where those are fewer than wanted. When nobody is ready everybody is as good as anybody: an answer that may be wrong is
/// better than one that is.
pub fn choose(candidates: &[Candidate], wanted: &Wanted<'_>) -> Vec<IpAddr> {
    let of_family =
        |candidate: &&Candidate| candidate.addresses.iter().any(|address| wanted.family.has(address));
    let anybody_ready = candidates.iter().filter(of_family).any(|candidate| candidate.ready);
    let mut regions: BTreeMap<(usize, &str), Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates.iter().filter(of_family).filter(|one| one.ready || !anybody_ready) {
        regions.entry(wanted.rank(&candidate.region)).or_default().push(candidate);
    }
    let mut chosen = Vec::with_capacity(wanted.max);
    for candidates in regions.into_values() {
        let room = if chosen.is_empty() { wanted.max } else { wanted.min };
        for address in in_order(&candidates, wanted) {
            if chosen.len() < room && !chosen.contains(&address) {
                chosen.push(address);
            }
        }
        if chosen.len() >= wanted.min {
            break;
        }
    }
    chosen
}

impl Wanted<'_> {
    /// Regions are asked in the order of this.
    fn rank<'a>(&self, region: &'a str) -> (usize, &'a str) {
        let named = self.regions.iter().position(|known| **known == *region);
        match region == self.region {
            true => (0, region),
            false => (1 + named.unwrap_or(self.regions.len()), region),
        }
    }
}

/// One of each zone, then a second of each, and further addresses of the same node last.
fn in_order(candidates: &[&Candidate], wanted: &Wanted<'_>) -> Vec<IpAddr> {
    let chance = |bytes: &[u8]| xxh3_64_with_seed(bytes, wanted.turn);
    // Of a zone: which of its node's addresses, the node's chance, the address.
    type InZone = Vec<(usize, u64, IpAddr)>;
    let mut zones: BTreeMap<(u64, &str), InZone> = BTreeMap::new();
    for candidate in candidates {
        let zone = zones.entry((chance(candidate.zone.as_bytes()), &candidate.zone)).or_default();
        let node = chance(&candidate.id.0.to_be_bytes());
        let addresses = candidate.addresses.iter().filter(|address| wanted.family.has(address));
        zone.extend(addresses.enumerate().map(|(n, address)| (n, node, *address)));
    }
    let mut order = Vec::new();
    for (place, mut addresses) in zones.into_values().enumerate() {
        addresses.sort_unstable();
        order.extend(
            addresses.into_iter().enumerate().map(|(nth, (n, _, address))| ((n, nth, place), address)),
        );
    }
    order.sort_unstable_by_key(|(rank, _)| *rank);
    order.into_iter().map(|(_, address)| address).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `eu/a!` is a node of region eu, zone a, that is not ready; its number is its place, from 1.
    fn nodes(text: &str) -> Vec<Candidate> {
        let nodes = text.split_whitespace().enumerate().map(|(n, word)| {
            let (region, zone) = word.split_once('/').unwrap();
            let id = n as u8 + 1;
            Candidate {
                id: NodeId(u64::from(id)),
                region: region.into(),
                zone: zone.trim_end_matches('!').into(),
                ready: !zone.ends_with('!'),
                addresses: [
                    IpAddr::from([192, 0, 2, id]),
                    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(id)]),
                ]
                .into(),
            }
        });
        nodes.collect()
    }

    fn wanted(region: &'static str, turn: u64) -> Wanted<'static> {
        Wanted { family: Family::V4, region, regions: &[], max: 4, min: 2, turn }
    }

    fn chosen(candidates: &[Candidate], wanted: &Wanted<'_>) -> BTreeSet<u8> {
        let last = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        choose(candidates, wanted).iter().map(last).collect()
    }

    #[test]
    fn the_own_region_comes_first_and_the_ready_only() {
        let check = |text: &str, expected: &[u8]| {
            for turn in 0..20 {
                let seen = chosen(&nodes(text), &wanted("eu", turn));
                assert_eq!(seen, expected.iter().copied().collect(), "{text}, turn {turn}");
            }
        };
        check("eu/a eu/b us/a us/b", &[1, 2]);
        check("eu/a eu/b! us/a", &[1, 3]);
        check("eu/a! eu/b! us/a us/b", &[3, 4]);
        check("eu/a! eu/b! us/a!", &[1, 2]);
        check("eu/a! us/a!", &[1, 2]);
        check("us/a us/b ap/a ap/b", &[3, 4]);
        check("eu/a! eu/b! eu/c!", &[1, 2, 3]);
        check("", &[]);
    }

    #[test]
    fn zones_are_distinct_as_far_as_there_are() {
        for turn in 0..50 {
            let seen = chosen(&nodes("eu/a eu/a eu/a eu/a eu/b eu/c"), &wanted("eu", turn));
            assert_eq!(seen.len(), 4);
            assert!(seen.contains(&5) && seen.contains(&6), "turn {turn}: {seen:?}");
        }
        let every: BTreeSet<u8> = (0..50)
            .flat_map(|turn| chosen(&nodes("eu/a eu/a eu/a eu/a eu/b eu/c"), &wanted("eu", turn)))
            .collect();
        assert_eq!(every.len(), 6, "everybody has his turn");
    }

    #[test]
    fn regions_follow_in_the_order_that_is_written() {
        let regions: Vec<Box<str>> = vec!["us".into(), "sa".into()];
        let check = |min: usize, text: &str, expected: &[u8]| {
            let wanted = Wanted { regions: &regions, min, ..wanted("eu", 7) };
            assert_eq!(chosen(&nodes(text), &wanted), expected.iter().copied().collect(), "{text}");
        };
        check(2, "ap/a sa/a us/a eu/a", &[3, 4]);
        check(1, "ap/a sa/a us/a eu/a", &[4]);
        check(2, "ap/a sa/a us/a!", &[1, 2]);
        check(1, "ap/a ap/b sa/a! us/a!", &[1, 2]);
    }

    #[test]
    fn families_are_apart_and_addresses_once() {
        let mut all = nodes("eu/a eu/b");
        all[0].addresses = [IpAddr::from([192, 0, 2, 1])].into();
        let v6 = Wanted { family: Family::V6, ..wanted("eu", 1) };
        assert_eq!(chosen(&all, &v6), [2].into());
        all[1].addresses = all[0].addresses.clone();
        assert_eq!(choose(&all, &wanted("eu", 1)).len(), 1);
        all[1].addresses = Arc::default();
        assert!(choose(&all, &v6).is_empty());
    }
}
