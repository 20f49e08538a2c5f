//! `shoal plan`: what `apply` would change.

use std::path::PathBuf;

use clap::Args;
use shoal_proto::admin::PlanRequest;

use super::Session;
use super::checked::read_checked;
use super::single::is_refused;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal plan` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal plan -f site.yaml
  shoal plan -f site.yaml --prune -o json

Every live node is asked whether it could serve the result: whether it compiles there and its ports can be bound.
Works without a quorum: then the file is compared with what the node that is asked has, and a warning says so.
Exit codes: 0 no difference, 3 differences, 1 bad site or one that a live node would refuse or that did harm before, 2 node
failed. What is on its way is named: until that has ended `apply` is refused (exit code 4), whatever it would change.")]
pub struct PlanArgs {
    /// Site file (YAML or JSON), directory of site files, or - for stdin
    #[arg(short, long, value_name = "FILE|DIR|-")]
    file: PathBuf,
    /// Show objects that the file does not mention as removed [default: keep them]
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl PlanArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let site = read_checked("plan", &self.file, self.prune, &session.client).await?;
        let request = PlanRequest { site_json: site.to_canonical_json(), prune: self.prune };
        let response = session.client.plan(request).await?;
        session.print(&response, |response| render::plan(response, session.style))?;
        Ok(match response {
            _ if response.changes.is_empty() => Exit::Done,
            _ if is_refused(&response) => Exit::Local,
            _ => Exit::Differences,
        })
    }
}
