//! `shoal status`: the cluster on one screen.

use clap::Args;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal status` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal status
  shoal --socket /var/lib/shoal/admin.sock status -o json")]
pub struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
}

impl StatusArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let response = session.client.status().await?;
        let identity_not_after = session.client.identity_ends_soon(session.style.now);
        session.print(&response, |response| render::status(response, identity_not_after, session.style))?;
        Ok(Exit::Done)
    }
}
