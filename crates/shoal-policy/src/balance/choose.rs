//! Choosing in turn, by load, and by latency.

use super::Slot;

/// Smooth weighted round robin: each eligible slot saves up its weight, the richest is picked and pays for all.
/// (nginx commit 52327e0627f4, 2012.)
pub(super) fn in_turn(slots: &mut [Slot], eligible: impl Fn(usize, &Slot) -> bool) -> Option<usize> {
    let mut total = 0;
    let mut best: Option<usize> = None;
    for place in 0..slots.len() {
        if !eligible(place, &slots[place]) {
            continue;
        }
        let slot = &mut slots[place];
        slot.credit += slot.share() as i64;
        total += slot.share() as i64;
        let credit = slot.credit;
        if best.is_none_or(|best| credit > slots[best].credit) {
            best = Some(place);
        }
    }
    slots[best?].credit -= total;
    best
}

/// The fewest requests under way for its weight; among equals any, so that none starves.
pub(super) fn least_requests(
    slots: &[Slot],
    eligible: impl Fn(usize, &Slot) -> bool,
    entropy: u64,
) -> Option<usize> {
    let load = |slot: &Slot| f64::from(slot.in_flight + 1) / slot.share() as f64;
    let candidates = || slots.iter().enumerate().filter(|(place, slot)| eligible(*place, slot));
    let least = candidates().map(|(_, slot)| load(slot)).fold(f64::INFINITY, f64::min);
    nth(candidates().filter(|(_, slot)| load(slot) <= least), entropy)
}

/// The better of two picked at random, by latency × load (Mitzenmacher 2001; peak EWMA as in Finagle).
pub(super) fn better_of_two(
    slots: &[Slot],
    eligible: impl Fn(usize, &Slot) -> bool,
    entropy: u64,
) -> Option<usize> {
    let candidates = || slots.iter().enumerate().filter(|(place, slot)| eligible(*place, slot));
    let first = nth(candidates(), entropy)?;
    let Some(second) = nth(candidates().filter(|(place, _)| *place != first), entropy >> 32) else {
        return Some(first);
    };
    let cost = |place: usize| {
        let slot = &slots[place];
        // A slot that has not answered yet costs next to nothing: it is tried soon, and only once at a time.
        f64::from(slot.latency_us.max(1.0)) * f64::from(slot.in_flight + 1) / slot.share() as f64
    };
    Some(if cost(second) < cost(first) { second } else { first })
}

/// One of them, by the low half of `entropy`.
fn nth<'a>(candidates: impl Iterator<Item = (usize, &'a Slot)> + Clone, entropy: u64) -> Option<usize> {
    let count = candidates.clone().count() as u64;
    let wanted = (entropy & 0xffff_ffff).checked_rem(count)?;
    candidates.map(|(place, _)| place).nth(wanted as usize)
}
