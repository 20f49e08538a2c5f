//! `shoal region …`: all nodes of a region, one after the other.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use shoal_model::units::Period;
use shoal_proto::admin::{NodeStatus, SetStandingRequest, StandingVerb};

use super::Session;
use super::author::author;
use super::standing::{carry_out, within_ms};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};

/// What `shoal region` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal region drain us
  shoal region undrain us")]
pub struct RegionVerb {
    #[command(subcommand)]
    verb: Regions,
}

#[derive(Subcommand, Clone, Debug)]
enum Regions {
    Drain(DrainArgs),
    Undrain(UndrainArgs),
}

/// Take all nodes of a region out of service, one after the other, without losing a request
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal region drain us
  shoal region drain us --deadline 2m

Each node goes as by `shoal node drain`: first those without a vote, then those with one, then the leader, and then those
that are not heard, which drain when they hear of it. A node that is refused, or says nothing for --timeout, ends it; asking
again goes on there. As soon as no node of another region serves, the next one is refused without --force. What is sent to
endpoints of the region is the site's to say (`drain: true`).
Exit codes: 0 all are drained, 1 it is refused, 5 a node says nothing.")]
struct DrainArgs {
    /// The region's name
    #[arg(value_name = "NAME")]
    name: String,
    /// How long connections to each node may take to end [default: the node's --drain-timeout]
    #[arg(long, value_name = "TIME", value_parser = Period::parse)]
    deadline: Option<Period>,
    /// Also when no node of another region serves
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Put all nodes of a region back into service
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal region undrain us

One after the other, as by `shoal node undrain`. Nodes that are not drained stay as they are.
Exit codes: 0 all are in service, 1 it is refused, 5 a node says nothing.")]
struct UndrainArgs {
    /// The region's name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    node: NodeArgs,
}

impl RegionVerb {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Regions::Drain(args) => {
                // Nodes are looked after here, all at once: each of them by itself would be refused as the last one.
                let within_ms = within_ms(args.deadline);
                let request = SetStandingRequest { within_ms, force: true, ..request(StandingVerb::Drain) };
                let spares = if args.force { Spares::Nobody } else { Spares::OthersServe };
                let session = Session::open(args.node, root)?;
                set_all("region drain", &session, &args.name, request, spares).await
            }
            Regions::Undrain(args) => {
                let (request, session) = (request(StandingVerb::Undrain), Session::open(args.node, root)?);
                set_all("region undrain", &session, &args.name, request, Spares::Nobody).await
            }
        }
    }
}

/// What has to be so while it is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spares {
    /// Nothing.
    Nobody,
    /// A node of another region serves.
    OthersServe,
}

fn request(verb: StandingVerb) -> SetStandingRequest {
    SetStandingRequest { verb: verb.into(), author: author(), ..SetStandingRequest::default() }
}

async fn set_all(
    verb: &'static str,
    session: &Session,
    region: &str,
    request: SetStandingRequest,
    spares: Spares,
) -> Result<Exit, Failure> {
    let mut done = BTreeSet::new();
    loop {
        // Who leads, and who serves elsewhere, may have changed.
        let nodes = session.client.status_for(verb).await?.nodes;
        let next = next_of(&nodes, region, &done);
        let Some(next) = next else {
            return match done.is_empty() {
                true => Err(Failure::local(verb, format!("no node is in the region {region:?}"))),
                false => Ok(Exit::Done),
            };
        };
        if spares == Spares::OthersServe && !others_serve(&nodes, region) {
            let why = format!(
                "{}: no node of another region than {region:?} serves; --force does it all the same",
                next.node
            );
            return Err(Failure::local(verb, why));
        }
        let request = SetStandingRequest { node: String::new(), node_id: next.node_id, ..request.clone() };
        match carry_out(session, verb, request).await? {
            Exit::Done => done.insert(next.node_id),
            exit => return Ok(exit),
        };
    }
}

/// Whose turn it is. Leading and voting is handed on as seldom as can be, and nobody waits for who is not heard.
fn next_of<'a>(nodes: &'a [NodeStatus], region: &str, done: &BTreeSet<u64>) -> Option<&'a NodeStatus> {
    let rank = |node: &NodeStatus| match (node.state.as_str(), node.role.as_str()) {
        ("dead" | "left", _) => 3,
        (_, "leader") => 2,
        (_, "voter") => 1,
        _ => 0,
    };
    let own = nodes.iter().filter(|node| node.region == region && !done.contains(&node.node_id));
    own.min_by_key(|node| (rank(node), node.node_id))
}

fn others_serve(nodes: &[NodeStatus], region: &str) -> bool {
    nodes.iter().any(|node| node.region != region && ["alive", "cordoned"].contains(&node.state.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_id: u64, role: &str, region: &str, state: &str) -> NodeStatus {
        NodeStatus {
            node_id,
            node: format!("n{node_id}"),
            role: role.to_owned(),
            region: region.to_owned(),
            state: state.to_owned(),
            ..NodeStatus::default()
        }
    }

    #[test]
    fn who_leads_goes_last_of_those_that_are_heard() {
        let nodes = [
            node(1, "leader", "us", "alive"),
            node(2, "voter", "us", "alive"),
            node(3, "learner", "us", "dead"),
            node(4, "voter", "eu", "alive"),
            node(5, "learner", "us", "drained"),
        ];
        let mut done = BTreeSet::new();
        let mut order = Vec::new();
        while let Some(next) = next_of(&nodes, "us", &done) {
            order.push(next.node.as_str());
            done.insert(next.node_id);
        }
        assert_eq!(order, ["n5", "n2", "n1", "n3"]);
        assert_eq!(next_of(&nodes, "ap", &BTreeSet::new()), None);
    }

    #[test]
    fn somebody_serves_elsewhere() {
        let check = |state: &str, region: &str, expected: bool| {
            let nodes = [node(1, "leader", "us", "alive"), node(2, "voter", region, state)];
            assert_eq!(others_serve(&nodes, "us"), expected, "{state} in {region}");
        };
        check("alive", "us", false);
        check("alive", "eu", true);
        check("cordoned", "eu", true);
        check("drained", "eu", false);
        check("draining", "eu", false);
        check("dead", "eu", false);
    }
}
