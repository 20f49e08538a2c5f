//! When so little is left of an upstream that its health is better ignored.

/// Whether fewer than `threshold_percent` of `total` endpoints are available. Then all of them are used: a wrong health
/// check, or an overload that spreads, must not take the rest down (Envoy's panic threshold).
pub const fn is_panic(available: usize, total: usize, threshold_percent: u8) -> bool {
    available * 100 < total * threshold_percent as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_below_the_threshold_only() {
        let check = |available, total, threshold, expected| {
            assert_eq!(
                is_panic(available, total, threshold),
                expected,
                "{available}/{total} at {threshold} %"
            );
        };
        check(0, 0, 50, false);
        check(0, 1, 50, true);
        check(1, 2, 50, false);
        check(1, 3, 50, true);
        check(2, 4, 50, false);
        check(0, 4, 0, false);
        check(3, 4, 100, true);
    }
}
