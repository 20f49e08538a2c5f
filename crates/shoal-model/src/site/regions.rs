//! What an upstream says of regions must fit together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Problem, Site, Upstream, step};

/// Most regions that an upstream may name: what a node tells apart besides its own.
const MAX_REGIONS: usize = 7;
/// Stands for every further region.
const ANY: &str = "*";

/// When what has left a region comes back to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Failback {
    /// Once the region could have carried everything for 60 s: by 10 % of the requests in 10 s.
    #[default]
    Automatic,
    /// Not before the site says `automatic`.
    Manual,
}

/// Upstreams with `failover` whose endpoints have no `capacity`: nobody knows there how much another region can take.
pub fn boundless_failover(site: &Site) -> impl Iterator<Item = &str> {
    let is_boundless = |upstream: &Upstream| {
        !upstream.failover.is_empty() && upstream.endpoints.iter().any(|endpoint| endpoint.capacity.is_none())
    };
    site.upstreams.iter().filter(move |(_, upstream)| is_boundless(upstream)).map(|(name, _)| name.as_str())
}

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
    validate_shield(path, upstream, problems);
    if upstream.failback.is_some() && upstream.failover.is_empty() {
        let message = "without `failover` nothing leaves the region, and nothing comes back";
        problems.push(Problem::at(format!("{path}.failback"), message));
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

/// Nodes of the shield region ask the endpoints for everybody: they need some that they may use.
fn validate_shield(path: &str, upstream: &Upstream, problems: &mut Vec<Problem>) {
    let Some(shield) = upstream.shield.as_deref() else { return };
    let path = format!("{path}.shield");
    if shield.is_empty() || shield == ANY {
        problems.push(Problem::at(path, "must be the name of one region"));
        return;
    }
    let is_used = |region: &str| {
        region == shield || upstream.failover.iter().any(|other| other == region || other == ANY)
    };
    let may_use = upstream.endpoints.iter().any(|endpoint| endpoint.region.as_deref().is_none_or(is_used));
    if !may_use {
        let message =
            format!("no endpoint stands in region {shield:?}, and no region of `failover` stands in for it");
        problems.push(Problem::at(path, message));
    }
}

/// Upstreams with a `shield` that no route with a cache leads to: nobody asks there on behalf of others.
pub(super) fn validate_shields(site: &Site, problems: &mut Vec<Problem>) {
    for (name, _) in site.upstreams.iter().filter(|(_, upstream)| upstream.shield.is_some()) {
        if !site.routes.values().any(|route| route.upstream == *name && route.cache.is_some()) {
            let path = format!("upstreams.{}.shield", step(name));
            problems.push(Problem::no_effect(path, "no route with a `cache` leads to this upstream"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::boundless_failover;
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
        check(&two("", ", region: us", ", failover: [us], failback: manual"), "");
        check(&two("", ", region: us", ", failback: manual"), "nothing comes back");
        check(&two(", region: eu", ", region: us", ", failover: [asia]"), "no endpoint stands in");
        check(&two(", region: eu", ", region: us", ", failover: [us, us]"), "named twice");
        check(&two(", region: eu", ", region: us", ", failover: [\"*\", us]"), "goes last");
        check(&two(", region: \"\"", "", ""), "the name of one region");
        check(&two(", capacity: 10", ", capacity: 20", ""), "");
        check(&two(", capacity: 10", "", ""), "needs a `capacity`");
        check(
            &two(", region: eu", ", region: us", ", shield: asia"),
            "no endpoint stands in region \"asia\"",
        );
        check(&two(", region: eu", ", region: us", ", shield: \"*\""), "the name of one region");
        check(&two(", region: eu", ", region: us", ", shield: eu"), "no route with a `cache`");
        check(&two(", capacity: 0", ", capacity: 1", ""), "at least 1");
    }

    #[test]
    fn a_shield_has_endpoints_and_something_to_do() {
        let check = |upstream: &str, expected: &str| {
            let text = format!(
                "upstreams:\n  u: {{ {upstream} }}\nroutes: {{ r: {{ upstream: u, cache: {{}} }} }}\n"
            );
            let problems = validate(&parse_site("site.yaml", &text).unwrap());
            let found = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            assert_eq!(expected.is_empty(), found.is_empty(), "{upstream}: {found}");
            assert!(found.contains(expected), "{upstream}: {found}");
        };
        check("endpoints: [\"a:1\"], shield: eu", "");
        check("endpoints: [{ address: \"a:1\", region: eu }], shield: eu", "");
        check(
            "endpoints: [{ address: \"a:1\", region: us }], shield: eu",
            "no endpoint stands in region \"eu\"",
        );
        check("endpoints: [{ address: \"a:1\", region: us }], failover: [us], shield: eu", "");
        check("endpoints: [\"a:1\"], shield: \"\"", "the name of one region");
        check("endpoints: [\"a:1\"], max_fills: 0", "at least 1");
    }

    #[test]
    fn failover_without_capacities_is_noticed() {
        let check = |upstream: &str, expected: &[&str]| {
            let text = format!("upstreams:\n  u: {{ {upstream} }}\n");
            let site = parse_site("site.yaml", &text).unwrap();
            assert_eq!(boundless_failover(&site).collect::<Vec<_>>(), expected, "{upstream}");
        };
        check("endpoints: [{ address: \"a:1\", region: us }]", &[]);
        check("endpoints: [{ address: \"a:1\", region: us }], failover: [us]", &["u"]);
        check("endpoints: [{ address: \"a:1\", region: us, capacity: 9 }], failover: [us]", &[]);
    }
}
