//! Which priority takes a request: the first carries what it can, the rest spills over to the next, by capacity.

/// How much more than its even share an endpoint is trusted to carry while others of its tier are out (Envoy's
/// overprovisioning factor, on capacity instead of the number of hosts).
pub(super) const OVERPROVISIONING: f64 = 1.4;

/// The endpoints of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tier {
    /// Configured capacity: the sum of all weights.
    pub(super) capacity: u64,
    /// Usable capacity: of those available and not ejected, times slow start.
    pub(super) usable: u64,
}

impl Tier {
    /// The share of all requests that it can carry, 0 to 1.
    fn health(self) -> f64 {
        if self.capacity == 0 {
            return 0.0;
        }
        (OVERPROVISIONING * self.usable as f64 / self.capacity as f64).min(1.0)
    }
}

/// What all tiers together can carry, 0 to 1.
pub(super) fn carried(tiers: impl Iterator<Item = Tier>) -> f64 {
    tiers.map(Tier::health).sum::<f64>().min(1.0)
}

/// The tier that takes the request at `point`, 0 to 1: each its health, in their order, until all is taken; all of them
/// in proportion if together they carry less than everything. `None` = they carry nothing.
pub(super) fn tier_at(tiers: impl Iterator<Item = Tier> + Clone, point: f64) -> Option<usize> {
    let mut left = point * carried(tiers.clone());
    let mut last = None;
    for (place, tier) in tiers.enumerate().filter(|(_, tier)| tier.usable > 0) {
        last = Some(place);
        left -= tier.health();
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tier_cannot_carry_spills_over() {
        // Usable percent of each tier, and the percent of requests that each takes.
        let check = |usable: &[u64], expected: &[u64]| {
            let tiers = || usable.iter().map(|&usable| Tier { capacity: 100, usable });
            let mut counts = vec![0; usable.len()];
            for n in 0..10_000 {
                if let Some(place) = tier_at(tiers(), (f64::from(n) + 0.5) / 10_000.0) {
                    counts[place] += 1;
                }
            }
            let percents: Vec<u64> = counts.iter().map(|count| (count + 50) / 100).collect();
            assert_eq!(percents, expected, "{usable:?}");
        };
        check(&[100, 100], &[100, 0]);
        check(&[72, 100], &[100, 0]);
        check(&[50, 100], &[70, 30]);
        check(&[25, 25, 100], &[35, 35, 30]);
        check(&[25, 25, 20], &[36, 36, 29]);
        check(&[0, 0, 50], &[0, 0, 100]);
        check(&[0, 100], &[0, 100]);
        check(&[50, 0, 0], &[100, 0, 0]);
        check(&[0, 0], &[0, 0]);
        check(&[], &[]);
    }

    #[test]
    fn capacity_counts_and_not_the_number_of_endpoints() {
        let tier = |capacity, usable| Tier { capacity, usable };
        assert_eq!(tier(3000, 1500).health(), 0.7);
        assert_eq!(tier(0, 0).health(), 0.0);
        assert!(carried([tier(10, 2), tier(10, 1)].into_iter()) < 0.43);
        assert_eq!(carried([tier(10, 2), tier(1, 1)].into_iter()), 1.0);
    }
}
