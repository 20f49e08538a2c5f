//! Which endpoints succeed clearly less often than the others (Envoy's success-rate outliers).

use shoal_model::view::SuccessRateView;

/// Rates closer than this are equal: sums of fractions are not exact.
const NEGLIGIBLE: f64 = 1e-9;

/// How the requests of an interval ended at one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub requests: u32,
    /// Those without a 5xx or a failure.
    pub successes: u32,
}

impl Tally {
    fn rate(self) -> f64 {
        f64::from(self.successes) / f64::from(self.requests.max(1))
    }
}

/// Places of the endpoints whose rate of success lies so many standard deviations below the mean as `rule` says, the worst
/// first. Only endpoints with enough requests are compared, and only if there are enough of those.
pub fn outliers(tallies: &[Tally], rule: &SuccessRateView) -> Vec<usize> {
    let compared: Vec<(usize, f64)> = tallies
        .iter()
        .enumerate()
        .filter(|(_, tally)| tally.requests >= rule.min_requests.max(1))
        .map(|(place, tally)| (place, tally.rate()))
        .collect();
    if compared.len() < rule.min_hosts as usize {
        return Vec::new();
    }
    let count = compared.len() as f64;
    let mean = compared.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = compared.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    let least = mean - variance.sqrt() * f64::from(rule.stdev_permille) / 1000.0 - NEGLIGIBLE;
    let mut out: Vec<(usize, f64)> = compared.into_iter().filter(|(_, rate)| *rate < least).collect();
    out.sort_by(|(_, left), (_, right)| left.total_cmp(right));
    out.into_iter().map(|(place, _)| place).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn those_far_below_the_mean_are_outliers() {
        let check = |tallies: &[(u32, u32)], stdev_permille, expected: &[usize]| {
            let rule = SuccessRateView {
                interval: Duration::from_secs(10),
                min_hosts: 3,
                min_requests: 10,
                stdev_permille,
            };
            let tallies: Vec<Tally> =
                tallies.iter().map(|&(successes, requests)| Tally { requests, successes }).collect();
            assert_eq!(outliers(&tallies, &rule), expected, "{tallies:?}");
        };
        check(&[], 1000, &[]);
        check(&[(100, 100); 5], 1000, &[]);
        check(&[(0, 100); 5], 1000, &[]);
        check(&[(70, 100); 7], 100, &[]);
        check(&[(100, 100), (100, 100), (50, 100), (100, 100)], 1000, &[2]);
        // By how much is not asked, only whether it stands out; the factor says how clearly it must.
        check(&[(100, 100), (100, 100), (99, 100), (100, 100)], 1000, &[2]);
        check(&[(100, 100), (100, 100), (0, 100), (100, 100)], 1900, &[]);
        check(&[(100, 100), (100, 100), (0, 100), (100, 100), (100, 100)], 1900, &[2]);
        // The worst first.
        check(&[(50, 100), (10, 100), (100, 100), (100, 100), (100, 100), (100, 100)], 500, &[1, 0]);
        // Too few requests, or too few endpoints with enough of them.
        check(&[(100, 100), (100, 100), (0, 9), (100, 100)], 1000, &[]);
        check(&[(100, 100), (0, 100), (9, 9), (9, 9)], 500, &[]);
    }
}
