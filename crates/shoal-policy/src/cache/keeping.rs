//! What is worth a place: instead of what is stored, and on disk for how long.

use super::storage::Terms;

/// Objects up to this size are written when they are stored, bytes; larger ones once they are asked for again.
pub const WRITTEN_AT_ONCE_BYTES: u64 = 64 * 1024;
/// What is of no use after so long is not worth a write, milliseconds.
const LEAST_USE_MS: u64 = 10_000;
/// How long an expired object may bridge an origin that cannot be reached: what routes allow by default, milliseconds.
const BRIDGE_MS: u64 = 60_000;
/// How long an expired object is kept for the sake of its validator, milliseconds.
const VALIDATOR_MS: u64 = 7 * 24 * 3600 * 1000;

/// How new a stored response is, to be compared with another one of the same variant. First counts whether a purge makes it
/// doubtful, then when the origin answered: of two fills the one that ends last may have begun first. How many purges were
/// known when the origin was asked says nothing by itself: a node that is behind asks it later than others did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// No purge speaks against it that is known here.
    pub is_valid: bool,
    /// When the head of the answer came, Unix milliseconds.
    pub response_ms: u64,
}

impl Rank {
    /// A response of this rank takes the place of one that is `known`. What is of a time to come was stored before the clock
    /// was set back, and says nothing.
    pub fn may_replace(self, known: Self, now_ms: u64) -> bool {
        self >= known || (self.is_valid == known.is_valid && known.response_ms > now_ms)
    }
}

/// When an object is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Now.
    Now,
    /// When it is asked for once more, if ever.
    OnNextHit,
    /// Not at all.
    Never,
}

/// Judges an object that was stored, or that was asked for `hits` times since.
pub const fn judge_writing(
    body_bytes: u64,
    most_bytes: u64,
    hits: u64,
    useless_at_ms: u64,
    now_ms: u64,
) -> Writing {
    if body_bytes > most_bytes || useless_at_ms < now_ms.saturating_add(LEAST_USE_MS) {
        Writing::Never
    } else if body_bytes <= WRITTEN_AT_ONCE_BYTES || hits > 0 {
        Writing::Now
    } else {
        Writing::OnNextHit
    }
}

/// From when on the object answers no request and saves no body, Unix milliseconds. RFC 9111 §4.3: with a validator it is
/// of use after its expiry.
pub fn useless_at_ms(terms: &Terms, has_validator: bool) -> u64 {
    let expires_ms = terms.response_ms.saturating_add(terms.lifetime_ms.saturating_sub(terms.initial_age_ms));
    let stale_ms = if terms.forbids_stale {
        0
    } else {
        BRIDGE_MS.max(terms.stale_while_revalidate_ms).max(terms.stale_if_error_ms)
    };
    expires_ms.saturating_add(stale_ms.max(if has_validator { VALIDATOR_MS } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_fill_replaces_nothing_newer() {
        let check = |(is_valid, response_ms), (known_valid, known_ms), expected| {
            let (new, known) =
                (Rank { is_valid, response_ms }, Rank { is_valid: known_valid, response_ms: known_ms });
            assert_eq!(new.may_replace(known, 1000), expected, "{new:?} {known:?}");
        };
        for valid in [true, false] {
            check((valid, 900), (valid, 899), true);
            check((valid, 900), (valid, 900), true);
            check((valid, 900), (valid, 901), false);
            check((valid, 900), (valid, 1001), true);
        }
        check((false, 900), (true, 100), false);
        check((false, 900), (true, 1001), false);
        check((true, 100), (false, 900), true);
    }

    #[test]
    fn small_objects_are_written_at_once_and_large_ones_when_they_come_back() {
        let check = |body_bytes, hits, useless_at_ms, expected| {
            let writing = judge_writing(body_bytes, 1 << 20, hits, useless_at_ms, 1_000_000);
            assert_eq!(writing, expected, "{body_bytes} bytes, {hits} hits, until {useless_at_ms}");
        };
        let late = 9_000_000;
        check(0, 0, late, Writing::Now);
        check(65_536, 0, late, Writing::Now);
        check(65_537, 0, late, Writing::OnNextHit);
        check(65_537, 1, late, Writing::Now);
        check(1 << 20, 1, late, Writing::Now);
        check((1 << 20) + 1, 9, late, Writing::Never);
        check(0, 9, 1_009_999, Writing::Never);
        check(0, 0, 1_010_000, Writing::Now);
    }

    #[test]
    fn an_object_is_of_use_until_it_neither_answers_nor_is_validated() {
        let terms = Terms {
            response_ms: 1_000_000,
            lifetime_ms: 300_000,
            initial_age_ms: 100_000,
            ..Terms::default()
        };
        let check = |terms: Terms, has_validator, expected| {
            assert_eq!(useless_at_ms(&terms, has_validator), expected, "{terms:?}");
        };
        check(terms, false, 1_200_000 + BRIDGE_MS);
        check(Terms { forbids_stale: true, ..terms }, false, 1_200_000);
        check(Terms { forbids_stale: true, ..terms }, true, 1_200_000 + VALIDATOR_MS);
        check(Terms { stale_while_revalidate_ms: 70_000, ..terms }, false, 1_270_000);
        check(Terms { stale_if_error_ms: 90_000, ..terms }, false, 1_290_000);
        check(Terms { initial_age_ms: u64::MAX, ..terms }, false, 1_000_000 + BRIDGE_MS);
        check(Terms { lifetime_ms: u64::MAX, ..terms }, true, u64::MAX);
    }
}
