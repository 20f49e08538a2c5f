//! `shoal cluster …`: what holds for the cluster as a whole, and its own certificates and keys (`keys.rs`).

use clap::{Args, Subcommand};
use serde::Serialize;
use shoal_model::state::{Timing, voter_limit};
use shoal_proto::admin::{ChangeSetupRequest, StatusResponse};

use super::Session;
use super::keys::{KeysArgs, NodeLifeArgs, RotateArgs};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure, one_line};

/// What `shoal cluster` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  shoal cluster setup --timing wan\n  shoal cluster keys")]
pub struct ClusterVerb {
    #[command(subcommand)]
    verb: Clusters,
}

#[derive(Subcommand, Clone, Debug)]
enum Clusters {
    Setup(SetupArgs),
    Keys(KeysArgs),
    NodeLife(NodeLifeArgs),
    Rotate(RotateArgs),
}

/// Show, or change, how patient the nodes are with each other, and how many of them vote at most
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal cluster setup
  shoal cluster setup --timing wan
  shoal cluster setup --max-voters 7

How many vote is seen to at once, one change at a time. By another timing each node goes from its next start on: restart
them one after the other. Until then their timings differ, which costs an election at most.")]
struct SetupArgs {
    /// `lan` for one region, `small` for shared machines or slow disks, `wan` for several regions [default: as it is]
    #[arg(long, value_name = "lan|small|wan")]
    timing: Option<Timing>,
    /// How many nodes vote at most: 3, 5 or 7 [default: as it is]
    #[arg(long, value_name = "N", value_parser = voter_limit)]
    max_voters: Option<u8>,
    #[command(flatten)]
    node: NodeArgs,
}

/// What holds, and for whom it does not yet.
#[derive(Serialize)]
struct Setup {
    timing: String,
    max_voters: u32,
    /// Names of nodes whose process goes by another timing.
    until_restarted: Vec<String>,
}

impl ClusterVerb {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Clusters::Setup(args) => setup(args, root).await,
            Clusters::Keys(args) => args.run(root).await,
            Clusters::NodeLife(args) => args.run(root).await,
            Clusters::Rotate(args) => args.run(root).await,
        }
        .map(|()| Exit::Done)
    }
}

async fn setup(args: SetupArgs, root: NodeArgs) -> Result<(), Failure> {
    let session = Session::open(args.node, root)?;
    if args.timing.is_some() || args.max_voters.is_some() {
        let request = ChangeSetupRequest {
            timing: args.timing.map_or_else(String::new, |timing| timing.to_string()),
            max_voters: args.max_voters.map_or(0, u32::from),
        };
        session.client.change_setup(request).await?;
    }
    let setup = Setup::of(session.client.status_for("cluster setup").await?);
    session.print(&setup, render)
}

impl Setup {
    fn of(status: StatusResponse) -> Self {
        let StatusResponse { timing, max_voters, nodes, .. } = status;
        let others = nodes
            .into_iter()
            .filter(|node| !node.timing.is_empty() && !timing.is_empty() && node.timing != timing);
        let until_restarted = others.map(|node| node.node).collect();
        Self { timing, max_voters, until_restarted }
    }
}

fn render(setup: &Setup) -> String {
    let timing = match setup.timing.as_str() {
        "" => "of each node as its disk is fast".to_owned(),
        timing => one_line(timing),
    };
    let mut text = format!("timing      {timing}\nmax voters  {}\n", setup.max_voters);
    if !setup.until_restarted.is_empty() {
        let names: Vec<String> = setup.until_restarted.iter().map(|name| one_line(name)).collect();
        text += &format!("\nby another timing until they are started anew: {}\n", names.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::NodeStatus;

    use super::*;

    #[test]
    fn who_goes_by_another_timing_is_named() {
        let node = |node: &str, timing: &str| NodeStatus {
            node: node.to_owned(),
            timing: timing.to_owned(),
            ..NodeStatus::default()
        };
        let check = |timing: &str, nodes: Vec<NodeStatus>, expected: &str| {
            let status = StatusResponse {
                timing: timing.to_owned(),
                max_voters: 5,
                nodes,
                ..StatusResponse::default()
            };
            assert_eq!(render(&Setup::of(status)), expected);
        };
        check("wan", vec![node("n1", "wan"), node("n2", "")], "timing      wan\nmax voters  5\n");
        check(
            "wan",
            vec![node("n1", "wan"), node("n2", "lan"), node("n3", "small")],
            "timing      wan\nmax voters  5\n\nby another timing until they are started anew: n2, n3\n",
        );
        check(
            "",
            vec![node("n1", "lan"), node("n2", "small")],
            "timing      of each node as its disk is fast\nmax voters  5\n",
        );
    }
}
