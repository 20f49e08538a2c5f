//! Everything about one node, a line for each thing.

use std::fmt::Write as _;

use shoal_proto::admin::{CacheCounters, DescribeNodeResponse, NodeDetails, NodeStatus};

use super::cache::hit_ratio;
use super::status;
use super::units::{bytes, date, days_left, moment, span};
use crate::failure::one_line;
use crate::output::Style;

/// Where the values begin.
const WIDTH: usize = 13;

/// What a node is, where, and how it is; what is wrong with it comes last, so that it is seen.
pub fn described(response: &DescribeNodeResponse, style: Style) -> String {
    let status = response.status.clone().unwrap_or_default();
    let mut lines = Lines::default();
    lines.add("node", format!("{} (n{})", status.node, status.node_id));
    lines.add("state", state(&status, response.details.as_ref()));
    lines.add("role", role(&status, response));
    lines.add("standing", standing(&status, response));
    lines.add("place", format!("region {}, zone {}", status.region, status.zone));
    lines.add("cluster", status.cluster_addr.clone());
    lines.add("admin", status.admin_addr.clone());
    lines.add("key", format!("sha256 {}", response.public_key_sha256));
    if status.reported {
        lines.add("version", format!("{}, up {}", status.version, span(status.uptime_seconds)));
        lines.add("certificate", certificate(status.certificate_not_after_unix, style));
    } else {
        lines.add("version", status.version.clone());
    }
    lines.add("revision", revision(&status, response));
    lines.add("log", format!("applied {} of {}", status.applied_index, response.committed_index));
    let lease = Lease { longest_ms: response.purge_lease_ms, details: response.details.as_ref() };
    lines.add("lease", lease.text());
    let cache = status.cache.unwrap_or_default();
    if status.reported {
        let checked = response.purges_checked;
        lines.add("purges", format!("newest {}, checked up to {checked}", cache.purge_seq));
        lines.add("cache", in_memory(&cache));
        lines.add("cache disk", on_disk(&cache));
    }
    lines.add("traffic", traffic(&status, response));
    for listener in response.details.iter().flat_map(|details| &details.listeners) {
        let text = format!("{} {}: {} open", listener.name, listener.address, listener.connections);
        lines.add("listener", text);
    }
    let readiness = response.details.as_ref().map_or("", |details| &details.readiness);
    for condition in readiness.lines().filter(|line| line.starts_with('[')) {
        lines.add("readiness", condition.to_owned());
    }
    for note in &response.drain_notes {
        lines.add("note", note.clone());
    }
    for problem in problems(&status) {
        lines.add("problem", problem);
    }
    lines.text
}

#[derive(Default)]
struct Lines {
    text: String,
    last: &'static str,
}

impl Lines {
    /// A name that repeats itself is left out; so is what is unknown.
    fn add(&mut self, name: &'static str, value: String) {
        if value.is_empty() {
            return;
        }
        let shown = if self.last == name { "" } else { name };
        self.last = name;
        let _ = writeln!(self.text, "{shown:WIDTH$}{}", one_line(&value));
    }
}

fn state(status: &NodeStatus, details: Option<&NodeDetails>) -> String {
    let ready = match details {
        Some(details) if details.ready => ", ready",
        Some(_) => ", not ready",
        None if status.reported => "",
        None => ", does not answer",
    };
    format!("{}{ready}", status::state(status))
}

fn role(status: &NodeStatus, response: &DescribeNodeResponse) -> String {
    let role = status::role(status);
    match (response.quorum, response.leader.as_str()) {
        (false, _) => format!("{role}, no quorum as {} sees it", response.asked),
        (true, leader) if leader.is_empty() || status.role == "leader" => role,
        (true, leader) => format!("{role}, {leader} leads"),
    }
}

fn standing(status: &NodeStatus, response: &DescribeNodeResponse) -> String {
    let said = match response.standing_author.as_str() {
        "" => return String::new(),
        author => format!("by {author}, {}", moment((response.standing_at_ms / 1000).cast_signed())),
    };
    match (status.standing.as_str(), status.drain_phase.as_str()) {
        ("", _) => format!("in service again {said}"),
        ("drained", phase) if !matches!(phase, "" | "drained") => format!("to be drained {said}: {phase}"),
        (standing, _) => format!("{standing} {said}"),
    }
}

fn certificate(not_after: i64, style: Style) -> String {
    match not_after {
        0 => String::new(),
        not_after => format!("ends {} ({})", date(not_after), days_left(not_after, style)),
    }
}

fn revision(status: &NodeStatus, response: &DescribeNodeResponse) -> String {
    match response.newest_revision {
        newest if newest == status.active_revision => format!("{newest}, the newest"),
        newest => format!("{}, not {newest}", status.active_revision),
    }
}

struct Lease<'a> {
    longest_ms: u64,
    details: Option<&'a NodeDetails>,
}

impl Lease<'_> {
    fn text(&self) -> String {
        let longest = match self.longest_ms {
            0 => String::new(),
            ms => format!(" of {} s", seconds(ms)),
        };
        match self.details {
            None => String::new(),
            Some(details) if details.lease_left_ms == 0 => {
                "none: hits go by the purge_unverified of their routes".to_owned()
            }
            Some(details) => format!("{} s left{longest}", seconds(details.lease_left_ms)),
        }
    }
}

