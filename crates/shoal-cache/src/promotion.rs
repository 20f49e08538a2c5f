//! Copies of objects that other nodes own: kept for a while when they are in much use, so that their owners need not give
//! them again and again. Purges find them as they find everything, by what had been applied when they were filled.

use std::sync::{Arc, Mutex, PoisonError};

use shoal_policy::cache::heat::{Asked, HOT_FOR_MS};
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::storage::Terms;

use crate::hot::{HotBudget, Share};

/// What this node keeps of objects that it does not own.
pub(crate) struct Promotions {
    budget: Arc<HotBudget>,
    asked: Mutex<Asked>,
}

/// A copy that is kept.
pub(crate) struct Promotion {
    /// Its part of the memory for such copies.
    pub(crate) share: Share,
    /// Until then it is used without asking its owner, Unix milliseconds.
    until_ms: u64,
}

impl Promotions {
    pub(crate) fn new(most_bytes: u64) -> Self {
        Self { budget: Arc::new(HotBudget::new(most_bytes)), asked: Mutex::default() }
    }

    /// A peer has given an object of so many bytes: `None` = it is not kept. `hot_ms`: the peer wants it kept for so long.
    pub(crate) fn consider(
        &self,
        key: ObjectKey,
        bytes: u64,
        hot_ms: Option<u64>,
        now_ms: u64,
    ) -> Option<Promotion> {
        let is_asked_again = self.asked.lock().unwrap_or_else(PoisonError::into_inner).again(key.0, now_ms);
        let for_ms = hot_ms.or(is_asked_again.then_some(HOT_FOR_MS))?;
        let share = self.budget.take(bytes)?;
        Some(Promotion { share, until_ms: now_ms.saturating_add(for_ms.min(HOT_FOR_MS)) })
    }
}

impl Promotion {
    /// The terms of the copy: those of the object, as long as it is kept.
    pub(crate) fn limit(&self, terms: Terms) -> Terms {
        let most_ms = terms.age_ms(self.until_ms);
        Terms { lifetime_ms: terms.lifetime_ms.min(most_ms), stale_while_revalidate_ms: 0, ..terms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_kept_when_told_or_asked_for_twice_within_the_budget() {
        let promotions = Promotions::new(1000);
        let check = |key, bytes, hot_ms, now_ms, expected: Option<u64>| {
            let promotion = promotions.consider(ObjectKey(key), bytes, hot_ms, now_ms);
            assert_eq!(
                promotion.as_ref().map(|it| it.until_ms),
                expected,
                "{key} {bytes} {hot_ms:?} {now_ms}"
            );
            promotion
        };
        check(1, 600, None, 5, None);
        let kept = check(1, 600, None, 6, Some(60_006));
        check(2 << 64, 600, Some(1000), 7, None);
        drop(kept);
        check(2 << 64, 600, Some(1000), 7, Some(1007));
        check(3 << 64, 600, Some(u64::MAX), 8, Some(60_008));
    }

    #[test]
    fn a_copy_is_no_longer_fresh_than_it_is_kept() {
        let promotion = Promotions::new(9).consider(ObjectKey(1), 1, Some(5_000), 100_000).unwrap();
        let terms = Terms {
            lifetime_ms: 60_000,
            initial_age_ms: 2_000,
            response_ms: 90_000,
            stale_while_revalidate_ms: 9,
            ..Terms::default()
        };
        let limited = promotion.limit(terms);
        assert_eq!(limited.time_left_ms(100_000), 5_000);
        assert_eq!(limited.stale_while_revalidate_ms, 0);
        let short = Terms { lifetime_ms: 14_000, ..terms };
        assert_eq!(promotion.limit(short).time_left_ms(100_000), 2_000);
    }
}
