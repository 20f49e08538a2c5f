//! `shoal node …`: the nodes of the cluster.

use clap::{Args, Subcommand};

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::render;

/// What `shoal node` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal node list")]
pub struct NodeVerb {
    #[command(subcommand)]
    verb: Nodes,
}

#[derive(Subcommand, Clone, Debug)]
enum Nodes {
    List(ListArgs),
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

impl NodeVerb {
    pub(super) fn node_args(&self) -> &NodeArgs {
        let Nodes::List(args) = &self.verb;
        &args.node
    }

    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let Nodes::List(args) = self.verb;
        let session = Session::open(args.node, root)?;
        let response = session.client.status().await?;
        let format = session.format.unwrap_or(Format::Table);
        output::print(format, &response.nodes, |nodes| render::nodes(nodes))?;
        Ok(Exit::Done)
    }
}
