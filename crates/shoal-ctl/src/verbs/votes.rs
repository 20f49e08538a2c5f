//! `shoal node promote` and `demote`: which nodes may vote.

use clap::Args;
use shoal_proto::admin::SetVoteRequest;

use super::Session;
use super::target::TargetArgs;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// Let a node vote that was demoted, or has joined by a token for learners
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node promote n4

The leader gives it a vote where one is free and it is the best for it, as with any other node; `shoal node list` shows who
votes. No node gives itself a vote: ask another one.")]
pub(super) struct PromoteArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Never let a node vote, until `promote`: it keeps the whole log, serves, and decides nothing
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node demote n4

For nodes that are far away or slow. If it leads, another voter does so first; its vote goes to a
node that may have it, or there is one fewer. It stays so when it is restarted. Refused where no other node is heard that
may vote, and has a vote or is in service.
Exit codes: 0 it has no vote, 1 it is refused, 5 it still has its vote after --timeout: the leader goes on.")]
pub(super) struct DemoteArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    node: NodeArgs,
}

impl PromoteArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        set("node promote", true, self.target, &Session::open(self.node, root)?).await
    }
}

impl DemoteArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        set("node demote", false, self.target, &Session::open(self.node, root)?).await
    }
}

async fn set(
    verb: &'static str,
    may_vote: bool,
    target: TargetArgs,
    session: &Session,
) -> Result<Exit, Failure> {
    let (node, node_id) = target.into_parts();
    let request = SetVoteRequest { node, node_id, may_vote, timeout_ms: session.timeout_ms() };
    let response = session.client.set_vote(verb, request).await?;
    session.print(&response, render::vote)?;
    Ok(if response.votes && !may_vote { Exit::Unacknowledged } else { Exit::Done })
}
