//! Who owns an object: weighted rendezvous hashing, computed by every node alike and stored nowhere.

use shoal_model::NodeId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::key::ObjectKey;

/// A node that may own objects.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The node.
    pub id: NodeId,
    /// Copies go to different zones first.
    pub zone: &'a str,
    /// Its share of the objects, relative to the others'.
    pub weight: u32,
}

/// The owners of an object: the primary, and the node with the second copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// It fills.
    pub primary: Option<NodeId>,
    /// It keeps a copy, and fills when the primary is down.
    pub secondary: Option<NodeId>,
}

impl Owners {
    /// Chooses them. Differing views move only the objects of the nodes that differ.
    pub fn of<'a>(key: ObjectKey, candidates: impl Iterator<Item = Candidate<'a>> + Clone) -> Self {
        let best = |except: &dyn Fn(&Candidate<'a>) -> bool| {
            candidates
                .clone()
                .filter(|candidate| candidate.weight > 0 && !except(candidate))
                .map(|candidate| (score(key, candidate), candidate))
                .max_by(|(a, left), (b, right)| a.total_cmp(b).then(left.id.cmp(&right.id)))
                .map(|(_, candidate)| candidate)
        };
        let Some(primary) = best(&|_| false) else { return Self::default() };
        let elsewhere = best(&|candidate| candidate.id == primary.id || candidate.zone == primary.zone);
        let secondary = elsewhere.or_else(|| best(&|candidate| candidate.id == primary.id));
        Self { primary: Some(primary.id), secondary: secondary.map(|candidate| candidate.id) }
    }

    /// The other owner, seen from `node`.
    pub fn other_than(&self, node: NodeId) -> Option<NodeId> {
        [self.primary, self.secondary].into_iter().flatten().find(|owner| *owner != node)
    }

    /// `node` owns it.
    pub fn includes(&self, node: NodeId) -> bool {
        self.primary == Some(node) || self.secondary == Some(node)
    }
}

/// Nodes that owned `key` a while ago when `local` did not, in the order of `past`: what `local` owns now and does not
/// have may lie there. `past`: for each time, who could own objects then.
pub fn former_owners<'a, const MOST: usize, Candidates>(
    key: ObjectKey,
    local: NodeId,
    past: impl Iterator<Item = Candidates>,
    is_there: impl Fn(NodeId) -> bool,
) -> [Option<NodeId>; MOST]
where
    Candidates: Iterator<Item = Candidate<'a>> + Clone,
{
    let mut former = [None; MOST];
    for owners in past.map(|candidates| Owners::of(key, candidates)).filter(|owners| !owners.includes(local))
    {
        for owner in [owners.primary, owners.secondary].into_iter().flatten().filter(|owner| is_there(*owner))
        {
            let free = former.iter().position(|known| known.is_none_or(|known| known == owner));
            if let Some(place) = free {
                former[place] = Some(owner);
            }
        }
    }
    former
}

/// −w ⁄ ln(u) for a uniform u in (0, 1): the share of the wins is the share of the weights.
fn score(key: ObjectKey, candidate: Candidate<'_>) -> f64 {
    let hash = xxh3_64_with_seed(&key.to_bytes(), candidate.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(candidate.weight) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(zones: &'static [(u64, &'static str, u32)]) -> impl Iterator<Item = Candidate<'static>> + Clone {
        zones.iter().map(|(id, zone, weight)| Candidate { id: NodeId(*id), zone, weight: *weight })
    }

    #[test]
    fn shares_follow_weights_and_copies_cross_zones() {
        let mut wins = [0u32; 4];
        for n in 0..4000u128 {
            let key = ObjectKey(n.wrapping_mul(0x1234_5678_9abc_def1_0000_0001));
            let owners = Owners::of(key, nodes(&[(1, "a", 1), (2, "a", 1), (3, "b", 2)]));
            wins[owners.primary.unwrap().0 as usize] += 1;
            let zones = [owners.primary, owners.secondary].map(|id| id == Some(NodeId(3)));
            assert!(zones[0] ^ zones[1], "one copy in each zone: {owners:?}");
        }
        assert!((1700..2300).contains(&wins[3]), "{wins:?}");
        assert!((800..1200).contains(&wins[1]), "{wins:?}");
    }

    #[test]
    fn a_death_moves_nothing_that_survives() {
        for n in 0..500u128 {
            let key = ObjectKey(n << 64 | n);
            let before = Owners::of(key, nodes(&[(1, "", 1), (2, "", 1), (3, "", 1)]));
            let after = Owners::of(key, nodes(&[(1, "", 1), (3, "", 1)]));
            if before.primary == Some(NodeId(2)) {
                assert_eq!(after.primary, before.secondary, "the second owner takes over");
            } else {
                assert_eq!(after.primary, before.primary);
            }
        }
        let alone = Owners::of(ObjectKey(1), nodes(&[(9, "z", 1)]));
        assert_eq!(alone, Owners { primary: Some(NodeId(9)), secondary: None });
        assert_eq!(Owners::of(ObjectKey(1), nodes(&[])), Owners::default());
    }

    #[test]
    fn former_owners_are_those_of_when_this_node_was_none() {
        let three = [(1, "", 1), (2, "", 1), (3, "", 1)];
        for n in 0..200u128 {
            let key = ObjectKey(n << 64 | n);
            let set = |ids: &[u64]| {
                let ids = ids.to_vec();
                three
                    .into_iter()
                    .filter(move |(id, _, _)| ids.contains(id))
                    .map(|(id, zone, weight)| Candidate { id: NodeId(id), zone, weight })
            };
            let now = Owners::of(key, set(&[1, 2, 3]));
            let before = Owners::of(key, set(&[2, 3]));
            let former = |past: Vec<Vec<u64>>, dead: u64| -> [Option<NodeId>; 2] {
                let past = past.into_iter().map(|ids| set(&ids).collect::<Vec<_>>().into_iter());
                former_owners(key, NodeId(1), past, |id| id != NodeId(dead))
            };
            assert_eq!(former(vec![vec![2, 3]], 0), [before.primary, before.secondary]);
            assert_eq!(former(vec![vec![2, 3], vec![2, 3], vec![2]], 0), [before.primary, before.secondary]);
            let alive = [2, 3].map(NodeId).into_iter().find(|id| before.primary != Some(*id));
            assert_eq!(former(vec![vec![2, 3]], before.primary.unwrap().0), [alive, None]);
            let all = former(vec![vec![1, 2, 3]], 0);
            match now.includes(NodeId(1)) {
                true => assert_eq!(all, [None, None]),
                false => assert_eq!(all, [now.primary, now.secondary]),
            }
            assert_eq!(former(vec![], 0), [None, None]);
        }
    }
}
