//! How much an object is asked for: the owner counts what peers ask for, and tells them to keep what is hot.

/// Half of the count is forgotten in this time, milliseconds.
const HALF_LIFE_MS: u64 = 10_000;
/// So many requests of peers within about one half-life, and an object is hot.
const HOT_AT: u32 = 4;
/// A peer may keep a hot object this long without asking again, milliseconds.
pub const HOT_FOR_MS: u64 = 60_000;
/// A node that has asked for the same object twice within this time keeps it, told or not, milliseconds.
pub const SECOND_HIT_MS: u64 = 10_000;
/// Keys that a node remembers having asked for.
const REMEMBERED: usize = 4096;

/// A count that fades, in one number: half-lives above, requests below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heat(pub u64);

impl Heat {
    /// With one more request.
    #[must_use]
    pub const fn touched(self, now_ms: u64) -> Self {
        let period = (now_ms / HALF_LIFE_MS) & 0xffff_ffff;
        let known = self.0 >> 32;
        let past = period.saturating_sub(known);
        let count = if past > 31 { 0 } else { (self.0 & 0xffff_ffff) >> past };
        let count = if count < u32::MAX as u64 { count + 1 } else { count };
        Self((if period > known { period } else { known }) << 32 | count)
    }

    /// Peers should keep it.
    pub const fn is_hot(self) -> bool {
        self.0 & 0xffff_ffff >= HOT_AT as u64
    }
}

/// Which objects this node has asked others for lately. Each key has one place, and a newcomer takes it: forgetting one
/// costs one more question.
#[derive(Debug)]
pub struct Asked {
    places: Box<[(u64, u64)]>,
}

impl Default for Asked {
    fn default() -> Self {
        Self { places: vec![(0, 0); REMEMBERED].into() }
    }
}

impl Asked {
    /// `key` is asked for now; says whether it was already, within [`SECOND_HIT_MS`].
    pub fn again(&mut self, key: u128, now_ms: u64) -> bool {
        let (place, mark) = ((key >> 64) as usize % REMEMBERED, key as u64);
        let (known, asked_ms) = std::mem::replace(&mut self.places[place], (mark, now_ms));
        known == mark && asked_ms > 0 && now_ms.saturating_sub(asked_ms) < SECOND_HIT_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_often_is_hot_and_cools_down() {
        let touch = |heat: Heat, at: &[u64]| at.iter().fold(heat, |heat, now_ms| heat.touched(*now_ms));
        let start = 1_700_000_000_000;
        let check = |after_ms: &[u64], expected| {
            let at: Vec<u64> = after_ms.iter().map(|ms| start + ms).collect();
            assert_eq!(touch(Heat::default(), &at).is_hot(), expected, "{after_ms:?}");
        };
        check(&[0], false);
        check(&[0, 1, 2], false);
        check(&[0, 1, 2, 3], true);
        check(&[0, 10_000, 20_000, 30_000, 40_000], false);
        check(&[0, 1, 2, 3, 4, 5, 10_000], true);
        check(&[0, 1, 2, 3, 4, 5, 3_600_000], false);
        check(&[15_000, 15_001, 0, 1], true); // a clock that was set back loses nothing
        assert!(Heat(u64::from(u32::MAX)).touched(0).is_hot());
    }

    #[test]
    fn the_second_question_within_a_while_is_noticed() {
        let mut asked = Asked::default();
        for (key, now_ms, expected) in [
            (7, 1, false),
            (7, 2, true),
            (7, 10_001, true),
            (7, 20_001, false),
            (8, 20_002, false), // in the place of 7
            (7, 20_003, false),
            (1 << 64, 20_004, false),
            (1 << 64, 20_005, true),
        ] {
            assert_eq!(asked.again(key, now_ms), expected, "{key} {now_ms}");
        }
    }
}
