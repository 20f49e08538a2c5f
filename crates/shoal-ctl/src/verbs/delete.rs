//! `shoal delete`: objects are taken out of the site in one transaction.

use clap::Args;
use shoal_model::Site;
use shoal_model::site::Delta;

use super::Session;
use super::question::{ask, can_ask};
use super::single::{SingleArgs, object_name};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `shoal delete` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal delete route/shop upstream/shop -m 'the shop has moved'

Refused (exit 1) as long as something that stays refers to one of them: name it as well, or change it first. All of them
go in one revision, or none. On a terminal what would change is shown, and a yes is wanted; -y and scripts are not asked.
Exit codes are those of `shoal apply`; with --dry-run 0, or 1 where it would be refused.")]
pub struct DeleteArgs {
    /// The objects
    #[arg(value_name = "KIND/NAME", required = true)]
    objects: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    pub(super) single: SingleArgs,
}

impl DeleteArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.single.node.clone(), root)?;
        let removed =
            self.objects.iter().map(|object| object_name("delete", object)).collect::<Result<_, _>>()?;
        let (delta, since) = (Delta { put: Site::default(), removed }, self.single.check_revision);
        if !self.yes && !self.single.dry_run && can_ask() {
            let plan = self.single.plan(&session, "delete", &delta, since).await?;
            if !ask(&render::plan(&plan, session.style), "delete them?") {
                return Err(Failure::local("delete", "nothing was deleted: the answer was not yes"));
            }
        }
        self.single.send(&session, "delete", &delta, since).await
    }
}
