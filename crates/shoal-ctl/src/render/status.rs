//! The cluster on one screen.

use std::fmt::Write as _;

use shoal_proto::admin::{CertificateStatus, NodeStatus, StatusResponse, UpstreamStatus};

use super::cache::hit_ratio;
use super::health::name_failure;
use super::node::way_out;
use super::rollout::unconfirmed;
use super::staleness::warning;
use super::table::Columns;
use super::units::{bytes, date, days_left, days_until, span};
use crate::failure::one_line;
use crate::output::Style;

/// Days before a certificate's end from which it is warned of.
const EXPIRY_WARNING_DAYS: i64 = 14;
/// The same for the operator's own, which nobody else renews.
const OWN_EXPIRY_WARNING_DAYS: i64 = 30;
/// Most names of a certificate that are shown.
const MAX_NAMES: usize = 3;
/// Most upstreams that are listed.
const MAX_UPSTREAMS: usize = 16;

/// Cluster, nodes, upstreams, certificates; then everything that needs somebody. `identity_not_after`: when the operator's
/// own certificate expires, in Unix seconds.
pub fn status(response: &StatusResponse, identity_not_after: Option<i64>, style: Style) -> String {
    let leader = response.nodes.iter().find(|node| node.node_id == response.leader_id);
    let leader = match (leader, response.leader_id) {
        (Some(node), _) => one_line(&node.node),
        (None, 0) => "none".to_owned(),
        (None, id) => format!("the node with id n{id}"),
    };
    let quorum = if response.quorum { "yes" } else { "NO" };
    let mut text = format!(
        "cluster {}   revision {}   leader {leader} (term {})   quorum {quorum}   asked {}\n",
        one_line(&response.cluster_id),
        response.revision,
        response.term,
        one_line(&response.node),
    );
    let sections = [
        node_load(response),
        upstreams(response),
        certificates(&response.certificates, style),
        warnings(response, style) + &identity_warning(identity_not_after, style),
    ];
    for section in sections.into_iter().filter(|section| !section.is_empty()) {
        let _ = write!(text, "\n{section}");
    }
    text
}

/// Where the nodes are and which part they play; then what to do about those that are not there.
pub fn nodes(nodes: &[NodeStatus]) -> String {
    let mut columns = Columns::new([
        "NODE", "ID", "ROLE", "STATE", "REGION", "ZONE", "CLUSTER", "ADMIN", "REVISION", "VERSION",
    ]);
    for node in nodes {
        let revision = if node.reported { node.active_revision.to_string() } else { String::new() };
        columns.row([
            node.node.clone(),
            format!("n{}", node.node_id),
            role(node),
            state(node),
            node.region.clone(),
            node.zone.clone(),
            node.cluster_addr.clone(),
            node.admin_addr.clone(),
            revision,
            node.version.clone(),
        ]);
    }
    let missing: String = nodes.iter().filter_map(absence).map(|absence| absence + "\n").collect();
    let gap = if missing.is_empty() { "" } else { "\n" };
    columns.text() + gap + &missing
}

/// Of a node that is neither heard nor has left on purpose.
fn absence(node: &NodeStatus) -> Option<String> {
    let is_missing = matches!(node.state.as_str(), "dead" | "unknown");
    is_missing.then(|| format!("{} is {}; {}", one_line(&node.node), node.state, way_out(&node.node)))
}

/// Which part a node has in decisions, and whether operators do not let it vote.
pub(super) fn role(node: &NodeStatus) -> String {
    match node.may_vote {
        Some(false) => format!("{}, may not vote", node.role),
        Some(true) | None => node.role.clone(),
    }
}

/// What a node is doing, and what operators want of it where that does not show.
pub(super) fn state(node: &NodeStatus) -> String {
    let shows = matches!(node.state.as_str(), "cordoned" | "draining" | "drained");
    match node.standing.as_str() {
        "" => node.state.clone(),
        _ if shows => node.state.clone(),
        standing => format!("{}, {standing}", node.state),
    }
}

fn node_load(response: &StatusResponse) -> String {
    let mut columns = Columns::new([
        "NODE", "ROLE", "STATE", "REVISION", "REQUESTS", "OPEN", "CACHED", "MEMORY", "HITS", "UPTIME",
    ]);
    for node in &response.nodes {
        let mut cells = std::array::from_fn(|_| String::new());
        cells[..3].clone_from_slice(&[node.node.clone(), role(node), state(node)]);
        if node.reported {
            let cache = node.cache.unwrap_or_default();
            cells[3..].clone_from_slice(&[
                node.active_revision.to_string(),
                node.requests.to_string(),
                node.open_connections.to_string(),
                cache.objects.to_string(),
                format!("{} of {}", bytes(cache.bytes), bytes(cache.budget_bytes)),
                hit_ratio(&cache),
                span(node.uptime_seconds),
            ]);
        }
        columns.row::<10>(cells);
    }
    columns.text()
}

