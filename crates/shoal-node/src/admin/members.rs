//! Verbs that change who belongs to the cluster.

use std::sync::Arc;
use std::time::Instant;

use shoal_model::NodeId;
use shoal_model::units::millis_u32;
use shoal_proto::admin::{RemoveNodeRequest, RemoveNodeResponse, RevokeNodeRequest};
use tonic::{Code, Status};

use super::base::linearizable_base;
use super::caller::wait_of;
use super::failure::{self, Exit, with_exit};
use crate::acks::Acknowledged;
use crate::node::Node;
use crate::removal::{self, Objection, RemovalError, Removing};

/// Takes a member out for good and waits until no live node counts it any more.
pub async fn remove(
    node: &Arc<Node>,
    request: RemoveNodeRequest,
    caller: &str,
) -> Result<RemoveNodeResponse, Status> {
    let RemoveNodeRequest { node: name, node_id, force, timeout_ms } = request;
    let removing = if force { Removing::Forced } else { Removing::Gone };
    take_out(node, Leaving { name, node_id, removing, timeout_ms }, caller).await
}

/// Takes a member out that is not trusted any more, and waits likewise.
pub async fn revoke(
    node: &Arc<Node>,
    request: RevokeNodeRequest,
    caller: &str,
) -> Result<RemoveNodeResponse, Status> {
    let RevokeNodeRequest { node: name, node_id, timeout_ms } = request;
    take_out(node, Leaving { name, node_id, removing: Removing::Revoked, timeout_ms }, caller).await
}

/// Who is to go, and why.
struct Leaving {
    /// Of the two one is given.
    name: String,
    node_id: u64,
    removing: Removing,
    timeout_ms: u32,
}

async fn take_out(node: &Arc<Node>, leaving: Leaving, caller: &str) -> Result<RemoveNodeResponse, Status> {
    let (started, wait) = (Instant::now(), wait_of(leaving.timeout_ms));
    // Who joined or was removed a moment ago through another node is known here from then on.
    linearizable_base(node).await?;
    let (id, name) = find(node, &leaving.name, leaving.node_id)?;
    let removing = leaving.removing;
    let removal = removal::remove(node, id, removing).await.map_err(|error| refusal(id, &name, error))?;
    tracing::info!(member = %id, name, was = removal.state, ?removing, by = caller, "a member was removed");
    let left = wait.saturating_sub(started.elapsed());
    let (Acknowledged { acks, absent }, left_membership) = node.await_removal(id, &removal, left).await;
    let voters = node.log.status().voters;
    let members = node.members();
    let names = voters.iter().filter_map(|id| members.get(id)).map(|member| member.name.clone());
    Ok(RemoveNodeResponse {
        node_id: id.0,
        node: name,
        state: removal.state.to_owned(),
        acks,
        absent,
        left_membership,
        voters: names.collect(),
        elapsed_ms: millis_u32(started.elapsed()),
    })
}

/// The member that is meant: names and ids look alike, so that each is only taken for what it was given as.
pub(super) fn find(node: &Node, called: &str, with_id: u64) -> Result<(NodeId, String), Status> {
    let is_meant = |id: NodeId, name: &str| match with_id {
        0 => name == called,
        wanted => id == NodeId(wanted),
    };
    let members = node.members();
    if let Some((id, member)) = members.iter().find(|(id, member)| is_meant(**id, &member.name)) {
        return Ok((*id, member.name.clone()));
    }
    let what = match with_id {
        0 => format!("called {called:?}"),
        id => format!("with the id {}", NodeId(id)),
    };
    // Who was asked for by a name that is an id.
    let id: Option<NodeId> = called.parse().ok().filter(|_| with_id == 0);
    let namesake = id.and_then(|id| Some((id, members.get(&id)?)));
    let instead =
        namesake.map(|(id, member)| format!("; --id {id} is {:?}", member.name)).unwrap_or_default();
    Err(with_exit(Code::NotFound, Exit::Local, format!("there is no node {what}{instead}")))
}

fn refusal(id: NodeId, name: &str, error: RemovalError) -> Status {
    match error {
        RemovalError::Objection(objection) => {
            // A node that joins and would take the place of one is told the objection, too, and has no such flag.
            let or = if objection == Objection::Heard { ", or give --force" } else { "" };
            let why = format!("{name} ({id}) is not removed: {objection}{or}");
            with_exit(Code::FailedPrecondition, Exit::Local, why)
        }
        RemovalError::Log(error) => failure::propose(error),
        RemovalError::Reply(other) => failure::reply(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_can_force_it_is_told_to() {
        let told = refusal(NodeId(7), "web", Objection::Heard.into());
        let expected =
            "web (n7) is not removed: it is heard: stop it first (SIGTERM lets it drain), or give --force";
        assert_eq!(told.message(), expected);
        assert!(!Objection::Heard.to_string().contains("--force"));
    }
}
