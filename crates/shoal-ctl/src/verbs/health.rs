//! `shoal health`: every endpoint, and who says what of it.

use clap::Args;
use shoal_proto::admin::HealthRequest;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal health` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal health
  shoal health shop

IS what the nodes together make of it: up, down, unknown, `checking` until the first check has ended, `unchecked` without
`health` in its upstream. SAYS is one node's word. SINCE is `-` while nothing is wrong there. Where nodes stand in several
regions, IS what those of the region of the node that is asked make of it, and REGION what the checkers of each do: that many
of so many. Of other regions only those are named who do not say up.")]
pub struct HealthArgs {
    /// One upstream [default: all]
    #[arg(value_name = "UPSTREAM", default_value = "", hide_default_value = true)]
    upstream: String,
    #[command(flatten)]
    node: NodeArgs,
}

impl HealthArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let response = session.client.health(HealthRequest { upstream: self.upstream }).await?;
        session.print(&response, |response| render::health(response, session.style))?;
        Ok(Exit::Done)
    }
}