fn upstreams(response: &StatusResponse) -> String {
    let mut columns = Columns::new(["UPSTREAM", "AVAILABLE", "NOTE"]);
    // One screen: of many upstreams those in trouble are named, the rest is counted.
    let all = &response.upstreams;
    let is_well = |upstream: &&UpstreamStatus| upstream.available == upstream.endpoints && !upstream.panic;
    let well = all.iter().filter(is_well).count();
    let shows_all = all.len() <= MAX_UPSTREAMS;
    for upstream in all.iter().filter(|upstream| shows_all || !is_well(upstream)).take(MAX_UPSTREAMS) {
        let note = if upstream.panic { "panic: health is ignored, all are used" } else { "" };
        let available = format!("{}/{}", upstream.available, upstream.endpoints);
        columns.row([upstream.name.clone(), available, note.to_owned()]);
    }
    if !shows_all {
        columns.row([format!("{well} of {}", all.len()), "all".to_owned(), "see: shoal health".to_owned()]);
    }
    columns.text()
}

fn certificates(certificates: &[CertificateStatus], style: Style) -> String {
    let mut columns = Columns::new(["CERTIFICATE", "NAMES", "EXPIRES"]);
    for certificate in certificates {
        let mut names = certificate.dns_names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
        if certificate.dns_names.len() > MAX_NAMES {
            let _ = write!(names, ", … ({})", certificate.dns_names.len());
        }
        let expires = format!(
            "{} ({})",
            date(certificate.not_after_unix),
            days_left(certificate.not_after_unix, style)
        );
        columns.row([certificate.name.clone(), names, expires]);
    }
    columns.text()
}

fn warnings(response: &StatusResponse, style: Style) -> String {
    let what = "the last-known-good site is served, and nothing can be changed";
    let mut text = warning(response.quorum, response.staleness_ms, what);
    if let Some(rollout) = &response.rollout {
        let _ = writeln!(text, "warning: by {}: {}", one_line(&rollout.author), unconfirmed(rollout));
    }
    for waiting in &response.waiting {
        let _ = writeln!(text, "warning: {}", one_line(waiting));
    }
    for node in &response.nodes {
        let name = one_line(&node.node);
        if let Some(absence) = absence(node) {
            let _ = writeln!(text, "warning: {absence}");
        } else if node.state != "alive" && node.state != "left" {
            let _ = writeln!(text, "warning: {name} is {}", one_line(&node.state));
        }
        if !node.twin.is_empty() {
            let _ = writeln!(text, "warning: {}", one_line(&node.twin));
        }
        for problem in &node.problems {
            let _ = writeln!(text, "warning: {name}: {}", one_line(problem));
        }
        if !node.log_broken.is_empty() {
            let why = one_line(&node.log_broken);
            let _ = writeln!(text, "warning: {name} serves, but takes no part in decisions: {why}");
        }
        if !node.refused.is_empty() {
            let _ =
                writeln!(text, "warning: {name} refused the newest revision: {}", one_line(&node.refused));
        } else if node.reported && node.active_revision != response.revision && !is_spared(response, node) {
            let _ = writeln!(
                text,
                "warning: {name} serves revision {}, not {}",
                node.active_revision, response.revision
            );
        }
    }
    let mut versions: Vec<&str> = response.nodes.iter().map(|node| node.version.as_str()).collect();
    versions.retain(|version| !version.is_empty());
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        let _ = writeln!(text, "warning: nodes run different versions: {}", one_line(&versions.join(", ")));
    }
    for upstream in response.upstreams.iter().filter(|upstream| upstream.available < upstream.endpoints) {
        let down = upstream.endpoints - upstream.available;
        let _ = writeln!(
            text,
            "warning: upstream {} has {down} of {} endpoints down; see: shoal health {}",
            one_line(&upstream.name),
            upstream.endpoints,
            one_line(&upstream.name)
        );
    }
    for failure in &response.name_failures {
        text.push_str(&name_failure(failure, style));
    }
    for certificate in &response.certificates {
        if !is_ending(certificate.not_after_unix, style) {
            continue;
        }
        let left = days_left(certificate.not_after_unix, style);
        let _ = writeln!(text, "warning: certificate {}: {left}", one_line(&certificate.name));
    }
    text
}

/// It serves what was before, since others try the newest revision first.
fn is_spared(response: &StatusResponse, node: &NodeStatus) -> bool {
    let tried = response.rollout.as_ref().filter(|rollout| !rollout.nodes.is_empty());
    tried.is_some_and(|rollout| rollout.before == node.active_revision && !rollout.nodes.contains(&node.node))
}

fn identity_warning(not_after: Option<i64>, style: Style) -> String {
    match not_after.filter(|not_after| days_until(*not_after, style) <= OWN_EXPIRY_WARNING_DAYS) {
        None => String::new(),
        Some(not_after) => format!(
            "warning: your own identity: {}; renew it with: shoal operator renew FILE\n",
            days_left(not_after, style)
        ),
    }
}

