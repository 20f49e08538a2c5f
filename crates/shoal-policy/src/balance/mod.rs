//! Which endpoint a request goes to: those that may be used first, then one of them.

mod choose;
mod ewma;
mod rendezvous;

use shoal_model::site::Balance;

pub use ewma::Ewma;

use crate::health::is_panic;

/// An endpoint as the choice sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// Its id: what rendezvous hashing hashes.
    pub id: u64,
    /// Share of requests; 0 = none.
    pub weight: u32,
    /// Lower is used first.
    pub priority: u32,
    /// It is available, and this node's own traffic has nothing against it.
    pub usable: bool,
    /// Requests under way from here.
    pub in_flight: u32,
    /// Peak EWMA of its latency, µs; see [`Ewma`].
    pub latency_us: f32,
    /// What it has saved up for its turn: kept between calls, see [`pick`].
    pub credit: i64,
}

/// What a choice depends on besides the slots.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// How to choose.
    pub balance: Balance,
    /// Of the request, for [`Balance::ConsistentHash`].
    pub hash: u64,
    /// Any random number.
    pub entropy: u64,
    /// Percent of usable endpoints below which health is ignored.
    pub panic_threshold_percent: u8,
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

/// Chooses an endpoint. Of all priorities the lowest with a usable endpoint counts; when less than the panic threshold
/// of all endpoints is usable, health is ignored. Endpoints already tried are only taken when nothing else is left of
/// the whole upstream, in which case the answer is `None` if all were tried.
pub fn pick(slots: &mut [Slot], wish: Wish) -> Option<Pick> {
    let (mut usable, mut total) = (0, 0);
    for slot in slots.iter().filter(|slot| slot.weight > 0) {
        total += 1;
        usable += usize::from(slot.usable);
    }
    let panic = usable < total && is_panic(usable, total, wish.panic_threshold_percent);
    let untried = |place: usize| place >= u64::BITS as usize || wish.tried & (1 << place) == 0;
    let fits = |place: usize, slot: &Slot| slot.weight > 0 && (panic || slot.usable) && untried(place);
    let priority =
        slots.iter().enumerate().filter(|(place, slot)| fits(*place, slot)).map(|(_, s)| s.priority).min()?;
    let eligible = |place: usize, slot: &Slot| fits(place, slot) && slot.priority == priority;
    let place = match wish.balance {
        Balance::RoundRobin => choose::in_turn(slots, eligible),
        Balance::LeastRequests => choose::least_requests(slots, eligible, wish.entropy),
        Balance::P2cEwma => choose::better_of_two(slots, eligible, wish.entropy),
        Balance::ConsistentHash => rendezvous::highest(slots, eligible, wish.hash),
    }?;
    Some(Pick { place, panic })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(balance: Balance) -> Wish {
        Wish { balance, hash: 0, entropy: 0, panic_threshold_percent: 50, tried: 0 }
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
}
