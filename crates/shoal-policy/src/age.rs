//! When a connection is too old: connections that began together do not all end together.

use std::time::Duration;

use shoal_model::units::millis_u64;

/// At most this share of the greatest age is taken off, by when a connection began, in thousandths.
const SPREAD_PERMILLE: u64 = 100;

/// Whether a connection that began at `born_ms` is too old at `now_ms`: at `max`, or up to a tenth of it before. More than
/// 64 bits of milliseconds are no limit.
pub fn is_over_age(born_ms: u64, now_ms: u64, max: Duration) -> bool {
    let max_ms = millis_u64(max);
    // Neighbouring moments are far apart after this (Fibonacci hashing).
    let earlier = (born_ms.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % (SPREAD_PERMILLE + 1);
    max_ms < u64::MAX && now_ms.saturating_sub(born_ms) >= max_ms - max_ms / 1000 * earlier
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_spread_over_the_last_tenth() {
        let hour = Duration::from_secs(3600);
        let mut counts = [0; 10];
        for born_ms in 1000..2000_u64 {
            assert!(!is_over_age(born_ms, born_ms + 3_239_999, hour), "{born_ms}");
            assert!(is_over_age(born_ms, born_ms + 3_600_000, hour), "{born_ms}");
            let ends =
                (0..10).position(|n| is_over_age(born_ms, born_ms + 3_240_000 + (n + 1) * 36_000, hour));
            counts[ends.unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (70..140).contains(count)), "{counts:?}");
    }

    #[test]
    fn short_and_endless_ages_are_what_they_say() {
        let check = |born_ms, now_ms, max_ms, expected| {
            let over = is_over_age(born_ms, now_ms, Duration::from_millis(max_ms));
            assert_eq!(over, expected, "{born_ms} {now_ms} {max_ms}");
        };
        check(7, 7, 1, false);
        check(7, 8, 1, true);
        check(7, 5, 1, false);
        check(7, u64::MAX / 2, u64::MAX, false);
        check(0, 500, 500, true);
    }
}
