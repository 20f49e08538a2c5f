//! Which endpoint a request goes to: those that may be used first, then one of them.

mod choose;
mod ewma;
mod region;
mod rendezvous;
mod slow_start;
mod spread;
mod tier;
mod zone;

use shoal_model::site::Balance;

pub use ewma::Ewma;
pub use region::{Failover, MAX_REGIONS, Region, Shares, measure, wants};
pub use slow_start::withheld_permille;
pub use spread::better_worker;
pub use zone::{MAX_ZONES, Zones};

use crate::health::is_panic;
use tier::Tier;

/// An endpoint as the choice sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// Its id: what rendezvous hashing hashes.
    pub id: u64,
    /// Share of requests; 0 = none.
    pub weight: u32,
    /// How much of its weight it does not get yet, in thousandths, see [`withheld_permille`].
    pub withheld_permille: u16,
    /// Lower is used first.
    pub priority: u32,
    /// Requests a second that it can carry; 0 = unknown: its weight stands in.
    pub capacity: u32,
    /// Place of its region among those that [`Failover::divide`] was asked about; from [`MAX_REGIONS`] on it is not used.
    pub region: u8,
    /// Place of its zone in [`Zones`]; 0 = none of them.
    pub zone: u8,
    /// It is available, and this node's own traffic has nothing against it.
    pub usable: bool,
    /// It has as many requests under way as it may have: well, but not to be picked now.
    pub full: bool,
    /// Requests under way from here.
    pub in_flight: u32,
    /// Peak EWMA of its latency, µs; see [`Ewma`].
    pub latency_us: f32,
    /// What it has saved up for its turn: kept between calls, see [`pick`].
    pub credit: i64,
}

impl Slot {
    /// Its weight as far as it gets it, in thousandths.
    pub fn share(&self) -> u64 {
        u64::from(self.weight) * u64::from(1000 - self.withheld_permille.min(999))
    }
}

/// What a choice depends on besides the slots.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// How to choose.
    pub balance: Balance,
    /// Of the request, for [`Balance::ConsistentHash`].
    pub hash: u64,
    /// Any random number.
    pub entropy: u64,
    /// Percent of usable endpoints below which health is ignored.
    pub panic_threshold_percent: u8,
    /// Percent of its even share of requests that an endpoint may have under way, for [`Balance::ConsistentHash`];
    /// 0 = unbounded.
    pub hash_bound_percent: u32,
    /// How requests are divided among regions; `None` = all slots are of one.
    pub regions: Option<&'a Shares>,
    /// Where requests come in, if endpoints of the own zone are preferred.
    pub zones: Option<&'a Zones>,
    /// Places that were tried already, as a bit set; places past 63 cannot be excluded.
    pub tried: u64,
}

/// The outcome of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Its place among the slots.
    pub place: usize,
    /// Health was ignored, because too little is left.
    pub panic: bool,
}

/// Chooses an endpoint. Each region takes its share; in it the lowest priority takes what its usable capacity can carry,
/// and what is beyond spills over to the next. If all of them together cannot carry everything, a priority of which less
/// than the panic threshold is usable ignores health. Endpoints already tried are not taken; where the priority or zone
/// whose turn it is has no other, any other is. `None` = there is none.
pub fn pick(slots: &mut [Slot], wish: Wish<'_>) -> Option<Pick> {
    // Equal keys stay in one region, priority and zone as long as these stand.
    let source = if wish.balance == Balance::ConsistentHash { wish.hash } else { wish.entropy };
    let region = wish.regions.map_or(0, |shares| shares.at(point(source, 0x8CB9_2BA7_2F3D_8DD7)) as u8);
    let turn = tier(slots, region, &wish, point(source, 0x9E37_79B9_7F4A_7C15));
    let has_turn =
        |slot: &Slot| turn.is_some_and(|turn| (slot.region, slot.priority) == (region, turn.priority));
    let panic = turn.is_some_and(|turn| turn.panic);
    let untried = |place: usize| place >= u64::BITS as usize || wish.tried & (1 << place) == 0;
    let fits = |place: usize, slot: &Slot| {
        slot.weight > 0
            && !slot.full
            && usize::from(slot.region) < MAX_REGIONS
            && untried(place)
            && (slot.usable || (panic && has_turn(slot)))
    };
    let in_tier = |place: usize, slot: &Slot| has_turn(slot) && fits(place, slot);
    let zone = wish
        .zones
        .filter(|zones| zones.own > 0 && region == 0)
        .and_then(|zones| zone_of(slots, zones, in_tier, point(source, 0xD1B5_4A32_D192_ED03)));
    let place = match zone {
        Some(zone) => choose(slots, wish, |place, slot| slot.zone == zone && in_tier(place, slot)),
        None => choose(slots, wish, in_tier),
    };
    let place = place.or_else(|| {
        let others = slots.iter().enumerate().filter(|(place, slot)| fits(*place, slot));
        let next = others.map(|(_, slot)| (slot.region, slot.priority)).min()?;
        choose(slots, wish, |place, slot| (slot.region, slot.priority) == next && fits(place, slot))
    })?;
    Some(Pick { place, panic: panic && has_turn(&slots[place]) })
}

