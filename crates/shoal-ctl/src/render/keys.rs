//! The cluster's own certificates and keys.

use std::fmt::Write as _;

use shoal_model::units::Period;
use shoal_proto::admin::{KeysResponse, NodeCertificate};

use super::table::Columns;
use super::units::{date, days_left, moment, span};
use crate::failure::one_line;
use crate::output::Style;

/// Hex digits of an authority's hash that are shown: enough to tell two apart.
const SHOWN_DIGITS: usize = 12;

/// The authority, each node's certificate, and what seals the gossip.
pub fn keys(response: &KeysResponse, style: Style) -> String {
    let sha256 = shortened(&response.authority_sha256);
    let ends = response.authority_not_after_unix;
    let mut text = format!("authority {sha256}, good until {} ({})\n", date(ends), days_left(ends, style));
    text.push_str(&succession(response));
    let life = Period::seconds(response.node_seconds.into());
    let _ = writeln!(text, "certificates of nodes last {life}, and are renewed after 50 to 80 % of that");
    let _ = writeln!(text, "{}\n", gossip_key(response));
    let mut columns = Columns::new(["NODE", "ID", "SINCE", "ENDS", "AUTHORITY"]);
    for node in &response.nodes {
        let left = u64::try_from(node.not_after_unix).unwrap_or_default().saturating_sub(style.now);
        let (since, ends) = match (node.reported, left) {
            (false, _) => (String::new(), "not told".to_owned()),
            (true, 0) => (moment(node.given_at_unix), "has ended".to_owned()),
            (true, left) => (moment(node.given_at_unix), format!("in {}", span(left))),
        };
        let authority = match node.reported {
            true => shortened(&node.authority_sha256),
            false => String::new(),
        };
        columns.row([node.node.clone(), format!("n{}", node.node_id), since, ends, authority]);
    }
    text + &columns.text()
}

fn shortened(sha256: &str) -> String {
    one_line(sha256).chars().take(SHOWN_DIGITS).chain(['…']).collect()
}

/// Who is left to do what while there are two authorities.
fn succession(response: &KeysResponse) -> String {
    if response.other_authority_sha256.is_empty() {
        return String::new();
    }
    let other = shortened(&response.other_authority_sha256);
    let named = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let nodes = |is_left: &dyn Fn(&NodeCertificate) -> bool| {
        named(response.nodes.iter().filter(|node| is_left(node)).map(|node| one_line(&node.node)).collect())
    };
    if !response.has_switched {
        let left = nodes(&|node| !node.believes_other);
        return format!(
            "authority {other} is to follow; it signs once every node that is heard believes it; left: {left}\n"
        );
    }
    let left = nodes(&|node| node.authority_sha256 != response.authority_sha256);
    let operators = named(response.operators_before.iter().map(|name| one_line(name)).collect());
    let tokens = match &*response.tokens_before {
        [] => String::new(),
        ids => format!(
            "; and good until then: tokens for nodes: {}",
            ids.iter().map(|id| one_line(id)).collect::<Vec<_>>().join(", ")
        ),
    };
    format!(
        "authority {other} was before, and is believed until: shoal cluster rotate ca --retire\n\
         still with certificates of it: nodes: {left}; operators: {operators}{tokens}\n"
    )
}

fn gossip_key(response: &KeysResponse) -> String {
    let made = match response.gossip_key {
        0 => "the gossip is sealed with a key as old as the cluster".to_owned(),
        id => {
            format!("the gossip is sealed with key {id}, made {}", moment(response.gossip_key_made_at_unix))
        }
    };
    match response.next_gossip_key {
        0 => made,
        next => format!("{made}; key {next} is used once every node that is heard knows it"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_golden;
    use super::*;

    const NOW: u64 = 1_760_000_000;

    #[test]
    fn each_node_has_its_certificate() {
        let node = |node_id, reported, left: i64| NodeCertificate {
            node_id,
            node: format!("node{node_id}"),
            reported,
            given_at_unix: if reported { NOW as i64 - 3_600 } else { 0 },
            not_after_unix: if reported { NOW as i64 + left } else { 0 },
            authority_sha256: if reported { "0123456789abcdef".repeat(4) } else { String::new() },
            believes_other: node_id == 1,
        };
        let response = KeysResponse {
            authority_sha256: "0123456789abcdef".repeat(4),
            authority_not_after_unix: NOW as i64 + 3_000 * 86_400,
            node_seconds: 7 * 86_400,
            gossip_key: 70,
            gossip_key_made_at_unix: NOW as i64 - 7_200,
            next_gossip_key: 0,
            other_authority_sha256: String::new(),
            has_switched: false,
            operators_before: Vec::new(),
            tokens_before: Vec::new(),
            nodes: vec![node(1, true, 6 * 86_400 + 82_800), node(2, false, 0), node(9, true, -5)],
        };
        let waiting = KeysResponse { gossip_key: 0, next_gossip_key: 70, ..KeysResponse::default() };
        assert_eq!(
            gossip_key(&waiting),
            "the gossip is sealed with a key as old as the cluster; key 70 is used once every node that is heard knows it"
        );
        let style = Style { colour: false, now: NOW };
        let spreading = KeysResponse { other_authority_sha256: "fedc".repeat(16), ..response.clone() };
        check_golden("keys_spreading", &keys(&spreading, style));
        let operators_before = vec!["ada".to_owned(), "admin".to_owned()];
        let switched = KeysResponse { has_switched: true, operators_before, ..spreading };
        check_golden("keys_switched", &keys(&switched, style));
        let named = KeysResponse { tokens_before: vec!["710a".into(), "e934".into()], ..switched };
        assert!(
            succession(&named)
                .ends_with("operators: ada, admin; and good until then: tokens for nodes: 710a, e934\n")
        );
        check_golden("keys", &keys(&response, Style { colour: false, now: NOW }));
    }
}
