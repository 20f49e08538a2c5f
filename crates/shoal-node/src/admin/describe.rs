//! `shoal node describe`: everything that is known of one node, by others and by itself.

use std::sync::Arc;

use shoal_model::state::MemberRecord;
use shoal_proto::admin::{DescribeNodeRequest, DescribeNodeResponse, NodeStatus};
use tonic::Status;

use super::members::find;
use super::status::node_status;
use crate::node::Node;
use crate::report::Wanted;

/// What this node knows of another one, or of itself, and what that one answers.
pub async fn describe(
    node: &Arc<Node>,
    request: &DescribeNodeRequest,
) -> Result<DescribeNodeResponse, Status> {
    let (id, _) = find(node, &request.node, request.node_id)?;
    let report = node.report_of(id, Wanted::DETAILS).await;
    let (log, view, members) = (node.led_status(), node.gossip.view().load_full(), node.members());
    let absent = MemberRecord::default();
    // Gone since it was found: what was known is left out.
    let member = members.get(&id).unwrap_or(&absent);
    let seen = view.node(id);
    let standing = node.log.with_state(|state| state.standing(id));
    let leader = log.leader.and_then(|leader| members.get(&leader));
    Ok(DescribeNodeResponse {
        asked: node.identity.name.clone(),
        status: Some(NodeStatus {
            standing: node.standing_name(id),
            may_vote: Some(node.may_vote(id)),
            ..node_status(id, member, seen, report.as_ref(), &log, node.id())
        }),
        newest_revision: node.log.with_state(|state| state.revisions.active().0.0),
        committed_index: log.committed,
        quorum: log.quorum,
        leader: leader.map_or_else(String::new, |leader| leader.name.clone()),
        public_key_sha256: member.public_key_sha256.clone(),
        purge_lease_ms: member.purge_lease_ms,
        purges_checked: seen.map_or(0, |seen| seen.checked_seq),
        load: seen.map_or(0, |seen| seen.load),
        commands: seen.map_or(0, |seen| seen.commands),
        standing_author: standing.author,
        standing_at_ms: standing.at_ms,
        drain_notes: report.as_ref().map_or_else(Vec::new, |report| report.drain.notes.clone()),
        details: report.and_then(|report| report.details).map(Into::into),
    })
}
