//! Every endpoint, and who says what of it.

use shoal_proto::admin::{EndpointHealth, HealthOpinion, HealthResponse, NameFailure};

use super::table::Columns;
use super::units::span;
use crate::failure::one_line;
use crate::output::Style;

/// A row per opinion; the endpoint stands in the first of its rows.
pub fn health(response: &HealthResponse, style: Style) -> String {
    if response.endpoints.is_empty() {
        return "no endpoints\n".to_owned();
    }
    let mut columns = Columns::new(["UPSTREAM", "ENDPOINT", "IS", "NODE", "SAYS", "FROM", "SINCE", "WHY"]);
    for endpoint in &response.endpoints {
        let [upstream, address, availability] = endpoint_cells(endpoint);
        let mut opinions = endpoint.opinions.iter();
        let [node, says, source, since, why] = opinions.next().map_or_else(
            || {
                let why = if endpoint.checked { "no node has said anything yet" } else { "no active check" };
                ["", "", "", "", why].map(str::to_owned)
            },
            |opinion| opinion_cells(opinion, style),
        );
        columns.row([upstream, address, availability, node, says, source, since, why]);
        for opinion in opinions {
            let [node, says, source, since, why] = opinion_cells(opinion, style);
            // A blank instead of an empty cell: that would be shown as "-".
            columns.row([" ".into(), " ".into(), " ".into(), node, says, source, since, why]);
        }
    }
    let mut text = columns.text();
    for failure in &response.name_failures {
        text.push_str(&name_failure(failure, style));
    }
    text
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

    #[test]
    fn opinions_stand_under_their_endpoint() {
        let endpoint = |address: &str, availability: &str, opinions, checked| EndpointHealth {
            upstream: "shop".into(),
            endpoint: address.into(),
            availability: availability.into(),
            panic: false,
            opinions,
            checked,
        };
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
