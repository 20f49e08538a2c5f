//! `shoal region …`: all nodes of a region, one after the other.

use clap::{Args, Subcommand};
use shoal_model::units::Period;

use super::Session;
use super::area::{Area, Order};
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
        let (order, node) = match self.verb {
            Regions::Drain(DrainArgs { name, deadline, force, node }) => {
                (Order::drain("region drain", Area::Region(name), deadline, force), node)
            }
            Regions::Undrain(UndrainArgs { name, node }) => {
                (Order::undrain("region undrain", Area::Region(name)), node)
            }
        };
        order.carry_out(&Session::open(node, root)?).await
    }
}
