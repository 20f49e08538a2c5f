//! Weighted rendezvous hashing: equal keys meet equal endpoints, and a lost endpoint moves only its own keys.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Slot;

/// The slot with the highest score for `hash`: −weight ÷ ln(h), h uniform in (0, 1).
/// (Schindelhauer, Schomaker 2005, "Weighted distributed hash tables".)
pub(super) fn highest(slots: &[Slot], eligible: impl Fn(usize, &Slot) -> bool, hash: u64) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (place, slot) in slots.iter().enumerate().filter(|(place, slot)| eligible(*place, slot)) {
        let mixed = xxh3_64_with_seed(&slot.id.to_be_bytes(), hash);
        // 53 bits, never 0 and never 1.
        let uniform = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let score = -f64::from(slot.weight) / uniform.ln();
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, place));
        }
    }
    best.map(|(_, place)| place)
}