fn seconds(ms: u64) -> f64 {
    (ms / 100) as f64 / 10.0
}

fn in_memory(cache: &CacheCounters) -> String {
    format!(
        "{} objects, {} of {}, {} hits",
        cache.objects,
        bytes(cache.bytes),
        bytes(cache.budget_bytes),
        hit_ratio(cache)
    )
}

fn on_disk(cache: &CacheCounters) -> String {
    match cache.disk_budget_bytes {
        0 => "off".to_owned(),
        budget => {
            format!("{} objects, {} of {}", cache.disk_objects, bytes(cache.disk_bytes), bytes(budget))
        }
    }
}

fn traffic(status: &NodeStatus, response: &DescribeNodeResponse) -> String {
    match &response.details {
        Some(details) => format!(
            "{} requests since its start, {} under way, {} connections, {} requests of other nodes",
            status.requests, details.in_flight, status.open_connections, details.peers_under_way
        ),
        None if status.reported => {
            format!("{} requests since its start, {} connections", status.requests, status.open_connections)
        }
        None => String::new(),
    }
}

fn problems(status: &NodeStatus) -> Vec<String> {
    let refused = match status.refused.as_str() {
        "" => String::new(),
        why => format!("it refused the newest revision: {why}"),
    };
    let broken = match status.log_broken.as_str() {
        "" => String::new(),
        why => format!("it takes no part in decisions: {why}"),
    };
    let all = [refused, broken, status.twin.clone()].into_iter().chain(status.problems.iter().cloned());
    all.filter(|problem| !problem.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::ListenerStatus;

    use super::super::check_golden;
    use super::*;

    const STYLE: Style = Style { colour: false, now: 1_760_000_000 };

    fn node() -> DescribeNodeResponse {
        let status = NodeStatus {
            node_id: 5,
            node: "n2".into(),
            region: "eu".into(),
            zone: "a".into(),
            cluster_addr: "10.0.0.2:7400".into(),
            admin_addr: "10.0.0.2:7401".into(),
            state: "alive".into(),
            role: "voter".into(),
            active_revision: 7,
            applied_index: 119,
            version: "0.1.0".into(),
            uptime_seconds: 7_380,
            cache: Some(CacheCounters {
                objects: 300,
                bytes: 5 << 20,
                budget_bytes: 256 << 20,
                hits: 970,
                misses: 30,
                purge_seq: 101,
                disk_objects: 4_000,
                disk_bytes: 80 << 20,
                disk_budget_bytes: 1 << 30,
                ..CacheCounters::default()
            }),
            requests: 1_234,
            open_connections: 12,
            reported: true,
            certificate_not_after_unix: STYLE.now as i64 + 80 * 86_400,
            ..NodeStatus::default()
        };
        let listener = |name: &str, port| ListenerStatus {
            name: name.into(),
            address: format!("10.0.0.2:{port}"),
            connections: 6,
        };
        DescribeNodeResponse {
            asked: "n1".into(),
            status: Some(status),
            newest_revision: 7,
            committed_index: 120,
            quorum: true,
            leader: "n1".into(),
            public_key_sha256: "ab12".into(),
            purge_lease_ms: 2_000,
            purges_checked: 101,
            load: 3,
            commands: 1,
            standing_author: String::new(),
            standing_at_ms: 0,
            drain_notes: Vec::new(),
            details: Some(NodeDetails {
                ready: true,
                readiness: "[+] listeners: bound for revision 7\n[+] accepting: not draining\nready\n".into(),
                in_flight: 3,
                lease_left_ms: 1_780,
                peers_under_way: 1,
                listeners: vec![listener("web", 8080), listener("secure", 8443)],
            }),
        }
    }

    #[test]
    fn a_node_is_shown_as_a_whole() {
        check_golden("node", &described(&node(), STYLE));
    }

    #[test]
    fn what_is_wrong_comes_last_and_what_is_unknown_not_at_all() {
        let mut ill = node();
        ill.quorum = false;
        ill.newest_revision = 8;
        let status = ill.status.as_mut().unwrap();
        status.refused = "listener web: address\nin use".into();
        status.problems = vec!["the access log /a cannot be written".into()];
        let details = ill.details.as_mut().unwrap();
        (details.ready, details.lease_left_ms) = (false, 0);
        check_golden("node_ill", &described(&ill, STYLE));

        let mut drained = node();
        let status = drained.status.as_mut().unwrap();
        (status.state, status.standing) = ("drained".into(), "drained".into());
        status.drain_phase = "drained".into();
        drained.standing_author = "ann@host (local root)".into();
        drained.standing_at_ms = 1_759_999_000_000;
        drained.drain_notes = vec!["it keeps its vote: there is no other node that could have it".into()];
        let details = drained.details.as_mut().unwrap();
        (details.ready, details.listeners) = (false, Vec::new());
        details.readiness = "[-] accepting: drained: nothing is listened on\n".into();
        check_golden("node_drained", &described(&drained, STYLE));

        let mut dead = node();
        dead.details = None;
        dead.status = Some(NodeStatus {
            state: "dead".into(),
            reported: false,
            cache: None,
            role: "learner".into(),
            may_vote: Some(false),
            ..dead.status.unwrap()
        });
        check_golden("node_dead", &described(&dead, STYLE));
    }
}
