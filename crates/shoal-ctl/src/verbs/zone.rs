//! `shoal zone …`: all nodes of a zone, one after the other.

use clap::{Args, Subcommand};
use shoal_model::units::Period;

use super::Session;
use super::area::{Area, Order};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};

/// What `shoal zone` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal zone drain us/a
  shoal zone undrain us/a")]
pub struct ZoneVerb {
    #[command(subcommand)]
    verb: Zones,
}

#[derive(Subcommand, Clone, Debug)]
enum Zones {
    Drain(DrainArgs),
    Undrain(UndrainArgs),
}

/// Take all nodes of a zone out of service, one after the other, without losing a request
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal zone drain us/a
  shoal zone drain us/a --deadline 2m

Each node goes as by `shoal node drain`, in the order of `shoal region drain`. A node that is refused, or says nothing for
--timeout, ends it; asking again goes on there. As soon as no node of another zone of the region serves, the next one is
refused without --force. What is sent to endpoints of the zone is the site's to say (`drain: true`).
Exit codes: 0 all are drained, 1 it is refused, 5 a node says nothing.")]
struct DrainArgs {
    /// The region's name and the zone's
    #[arg(value_name = "REGION/ZONE", value_parser = Area::parse_zone)]
    zone: Area,
    /// How long connections to each node may take to end [default: the node's --drain-timeout]
    #[arg(long, value_name = "TIME", value_parser = Period::parse)]
    deadline: Option<Period>,
    /// Also when no node of another zone of the region serves
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Put all nodes of a zone back into service
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal zone undrain us/a

One after the other, as by `shoal node undrain`. Nodes that are not drained stay as they are.
Exit codes: 0 all are in service, 1 it is refused, 5 a node says nothing.")]
struct UndrainArgs {
    /// The region's name and the zone's
    #[arg(value_name = "REGION/ZONE", value_parser = Area::parse_zone)]
    zone: Area,
    #[command(flatten)]
    node: NodeArgs,
}

impl ZoneVerb {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let (order, node) = match self.verb {
            Zones::Drain(DrainArgs { zone, deadline, force, node }) => {
                (Order::drain("zone drain", zone, deadline, force), node)
            }
            Zones::Undrain(UndrainArgs { zone, node }) => (Order::undrain("zone undrain", zone), node),
        };
        order.carry_out(&Session::open(node, root)?).await
    }
}
