//! The record of who has asked for what.

use shoal_proto::admin::AuditResponse;

use super::staleness::warning;
use super::table::Columns;
use super::units::moment;

/// A row for each record, the newest first.
pub fn audit(response: &AuditResponse) -> String {
    let what = "these are the records this node has; newer ones are possibly missing";
    let text = warning(response.quorum, response.staleness_ms, what);
    if response.records.is_empty() {
        return text + "nothing is on the record\n";
    }
    let mut columns = Columns::new(["AT", "BY", "ROLE", "FROM", "NODE", "CALL", "WHAT", "OUTCOME"]);
    for record in &response.records {
        columns.row([
            moment(i64::try_from(record.at_ms / 1000).unwrap_or(i64::MAX)),
            record.by.clone(),
            record.role.clone(),
            record.from.clone(),
            record.node.clone(),
            record.call.clone(),
            record.what.clone(),
            record.outcome.clone(),
        ]);
    }
    text + &columns.text()
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::AuditRecord;

    use super::super::check_golden;
    use super::*;

    #[test]
    fn the_record_is_a_table() {
        let record = |by: &str, role: &str, call: &str, what: &str, outcome: &str| AuditRecord {
            at_ms: 1_760_000_000_000,
            by: by.into(),
            role: role.into(),
            from: "socket, uid 0".into(),
            node: "n1".into(),
            call: call.into(),
            what: what.into(),
            outcome: outcome.into(),
            ..AuditRecord::default()
        };
        let records = vec![
            record("", "", "PURGE", "url \"http://a/\\u{1b}\"", "purge 9"),
            record("local", "admin", "Apply", "+1 ~0 -0 as ada: x\u{1b}[31m", "revision 4"),
            record("ada", "operator", "Rollback", "+0 ~1 -0", "refused: the active revision is 5, not 4"),
        ];
        check_golden("audit", &audit(&AuditResponse { records, quorum: false, staleness_ms: 0 }));
        let nothing = AuditResponse { records: Vec::new(), quorum: true, staleness_ms: 0 };
        assert_eq!(audit(&nothing), "nothing is on the record\n");
    }
}
