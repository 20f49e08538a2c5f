//! The verb that has another voter lead the log.

use std::sync::Arc;
use std::time::Instant;

use shoal_configlog::{Led, LogStatus, TransferError, Unfit};
use shoal_model::NodeId;
use shoal_model::units::millis_u32;
use shoal_proto::admin::{TransferLeaderRequest, TransferLeaderResponse};
use tonic::{Code, Status};

use super::base::linearizable_base;
use super::failure::{self, Exit, with_exit};
use super::members::find;
use crate::node::Node;

/// Has the leader hand over, unless whoever is wanted leads already, and waits until this node knows who leads.
pub async fn transfer(
    node: &Arc<Node>,
    request: TransferLeaderRequest,
    caller: &str,
) -> Result<TransferLeaderResponse, Status> {
    let started = Instant::now();
    // Who leads and who votes is as a majority knows it from then on.
    linearizable_base(node).await?;
    let TransferLeaderRequest { node: name, node_id } = request;
    let heir = match (name.as_str(), node_id) {
        ("", 0) => None,
        _ => Some(find(node, &name, node_id)?),
    };
    let status = node.log.status();
    let wanted = heir.as_ref().map(|(id, _)| *id);
    if let Some(leader) = wanted.filter(|id| status.leader == Some(*id)) {
        return Ok(answer(node, Led { leader, term: status.term }, started, true));
    }
    let named = heir.as_ref().map_or_else(String::new, |(_, name)| format!("{name}: "));
    let refused = |why: String| with_exit(Code::FailedPrecondition, Exit::Local, format!("{named}{why}"));
    check(wanted, &status, |id| is_heard(node, id)).map_err(|why| refused(why.to_string()))?;
    let to = heir.as_ref().map_or("another voter", |(_, name)| name.as_str());
    node.put_on_record(format!("asked for: leadership to {to}")).await.map_err(failure::propose)?;
    let led = Box::pin(node.log.request_transfer(wanted)).await.map_err(|error| match error {
        TransferError::Unfit(why) => refused(why),
        TransferError::Log(error) => failure::propose(error),
    })?;
    let response = answer(node, led, started, false);
    tracing::info!(member = %led.leader, term = led.term, by = caller, "another node leads, by order");
    if wanted.is_some_and(|id| id != led.leader) {
        let why = format!("{named}it was to lead, and {} was elected", response.node);
        return Err(with_exit(Code::Aborted, Exit::Remote, why));
    }
    Ok(response)
}

/// What can be said against it before the leader is asked.
fn check(wanted: Option<NodeId>, status: &LogStatus, is_heard: impl Fn(NodeId) -> bool) -> Result<(), Unfit> {
    match wanted {
        None if status.voters.len() < 2 => Err(Unfit::Alone),
        Some(id) if !status.voters.contains(&id) => Err(Unfit::Learner),
        Some(id) if !is_heard(id) => Err(Unfit::Unheard),
        None | Some(_) => Ok(()),
    }
}

fn is_heard(node: &Node, id: NodeId) -> bool {
    id == node.id() || node.gossip.view().load().node(id).is_some_and(|seen| seen.alive)
}

fn answer(node: &Node, led: Led, started: Instant, unchanged: bool) -> TransferLeaderResponse {
    let Led { leader, term } = led;
    let known = node.members().remove(&leader).map(|member| member.name);
    TransferLeaderResponse {
        node_id: leader.0,
        node: known.unwrap_or_else(|| leader.to_string()),
        term,
        elapsed_ms: millis_u32(started.elapsed()),
        unchanged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_not_asked_in_vain() {
        let of = |voters: &[u64]| LogStatus {
            voters: voters.iter().copied().map(NodeId).collect(),
            ..LogStatus::default()
        };
        let check = |voters: &[u64], wanted: Option<u64>, expected: Result<(), Unfit>| {
            let found = check(wanted.map(NodeId), &of(voters), |id| id != NodeId(3));
            assert_eq!(found, expected, "{voters:?} {wanted:?}");
        };
        check(&[1, 2, 3], None, Ok(()));
        check(&[1, 2, 3], Some(2), Ok(()));
        check(&[1, 2, 3], Some(3), Err(Unfit::Unheard));
        check(&[1, 2, 3], Some(4), Err(Unfit::Learner));
        check(&[1], None, Err(Unfit::Alone));
        check(&[1], Some(2), Err(Unfit::Learner));
    }
}
