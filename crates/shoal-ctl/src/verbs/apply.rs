//! `shoal apply`: a site becomes the next revision on every node.

use std::path::PathBuf;

use clap::Args;
use shoal_proto::admin::{ApplyRequest, ChangeAction, PlanRequest};

use super::Session;
use super::author::{author, request_id};
use super::checked::read_checked;
use super::manner::{Change, MannerArgs};
use super::outcome::print_applied;
use super::question::{ask, can_ask};
use super::validate::{warnings, warnings_of_parts};
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::{output, render};

/// What `shoal apply` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal apply -f site.yaml
  shoal apply -f sites/ --check-revision 7 -m 'move the shop to the new hosts'
  shoal apply -f site.yaml --confirm-timeout 5m    (then: shoal confirm)
  shoal apply -f site.yaml --canary percent=10     (then: shoal confirm)
  shoal apply -f site.yaml --waves --bake 5m       (then: shoal rollout status --watch)

Objects that the file does not mention stay as they are, unless --prune is given: on a terminal what would change is shown then,
and where that removes something a yes is wanted; -y and scripts are not asked. With --no-wait the revision is in the log of a
majority and will be served by every node that is alive or comes back; `shoal status` shows which one each serves.
Nothing changes (exit 1) when a node that is alive and serves the active revision would refuse this one, as for a port that
another process has: see `shoal plan`.
With --confirm-timeout the cluster goes back by itself to what was before, whoever is gone by then, unless `shoal confirm`
comes in time; until then nothing else can be applied, and `shoal abort` goes back at once.
With --canary only some nodes serve it until then, and the cluster goes back sooner if they refuse it, die, or fail more
requests than the others. With --waves it goes on by itself where they do not: one node, one of each region, 5 %, a region,
25 %, all; see `shoal rollout`. What has failed so is not applied again without --force.
Exit codes: 0 applied everywhere, 1 bad site, 2 node failed, 4 another revision is active, or waits to be confirmed,
5 not on every live node (which, is printed), 6 no quorum.")]
pub struct ApplyArgs {
    /// Site file (YAML or JSON), directory of site files, or - for stdin
    #[arg(short, long, value_name = "FILE|DIR|-")]
    file: PathBuf,
    /// Refuse unless this revision is active [default: whatever is active]
    #[arg(long, value_name = "N")]
    check_revision: Option<u64>,
    /// Remove objects that the file does not mention [default: keep them]
    #[arg(long)]
    prune: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    manner: MannerArgs,
    /// Apply it also when a live node says that it would refuse it, or when it did harm before [default: change nothing then]
    #[arg(long)]
    force: bool,
    /// Why, for the history [default: nothing]
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    node: NodeArgs,
}

impl ApplyArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let site = read_checked("apply", &self.file, self.prune, &session.client).await?;
        if self.prune && !self.yes && can_ask() {
            let request = PlanRequest { site_json: site.to_canonical_json(), prune: true };
            let plan = session.client.plan(request).await?;
            let removes = plan.changes.iter().any(|change| change.action() == ChangeAction::Remove);
            if removes && !ask(&render::plan(&plan, session.style), "apply it, with what it removes?") {
                return Err(Failure::local("apply", "nothing was applied: the answer was not yes"));
            }
        }
        let request = ApplyRequest {
            site_json: site.to_canonical_json(),
            prune: self.prune,
            check_revision: self.check_revision,
            author: author(),
            message: self.message.clone(),
            request_id: request_id()?,
            timeout_ms: session.timeout_ms(),
            no_wait: self.manner.no_wait,
            force: self.force,
        };
        let response = session.publish("apply", Change::Apply(request), &self.manner).await?;
        // What is not in the file may be in the cluster, unless there was nothing before.
        let is_whole = self.prune || response.revision == 1;
        for warning in if is_whole { warnings(&site) } else { warnings_of_parts(&site) } {
            output::warn(&format!("the site is in force, but {warning}"));
        }
        print_applied(&session, &response, &self.message)
    }
}
