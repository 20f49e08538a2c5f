//! Purges: who has applied them, and who is silent.

use std::fmt::Write as _;

use shoal_proto::admin::{PurgeAck, PurgeInfo, PurgeStatusResponse};

use super::table::Columns;
use super::units::moment;
use crate::failure::one_line;

/// A line for each purge, and under it a row for each node. `now` is in Unix seconds.
pub fn purge_status(response: &PurgeStatusResponse, now: u64) -> String {
    if response.purges.is_empty() {
        return "no node remembers a purge\n".to_owned();
    }
    let mut text = String::new();
    for purge in &response.purges {
        let _ = writeln!(text, "{}", heading(purge));
        let mut columns = Columns::new(["NODE", "STATE", "AFTER", "MAY SERVE IT"]);
        for ack in &purge.acks {
            columns.row([ack.node.clone(), ack.state.clone(), after(purge, ack), left(ack, now)]);
        }
        text.push_str(&columns.text());
    }
    text
}

fn heading(purge: &PurgeInfo) -> String {
    if purge.at_ms == 0 {
        return format!("purge {}: no node remembers when", purge.seq);
    }
    let scopes = if purge.scopes == 1 { "scope" } else { "scopes" };
    let at = moment(i64::try_from(purge.at_ms / 1000).unwrap_or(i64::MAX));
    format!("purge {}: {}, {} {scopes}, {at}", purge.seq, one_line(&purge.kind), purge.scopes)
}

/// How much later than the first node it applied it.
fn after(purge: &PurgeInfo, ack: &PurgeAck) -> String {
    match ack.at_ms.checked_sub(purge.at_ms) {
        Some(ms) if ack.at_ms != 0 => format!("{ms} ms"),
        _ => String::new(),
    }
}

fn left(ack: &PurgeAck, now: u64) -> String {
    match (ack.state.as_str(), ack.lease_until_ms) {
        (_, 0) => "no".to_owned(),
        (_, until) => format!("for {} s", (until / 1000 + 1).saturating_sub(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_golden;
    use super::*;

    #[test]
    fn who_is_silent_is_named_with_its_lease() {
        let ack = |node: &str, state: &str, at_ms, lease_until_ms| PurgeAck {
            node_id: 1,
            node: node.into(),
            state: state.into(),
            at_ms,
            lease_until_ms,
        };
        let at_ms = 1_770_000_000_123;
        let purge = PurgeInfo {
            seq: 42,
            kind: "soft".into(),
            scopes: 3,
            at_ms,
            acks: vec![
                ack("node1", "acknowledged", at_ms, 0),
                ack("node2", "acknowledged", at_ms + 7, 0),
                ack("node3", "silent", 0, at_ms + 3640),
                ack("node4", "lapsed", 0, 0),
            ],
        };
        let old =
            PurgeInfo { seq: 41, acks: vec![ack("node1", "acknowledged", 0, 0)], ..PurgeInfo::default() };
        let response = PurgeStatusResponse { purges: vec![purge, old] };
        check_golden("purge_status", &purge_status(&response, at_ms / 1000 + 1));
        assert_eq!(purge_status(&PurgeStatusResponse::default(), 0), "no node remembers a purge\n");
    }
}