fn is_ending(unix: i64, style: Style) -> bool {
    days_until(unix, style) <= EXPIRY_WARNING_DAYS
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::{CacheCounters, Rollout, UpstreamStatus};

    use super::super::check_golden;
    use super::*;

    const NOW: u64 = 1_760_000_000;

    fn node(node_id: u64, role: &str) -> NodeStatus {
        NodeStatus {
            node_id,
            node: format!("node{node_id}"),
            region: "eu".into(),
            zone: "a".into(),
            cluster_addr: format!("10.0.0.{node_id}:7400"),
            admin_addr: format!("10.0.0.{node_id}:7401"),
            state: "alive".into(),
            role: role.into(),
            active_revision: 7,
            applied_index: 120,
            version: "0.1.0".into(),
            uptime_seconds: 7_380,
            cache: Some(CacheCounters {
                objects: 300,
                bytes: 5 << 20,
                budget_bytes: 256 << 20,
                hits: 970,
                misses: 30,
                ..CacheCounters::default()
            }),
            requests: 1_234,
            open_connections: 12,
            reported: true,
            certificate_not_after_unix: NOW as i64 + 80 * 86_400,
            ..NodeStatus::default()
        }
    }

    fn healthy() -> StatusResponse {
        StatusResponse {
            cluster_id: "0123456789abcdef".into(),
            node_id: 2,
            node: "node2".into(),
            quorum: true,
            leader_id: 1,
            term: 3,
            revision: 7,
            nodes: vec![node(1, "leader"), node(2, "voter"), node(3, "voter")],
            certificates: vec![CertificateStatus {
                name: "shop".into(),
                dns_names: ["a", "b", "c", "d"].map(|name| format!("{name}.example.com")).to_vec(),
                not_after_unix: NOW as i64 + 88 * 86_400,
            }],
            upstreams: vec![UpstreamStatus { name: "shop".into(), endpoints: 2, available: 2, panic: false }],
            committed_index: 120,
            name_failures: vec![],
            rollout: None,
            timing: "lan".to_owned(),
            max_voters: 5,
            waiting: vec![],
            staleness_ms: 0,
        }
    }

    #[test]
    fn a_standing_shows_once() {
        let check = |state_, standing: &str, expected: &str| {
            let node = NodeStatus {
                state: String::from(state_),
                standing: standing.into(),
                ..NodeStatus::default()
            };
            assert_eq!(state(&node), expected);
        };
        check("alive", "", "alive");
        check("dead", "drained", "dead, drained");
        check("draining", "drained", "draining");
        check("drained", "drained", "drained");
        check("alive", "cordoned", "alive, cordoned"); // it has not heard of it yet
    }

    #[test]
    fn who_may_not_vote_is_shown() {
        let check = |may_vote, expected: &str| {
            assert_eq!(role(&NodeStatus { may_vote, ..node(4, "learner") }), expected);
        };
        check(None, "learner");
        check(Some(true), "learner");
        check(Some(false), "learner, may not vote");
    }

    #[test]
    fn a_healthy_cluster_has_no_warnings() {
        let text = status(&healthy(), Some(NOW as i64 + 31 * 86_400), Style { colour: false, now: NOW });
        assert!(!text.contains("warning"), "{text}");
        check_golden("status", &text);
        check_golden("nodes", &nodes(&healthy().nodes));
    }

    #[test]
    fn everything_that_needs_somebody_is_named() {
        let mut response = healthy();
        response.quorum = false;
        response.leader_id = 0;
        response.waiting = vec!["the authority before is still believed".into()];
        let author = "ada@desk".to_owned();
        response.rollout =
            Some(Rollout { revision: 7, before: 6, author, left_ms: 179_001, ..Rollout::default() });
        response.nodes[1].active_revision = 6;
        response.nodes[1].refused = "listener web: address in use".into();
        response.nodes[0].version = "0.2.0".into();
        response.nodes[0].problems = vec!["its certificate ends in 10h: n2 did not answer within 10s".into()];
        response.nodes[2] =
            NodeStatus { node_id: 3, node: "node3".into(), state: "dead".into(), ..NodeStatus::default() };
        response.certificates[0].not_after_unix = NOW as i64 - 10;
        response.upstreams[0].available = 1;
        response.upstreams[0].panic = true;
        let identity_not_after = Some(NOW as i64 + 29 * 86_400);
        let text = status(&response, identity_not_after, Style { colour: false, now: NOW });
        check_golden("status_warnings", &text);
        let expected = "\n\nnode3 is dead; if it will not come back: shoal node remove node3\n";
        assert!(nodes(&response.nodes).ends_with(expected), "{}", nodes(&response.nodes));
    }
}
