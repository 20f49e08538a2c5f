//! Weighted rendezvous hashing: equal keys meet equal endpoints, and a lost endpoint moves only its own keys.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Slot;

/// The slot with the highest score for `hash`: −weight ÷ ln(h), h uniform in (0, 1).
/// (Schindelhauer, Schomaker 2005, "Weighted distributed hash tables".) A slot that has more than `bound_percent` of its
/// even share of the requests under way is passed over, so that a key everybody wants cannot drown its endpoint
/// (Mirrokni, Thorup, Zadimoghaddam 2016, "Consistent hashing with bounded loads"); 0 = no bound.
pub(super) fn highest(
    slots: &[Slot],
    eligible: impl Fn(usize, &Slot) -> bool,
    hash: u64,
    bound_percent: u32,
) -> Option<usize> {
    let candidates = || slots.iter().enumerate().filter(|(place, slot)| eligible(*place, slot));
    if bound_percent == 0 {
        return best(candidates(), hash);
    }
    let (mut load, mut shares) = (1_u64, 0_u64);
    for (_, slot) in candidates() {
        load += u64::from(slot.in_flight);
        shares += slot.share();
    }
    let has_room = |slot: &Slot| {
        let even = u128::from(load) * u128::from(slot.share()) * u128::from(bound_percent);
        u128::from(slot.in_flight) < even.div_ceil(u128::from(shares.max(1)) * 100)
    };
    best(candidates().filter(|(_, slot)| has_room(slot)), hash).or_else(|| best(candidates(), hash))
}

fn best<'a>(candidates: impl Iterator<Item = (usize, &'a Slot)>, hash: u64) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (place, slot) in candidates {
        let mixed = xxh3_64_with_seed(&slot.id.to_be_bytes(), hash);
        // 53 bits, never 0 and never 1.
        let uniform = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let score = -(slot.share() as f64) / uniform.ln();
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, place));
        }
    }
    best.map(|(_, place)| place)
}
