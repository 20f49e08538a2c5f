//! `shoal raft …`: the log by which the nodes agree.

use clap::{Args, Subcommand};
use shoal_model::NodeId;
use shoal_proto::admin::TransferLeaderRequest;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal raft` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal raft transfer-leader
  shoal raft transfer-leader n2")]
pub struct RaftVerb {
    #[command(subcommand)]
    verb: Rafts,
}

#[derive(Subcommand, Clone, Debug)]
enum Rafts {
    TransferLeader(TransferArgs),
}

/// Have another voter lead, for example before the machine of the leader is restarted
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal raft transfer-leader
  shoal raft transfer-leader n2

Any node can be asked. Without a name the leader hands over to the voter that is closest behind, of those in service; of any,
if it is out of service itself. Changes wait for as long as it takes, and go on with the new leader. Whoever led goes on
voting and serving, and may lead again: to take a node out of service, drain it.
Exit codes: 0 it leads, also if it did before; 1 it cannot lead: it does not vote, is not heard, is out of service, or its
log is not that of the leader; 2 it is not known whether it leads; 6 no quorum.")]
struct TransferArgs {
    /// Its name [default: the voter that is closest behind]
    #[arg(value_name = "NAME", conflicts_with = "id")]
    name: Option<String>,
    /// Its id, as `shoal node list` shows it
    #[arg(long, value_name = "ID")]
    id: Option<NodeId>,
    #[command(flatten)]
    node: NodeArgs,
}

impl RaftVerb {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Rafts::TransferLeader(args) => transfer(args, root).await,
        }
    }
}

async fn transfer(args: TransferArgs, root: NodeArgs) -> Result<Exit, Failure> {
    let TransferArgs { name, id, node } = args;
    let session = Session::open(node, root)?;
    let request = TransferLeaderRequest { node: name.unwrap_or_default(), node_id: id.map_or(0, |id| id.0) };
    let response = session.client.transfer_leader(request).await?;
    session.print(&response, render::transferred)?;
    Ok(Exit::Done)
}