fn choose(slots: &mut [Slot], wish: Wish<'_>, eligible: impl Fn(usize, &Slot) -> bool) -> Option<usize> {
    match wish.balance {
        Balance::RoundRobin => choose::in_turn(slots, eligible),
        Balance::LeastRequests => choose::least_requests(slots, eligible, wish.entropy),
        Balance::P2cEwma => choose::better_of_two(slots, eligible, wish.entropy),
        Balance::ConsistentHash => rendezvous::highest(slots, eligible, wish.hash, wish.hash_bound_percent),
    }
}

/// The priority whose turn it is.
#[derive(Clone, Copy)]
struct Turn {
    priority: u32,
    /// Health is ignored there.
    panic: bool,
}

/// The priority of `region` whose turn it is at `point`. `None` = nothing has a weight there.
fn tier(slots: &[Slot], region: u8, wish: &Wish<'_>, point: f64) -> Option<Turn> {
    let weighed = || slots.iter().filter(|slot| slot.weight > 0 && slot.region == region);
    let first = weighed().map(|slot| slot.priority).min()?;
    if weighed().all(|slot| slot.usable && slot.withheld_permille == 0 && slot.priority == first) {
        return Some(Turn { priority: first, panic: false });
    }
    let after = |priority: u32| weighed().map(|slot| slot.priority).filter(|&other| other > priority).min();
    let priorities = || std::iter::successors(Some(first), |&priority| after(priority));
    let tiers = || {
        priorities().map(|priority| {
            let mut tier = Tier::default();
            for slot in weighed().filter(|slot| slot.priority == priority) {
                tier.capacity += u64::from(slot.weight) * 1000;
                tier.usable += if slot.usable { slot.share() } else { 0 };
            }
            tier
        })
    };
    let place = tier::tier_at(tiers(), point).unwrap_or(0);
    let priority = priorities().nth(place)?;
    let here = || weighed().filter(|slot| slot.priority == priority);
    let (usable, total) = (here().filter(|slot| slot.usable).count(), here().count());
    let too_little = tier::carried(tiers()) < 1.0 && wish.regions.is_none_or(|shares| shares.too_little);
    Some(Turn { priority, panic: too_little && is_panic(usable, total, wish.panic_threshold_percent) })
}

/// The zone whose turn it is at `point`. Where no rates are known, requests are taken to come in at the zones in
/// proportion to `demand`, as many in all as can be carried.
fn zone_of(slots: &[Slot], zones: &Zones, eligible: impl Fn(usize, &Slot) -> bool, point: f64) -> Option<u8> {
    let mut usable = [0.0; MAX_ZONES];
    for (_, slot) in slots.iter().enumerate().filter(|(place, slot)| eligible(*place, slot)) {
        usable[usize::from(slot.zone) % MAX_ZONES] += slot.share() as f64;
    }
    let all: f64 = usable.iter().sum();
    let demand = zones.demand.map(|share| f64::from(share) * all);
    zone::zone_at(usize::from(zones.own) % MAX_ZONES, &usable, &demand, point).map(|zone| zone as u8)
}

