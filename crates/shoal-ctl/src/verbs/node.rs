//! `shoal node …`: the nodes of the cluster.

use clap::{Args, Subcommand};
use shoal_proto::admin::{
    AckState, DescribeNodeRequest, RemoveNodeRequest, RemoveNodeResponse, RevokeNodeRequest,
};

use super::Session;
use super::standing::{CordonArgs, DrainArgs, UncordonArgs, UndrainArgs};
use super::target::TargetArgs;
use super::votes::{DemoteArgs, PromoteArgs};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal node` takes.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  shoal node list\n  shoal node describe n2\n  shoal node drain n2\n  shoal node undrain n2\n  shoal node remove n4"
)]
pub struct NodeVerb {
    #[command(subcommand)]
    verb: Nodes,
}

#[derive(Subcommand, Clone, Debug)]
enum Nodes {
    List(ListArgs),
    Describe(DescribeArgs),
    Drain(DrainArgs),
    Undrain(UndrainArgs),
    Cordon(CordonArgs),
    Uncordon(UncordonArgs),
    Promote(PromoteArgs),
    Demote(DemoteArgs),
    Remove(RemoveArgs),
    Revoke(RevokeArgs),
}

/// List the nodes: id, role, state, addresses, revision
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node list
  shoal node list -o json")]
struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// Show everything that is known of a node: place, role, revision, readiness, lease, cache, connections, problems
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node describe n2
  shoal node describe --id n9 -o json

Any node can be asked for any other. Of one that does not answer only what the others know is shown.")]
struct DescribeArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Take a node that is gone for good out of the cluster: it cannot come back with what it has on disk
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node remove n4
  shoal node remove --id n9

Stop the node first (SIGTERM lets it drain), or let it be dead: one that is heard is only removed with --force. Nothing is
removed that the remaining voters could not do without. Its name is free afterwards, its id is never used again.")]
struct RemoveArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Also when it is heard
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Cut a node off at once that is not trusted any more, as one whose disk was stolen; it is removed as well
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node revoke n4
  shoal node revoke --id n9

Every node that hears of it closes what is open to or from the revoked one, and refuses its certificate from then on: whoever
has it, or a copy of its disk, is told nothing. Whether it is heard makes no difference, but as with `node remove` the other
voters have to be able to do without it. What was on the disk before, as the cluster's secret, is known to whoever has it.")]
struct RevokeArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    node: NodeArgs,
}

impl NodeVerb {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Nodes::List(args) => list(args, root).await,
            Nodes::Describe(args) => describe(args, root).await,
            Nodes::Drain(args) => args.run(root).await,
            Nodes::Undrain(args) => args.run(root).await,
            Nodes::Cordon(args) => args.run(root).await,
            Nodes::Uncordon(args) => args.run(root).await,
            Nodes::Promote(args) => args.run(root).await,
            Nodes::Demote(args) => args.run(root).await,
            Nodes::Remove(args) => remove(args, root).await,
            Nodes::Revoke(args) => revoke(args, root).await,
        }
    }
}

async fn list(args: ListArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let response = session.client.status_for("node list").await?;
    let listed = serde_json::json!({ "nodes": response.nodes });
    session.print(&listed, |_| render::nodes(&response.nodes))?;
    Ok(Exit::Done)
}

async fn describe(args: DescribeArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let (node, node_id) = args.target.into_parts();
    let response = session.client.describe_node(DescribeNodeRequest { node, node_id }).await?;
    session.print(&response, |response| render::described(response, session.style))?;
    Ok(Exit::Done)
}

async fn remove(args: RemoveArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let (node, node_id) = args.target.into_parts();
    let request = RemoveNodeRequest { node, node_id, force: args.force, timeout_ms: session.timeout_ms() };
    let response = session.client.remove_node(request).await?;
    session.print(&response, |response| render::removed("removed", response))?;
    Ok(exit_of(&response))
}

async fn revoke(args: RevokeArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let (node, node_id) = args.target.into_parts();
    let request = RevokeNodeRequest { node, node_id, timeout_ms: session.timeout_ms() };
    let response = session.client.revoke_node(request).await?;
    session.print(&response, |response| render::removed("revoked", response))?;
    Ok(exit_of(&response))
}

fn exit_of(response: &RemoveNodeResponse) -> Exit {
    let everywhere = response.acks.iter().all(|ack| ack.state() == AckState::Applied);
    if everywhere && response.left_membership { Exit::Done } else { Exit::Unacknowledged }
}
