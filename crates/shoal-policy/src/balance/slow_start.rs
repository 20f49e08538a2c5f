//! Slow start: an endpoint that is new or has recovered gets its share little by little.

use std::time::Duration;

/// The least share it starts with, in thousandths: without requests it would never warm up.
const LEAST_PERMILLE: u64 = 100;

/// How much of its weight an endpoint that came up at `since_ms` does not get yet, in thousandths: less and less, in a
/// straight line over `window`. `since_ms` 0 = it has been up for ever.
pub fn withheld_permille(since_ms: u64, now_ms: u64, window: Duration) -> u16 {
    let window_ms = window.as_millis() as u64;
    let up_ms = now_ms.saturating_sub(since_ms);
    if since_ms == 0 || up_ms >= window_ms {
        return 0;
    }
    let given = (up_ms.saturating_mul(1000) / window_ms).max(LEAST_PERMILLE);
    (1000 - given.min(1000)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_in_a_straight_line() {
        let check = |since_ms, now_ms, expected| {
            let withheld = withheld_permille(since_ms, now_ms, Duration::from_secs(30));
            assert_eq!(withheld, expected, "since {since_ms} at {now_ms}");
        };
        check(1000, 1000, 900);
        check(1000, 2000, 900);
        check(1000, 16_000, 500);
        check(1000, 25_000, 200);
        check(1000, 31_000, 0);
        check(1000, 99_000, 0);
        check(5000, 1000, 900);
        check(0, 1, 0);
        assert_eq!(withheld_permille(1, 1, Duration::ZERO), 0);
    }
}
