//! How fast a downstream takes its part in a message, measured only while it is waited for.

use std::time::Duration;

use shoal_model::units::millis_u64;

/// Windows of waiting that can be saved up by being faster: a pause after a quick beginning is forgiven, a tail that drips
/// for ever is not.
const SAVED_WINDOWS: u32 = 3;

/// The least that a downstream shall send or take: `bytes_per_second` of waiting, with up to one `window` to be made up for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MinRate {
    /// 0 = no minimum.
    pub(crate) bytes_per_second: u64,
    pub(crate) window: Duration,
}

impl MinRate {
    /// What shall move in so many milliseconds.
    fn due(self, waited_ms: u64) -> i64 {
        i64::try_from(self.bytes_per_second.saturating_mul(waited_ms) / 1000).unwrap_or(i64::MAX)
    }
}

/// One direction of a message or connection. Times are milliseconds of the worker's clock.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// 0 = nobody is waited for.
    waiting_since_ms: u64,
    /// Bytes that should have moved and have not; below zero = more moved than had to.
    owed: i64,
}

impl Pace {
    /// The downstream is waited for.
    pub(crate) fn wait(&mut self, now_ms: u64) {
        if self.waiting_since_ms == 0 {
            self.waiting_since_ms = now_ms;
        }
    }

    /// So many bytes have moved; `false` = too few for the time that was waited.
    pub(crate) fn moved(&mut self, bytes: u64, now_ms: u64, least: MinRate) -> bool {
        if self.waiting_since_ms != 0 {
            let due = least.due(now_ms.saturating_sub(self.waiting_since_ms));
            self.owed = self.owed.saturating_add(due);
            self.waiting_since_ms = 0;
        }
        let window = least.due(millis_u64(least.window));
        let saved = window.saturating_mul(SAVED_WINDOWS.into());
        self.owed = self.owed.saturating_sub_unsigned(bytes).max(-saved);
        self.owed <= window
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
        // A window is there from the beginning, and what is fast enough keeps it.
        check(&[(10_000, 1)], true);
        check(&[(20_000, 2_399)], false);
        check(&[(20_000, 2_400)], true);
        check(&[(1_000, 240); 100], true);
        check(&[(1_000, 100); 17], true);
        check(&[(1_000, 100); 18], false);
        // A pause after a good beginning is none of a slow one, a tail that drips is.
        check(&[(0, 1_000_000), (40_000, 1)], true);
        check(&[(0, 1_000_000), (41_000, 1)], false);
        check(&[(10_000, 1_000_000), (30_000, 1), (10_000, 2_400)], true);
        check(&[&[(0, 1_000_000)][..], &[(5_000, 1); 8]].concat(), true);
        check(&[&[(0, 1_000_000)][..], &[(5_000, 1); 9]].concat(), false);
    }

    #[test]
    fn no_minimum_is_always_met() {
        let mut pace = Pace::default();
        pace.wait(1);
        assert!(pace.moved(0, 1_000_000, MinRate { bytes_per_second: 0, window: Duration::from_secs(10) }));
    }
}
