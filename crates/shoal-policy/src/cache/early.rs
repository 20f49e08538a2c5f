//! Objects that were stored together do not all expire together, and those in use are fetched again before they do.

use super::storage::Terms;

/// At most this share of what is left of a lifetime is taken off, in thousandths.
const MOST_PERMILLE: u64 = 50;
/// Less than this is left as it is: there is nothing to spread, milliseconds.
const SHORTEST_MS: u64 = 10_000;

/// The lifetime of a new object, shortened by up to a twentieth of what is left of it, by `entropy`. Never longer: that
/// would be stale.
pub const fn spread_lifetime_ms(terms: &Terms, entropy: u64) -> u64 {
    let left_ms = terms.lifetime_ms.saturating_sub(terms.initial_age_ms);
    if left_ms < SHORTEST_MS {
        return terms.lifetime_ms;
    }
    let permille = (entropy >> 32) % (MOST_PERMILLE + 1);
    terms.lifetime_ms - left_ms / 1000 * permille
}

/// A fresh object is to be fetched again now, since others will need it in a moment: the sooner, the longer fetching it
/// takes, and at most once in a while (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache
/// Stampede Prevention", with β = 1).
pub fn is_due_early(terms: &Terms, now_ms: u64, entropy: u64) -> bool {
    let left_ms = u64::try_from(terms.time_left_ms(now_ms)).unwrap_or(0);
    // The logarithm of the smallest number is -36.7: nearly every hit is far from its end.
    if left_ms == 0 || left_ms > terms.fetch_ms.saturating_mul(37) {
        return false;
    }
    // Above 0, at most 1.
    let random = ((entropy >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -(terms.fetch_ms as f64) * random.ln() >= left_ms as f64
}

/// So long before its end an object in much use is likely to be found due: one hit in twenty of the first ones.
pub const fn likely_early_ms(terms: &Terms) -> u64 {
    terms.fetch_ms.saturating_mul(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(lifetime_ms: u64, initial_age_ms: u64) -> Terms {
        Terms { lifetime_ms, initial_age_ms, ..Terms::default() }
    }

    /// Numbers that differ in every bit.
    fn draws() -> impl Iterator<Item = u64> {
        (0..1000_u64).map(|n| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    #[test]
    fn lifetimes_become_shorter_by_a_twentieth_at_most() {
        let check = |terms: &Terms, least, most| {
            let spread: Vec<u64> = draws().map(|entropy| spread_lifetime_ms(terms, entropy)).collect();
            assert_eq!((spread.iter().min(), spread.iter().max()), (Some(&least), Some(&most)), "{terms:?}");
        };
        check(&terms(60_000, 0), 57_000, 60_000);
        check(&terms(100_000, 60_000), 98_000, 100_000);
        check(&terms(9_999, 0), 9_999, 9_999);
        check(&terms(100_000, 95_000), 100_000, 100_000);
        check(&terms(5, 50_000), 5, 5);
        check(&terms(u64::MAX, 0), u64::MAX - u64::MAX / 1000 * 50, u64::MAX);
    }

    #[test]
    fn the_nearer_the_end_and_the_slower_the_origin_the_sooner() {
        let share = |left_ms: u64, fetch_ms| {
            let terms = Terms { fetch_ms, ..terms(left_ms, 0) };
            draws().filter(|entropy| is_due_early(&terms, 0, *entropy)).count()
        };
        // P(-δ·ln(rand) ≥ left) = e^(-left/δ).
        assert_eq!(share(60_000, 0), 0);
        assert_eq!(share(60_000, 300), 0);
        assert!((340..400).contains(&share(300, 300)), "{}", share(300, 300));
        assert!((980..1000).contains(&share(3, 300)), "{}", share(3, 300));
        assert!((110..160).contains(&share(600, 300)), "{}", share(600, 300));
        assert_eq!(share(0, 300), 0, "what is stale is another matter");
    }
}
