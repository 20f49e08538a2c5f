//! `shoal upgrade status`, `finalize` and `hold`: when nodes may write what only a new version knows.

use clap::{Args, Subcommand};
use shoal_proto::admin::{SetUpgradeRequest, UpgradeAction};

use super::Session;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What concerns the upgrade of a whole cluster.
#[derive(Subcommand, Clone, Debug)]
pub enum UpgradeVerb {
    /// Show which level the cluster is at, what each node's version knows, and what the next level waits for
    #[command(after_help = "\
Example:
  shoal upgrade status
  shoal upgrade status -o json

A level says which commands nodes may write into the log. It is raised only where every node is heard and has a version
that knows the next one, by itself after a minute or at once by `shoal upgrade finalize`; until then each node can go back
to the version before, and what only the new version can do is refused. A node of a version that knows less than the
cluster's level serves its last known site, says why, and decides nothing until it has a newer version.")]
    Status(StatusArgs),
    /// Let nodes write what the new version knows: there is no way back to the version before
    #[command(after_help = "\
Example:
  shoal upgrade finalize

Every node has to be heard and to have the new version. Ends a hold.
Exit codes: 0 done, or nothing to do; 2 some nodes are not upgraded, or not heard; 6 no quorum.")]
    Finalize(StatusArgs),
    /// Do not raise the level by itself, as long as nodes are to be able to go back
    #[command(after_help = "\
Example:
  shoal upgrade hold -m 'watch it until monday'
  shoal upgrade hold --release

Exit codes: 0 done, or it is so already; 1 somebody holds it with another message; 2 an older version is left; 6 no quorum.")]
    Hold(HoldArgs),
}

/// What `shoal upgrade status` and `finalize` take.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// What `shoal upgrade hold` takes.
#[derive(Args, Clone, Debug)]
pub struct HoldArgs {
    /// Why, for whoever asks [default: nothing]
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// End the hold: the level is raised by itself again
    #[arg(long, conflicts_with = "message")]
    release: bool,
    /// Also in the place of a hold of somebody else, or with another message
    #[arg(long, conflicts_with = "release")]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl UpgradeVerb {
    /// Runs it to its end; `root` holds the connection flags that were written before it.
    ///
    /// # Errors
    /// Whatever keeps it from its answer, with the exit code it ends with.
    pub async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let (node, action, message, force) = match self {
            Self::Status(args) => {
                let session = Session::open(args.node, root)?;
                let response = session.client.upgrade_status().await?;
                session.print(&response, render::upgrade)?;
                return Ok(Exit::Done);
            }
            Self::Finalize(args) => (args.node, UpgradeAction::Finalize, String::new(), false),
            Self::Hold(args) if args.release => (args.node, UpgradeAction::Release, String::new(), false),
            Self::Hold(args) => (args.node, UpgradeAction::Hold, args.message, args.force),
        };
        let session = Session::open(node, root)?;
        let request = SetUpgradeRequest { action: action.into(), message, force };
        let response = session.client.set_upgrade(request).await?;
        session.print(&response, render::upgrade)?;
        Ok(Exit::Done)
    }
}
