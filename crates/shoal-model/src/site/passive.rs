//! Ejection of endpoints by what traffic shows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::units::Period;

/// Ejection by what traffic shows; a local override on the node that saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PassiveHealth {
    /// Gateway errors (connect failure, reset, 502, 503, 504) in a row before ejection; default 5, 0 = never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_errors: Option<u32>,
    /// Answers with any 5xx, and gateway errors, in a row before ejection; default 0 = never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_5xx: Option<u32>,
    /// First ejection; the n-th in a row lasts n times as long; default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_ejection: Option<Period>,
    /// Longest ejection; default 300s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejection: Option<Period>,
    /// Never more than this share of an upstream; default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejected_percent: Option<u8>,
    /// Failures of which nothing came from the endpoint itself (connect failure, reset, time-out) in a row before
    /// ejection, whatever else it answered with a status; default 0 = counted as gateway errors only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_local_failures: Option<u32>,
    /// Eject those that succeed clearly less often than the others; absent = never, `{}` = with the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
}

/// Ejection of endpoints whose share of good answers (no 5xx, no failure) lies far below the mean of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// From one comparison to the next, each over the requests since the last; default 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Period>,
    /// Endpoints with enough requests, below which nothing is compared; default 5, at least 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_hosts: Option<u32>,
    /// Requests of an interval, below which an endpoint is not compared; default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_requests: Option<u32>,
    /// How many standard deviations below the mean an endpoint is ejected; default 1.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdev_factor: Option<f64>,
}

/// What is wrong with the settings at `path`.
pub(super) fn validate_passive(path: &str, passive: &PassiveHealth, problems: &mut Vec<Problem>) {
    let mut refuse =
        |field: &str, message: &str| problems.push(Problem::at(format!("{path}.{field}"), message));
    let Some(rate) = &passive.success_rate else { return };
    if rate.interval.is_some_and(|interval| interval.0.as_millis() < 100) {
        refuse("success_rate.interval", "must be at least 100ms");
    }
    if rate.min_hosts.is_some_and(|hosts| hosts < 2) {
        refuse("success_rate.min_hosts", "must be at least 2: one has nothing to be compared with");
    }
    if rate.min_requests == Some(0) {
        refuse("success_rate.min_requests", "must be at least 1");
    }
    if rate.stdev_factor.is_some_and(|factor| !(0.1..=10.0).contains(&factor)) {
        refuse("success_rate.stdev_factor", "must be 0.1 to 10");
    }
}
