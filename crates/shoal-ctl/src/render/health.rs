//! Every endpoint, and who says what of it.

use shoal_proto::admin::{EndpointHealth, HealthOpinion, HealthResponse, NameFailure, RegionHealth};

use super::table::Columns;
use super::units::span;
use crate::failure::one_line;
use crate::output::Style;

/// A row per opinion; the endpoint stands in the first of its rows, each region, where there are several, in its first one.
pub fn health(response: &HealthResponse, style: Style) -> String {
    if response.endpoints.is_empty() {
        return "no endpoints\n".to_owned();
    }
    let are_many = response.endpoints.iter().any(|endpoint| !endpoint.regions.is_empty());
    let mut columns = match are_many {
        true => {
            Columns::new(["UPSTREAM", "ENDPOINT", "IS", "REGION", "NODE", "SAYS", "FROM", "SINCE", "WHY"])
        }
        false => Columns::new(["UPSTREAM", "ENDPOINT", "IS", "NODE", "SAYS", "FROM", "SINCE", "WHY"]),
    };
    for endpoint in &response.endpoints {
        let mut about = Some(endpoint_cells(endpoint));
        for (region, words) in regions(endpoint, style) {
            let mut region = Some([region]);
            for [node, says, source, since, why] in words {
                let [upstream, address, is] = about.take().unwrap_or_else(blanks);
                let [region] = region.take().unwrap_or_else(blanks);
                match are_many {
                    true => columns.row([upstream, address, is, region, node, says, source, since, why]),
                    false => columns.row([upstream, address, is, node, says, source, since, why]),
                }
            }
        }
    }
    let mut text = columns.text();
    for failure in &response.name_failures {
        text.push_str(&name_failure(failure, style));
    }
    text
}

/// Each region, that of the node that was asked first, with the cells of those who are named there.
fn regions(endpoint: &EndpointHealth, style: Style) -> Vec<(String, Vec<[String; 5]>)> {
    let cells = |opinion: &HealthOpinion| opinion_cells(opinion, style);
    let mut here: Vec<_> = endpoint.opinions.iter().map(cells).collect();
    if here.is_empty() {
        let why = if endpoint.checked { "no node has said anything yet" } else { "no active check" };
        here.push(["", "", "", "", why].map(str::to_owned));
    }
    let mut regions = endpoint.regions.iter();
    let mut all = vec![(regions.next().map(region_cell).unwrap_or_default(), here)];
    for region in regions {
        let mut exceptions: Vec<_> = region.exceptions.iter().map(cells).collect();
        if exceptions.is_empty() {
            exceptions.push(blanks());
        }
        all.push((region_cell(region), exceptions));
    }
    all
}

fn region_cell(region: &RegionHealth) -> String {
    let RegionHealth { region, availability, checkers, agreeing, .. } = region;
    format!("{region} {availability} ({agreeing}/{checkers})")
}

/// Blanks instead of empty cells: those would be shown as "-".
fn blanks<const N: usize>() -> [String; N] {
    std::array::from_fn(|_| " ".to_owned())
}

/// A line about a name that cannot be looked up.
pub(super) fn name_failure(failure: &NameFailure, style: Style) -> String {
    let since = span(style.now.saturating_sub(failure.since_unix));
    let kept = match failure.kept {
        0 => "nothing is sent there".to_owned(),
        1 => "its last good address stays in use".to_owned(),
        kept => format!("its last {kept} good addresses stay in use"),
    };
    let (upstream, endpoint, why) = (&failure.upstream, &failure.endpoint, &failure.why);
    let [upstream, endpoint, why] = [upstream, endpoint, why].map(|text| one_line(text));
    format!("warning: upstream {upstream}: {endpoint} cannot be looked up for {since} ({why}); {kept}\n")
}

fn endpoint_cells(endpoint: &EndpointHealth) -> [String; 3] {
    let panic = if endpoint.panic { " (panic: used anyway)" } else { "" };
    let is_told = |opinion: &HealthOpinion| opinion.says != "checking";
    let is = match endpoint.availability.as_str() {
        "ejected" => "ejected here",
        "up" | "unknown" if !endpoint.checked && endpoint.opinions.is_empty() => "unchecked",
        "up" | "unknown" if endpoint.checked && !endpoint.opinions.iter().any(is_told) => "checking",
        availability => availability,
    };
    [endpoint.upstream.clone(), endpoint.endpoint.clone(), format!("{is}{panic}")]
}

