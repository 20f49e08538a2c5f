//! `shoal history`: past revisions.

use clap::Args;
use shoal_proto::admin::HistoryRequest;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal history` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal history
  shoal history --limit 100 -o json")]
pub struct HistoryArgs {
    /// Most revisions that are listed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    node: NodeArgs,
}

impl HistoryArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let response = session.client.history(HistoryRequest { limit: self.limit }).await?;
        session.print(&response, render::history)?;
        Ok(Exit::Done)
    }
}
