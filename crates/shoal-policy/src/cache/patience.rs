//! How long one owner is waited for before the other is asked as well, and when an owner has too much to do.

use std::time::Duration;

/// The second owner is never asked before that.
pub const LEAST_PATIENCE: Duration = Duration::from_millis(10);
/// Answers that are remembered.
const WINDOW: usize = 64;
/// Between two looks at all of them.
const REFRESH_EVERY: usize = 8;
/// Requests that a peer may have under way whatever the others have: with a handful, a mean says nothing.
const ALWAYS_WITHIN: usize = 16;

/// How long one peer takes to answer from what it has: what it asks an origin for does not count.
#[derive(Clone, Debug)]
pub struct AnswerTimes {
    recent_us: [u32; WINDOW],
    seen: usize,
    p95_us: u32,
}

impl Default for AnswerTimes {
    fn default() -> Self {
        Self { recent_us: [0; WINDOW], seen: 0, p95_us: 0 }
    }
}

impl AnswerTimes {
    /// It has answered.
    pub fn observe(&mut self, took: Duration) {
        self.recent_us[self.seen % WINDOW] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.seen += 1;
        if self.seen < REFRESH_EVERY || self.seen.is_multiple_of(REFRESH_EVERY) {
            let mut known = self.recent_us;
            let known = &mut known[..self.seen.min(WINDOW)];
            let place = known.len() * 95 / 100;
            self.p95_us = *known.select_nth_unstable(place.min(known.len() - 1)).1;
        }
    }

    /// How long it is waited for: 19 of 20 answers were there by then, and at least [`LEAST_PATIENCE`].
    pub fn patience(&self) -> Duration {
        Duration::from_micros(u64::from(self.p95_us)).max(LEAST_PATIENCE)
    }
}

/// One more request would give a peer with `under_way` of the `all` that are under way to `peers` peers more than 1.25
/// times its even share (consistent hashing with bounded loads).
pub const fn is_above_bound(under_way: usize, all: usize, peers: usize) -> bool {
    let peers = if peers == 0 { 1 } else { peers };
    let most = ((all + 1) * 5).div_ceil(peers * 4);
    under_way >= most && under_way >= ALWAYS_WITHIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_in_twenty_may_take_longer() {
        let check = |answers: &[(usize, u64)], expected_ms: u64| {
            let mut times = AnswerTimes::default();
            for (count, ms) in answers {
                (0..*count).for_each(|_| times.observe(Duration::from_millis(*ms)));
            }
            assert_eq!(times.patience().as_millis(), u128::from(expected_ms), "{answers:?}");
        };
        check(&[], 10);
        check(&[(1, 3)], 10);
        check(&[(1, 30)], 30);
        check(&[(64, 20)], 20);
        check(&[(62, 2), (2, 500)], 10);
        check(&[(48, 12), (16, 500)], 500);
        check(&[(64, 500), (64, 15)], 15);
        check(&[(1, u64::MAX / 1_000_000)], u64::from(u32::MAX) / 1000);
    }

    #[test]
    fn a_peer_with_more_than_its_share_is_above_the_bound() {
        for (under_way, all, peers, expected) in [
            (0, 0, 2, false),
            (15, 15, 2, false),
            (16, 16, 2, true),
            (16, 32, 2, false),
            (63, 100, 2, false),
            (64, 100, 2, true),
            (25, 80, 4, false),
            (26, 80, 4, true),
            (1000, 1000, 1, false),
            (16, 0, 0, true),
        ] {
            assert_eq!(is_above_bound(under_way, all, peers), expected, "{under_way} of {all} on {peers}");
        }
    }
}