/// A number from 0 to 1 that `source` decides; those of two salts have nothing to do with each other.
fn point(source: u64, salt: u64) -> f64 {
    let mixed = (source ^ (source >> 32) ^ salt).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use shoal_model::site::Failback;

    use super::*;

    fn wish(balance: Balance) -> Wish<'static> {
        Wish {
            balance,
            hash: 0,
            entropy: 0,
            panic_threshold_percent: 50,
            hash_bound_percent: 125,
            regions: None,
            zones: None,
            tried: 0,
        }
    }

    /// One slot per character of `health`: `.` usable, `x` not; all of weight 1.
    fn slots(health: &str) -> Vec<Slot> {
        let slot = |(n, c)| Slot { id: n as u64 * 77 + 5, weight: 1, usable: c == '.', ..Slot::default() };
        health.chars().enumerate().map(slot).collect()
    }

    const ALL: [Balance; 4] =
        [Balance::RoundRobin, Balance::LeastRequests, Balance::P2cEwma, Balance::ConsistentHash];

    /// How often each slot is picked in `rounds`.
    fn shares(slots: &mut [Slot], balance: Balance, rounds: u64) -> Vec<u64> {
        let mut counts = vec![0; slots.len()];
        for round in 0..rounds {
            let entropy = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let picked = pick(slots, Wish { hash: entropy, entropy, ..wish(balance) }).unwrap();
            counts[picked.place] += 1;
        }
        counts
    }

    #[test]
    fn health_priority_and_tries_decide_who_may_be_picked() {
        let check = |health: &str, priorities: &str, tried: u64, expected: Option<(&[usize], bool)>| {
            for balance in ALL {
                let mut slots = slots(health);
                for (slot, priority) in slots.iter_mut().zip(priorities.bytes()) {
                    slot.priority = u32::from(priority - b'0');
                }
                let mut seen = std::collections::BTreeSet::new();
                for round in 0..200_u64 {
                    let entropy = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let picked = pick(&mut slots, Wish { hash: entropy, entropy, tried, ..wish(balance) });
                    assert_eq!(picked.is_some(), expected.is_some(), "{health} {balance:?}");
                    if let (Some(picked), Some((_, panic))) = (picked, expected) {
                        assert_eq!(picked.panic, panic, "{health} {balance:?}");
                        seen.insert(picked.place);
                    }
                }
                let places: Vec<usize> = seen.into_iter().collect();
                assert_eq!(
                    places,
                    expected.map(|(places, _)| places.to_vec()).unwrap_or_default(),
                    "{health} {balance:?}"
                );
            }
        };
        check("...", "000", 0, Some((&[0, 1, 2], false)));
        check(".x.", "000", 0, Some((&[0, 2], false)));
        check("..xxx", "00000", 0, Some((&[0, 1, 2, 3, 4], true)));
        check("..xx", "0000", 0, Some((&[0, 1], false)));
        check("x", "0", 0, Some((&[0], true)));
        check("...", "100", 0, Some((&[1, 2], false)));
        check(".xx..", "10011", 0, Some((&[0, 3, 4], false)));
        check("...", "000", 0b001, Some((&[1, 2], false)));
        check("..", "00", 0b11, None);
        check("..", "01", 0b01, Some((&[1], false)));
        check("", "", 0, None);
    }

    #[test]
    fn weights_are_shares() {
        let check = |balance: Balance, tolerance: u64| {
            let mut slots = slots("....");
            for (slot, weight) in slots.iter_mut().zip([1, 2, 5, 0]) {
                slot.weight = weight;
                // Load in proportion to weight: what balancing by load aims for.
                slot.in_flight = weight * 10;
                slot.latency_us = 1000.0;
            }
            let counts = shares(&mut slots, balance, 8000);
            for (count, expected) in counts.iter().zip([1000_u64, 2000, 5000, 0]) {
                assert!(count.abs_diff(expected) <= tolerance, "{balance:?}: {counts:?}");
            }
        };
        check(Balance::RoundRobin, 0);
        check(Balance::ConsistentHash, 300);
    }

    #[test]
    fn turns_are_smooth() {
        let mut slots = slots("..");
        slots[0].weight = 3;
        let order: Vec<usize> =
            (0..8).map(|_| pick(&mut slots, wish(Balance::RoundRobin)).unwrap().place).collect();
        assert_eq!(order, [0, 0, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn load_and_latency_repel() {
        let mut busy = slots("...");
        busy[0].in_flight = 9;
        busy[2].in_flight = 9;
        assert_eq!(shares(&mut busy, Balance::LeastRequests, 100), [0, 100, 0]);
        let mut slow = slots("..");
        slow[0].latency_us = 100_000.0;
        slow[1].latency_us = 1_000.0;
        assert_eq!(shares(&mut slow, Balance::P2cEwma, 100), [0, 100]);
    }

    #[test]
    fn equals_do_not_starve() {
        for balance in [Balance::LeastRequests, Balance::P2cEwma] {
            let counts = shares(&mut slots("..."), balance, 3000);
            assert!(counts.iter().all(|count| (800..1200).contains(count)), "{balance:?} {counts:?}");
        }
    }

    #[test]
    fn a_lost_endpoint_moves_only_its_own_keys() {
        let (mut all, mut less) = (slots("....."), slots("..x.."));
        let mut moved = 0;
        for round in 0..1000_u64 {
            let hash = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let of = |slots: &mut [Slot]| {
                pick(slots, Wish { hash, ..wish(Balance::ConsistentHash) }).unwrap().place
            };
            let (before, after) = (of(&mut all), of(&mut less));
            moved += usize::from(before == 2);
            assert!(before == after || before == 2, "{before} {after}");
        }
        assert!((120..280).contains(&moved), "{moved}");
    }

    #[test]
    fn what_a_priority_cannot_carry_goes_to_the_next() {
        for balance in ALL {
            let mut slots = slots("x.....");
            slots[2..].iter_mut().for_each(|slot| slot.priority = 1);
            let counts = shares(&mut slots, balance, 10_000);
            // Half of priority 0 is usable: 1.4 × 50 % stay there.
            assert!((6_700..7_300).contains(&counts[1]), "{balance:?} {counts:?}");
            assert_eq!(counts[0], 0);
            let mut tried = wish(balance);
            tried.tried = 0b10;
            assert!(pick(&mut slots, tried).unwrap().place >= 2, "no other is left in its priority");
        }
    }

    #[test]
    fn full_ones_are_passed_over_and_say_nothing_of_health() {
        for balance in ALL {
            let mut slots = slots("...");
            slots[0].full = true;
            let counts = shares(&mut slots, balance, 100);
            assert_eq!(counts[0], 0);
            slots[1].full = true;
            assert!(!pick(&mut slots, wish(balance)).unwrap().panic, "{balance:?}");
            slots[2].full = true;
            assert_eq!(pick(&mut slots, wish(balance)), None);
        }
    }

    #[test]
    fn the_own_zone_is_preferred_as_far_as_it_reaches() {
        let check = |health: &str, zones_of: &[u8], demand: &[f32], expected: &[u64]| {
            let mut zones = Zones { own: 1, ..Zones::default() };
            zones.demand[1..=demand.len()].copy_from_slice(demand);
            let mut slots = slots(health);
            for (slot, zone) in slots.iter_mut().zip(zones_of) {
                slot.zone = *zone;
            }
            for balance in ALL {
                let mut counts = vec![0; slots.len()];
                for round in 0..10_000_u64 {
                    let entropy = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let wish = Wish { hash: entropy, entropy, zones: Some(&zones), ..wish(balance) };
                    counts[pick(&mut slots, wish).unwrap().place] += 1;
                }
                for (count, expected) in counts.iter().zip(expected) {
                    assert!(
                        count / 100_u64 <= expected + 4 && count / 100 + 4 >= *expected,
                        "{balance:?} {counts:?}"
                    );
                }
            }
        };
        check("....", &[1, 1, 2, 2], &[0.5, 0.5], &[50, 50, 0, 0]);
        check("....", &[1, 1, 1, 2], &[0.5, 0.5], &[33, 33, 33, 0]);
        // The own zone has a third of what it needs.
        check("x...", &[1, 1, 2, 2], &[0.5, 0.5], &[0, 67, 17, 17]);
        check("xx..", &[1, 1, 2, 2], &[0.5, 0.5], &[0, 0, 50, 50]);
    }

    #[test]
    fn regions_take_their_shares_whatever_the_balance() {
        // Usable, region, and the percent that each gets; the own region is 0, and 255 is none that is used.
        let check = |slots_of: &[(bool, u8)], expected: &[u64], panic: bool| {
            for balance in ALL {
                let slot = |(n, &(usable, region)): (usize, &(bool, u8))| Slot {
                    id: n as u64 * 77 + 5,
                    weight: 1,
                    usable,
                    region,
                    ..Slot::default()
                };
                let mut slots: Vec<Slot> = slots_of.iter().enumerate().map(slot).collect();
                let regions: [Region; 2] = std::array::from_fn(|place| {
                    let count = |all: bool| {
                        let here = slots.iter().filter(|slot| usize::from(slot.region) == place);
                        here.filter(|slot| all || slot.usable).count() as f64
                    };
                    Region { capacity: count(true), usable: count(false), ..Region::default() }
                });
                let shares = Failover::default().divide(&regions, None, Failback::Automatic, 0);
                let mut counts = vec![0_u64; slots.len()];
                for round in 0..10_000_u64 {
                    let entropy = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                    let wish = Wish { hash: entropy, entropy, regions: Some(&shares), ..wish(balance) };
                    let picked = pick(&mut slots, wish).unwrap();
                    assert_eq!(picked.panic, panic, "{balance:?} {slots_of:?}");
                    counts[picked.place] += 1;
                }
                for (count, expected) in counts.iter().zip(expected) {
                    assert!(count.abs_diff(expected * 100) < 400, "{balance:?} {slots_of:?}: {counts:?}");
                }
            }
        };
        check(&[(true, 0), (true, 0), (true, 1), (true, 255)], &[50, 50, 0, 0], false);
        check(&[(true, 0), (false, 0), (true, 1), (true, 255)], &[70, 0, 30, 0], false);
        check(&[(false, 0), (false, 0), (true, 1), (true, 255)], &[0, 0, 100, 0], false);
        // Others carry the rest: one of four is no reason to ignore health.
        check(&[(true, 0), (false, 0), (false, 0), (false, 0), (true, 1)], &[35, 0, 0, 0, 65], false);
        check(&[(false, 0), (false, 0), (false, 1)], &[50, 50, 0], true);
        check(&[(true, 1), (true, 255)], &[100, 0], false);
    }

    #[test]
    fn a_second_try_may_leave_the_region() {
        for balance in ALL {
            let mut slots = slots("...");
            slots[1].region = 1;
            slots[2].region = 255;
            let region = |usable| Region { capacity: 1.0, usable, ..Region::default() };
            let shares =
                Failover::default().divide(&[region(1.0), region(1.0)], None, Failback::Automatic, 0);
            let mut place = |tried| {
                let wish = Wish { regions: Some(&shares), tried, ..wish(balance) };
                pick(&mut slots, wish).map(|picked| picked.place)
            };
            assert_eq!([place(0), place(0b1), place(0b11)], [Some(0), Some(1), None], "{balance:?}");
        }
    }

    #[test]
    fn newcomers_get_their_share_little_by_little() {
        for balance in [Balance::RoundRobin, Balance::ConsistentHash] {
            let mut slots = slots("..");
            slots[1].withheld_permille = 900;
            let counts = shares(&mut slots, balance, 11_000);
            assert!((850..1_150).contains(&counts[1]), "{balance:?} {counts:?}");
        }
    }

    #[test]
    fn a_key_that_everybody_wants_does_not_drown_its_endpoint() {
        // Requests that never end, all with one key: how many each endpoint has under way, the fullest first.
        let check = |bound, rounds, expected: &[u32]| {
            let mut slots = slots("....");
            for _ in 0..rounds {
                let wish = Wish { hash_bound_percent: bound, hash: 7, ..wish(Balance::ConsistentHash) };
                let place = pick(&mut slots, wish).unwrap().place;
                slots[place].in_flight += 1;
            }
            let mut load: Vec<u32> = slots.iter().map(|slot| slot.in_flight).collect();
            load.sort_unstable_by_key(|load| std::cmp::Reverse(*load));
            assert_eq!(load, expected, "{bound} %");
        };
        check(0, 100, &[100, 0, 0, 0]);
        check(125, 1, &[1, 0, 0, 0]);
        check(125, 100, &[32, 31, 31, 6]);
        check(200, 100, &[50, 50, 0, 0]);
    }
}
