//! How much repeating an upstream may cost: a fifth of its requests, and a few a second.

/// Retries earned by one request, in hundredths.
const EARNED_PER_REQUEST: u64 = 20;
/// Retries earned by one second, in hundredths.
const EARNED_PER_SECOND: u64 = 1000;
/// Most that can be saved up, in hundredths.
const MAX_SAVED: u64 = 10_000;

/// Keeps retries from multiplying the load of an upstream that is failing. Times are milliseconds of any clock that does
/// not go back.
#[derive(Clone, Copy, Debug)]
pub struct RetryBudget {
    hundredths: u64,
    at_ms: u64,
}

impl RetryBudget {
    /// A budget with one second's worth in it.
    pub const fn new(now_ms: u64) -> Self {
        Self { hundredths: EARNED_PER_SECOND, at_ms: now_ms }
    }

    /// A request came.
    pub fn earn(&mut self) {
        self.hundredths = (self.hundredths + EARNED_PER_REQUEST).min(MAX_SAVED);
    }

    /// Pays for one retry; `false` = there is nothing left.
    pub fn spend(&mut self, now_ms: u64) -> bool {
        let earned = now_ms.saturating_sub(self.at_ms).saturating_mul(EARNED_PER_SECOND) / 1000;
        self.at_ms = self.at_ms.max(now_ms);
        self.hundredths = self.hundredths.saturating_add(earned).min(MAX_SAVED);
        let affordable = self.hundredths >= 100;
        if affordable {
            self.hundredths -= 100;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_and_ten_a_second() {
        let mut budget = RetryBudget::new(0);
        let spend_all = |budget: &mut RetryBudget, now_ms| (0..1000).filter(|_| budget.spend(now_ms)).count();
        assert_eq!(spend_all(&mut budget, 0), 10, "what it starts with");
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spend_all(&mut budget, 0), 20, "a fifth of the requests");
        assert_eq!(spend_all(&mut budget, 500), 5, "ten a second");
        assert_eq!(spend_all(&mut budget, 1_000_000), 100, "savings are bounded");
    }
}
