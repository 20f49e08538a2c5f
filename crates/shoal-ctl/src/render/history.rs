//! The revisions that there were.

use shoal_proto::admin::{HistoryResponse, RevisionInfo};

use super::staleness::{LATER_REVISIONS, warning};
use super::table::Columns;
use super::units::moment;
use crate::failure::one_line;

/// Revisions, newest first.
pub fn history(response: &HistoryResponse) -> String {
    // Where it does not say, it is of an older version.
    let text = warning(response.quorum.unwrap_or(true), response.staleness_ms, LATER_REVISIONS);
    if response.revisions.is_empty() {
        return text + "no revisions yet\n";
    }
    let mut columns = Columns::new(["REVISION", "AT", "AUTHOR", "CHANGES", "MESSAGE"]);
    for info in &response.revisions {
        columns.row([
            format!("{}{}", info.revision, standing(info)),
            moment(i64::try_from(info.at_ms / 1000).unwrap_or(i64::MAX)),
            info.author.clone(),
            format!("+{} ~{} -{}", info.added, info.changed, info.removed),
            info.message.clone(),
        ]);
    }
    text + &columns.text()
}

/// What is to be known of a revision beside its number.
fn standing(info: &RevisionInfo) -> String {
    let mut notes = Vec::new();
    match info.standing.as_str() {
        "" => {}
        "reverted" => notes.push(format!("reverted by {}", info.reverted_by)),
        "unconfirmed" if info.wave > 0 => notes.push(format!("in wave {}", info.wave)),
        other => notes.push(one_line(other)),
    }
    if !info.quarantined.is_empty() {
        notes.push("quarantined".to_owned());
    }
    if !info.restorable {
        notes.push("content dropped".to_owned());
    }
    if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::check_golden;
    use super::*;

    #[test]
    fn history_is_a_table() {
        let info = |revision, message: &str, restorable| RevisionInfo {
            revision,
            author: "ada@desk".into(),
            message: message.into(),
            at_ms: 1_760_000_000_000 + revision * 1000,
            added: 2,
            removed: 0,
            changed: 1,
            restorable,
            ..RevisionInfo::default()
        };
        let standing =
            |standing: &str, info| RevisionInfo { standing: standing.into(), reverted_by: 11, ..info };
        let revisions = vec![
            standing("unconfirmed", RevisionInfo { wave: 2, ..info(13, "new hosts", true) }),
            standing("unconfirmed", info(12, "move the shop\nto new hosts", true)),
            info(11, "", true),
            standing("reverted", info(10, "too fast", true)),
            standing("confirmed", info(9, "", false)),
            info(2, "old", false),
        ];
        check_golden("history", &history(&HistoryResponse { revisions, ..HistoryResponse::default() }));
        let none = |quorum| HistoryResponse { quorum, staleness_ms: 12_000, ..HistoryResponse::default() };
        for quorum in [None, Some(true)] {
            assert_eq!(history(&none(quorum)), "no revisions yet\n");
        }
        assert_eq!(
            history(&none(Some(false))),
            "warning: no quorum for 12s: there may be later revisions than this node has\nno revisions yet\n"
        );
    }
}
