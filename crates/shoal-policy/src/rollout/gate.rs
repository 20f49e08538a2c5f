//! Whether the nodes that try a revision fail more often than those that do not, in the same minutes.

/// Fewer requests on either side say nothing.
const LEAST_REQUESTS: u64 = 50;
/// A smaller difference of the shares is nobody's business, however certain.
const LEAST_DIFFERENCE: f64 = 0.01;
/// How many standard errors lie between the shares: by chance in one of 30,000 comparisons, of which there are many.
const LEAST_Z: f64 = 4.0;

/// Requests, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub requests: u64,
    /// Answered with a status from 500.
    pub errors: u64,
}

impl Counts {
    fn share(self) -> f64 {
        self.errors as f64 / self.requests as f64
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.errors += other.errors;
    }
}

/// Those that try it fail more often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worse {
    /// The share of failures of those that try it, percent.
    pub tried_percent: f64,
    /// Of the others.
    pub others_percent: f64,
}

/// A test of two proportions (pooled z-test). `None` = not worse, as far as can be told.
pub fn compare(tried: Counts, others: Counts) -> Option<Worse> {
    if tried.requests.min(others.requests) < LEAST_REQUESTS {
        return None;
    }
    let (p, q) = (tried.share(), others.share());
    let mut both = tried;
    both += others;
    let pooled = both.share();
    let error =
        (pooled * (1.0 - pooled) * (1.0 / tried.requests as f64 + 1.0 / others.requests as f64)).sqrt();
    let is_worse = p - q >= LEAST_DIFFERENCE && error > 0.0 && (p - q) / error >= LEAST_Z;
    is_worse.then_some(Worse { tried_percent: p * 100.0, others_percent: q * 100.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certain_difference_counts() {
        for (tried, others, expected) in [
            ((0, 0), (0, 0), false),
            ((49, 49), (1000, 0), false), // too few
            ((50, 50), (1000, 0), true),
            ((1000, 1000), (49, 0), false),  // nobody to compare with
            ((1000, 20), (10_000, 0), true), // 2 %
            ((100, 2), (1000, 0), true),     // z = 4.48
            ((100, 2), (100, 0), false),     // that happens
            ((1000, 20), (1000, 15), false),
            ((1000, 500), (1000, 500), false), // the endpoints are ill, on both sides
            ((1000, 0), (1000, 500), false),
            ((1_000_000, 5000), (1_000_000, 1000), false), // certain, but small
            ((1000, 1000), (1000, 1000), false),
        ] {
            let counts = |(requests, errors)| Counts { requests, errors };
            assert_eq!(compare(counts(tried), counts(others)).is_some(), expected, "{tried:?} {others:?}");
        }
        let worse = compare(Counts { requests: 200, errors: 50 }, Counts { requests: 400, errors: 2 });
        assert_eq!(worse, Some(Worse { tried_percent: 25.0, others_percent: 0.5 }));
    }
}
