//! What a stream of HTTP/2 gets of its response at a time, and how long it may take for that.
//!
//! Whether a stream moves is only seen when it has taken a whole portion, and a byte of the next. So portions are small where
//! a stream is slow: one that is just fast enough takes a small portion well within `write_idle_timeout`. Reset is who takes
//! less than half of that, or stops; who never takes a byte, after one timeout.

use std::time::Duration;

use shoal_model::units::millis_u64;

/// Largest portion, bytes: a DATA frame of the usual size.
const MAX_PORTION: u64 = 16 << 10;
/// A large portion is at most so many small ones: a stream that stops within one is found out in half as many timeouts.
const LARGE: u64 = 8;
/// Bytes that every stream takes in one timeout, where nothing else is demanded.
const NO_RATE: u64 = 2 << 10;
/// A portion that took more than this part of the timeout is followed by small ones.
const SLOW: u64 = 8;

/// The portions of one stream. Times are milliseconds of the worker's clock.
#[derive(Debug)]
pub(super) struct Portions {
    timeout_ms: u64,
    /// What a stream at the least rate takes in one timeout.
    least: u64,
    /// Size of the portion that was offered last, 0 = none was: when the next one is, the downstream may still be taking it.
    offered: u64,
    /// Since when there is no room; 0 = there is.
    waiting_since_ms: u64,
}

impl Portions {
    /// `min_rate` in bytes a second; 0 = none.
    pub(super) fn new(min_rate: u64, write_idle_timeout: Duration) -> Self {
        let timeout_ms = millis_u64(write_idle_timeout);
        let least = match min_rate {
            0 => NO_RATE,
            rate => (rate.saturating_mul(timeout_ms) / 1000).clamp(2, 2 * MAX_PORTION),
        };
        Self { timeout_ms, least, offered: 0, waiting_since_ms: 0 }
    }

    fn small(&self) -> u64 {
        self.least / 2
    }

    fn large(&self) -> u64 {
        (self.small() * LARGE).min(MAX_PORTION)
    }

    /// Bytes of the next portions, if there is room for any.
    pub(super) fn next(&self, now_ms: u64) -> u64 {
        let is_slow = self.waiting_since_ms != 0
            && now_ms.saturating_sub(self.waiting_since_ms).saturating_mul(SLOW) > self.timeout_ms;
        if is_slow { self.small() } else { self.large() }
    }

    /// So many portions of [`Self::next`] were offered, and there is no room for the last of them; answers how long that may
    /// be so.
    pub(super) fn wait(&mut self, count: u32, now_ms: u64) -> Duration {
        let next = self.next(now_ms);
        let taking = if count > 1 { next } else { self.offered };
        self.offered = next;
        self.waiting_since_ms = now_ms;
        let due_ms = self.timeout_ms.saturating_mul(taking) / self.least;
        Duration::from_millis(due_ms.max(self.timeout_ms))
    }

    /// So many portions of [`Self::next`] were offered; there is room for more, and nothing to fill it with.
    pub(super) fn drained(&mut self, count: u32, now_ms: u64) {
        if count > 0 {
            self.offered = self.next(now_ms);
        }
        self.waiting_since_ms = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_fast_enough_is_never_late() {
        // A stream that takes `rate` bytes a second for five minutes: how long it had to wait for room at most, and was it
        // ever longer than it may?
        let check = |rate: u64, min_rate: u64, timeout_s: u64, in_time: bool| {
            let mut portions = Portions::new(min_rate, Duration::from_secs(timeout_s));
            let mut now_ms = 1;
            let mut taking = portions.next(now_ms);
            // The first is being taken when the second one waits.
            let mut count = 2;
            let mut all = true;
            while now_ms < 300_000 {
                let next = portions.next(now_ms);
                let allowed = portions.wait(std::mem::replace(&mut count, 1), now_ms);
                let took_ms = taking * 1000 / rate;
                all &= u128::from(took_ms) <= allowed.as_millis();
                (now_ms, taking) = (now_ms + took_ms.max(1), next);
            }
            assert_eq!(all, in_time, "{rate} B/s, at least {min_rate} B/s, {timeout_s} s");
        };
        for rate in [241, 300, 1_000, 5_000, 100_000] {
            check(rate, 240, 30, true);
            check(rate, 240, 1, true);
        }
        check(10_000, 8_000, 30, true);
        check(110, 240, 30, false);
        check(1, 240, 30, false);
        // A whole portion in a timeout is always enough.
        check(3_000, 8_000, 30, true);
        check(500, 8_000, 30, false);
        check(100, 0, 30, true);
        check(10, 0, 30, false);
    }

    #[test]
    fn portions_follow_the_pace() {
        let mut portions = Portions::new(240, Duration::from_secs(30));
        assert_eq!(portions.next(1), 16 << 10);
        assert_eq!(portions.wait(1, 1), Duration::from_secs(30), "not a byte was taken");
        assert_eq!(portions.next(2_000), 16 << 10);
        assert_eq!(portions.wait(1, 2_000), Duration::from_millis(68_266), "at 240 B/s");
        assert_eq!(portions.next(3_000), 16 << 10);
        assert_eq!(portions.next(7_000), 3_600);
        assert_eq!(portions.wait(1, 7_000), Duration::from_millis(68_266), "the large one may be under way");
        assert_eq!(portions.next(16_000), 3_600);
        assert_eq!(portions.wait(1, 16_000), Duration::from_secs(30));
        portions.drained(0, 40_000);
        assert_eq!(portions.next(40_000), 16 << 10);
        let mut several = Portions::new(240, Duration::from_secs(30));
        assert_eq!(several.wait(2, 1), Duration::from_millis(68_266), "the first one is under way");
        // It came bit by bit.
        for (count, allowed_ms) in [(0, 30_000), (1, 68_266), (3, 68_266)] {
            let mut portions = Portions::new(240, Duration::from_secs(30));
            portions.drained(count, 1);
            assert_eq!(portions.wait(1, 5_000), Duration::from_millis(allowed_ms), "{count}");
        }
    }
}
