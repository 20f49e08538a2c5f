//! Verbs that say which nodes may vote. Which of those do is left to the leader's autopilot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_model::state::Command;
use shoal_model::{NodeId, Revision};
use shoal_proto::admin::{SetVoteRequest, SetVoteResponse};
use tonic::{Code, Status};

use super::base::linearizable_base;
use super::caller::wait_of;
use super::failure::{self, Exit, with_exit};
use super::members::find;
use super::status::role_of;
use crate::node::Node;

/// Between two looks at who votes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Lets a node vote, or does not and waits until it has no vote.
pub async fn set(
    node: &Arc<Node>,
    request: &SetVoteRequest,
    caller: &str,
) -> Result<SetVoteResponse, Status> {
    let (started, wait, may_vote) = (Instant::now(), wait_of(request.timeout_ms), request.may_vote);
    // What was said a moment ago by way of another node is known here from then on.
    linearizable_base(node).await?;
    let (id, name) = find(node, &request.node, request.node_id)?;
    let refused = |why: &str| with_exit(Code::FailedPrecondition, Exit::Local, format!("{name}: {why}"));
    let unchanged = node.may_vote(id) == may_vote;
    if !unchanged {
        check(node, id, may_vote).map_err(refused)?;
        let command = Command::SetVote { node_id: id, may_vote };
        let proposed = node.log.propose(command).await.map_err(failure::propose)?;
        proposed.reply.done().map_err(failure::reply)?;
        node.await_applied(proposed.index, Revision(0), wait).await;
        tracing::info!(member = %id, name, may_vote, by = caller, "who may vote was changed");
    }
    let log = loop {
        let log = node.led_status();
        // An even number of voters becomes one fewer in the next round.
        let has_gone = !log.voters.contains(&id) && log.voters.len() % 2 == 1;
        let is_over = may_vote || has_gone || started.elapsed() >= wait;
        if is_over {
            break log;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let members = node.members();
    let names = log.voters.iter().filter_map(|id| members.get(id)).map(|member| member.name.clone());
    Ok(SetVoteResponse {
        node_id: id.0,
        voters: names.collect(),
        role: role_of(id, &log).to_owned(),
        votes: log.voters.contains(&id),
        node: name,
        may_vote,
        unchanged,
    })
}

/// What speaks against it, as this node sees the others.
fn check(node: &Node, id: NodeId, may_vote: bool) -> Result<(), &'static str> {
    if may_vote {
        return match id == node.id() {
            true => Err("no node gives itself a vote: ask another one"),
            false => Ok(()),
        };
    }
    let voters = node.led_status().voters;
    let mut others = node.live_members().into_iter().map(|(other, _)| other).filter(|other| *other != id);
    match others
        .any(|other| node.may_vote(other) && voters.contains(&other) || node.may_be_given_a_vote(other))
    {
        true => Ok(()),
        false => Err("no other node is heard that may vote and is in service"),
    }
}
