//! `shoal rollback`: the content of an old revision becomes the next one.

use clap::Args;
use shoal_proto::admin::{HistoryRequest, RollbackRequest};

use super::Session;
use super::author::{author, request_id};
use super::course::{ALL_REVISIONS, last_that_stayed};
use super::manner::{Change, MannerArgs};
use super::outcome::print_applied;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output;

/// What `shoal rollback` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal rollback
  shoal rollback --to-revision 7 -m 'the new hosts are too slow'

Nothing is erased: a rollback is a new revision. It comes at once unless something else is said here, and ends the wait of a
revision that is not confirmed. What was taken back, by the cluster or by somebody, or is in quarantine, is passed over: only
--to-revision goes there. Exit codes are those of `shoal apply`.")]
pub struct RollbackArgs {
    /// Revision whose content is wanted [default: the newest before the active one that stayed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    to_revision: Option<u64>,
    /// Refuse unless this revision is active [default: the one that was active when the verb began]
    #[arg(long, value_name = "N")]
    check_revision: Option<u64>,
    /// Go back also to what did harm before [default: change nothing then]
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    manner: MannerArgs,
    /// Why, for the history [default: nothing]
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    node: NodeArgs,
}

impl RollbackArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let (to_revision, check_revision) = match self.to_revision {
            Some(to_revision) => (to_revision, self.check_revision),
            None => {
                let (previous, active) = previous_revision(&session).await?;
                // That one is only right as long as nobody else applies meanwhile.
                (previous, self.check_revision.or(Some(active)))
            }
        };
        let request = RollbackRequest {
            to_revision,
            check_revision,
            author: author(),
            message: self.message.clone(),
            request_id: request_id()?,
            timeout_ms: session.timeout_ms(),
            no_wait: self.manner.no_wait,
            force: self.force,
        };
        let response = session.publish("rollback", Change::Rollback(request), &self.manner).await?;
        if response.unchanged && self.to_revision.is_none() {
            output::note(&format!(
                "revision {to_revision} is the newest before the active one that stayed, and what it was is active already; for \
                 another: shoal rollback --to-revision N"
            ));
        }
        print_applied(&session, &response, &self.message)
    }
}

/// The newest revision before the active one that stayed, and the active one.
async fn previous_revision(session: &Session) -> Result<(u64, u64), Failure> {
    let history = session.client.history(HistoryRequest { limit: ALL_REVISIONS }).await?.revisions;
    let active = history.first().map(|info| info.revision);
    last_that_stayed(&history).zip(active).ok_or_else(|| {
        Failure::local("rollback", "there is no revision before the active one that stayed")
            .try_command("shoal history, then shoal rollback --to-revision N")
    })
}
