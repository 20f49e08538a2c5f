//! `shoal diff`: what differs between two revisions.

use clap::Args;
use shoal_proto::admin::DiffRequest;

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal diff` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal diff 7
  shoal diff 5 7 -o json

Revision 0 is the empty site of a new cluster. `shoal history` lists the revisions that are stored.
Exit codes: 0 no difference, 3 differences, 1 no such revision, 2 node failed.")]
pub struct DiffArgs {
    /// The revision before
    #[arg(value_name = "REV")]
    from: u64,
    /// The revision after [default: the active one]
    #[arg(value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

impl DiffArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let request = DiffRequest { from_revision: self.from, to_revision: self.to.unwrap_or(0) };
        let response = session.client.diff(request).await?;
        session.print(&response, |response| render::difference(response, session.style))?;
        Ok(if response.changes.is_empty() { Exit::Done } else { Exit::Differences })
    }
}
