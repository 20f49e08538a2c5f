//! Quantiles of what was only counted by bounds: the bound is what is known.

use std::collections::BTreeMap;

use shoal_proto::admin::DurationBucket;

/// The bound of a bucket, µs; that without one lies beyond all others.
pub(super) fn bound(bucket: &DurationBucket) -> u64 {
    if bucket.at_most_us == 0 { u64::MAX } else { bucket.at_most_us }
}

/// The bound below which this share of them lies, milliseconds; infinite beyond the last one. `None` = there are none.
pub(super) fn quantile_ms(by_bound: &BTreeMap<u64, u64>, share: f64) -> Option<f64> {
    let all: u64 = by_bound.values().sum();
    let wanted = (all as f64 * share).ceil().max(1.0) as u64;
    let mut below = 0;
    let bound = by_bound.iter().find_map(|(bound, requests)| {
        below += requests;
        (below >= wanted).then_some(*bound)
    })?;
    Some(if bound == u64::MAX { f64::INFINITY } else { bound as f64 / 1000.0 })
}

/// The same in few characters.
pub(super) fn latency(at_most_ms: Option<f64>) -> String {
    match at_most_ms {
        None => String::new(),
        Some(ms) if ms.is_infinite() => ">10s".to_owned(),
        Some(ms) if ms >= 1000.0 => format!("<{}s", ms / 1000.0),
        Some(ms) => format!("<{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds() {
        let check = |durations: &[(u64, u64)], share: f64, expected: Option<f64>| {
            let by_bound = durations.iter().copied().collect();
            assert_eq!(quantile_ms(&by_bound, share), expected, "{durations:?}");
        };
        check(&[], 0.5, None);
        check(&[(500, 0)], 0.5, None);
        check(&[(500, 1)], 0.99, Some(0.5));
        check(&[(500, 99), (1000, 1)], 0.99, Some(0.5));
        check(&[(500, 98), (1000, 2)], 0.99, Some(1.0));
        check(&[(500, 1), (u64::MAX, 9)], 0.5, Some(f64::INFINITY));
    }
}
