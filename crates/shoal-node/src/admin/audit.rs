//! Who has asked for what: the record that the log keeps of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_model::NodeId;
use shoal_model::state::{self, AuditTrail, MemberRecord};
use shoal_proto::admin::{AuditRecord, AuditRequest, AuditResponse};
use tonic::Status;

use super::base::{newest_base, staleness_ms};
use crate::node::Node;

/// Records returned when the caller names no number.
const DEFAULT_LIMIT: usize = 50;

/// The newest records of both chains, by the order of the log.
pub async fn audit(node: &Arc<Node>, request: &AuditRequest) -> Result<AuditResponse, Status> {
    let (_, quorum) = newest_base(node).await?;
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit as usize };
    let records = node.log.with_state(|state| {
        let names = Names { nodes: &state.nodes, restored_at: state.audit.restored_at() };
        let chains = [("changes", &state.audit.changes), ("purges", &state.audit.purges)];
        let found = chains.map(|(name, trail)| newest(name, trail, limit, request.since_ms, &names));
        let mut records = found.concat();
        records.sort_by_key(|record| std::cmp::Reverse((record.index, record.number)));
        records.truncate(limit);
        records
    });
    Ok(AuditResponse { records, quorum, staleness_ms: staleness_ms(node) })
}

/// What nodes are called.
struct Names<'a> {
    nodes: &'a BTreeMap<NodeId, MemberRecord>,
    /// Records of entries before this one are of another cluster.
    restored_at: Option<u64>,
}

impl Names<'_> {
    /// Of the node that was asked for what is in the entry at `index`; of one of another cluster only the id is known.
    fn of(&self, node: NodeId, index: u64) -> String {
        let is_of_another = self.restored_at.is_some_and(|restored_at| index < restored_at);
        let member = self.nodes.get(&node).filter(|_| !is_of_another);
        member.map_or_else(|| node.to_string(), |member| member.name.clone())
    }
}

fn newest(
    chain: &str,
    trail: &AuditTrail,
    limit: usize,
    since_ms: u64,
    names: &Names<'_>,
) -> Vec<AuditRecord> {
    // Clocks differ: what lies between those that are wanted goes along, so that the chain has no gaps.
    let is_wanted = trail.newest_first().map(|(_, record)| record.asker.at_ms >= since_ms);
    let wanted = is_wanted.enumerate().filter(|(_, wanted)| *wanted).last().map_or(0, |(place, _)| place + 1);
    let records = trail.newest_first().take(wanted.min(limit));
    records.map(|(previous, record)| message(chain, previous, record, names)).collect()
}

fn message(chain: &str, previous: &str, record: &state::AuditRecord, names: &Names<'_>) -> AuditRecord {
    let asker = record.asker.clone();
    AuditRecord {
        chain: chain.to_owned(),
        number: record.number,
        index: record.index,
        at_ms: asker.at_ms,
        by: asker.by,
        role: asker.role,
        from: asker.from,
        node_id: asker.node.0,
        node: names.of(asker.node, record.index),
        call: asker.call,
        what: asker.what,
        request_id: asker.request_id,
        outcome: record.outcome.to_string(),
        line: record.line(),
        hash: record.hash.clone(),
        previous: previous.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_asked_in_another_cluster_is_no_member_of_this_one() {
        let member = MemberRecord { name: "new".to_owned(), ..MemberRecord::default() };
        let nodes = BTreeMap::from([(NodeId(1), member)]);
        let check = |restored_at, node, index, expected: &str| {
            assert_eq!(Names { nodes: &nodes, restored_at }.of(NodeId(node), index), expected, "{index}");
        };
        check(None, 1, 7, "new");
        check(None, 2, 7, "n2");
        check(Some(8), 1, 7, "n1");
        check(Some(8), 1, 8, "new");
        check(Some(8), 1, 9, "new");
    }
}
