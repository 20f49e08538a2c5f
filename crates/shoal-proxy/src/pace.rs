//! How fast a downstream takes its part in a message, measured only while it is waited for.

use std::time::Duration;

/// The least that a downstream shall send or take: `bytes_per_second` on average over every `window` of waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinRate {
    /// 0 = no minimum.
    pub(crate) bytes_per_second: u64,
    pub(crate) window: Duration,
}

/// One direction of a message or connection. Times are milliseconds of the worker's clock.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// 0 = nobody is waited for.
    waiting_since_ms: u64,
    waited_ms: u64,
    bytes: u64,
}

impl Pace {
    /// The downstream is waited for.
    pub(crate) fn wait(&mut self, now_ms: u64) {
        if self.waiting_since_ms == 0 {
            self.waiting_since_ms = now_ms;
        }
    }

    /// So many bytes have moved; `false` = too few for the time that they took. What moves without waiting costs nothing
    /// and earns nothing.
    pub(crate) fn moved(&mut self, bytes: u64, now_ms: u64, least: MinRate) -> bool {
        if self.waiting_since_ms == 0 && self.waited_ms == 0 {
            return true;
        }
        if self.waiting_since_ms != 0 {
            self.waited_ms += now_ms.saturating_sub(self.waiting_since_ms);
            self.waiting_since_ms = 0;
        }
        self.bytes += bytes;
        if u128::from(self.waited_ms) < least.window.as_millis() {
            return true;
        }
        let due = least.bytes_per_second.saturating_mul(self.waited_ms) / 1000;
        let is_enough = self.bytes >= due;
        (self.waited_ms, self.bytes) = (0, 0);
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_counts() {
        let least = MinRate { bytes_per_second: 240, window: Duration::from_secs(10) };
        // Pairs: how long the downstream was waited for, ms, and how many bytes came then; is it fast enough in the end?
        let check = |moves: &[(u64, u64)], expected: bool| {
            let mut pace = Pace::default();
            let mut now_ms = 1;
            let mut all = true;
            for (waited_ms, bytes) in moves {
                if *waited_ms > 0 {
                    pace.wait(now_ms);
                    pace.wait(now_ms + 1);
                }
                now_ms += waited_ms;
                all &= pace.moved(*bytes, now_ms, least);
                now_ms += 100_000;
            }
            assert_eq!(all, expected, "{moves:?}");
        };
        check(&[(0, 1); 100], true);
        check(&[(9_999, 1)], true);
        check(&[(10_000, 2_399)], false);
        check(&[(10_000, 2_400)], true);
        check(&[(1_000, 100); 9], true);
        check(&[(1_000, 100); 10], false);
        check(&[(1_000, 240); 100], true);
        check(&[(0, 1_000_000), (10_000, 1)], false);
        check(&[(10_000, 1_000_000), (10_000, 1)], false);
    }

    #[test]
    fn no_minimum_is_always_met() {
        let mut pace = Pace::default();
        pace.wait(1);
        assert!(pace.moved(0, 1_000_000, MinRate { bytes_per_second: 0, window: Duration::from_secs(10) }));
    }
}
