//! How much of its work a node refuses so that it can do the rest: by how long a worker's queue lets things wait, and by
//! the memory that is left.
//!
//! The queue is judged as CoDel does (RFC 8289): a delay counts only when it *stands*, that is when every look at it over
//! an [`INTERVAL`] found more than is allowed. A burst, a garbage run of a neighbour or a stopped machine are one late look,
//! and nothing comes of it. Once it stands, the share that is refused climbs towards everything by a quarter of the rest a
//! look, holds while the delay is between half of what is allowed and the whole, and falls by an eighth a look below.

use std::time::Duration;

/// How long a delay must stand before anything is refused.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Looks that must have found it at least: a worker that is stopped for long looks once.
const LOOKS: u32 = 5;
/// Everything, as a share.
const WHOLE: u32 = 1 << 16;
/// Something is always let through: by it a worker finds out that it may go on.
const MOST: u32 = WHOLE - WHOLE / 64;
/// A share below is none.
const LEAST: u32 = WHOLE / 64;

/// What a worker refuses because of its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shedding {
    /// Since when every look found too much.
    since_ms: Option<u64>,
    looks: u32,
    share: u32,
}

impl Shedding {
    /// Takes in one look: at `now_ms` something had to wait for `delay`, where `allowed` is no reason to refuse anything
    /// (zero = nothing ever is).
    #[must_use]
    pub fn observe(self, now_ms: u64, delay: Duration, allowed: Duration) -> Self {
        if allowed.is_zero() {
            return Self::default();
        }
        if delay <= allowed {
            let share = match delay <= allowed / 2 {
                true => self.share - self.share.div_ceil(8),
                false => self.share,
            };
            return Self { since_ms: None, looks: 0, share: if share < LEAST { 0 } else { share } };
        }
        let since_ms = self.since_ms.unwrap_or(now_ms);
        let looks = self.looks.saturating_add(1);
        let stands = looks >= LOOKS && now_ms.saturating_sub(since_ms) >= INTERVAL.as_millis() as u64;
        let share = match stands || self.share > 0 {
            true => (self.share + (WHOLE - self.share) / 4).min(MOST),
            false => 0,
        };
        Self { since_ms: Some(since_ms), looks, share }
    }

    /// Nothing is refused.
    pub fn is_idle(self) -> bool {
        self.share == 0
    }

    /// Whether a request that drew `entropy` is refused.
    pub fn refuses(self, entropy: u64) -> bool {
        // The upper bits: the lower ones of simple generators are worse.
        (entropy >> 48) < u64::from(self.share)
    }
}

/// How much memory is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryLevel {
    /// Enough.
    #[default]
    Ample,
    /// Little, from 92 % of the limit on: connections end with their answer.
    Short,
    /// Next to nothing, from 95 % on: new requests are refused, new connections taken slowly.
    Full,
}

/// Judges `used` of `limit` bytes.
pub fn memory_level(used: u64, limit: Option<u64>) -> MemoryLevel {
    let Some(limit) = limit else { return MemoryLevel::Ample };
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    match percent {
        0..92 => MemoryLevel::Ample,
        92..95 => MemoryLevel::Short,
        _ => MemoryLevel::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_millis(100);

    /// What becomes of it when looks, 100 ms apart, find these delays (ms).
    fn after(looks: &[u64]) -> Shedding {
        let observe = |state: Shedding, (n, delay): (usize, &u64)| {
            state.observe(1 + n as u64 * 100, Duration::from_millis(*delay), ALLOWED)
        };
        looks.iter().enumerate().fold(Shedding::default(), observe)
    }

    #[test]
    fn only_a_delay_that_stands_is_answered() {
        let check = |looks: &[u64], refuses: bool| {
            assert_eq!(!after(looks).is_idle(), refuses, "{looks:?}");
        };
        check(&[], false);
        check(&[100; 50], false);
        check(&[101; 10], false);
        check(&[101; 11], true);
        check(&[9000], false);
        check(&[[5000; 9].as_slice(), &[99], &[5000; 9]].concat(), false);
        check(&[[101; 12].as_slice(), &[60; 50]].concat(), true);
        check(&[[101; 12].as_slice(), &[10; 50]].concat(), false);
    }

    #[test]
    fn few_looks_far_apart_are_no_standing_delay() {
        let slow = Duration::from_secs(9);
        let looks = (0..4_u64).fold(Shedding::default(), |state, n| state.observe(n * 9000, slow, ALLOWED));
        assert!(looks.is_idle());
        assert!(!looks.observe(36_000, slow, ALLOWED).is_idle());
        assert!(looks.observe(36_000, slow, Duration::ZERO).is_idle(), "it was switched off");
    }

    #[test]
    fn the_share_climbs_and_falls_and_something_always_passes() {
        let share = |above: usize, below: usize| {
            after(&[vec![101; above], vec![1; below]].concat()).share * 100 / WHOLE
        };
        let check = |above, below, percent| assert_eq!(share(above, below), percent, "{above} {below}");
        check(11, 0, 25);
        check(12, 0, 43);
        check(15, 0, 76);
        check(1000, 0, 98);
        check(1000, 6, 44);
        check(1000, 60, 0);
        assert!(!after(&[101; 1000]).refuses(u64::MAX));
        assert!(after(&[101; 11]).refuses(0));
        assert!(!Shedding::default().refuses(0));
    }

    #[test]
    fn memory_has_two_levels() {
        let check = |used, limit, level| assert_eq!(memory_level(used, limit), level, "{used} {limit:?}");
        check(u64::MAX, None, MemoryLevel::Ample);
        check(919, Some(1000), MemoryLevel::Ample);
        check(920, Some(1000), MemoryLevel::Short);
        check(949, Some(1000), MemoryLevel::Short);
        check(950, Some(1000), MemoryLevel::Full);
        check(5000, Some(1000), MemoryLevel::Full);
        check(1, Some(0), MemoryLevel::Full);
        check(u64::MAX, Some(u64::MAX), MemoryLevel::Full);
    }
}
