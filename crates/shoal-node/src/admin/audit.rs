//! Who has asked for what: the record that the log keeps of it.

use std::sync::Arc;

use shoal_model::state::{self, AuditTrail, ConfigState};
use shoal_proto::admin::{AuditRecord, AuditRequest, AuditResponse};
use tonic::Status;

use super::base::newest_base;
use crate::node::Node;

/// Records returned when the caller names no number.
const DEFAULT_LIMIT: usize = 50;

/// The newest records of both chains, by the order of the log.
pub async fn audit(node: &Arc<Node>, request: &AuditRequest) -> Result<AuditResponse, Status> {
    let (_, quorum) = newest_base(node).await?;
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit as usize };
    let records = node.log.with_state(|state| {
        let chains = [("changes", &state.audit.changes), ("purges", &state.audit.purges)];
        let found = chains.map(|(name, trail)| newest(name, trail, limit, request.since_ms, state));
        let mut records = found.concat();
        records.sort_by_key(|record| std::cmp::Reverse((record.index, record.number)));
        records.truncate(limit);
        records
    });
    Ok(AuditResponse { records, quorum })
}

fn newest(
    chain: &str,
    trail: &AuditTrail,
    limit: usize,
    since_ms: u64,
    state: &ConfigState,
) -> Vec<AuditRecord> {
    // Clocks differ: what lies between those that are wanted goes along, so that the chain has no gaps.
    let is_wanted = trail.newest_first().map(|(_, record)| record.asker.at_ms >= since_ms);
    let wanted = is_wanted.enumerate().filter(|(_, wanted)| *wanted).last().map_or(0, |(place, _)| place + 1);
    let records = trail.newest_first().take(wanted.min(limit));
    records.map(|(previous, record)| message(chain, previous, record, state)).collect()
}

fn message(chain: &str, previous: &str, record: &state::AuditRecord, state: &ConfigState) -> AuditRecord {
    let asker = record.asker.clone();
    let name = state.nodes.get(&asker.node).map(|node| node.name.clone());
    AuditRecord {
        chain: chain.to_owned(),
        number: record.number,
        index: record.index,
        at_ms: asker.at_ms,
        by: asker.by,
        role: asker.role,
        from: asker.from,
        node_id: asker.node.0,
        node: name.unwrap_or_else(|| asker.node.to_string()),
        call: asker.call,
        what: asker.what,
        request_id: asker.request_id,
        outcome: record.outcome.to_string(),
        line: record.line(),
        hash: record.hash.clone(),
        previous: previous.to_owned(),
    }
}
