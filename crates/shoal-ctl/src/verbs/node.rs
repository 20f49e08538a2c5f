//! `shoal node …`: the nodes of the cluster.

use clap::{Args, Subcommand};
use shoal_model::NodeId;
use shoal_proto::admin::{AckState, RemoveNodeRequest};

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::render;

/// What `shoal node` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal node list\n  shoal node remove n4")]
pub struct NodeVerb {
    #[command(subcommand)]
    verb: Nodes,
}

#[derive(Subcommand, Clone, Debug)]
enum Nodes {
    List(ListArgs),
    Remove(RemoveArgs),
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

/// Take a node that is gone for good out of the cluster: it cannot come back with what it has on disk
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node remove n4
  shoal node remove --id n9

Stop the node first (SIGTERM lets it drain), or let it be dead: one that is heard is only removed with --force. Nothing is
removed that the remaining voters could not do without. Its name is free afterwards, its id is never used again.")]
struct RemoveArgs {
    /// Its name
    #[arg(value_name = "NAME", required_unless_present = "id", conflicts_with = "id")]
    name: Option<String>,
    /// Its id, as `shoal node list` shows it
    #[arg(long, value_name = "ID")]
    id: Option<NodeId>,
    /// Also when it is heard
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl NodeVerb {
    pub(super) fn node_args(&self) -> &NodeArgs {
        match &self.verb {
            Nodes::List(args) => &args.node,
            Nodes::Remove(args) => &args.node,
        }
    }

    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Nodes::List(args) => list(args, root).await,
            Nodes::Remove(args) => remove(args, root).await,
        }
    }
}

async fn list(args: ListArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let response = session.client.status().await?;
    let format = session.format.unwrap_or(Format::Table);
    output::print(format, &response.nodes, |nodes| render::nodes(nodes))?;
    Ok(Exit::Done)
}

async fn remove(args: RemoveArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let session = Session::open(args.node, root)?;
    let request = RemoveNodeRequest {
        node: args.name.unwrap_or_default(),
        node_id: args.id.map_or(0, |id| id.0),
        force: args.force,
        timeout_ms: session.timeout_ms(),
    };
    let response = session.client.remove_node(request).await?;
    session.print(&response, render::removed)?;
    let everywhere = response.acks.iter().all(|ack| ack.state() == AckState::Applied);
    Ok(if everywhere && response.left_membership { Exit::Done } else { Exit::Unacknowledged })
}
