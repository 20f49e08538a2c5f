//! What the verbs that change single objects have in common: a transaction of a few objects, shown or carried out.

use clap::Args;
use shoal_model::Site;
use shoal_model::site::{Delta, ObjectName};
use shoal_proto::admin::{EditRequest, NodeVerdict, PlanResponse};

use super::Session;
use super::author::{author, request_id};
use super::manner::{Change, MannerArgs};
use super::outcome::print_applied;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::render;

/// What `set`, `delete` and `edit` take.
#[derive(Args, Clone, Debug)]
pub(super) struct SingleArgs {
    /// Refuse (exit 4) unless the objects that change are as they were in this revision
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) check_revision: Option<u64>,
    /// Show what would change, and change nothing (exit 1 when a live node would refuse it, or when it did harm before, and
    /// --force is not given)
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Change it also when a live node says that it would refuse it, or when the result did harm before [default: change
    /// nothing then]
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    manner: MannerArgs,
    /// Why, for the history [default: nothing]
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

impl SingleArgs {
    /// Shows the change, or carries it out. `since`: refused when an object that it changes is not as it was then.
    pub(super) async fn send(
        &self,
        session: &Session,
        verb: &str,
        delta: &Delta,
        since: Option<u64>,
    ) -> Result<Exit, Failure> {
        if self.dry_run {
            let plan = self.plan(session, verb, delta, since).await?;
            session.print(&plan, |plan| render::plan(plan, session.style))?;
            return Ok(if is_refused(&plan) && !self.force { Exit::Local } else { Exit::Done });
        }
        let change = Change::Edit(self.request(session, delta, since)?);
        let response = session.publish(verb, change, &self.manner).await?;
        print_applied(session, &response, &self.message)
    }

    /// What would change, as the node says that would carry it out.
    pub(super) async fn plan(
        &self,
        session: &Session,
        verb: &str,
        delta: &Delta,
        since: Option<u64>,
    ) -> Result<PlanResponse, Failure> {
        session.client.plan_edit(verb, self.request(session, delta, since)?).await
    }

    fn request(&self, session: &Session, delta: &Delta, since: Option<u64>) -> Result<EditRequest, Failure> {
        Ok(EditRequest {
            put_json: delta.put.to_canonical_json(),
            remove: delta.removed.iter().map(ObjectName::to_string).collect(),
            unchanged_since: since,
            author: author(),
            message: self.message.clone(),
            request_id: request_id()?,
            timeout_ms: session.timeout_ms(),
            force: self.force,
            no_wait: self.manner.no_wait,
        })
    }
}

/// Only with `--force` would what was planned be carried out.
pub(super) fn is_refused(plan: &PlanResponse) -> bool {
    let refuses = |verdict: &NodeVerdict| verdict.verdict == "refuses";
    !plan.changes.is_empty() && (plan.quarantined.is_some() || plan.verdicts.iter().any(refuses))
}

/// `KIND/NAME` as it was written behind `verb`.
pub(super) fn object_name(verb: &str, text: &str) -> Result<ObjectName, Failure> {
    text.parse().map_err(|why: String| Failure::local(verb, why).try_command(format!("shoal {verb} --help")))
}

/// The site that is active, with its revision.
pub(super) async fn active_site(session: &Session, verb: &str) -> Result<(u64, Site), Failure> {
    let shown = session.client.show(verb, Default::default()).await?;
    let unreadable = |error| Failure::new(Exit::Remote, verb, format!("the node sent no site: {error}"));
    Ok((shown.revision, Site::from_json(&shown.site_json).map_err(unreadable)?))
}

#[cfg(test)]
mod tests {
    use shoal_proto::admin::Change;

    use super::*;

    #[test]
    fn what_would_be_refused_is_known_from_the_plan() {
        let check = |changes: usize, did_harm: bool, verdicts: &[&str], expected: bool| {
            let verdict = |verdict: &&str| NodeVerdict { verdict: (*verdict).into(), ..Default::default() };
            let plan = PlanResponse {
                changes: vec![Change::default(); changes],
                quarantined: did_harm.then(Default::default),
                verdicts: verdicts.iter().map(verdict).collect(),
                ..PlanResponse::default()
            };
            assert_eq!(is_refused(&plan), expected, "{plan:?}");
        };
        check(1, false, &["takes", "takes"], false);
        check(1, false, &["takes", "refuses"], true);
        check(1, false, &["refuses_already", "silent"], false);
        check(1, true, &["takes"], true);
        check(0, false, &["refuses"], false);
    }
}
