//! The level of the cluster, and who is in the way of the next one.

use std::fmt::Write as _;

use shoal_proto::admin::{MemberVersion, UpgradeStatusResponse};

use super::node::way_out;
use super::table::Columns;
use super::units::moment;
use crate::failure::one_line;

/// Where the cluster is, what could be done, and a line for each node.
pub fn upgrade(response: &UpgradeStatusResponse) -> String {
    let UpgradeStatusResponse { level, reachable, newest, held_by, held_message, held_at_ms, .. } = response;
    let mut text = format!("the cluster is at level {level}");
    let waits = response.nodes.iter().filter(|node| node.waited_for).count();
    match () {
        () if newest == level && waits == 0 => text.push_str(", and so is every node: nothing to finalize\n"),
        () if newest == level => text.push_str(": nothing to finalize\n"),
        () if reachable == level => {
            let _ = writeln!(text, "; level {newest} waits for {waits} of {} nodes", response.nodes.len());
        }
        () => {
            let by_itself = if *held_at_ms == 0 { ", or by itself within a minute or two" } else { "" };
            let _ =
                writeln!(text, "; every node knows level {reachable}: `shoal upgrade finalize`{by_itself}");
        }
    }
    if *held_at_ms != 0 {
        let at = moment(i64::try_from(held_at_ms / 1000).unwrap_or(i64::MAX));
        let _ = write!(text, "held since {at} by {}", one_line(held_by));
        match held_message.is_empty() {
            true => text.push('\n'),
            false => _ = writeln!(text, ": {}", one_line(held_message)),
        }
    }
    let mut columns = Columns::new(["NODE", "VERSION", "KNOWS", "WAITED FOR"]);
    for node in &response.nodes {
        columns.row([
            node.node.clone(),
            if node.version.is_empty() { "?".to_owned() } else { node.version.clone() },
            if node.knows == 0 { "?".to_owned() } else { node.knows.to_string() },
            reason(node).to_owned(),
        ]);
    }
    text += &columns.text();
    let mut gap = "\n";
    for node in response.nodes.iter().filter(|node| node.waited_for && !node.heard) {
        let _ =
            writeln!(text, "{gap}{} is waited for: start it; {}", one_line(&node.node), way_out(&node.node));
        gap = "";
    }
    text
}

fn reason(node: &MemberVersion) -> &'static str {
    match (node.waited_for, node.heard) {
        (false, _) => "",
        (true, true) => "older version",
        (true, false) => "not heard",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_next_level_is_told() {
        let node = |node: &str, knows, heard| MemberVersion {
            node: node.to_owned(),
            version: if heard { "1.4.0".to_owned() } else { String::new() },
            knows,
            heard,
            waited_for: knows < 8,
            ..MemberVersion::default()
        };
        let waiting = UpgradeStatusResponse {
            level: 7,
            reachable: 7,
            newest: 8,
            held_by: "ada".to_owned(),
            held_message: "watch it\nuntil monday".to_owned(),
            held_at_ms: 1_760_000_000_000,
            nodes: vec![node("n1", 8, true), node("n2", 7, true), node("n3", 0, false)],
            ..UpgradeStatusResponse::default()
        };
        let all = vec![node("n1", 8, true), node("n2", 8, true)];
        let due =
            UpgradeStatusResponse { reachable: 8, nodes: all.clone(), held_at_ms: 0, ..waiting.clone() };
        let done = UpgradeStatusResponse { level: 8, ..due.clone() };
        let told = [waiting, due, done].map(|response| upgrade(&response)).join("\n");
        super::super::check_golden("upgrade", &told);
    }
}
