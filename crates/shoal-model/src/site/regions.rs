//! What an upstream says of regions must fit together.

use super::{Problem, Upstream};

/// Most regions that an upstream may name: what a node tells apart besides its own.
const MAX_REGIONS: usize = 7;
/// Stands for every further region.
const ANY: &str = "*";

pub(super) fn validate_regions(path: &str, upstream: &Upstream, problems: &mut Vec<Problem>) {
    let endpoints = || upstream.endpoints.iter().enumerate();
    for (n, endpoint) in endpoints() {
        if endpoint.region.as_deref().is_some_and(|region| region.is_empty() || region == ANY) {
            let message = "must be the name of one region";
            problems.push(Problem::at(format!("{path}.endpoints[{n}].region"), message));
        }
        if endpoint.capacity == Some(0) {
            let message = "must be at least 1; `drain: true` keeps requests away";
            problems.push(Problem::at(format!("{path}.endpoints[{n}].capacity"), message));
        }
    }
    let rated = |(_, endpoint): &(usize, &super::Endpoint)| endpoint.capacity.is_some();
    if let (Some(_), Some((n, _))) = (endpoints().find(rated), endpoints().find(|endpoint| !rated(endpoint)))
    {
        let message = "needs a `capacity`, as others of this upstream have one";
        problems.push(Problem::at(format!("{path}.endpoints[{n}]"), message));
    }
    if upstream.failover.len() > MAX_REGIONS {
        let message = format!("at most {MAX_REGIONS} regions can stand in");
        problems.push(Problem::at(format!("{path}.failover"), message));
    }
    for (n, region) in upstream.failover.iter().enumerate() {
        let message = if upstream.failover[..n].contains(region) {
            format!("{region:?} is named twice")
        } else if region == ANY {
            match n + 1 == upstream.failover.len() {
                true => continue,
                false => "`*` goes last: it means all further regions".to_owned(),
            }
        } else if endpoints().any(|(_, endpoint)| endpoint.region.as_ref() == Some(region)) {
            continue;
        } else {
            format!("no endpoint stands in region {region:?}")
        };
        problems.push(Problem::at(format!("{path}.failover[{n}]"), message));
    }
}

#[cfg(test)]
mod tests {
    use crate::site::{parse_site, validate};

    #[test]
    fn regions_and_capacities_fit_together() {
        let check = |upstream: &str, expected: &str| {
            let text = format!("upstreams:\n  u: {{ {upstream} }}\nroutes: {{ r: {{ upstream: u }} }}\n");
            let problems = validate(&parse_site("site.yaml", &text).unwrap());
            let found = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            match expected.is_empty() {
                true => assert_eq!(found, "", "{upstream}"),
                false => assert!(found.contains(expected), "{upstream}: {found}"),
            }
        };
        let two = |first: &str, second: &str, more: &str| {
            format!("endpoints: [{{ address: \"a:1\"{first} }}, {{ address: \"b:1\"{second} }}]{more}")
        };
        check(&two(", region: eu", ", region: us", ", failover: [eu, us]"), "");
        check(&two(", region: eu", ", region: us", ", failover: [\"*\"]"), "");
        check(&two("", ", region: us", ", failover: [us]"), "");
        check(&two(", region: eu", ", region: us", ", failover: [asia]"), "no endpoint stands in");
        check(&two(", region: eu", ", region: us", ", failover: [us, us]"), "named twice");
        check(&two(", region: eu", ", region: us", ", failover: [\"*\", us]"), "goes last");
        check(&two(", region: \"\"", "", ""), "the name of one region");
        check(&two(", capacity: 10", ", capacity: 20", ""), "");
        check(&two(", capacity: 10", "", ""), "needs a `capacity`");
        check(&two(", capacity: 0", ", capacity: 1", ""), "at least 1");
    }
}
