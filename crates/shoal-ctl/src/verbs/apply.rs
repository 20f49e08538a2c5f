//! `shoal apply`: a site becomes the next revision on every node.

use std::path::{Path, PathBuf};

use clap::Args;
use shoal_model::Site;
use shoal_model::state::{LONGEST_CONFIRM, SHORTEST_CONFIRM};
use shoal_model::units::Period;
use shoal_proto::admin::{AckState, ApplyRequest, ApplyResponse, ShowRequest, StageRequest};

use super::Session;
use super::author::{author, request_id};
use super::validate::{warnings, warnings_of_parts};
use crate::client::{Client, NodeArgs};
use crate::failure::{Exit, Failure};
use crate::site_files::SiteFiles;
use crate::{output, render};

/// What `shoal apply` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal apply -f site.yaml
  shoal apply -f sites/ --check-revision 7 -m 'move the shop to the new hosts'
  shoal apply -f site.yaml --confirm-timeout 5m    (then: shoal confirm)

Objects that the file does not mention stay as they are, unless --prune is given. With --no-wait the revision is in the log of a
majority and will be served by every node that is alive or comes back; `shoal status` shows which one each serves.
With --confirm-timeout the cluster goes back by itself to what was before, whoever is gone by then, unless `shoal confirm`
comes in time; until then nothing else can be applied, and `shoal abort` goes back at once.
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
    /// End as soon as the cluster has agreed, without waiting for the nodes [default: wait for every live node]
    #[arg(long)]
    no_wait: bool,
    /// Go back to what was before unless the revision is confirmed in time; 5s to 7d [default: it stays]
    #[arg(long, value_name = "TIME", value_parser = confirm_timeout)]
    confirm_timeout: Option<Period>,
    /// Why, for the history [default: nothing]
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

impl ApplyArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let site = read_checked("apply", &self.file, self.prune, &session.client).await?;
        let request = ApplyRequest {
            site_json: site.to_canonical_json(),
            prune: self.prune,
            check_revision: self.check_revision,
            author: author(),
            message: self.message.clone(),
            request_id: request_id()?,
            timeout_ms: session.timeout_ms(),
            no_wait: self.no_wait,
        };
        let response = match self.confirm_timeout {
            None => session.client.apply(request).await?,
            Some(Period(within)) => {
                let confirm_within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                session.client.stage(StageRequest { change: Some(request), confirm_within_ms }).await?
            }
        };
        // What is not in the file may be in the cluster, unless there was nothing before.
        let is_whole = self.prune || response.revision == 1;
        for warning in if is_whole { warnings(&site) } else { warnings_of_parts(&site) } {
            output::warn(&format!("the site is in force, but {warning}"));
        }
        print_applied(&session, &response, &self.message)
    }
}

/// Somebody has to have a chance, and nobody else can apply anything meanwhile.
fn confirm_timeout(text: &str) -> Result<Period, String> {
    let period = Period::parse(text)?;
    match (SHORTEST_CONFIRM..=LONGEST_CONFIRM).contains(&period.0) {
        true => Ok(period),
        false => {
            let (shortest, longest) = (Period(SHORTEST_CONFIRM), Period(LONGEST_CONFIRM));
            Err(format!("a revision can be confirmed within {shortest} to {longest}"))
        }
    }
}

/// Prints what `apply`, `rollback` and `abort` answer; the exit says whether every node has it.
/// `message`: what was to be kept in the history with it.
pub(super) fn print_applied(
    session: &Session,
    response: &ApplyResponse,
    message: &str,
) -> Result<Exit, Failure> {
    session.print(response, |response| render::applied(response, message))?;
    let everywhere = response.acks.iter().all(|ack| ack.state() == AckState::Applied);
    Ok(if everywhere { Exit::Done } else { Exit::Unacknowledged })
}

/// Reads the site for `verb` and checks it here, before any node is bothered with it. A file that is wrong by itself
/// may still fit what the cluster has: only then the active site is asked for.
pub(super) async fn read_checked(
    verb: &str,
    path: &Path,
    prune: bool,
    client: &Client,
) -> Result<Site, Failure> {
    let complain = |problems| Failure::site(format!("{verb} {}", path.display()), &problems);
    let files = SiteFiles::read(path).map_err(complain)?;
    if let Err(problems) = files.check_alone() {
        let active = if prune { None } else { active_site(client).await };
        let Some(active) = active else { return Err(complain(problems)) };
        files.check_over(&active).map_err(complain)?;
    }
    files.with_certificates().map_err(complain)
}

/// The active site, if a node can be reached and has one.
async fn active_site(client: &Client) -> Option<Site> {
    let shown = client.show(ShowRequest::default()).await.ok()?;
    Site::from_json(&shown.site_json).ok().filter(|site| !site.is_empty())
}
