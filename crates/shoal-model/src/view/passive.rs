//! Ejection by what traffic shows, with the defaults filled in.

use std::time::Duration;

use crate::site::{PassiveHealth, SuccessRate};
use crate::units::Period;

/// Compiled ejection by traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassiveView {
    /// Gateway errors in a row; 0 = never ejected.
    pub consecutive_errors: u32,
    /// Answers with any 5xx, and gateway errors, in a row; 0 = never ejected for them.
    pub consecutive_5xx: u32,
    /// First ejection.
    pub base_ejection: Duration,
    /// Longest ejection.
    pub max_ejection: Duration,
    /// Never more than this share of the upstream.
    pub max_ejected_percent: u8,
    /// Failures in a row of which nothing came from the endpoint itself; 0 = never ejected for them alone.
    pub consecutive_local_failures: u32,
    /// How endpoints are compared; `None` = they are not.
    pub success_rate: Option<SuccessRateView>,
}

/// When endpoints are ejected because they succeed less often than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRateView {
    /// From one comparison to the next.
    pub interval: Duration,
    /// Endpoints with enough requests, below which nothing is compared.
    pub min_hosts: u32,
    /// Requests, below which an endpoint is not compared.
    pub min_requests: u32,
    /// Standard deviations below the mean, in thousandths.
    pub stdev_permille: u32,
}

impl SuccessRateView {
    fn compile(rate: SuccessRate) -> Self {
        Self {
            interval: rate.interval.unwrap_or(Period::seconds(10)).0,
            min_hosts: rate.min_hosts.unwrap_or(5),
            min_requests: rate.min_requests.unwrap_or(100),
            stdev_permille: rate.stdev_factor.map_or(1900, |factor| (factor * 1000.0).round() as u32),
        }
    }
}

impl PassiveView {
    pub(super) fn compile(passive: Option<&PassiveHealth>) -> Self {
        let passive = passive.cloned().unwrap_or_default();
        Self {
            consecutive_errors: passive.consecutive_errors.unwrap_or(5),
            consecutive_5xx: passive.consecutive_5xx.unwrap_or(0),
            base_ejection: passive.base_ejection.unwrap_or(Period::seconds(30)).0,
            max_ejection: passive.max_ejection.unwrap_or(Period::seconds(300)).0,
            max_ejected_percent: passive.max_ejected_percent.unwrap_or(50),
            consecutive_local_failures: passive.consecutive_local_failures.unwrap_or(0),
            success_rate: passive.success_rate.map(SuccessRateView::compile),
        }
    }
}