fn opinion_cells(opinion: &HealthOpinion, style: Style) -> [String; 5] {
    let since = match opinion.since_unix {
        0 => String::new(),
        since => format!("{} ago", span(style.now.saturating_sub(since))),
    };
    [opinion.node.clone(), opinion.says.clone(), opinion.source.clone(), since, opinion.reason.clone()]
}

#[cfg(test)]
mod tests {
    use super::super::check_golden;
    use super::*;

    fn opinion(node: &str, says: &str, since_unix: u64, reason: &str, source: &str) -> HealthOpinion {
        let [node, says, reason, source] = [node, says, reason, source].map(str::to_owned);
        HealthOpinion { node_id: 1, node, says, since_unix, reason, source }
    }

    fn endpoint(
        address: &str,
        availability: &str,
        opinions: Vec<HealthOpinion>,
        checked: bool,
    ) -> EndpointHealth {
        EndpointHealth {
            upstream: "shop".into(),
            endpoint: address.into(),
            availability: availability.into(),
            opinions,
            checked,
            ..EndpointHealth::default()
        }
    }

    fn region(
        name: &str,
        availability: &str,
        [agreeing, checkers]: [u32; 2],
        exceptions: Vec<HealthOpinion>,
    ) -> RegionHealth {
        let [region, availability] = [name, availability].map(str::to_owned);
        RegionHealth { region, availability, checkers, agreeing, exceptions }
    }

    #[test]
    fn regions_stand_under_their_endpoint() {
        let says = |node: &str, says: &str| opinion(node, says, 0, "", "check");
        let refused = |node: &str| opinion(node, "down", 988, "connection refused", "check");
        let response = HealthResponse {
            endpoints: vec![
                EndpointHealth {
                    regions: vec![region("eu-1", "up", [2, 2], vec![]), region("us-1", "up", [3, 3], vec![])],
                    ..endpoint("10.0.0.1:9000", "up", vec![says("node1", "up"), says("node2", "up")], true)
                },
                EndpointHealth {
                    regions: vec![
                        region("eu-1", "down", [2, 2], vec![refused("node1"), refused("node2")]),
                        region("ap-1", "unknown", [0, 0], vec![]),
                        region("us-1", "up", [2, 3], vec![refused("node5")]),
                    ],
                    ..endpoint("10.0.0.2:9000", "down", vec![refused("node1"), refused("node2")], true)
                },
                endpoint("10.0.0.3:9000", "up", vec![], false),
            ],
            name_failures: vec![],
        };
        check_golden("health_of_regions", &health(&response, Style { colour: false, now: 1000 }));
    }

    #[test]
    fn opinions_stand_under_their_endpoint() {
        let mut response = HealthResponse {
            endpoints: vec![
                endpoint("10.0.0.1:9000", "up", vec![opinion("node1", "up", 940, "", "check")], true),
                endpoint(
                    "10.0.0.2:9000",
                    "down",
                    vec![
                        opinion("node1", "down", 988, "connect refused", "check"),
                        opinion("node2", "down", 990, "timeout after 2s", "check"),
                        opinion("node3", "ejected", 980, "5 gateway errors in a row", "traffic"),
                    ],
                    true,
                ),
                endpoint("10.0.0.3:9000", "up", vec![], false),
                endpoint("10.0.0.4:9000", "up", vec![opinion("node1", "checking", 0, "", "check")], true),
            ],
            name_failures: vec![NameFailure {
                upstream: "shop".into(),
                endpoint: "srv:_http._tcp.shop.internal".into(),
                why: "no answer in time".into(),
                since_unix: 880,
                kept: 3,
            }],
        };
        response.endpoints[1].panic = true;
        check_golden("health", &health(&response, Style { colour: false, now: 1000 }));
        assert_eq!(health(&HealthResponse::default(), Style { colour: false, now: 0 }), "no endpoints\n");
    }
}
