//! `shoal rollout …`: a revision on its way from wave to wave.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use shoal_proto::admin::{
    ConfirmRequest, EndedRollout, GetRolloutResponse, HistoryRequest, RolloutAction, SetRolloutPolicyRequest,
    StepRolloutRequest,
};

use super::Session;
use super::author::{author, request_id};
use super::confirm::AbortArgs;
use super::course::{ALL_REVISIONS, Course, course};
use super::manner::PaceArgs;
use super::outcome::exit_of;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{Format, columns, print_line, to_json_line, to_yaml, write_stdout};
use crate::render;

/// Between two looks of somebody who watches.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What `shoal rollout` takes.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal apply -f site.yaml --waves
  shoal rollout status --watch
  shoal rollout pause
  shoal rollout abort -m 'the new hosts are too slow'")]
pub struct RolloutVerb {
    #[command(subcommand)]
    verb: Rollouts,
}

#[derive(Subcommand, Clone, Debug)]
enum Rollouts {
    Status(StatusArgs),
    /// Begin no further wave until `shoal rollout resume`; the nodes that serve the revision are watched on
    Pause(StepArgs),
    /// Let it go on
    Resume(StepArgs),
    Promote(PromoteArgs),
    /// Go back to what was before, at once
    Abort(AbortArgs),
    Policy(PolicyArgs),
}

/// Show the wave that a revision is in, what is seen of it, the time left, and what did harm before
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal rollout status
  shoal rollout status --watch -o json
  shoal rollout status 8 --watch

With --watch a line each time something is new, with -o json a document on a line, until the revision is everywhere, or was
confirmed or taken back; of one that has ended already, how it has ended. Where no revision is named and none is on its way,
that is the last one that did not come at once: scripts name the one that they have made.
Exit codes: 0 shown, or the revision that is named or watched stays; 5 it was taken back; 1 there is no such revision.")]
struct StatusArgs {
    /// Revision that is meant [default: the one that is on its way]
    #[arg(value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    /// Go on until the rollout has ended
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// What `pause` and `resume` take.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal rollout pause
  shoal rollout resume 8

Exit codes: 0 done, 4 the revision is not on its way (any more), 6 no quorum.")]
struct StepArgs {
    /// Revision that is meant [default: the one that is on its way]
    #[arg(value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Begin the next wave now, or with --all the last, whatever is known of this one
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal rollout promote
  shoal rollout promote 8 --all

Who did it is kept with the wave. With --all that is `shoal confirm`. Exit codes: 0 done, 2 no wave follows as yet, since a node
in service does not answer, 4 the revision is not on its way (any more), 5 not on every live node, 6 no quorum.")]
struct PromoteArgs {
    /// Have it on all nodes [default: on those of the next wave]
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    step: StepArgs,
}

/// Show or set how revisions come into force where nobody says
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal rollout policy
  shoal rollout policy --waves --bake 5m
  shoal rollout policy --at-once

Holds for `apply`, `set`, `delete` and `edit` without --waves, --urgent, --canary, --confirm-timeout or --at-once, on every
node. The first revision of a cluster and `rollback` come at once.")]
struct PolicyArgs {
    /// In waves, as with `shoal apply --waves`
    #[arg(long, conflicts_with = "at_once")]
    waves: bool,
    #[command(flatten)]
    pace: PaceArgs,
    /// On all nodes at once: what a new cluster does
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl RolloutVerb {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        match self.verb {
            Rollouts::Status(args) => args.run(root).await,
            Rollouts::Pause(args) => args.run(RolloutAction::Pause, root).await,
            Rollouts::Resume(args) => args.run(RolloutAction::Resume, root).await,
            Rollouts::Promote(args) => args.run(root).await,
            Rollouts::Abort(args) => args.run("rollout abort", root).await,
            Rollouts::Policy(args) => args.run(root).await,
        }
    }
}

impl StatusArgs {
    async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let mut seen = session.client.rollout().await?;
        let watched = self.revision.or(on_its_way(&seen));
        if !self.watch && (self.revision.is_none() || on_its_way(&seen) == watched) {
            if watched.is_none()
                && let Course::Ended(ended) = course_of(&session, &seen, None).await?
            {
                seen.ended = Some(*ended);
            }
            session.print(&seen, shown)?;
            return Ok(Exit::Done);
        }
        let mut told = String::new();
        loop {
            if watched.is_none() || on_its_way(&seen) != watched {
                match course_of(&session, &seen, watched).await? {
                    Course::Open => {}
                    Course::Ended(ended) => return tell_end(&session, seen, *ended),
                    Course::Nothing => {
                        session.print(&seen, shown)?;
                        return Ok(Exit::Done);
                    }
                }
            }
            let text = watched_line(&seen, session.format)?;
            // Nobody reads it any more.
            if text != told && !print_line(&text)? {
                return Ok(Exit::Done);
            }
            told = text;
            tokio::time::sleep(LOOK_INTERVAL).await;
            seen = session.client.rollout().await?;
        }
    }
}

fn on_its_way(seen: &GetRolloutResponse) -> Option<u64> {
    seen.rollout.as_ref().map(|rollout| rollout.revision)
}

/// How the way of `revision`, or of the last one that had one, has ended.
async fn course_of(
    session: &Session,
    seen: &GetRolloutResponse,
    revision: Option<u64>,
) -> Result<Course, Failure> {
    let history = session.client.history(HistoryRequest { limit: ALL_REVISIONS }).await?;
    course(&history.revisions, seen.ended.as_ref(), revision)
}

/// Tells it before anything that has begun since.
fn tell_end(session: &Session, seen: GetRolloutResponse, ended: EndedRollout) -> Result<Exit, Failure> {
    let exit = if ended.reverted_by == 0 { Exit::Done } else { Exit::Unacknowledged };
    let told = GetRolloutResponse { rollout: None, ended: Some(ended), ..seen };
    print_line(&watched_line(&told, session.format)?)?;
    Ok(exit)
}

fn shown(seen: &GetRolloutResponse) -> String {
    render::wrapped(&render::rollout(seen), columns())
}

fn shown_line(seen: &GetRolloutResponse) -> String {
    render::wrapped(&render::rollout_line(seen), columns())
}

/// One step of a rollout.
fn watched_line(seen: &GetRolloutResponse, format: Option<Format>) -> Result<String, Failure> {
    match format {
        None | Some(Format::Table) => Ok(shown_line(seen)),
        Some(Format::Yaml) => Ok(format!("---\n{}", to_yaml(seen)?)),
        Some(Format::Json) => to_json_line(seen),
    }
}

impl StepArgs {
    async fn run(self, action: RolloutAction, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        let request = StepRolloutRequest {
            revision: self.revision.unwrap_or_default(),
            action: action.into(),
            author: author(),
            request_id: request_id()?,
        };
        let response = session.client.step_rollout(request).await?;
        session.print(&response, shown_line)?;
        Ok(Exit::Done)
    }
}

impl PromoteArgs {
    async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        if !self.all {
            return self.step.run(RolloutAction::Promote, root).await;
        }
        let session = Session::open(self.step.node, root)?;
        let request = ConfirmRequest {
            revision: self.step.revision.unwrap_or_default(),
            author: author(),
            request_id: request_id()?,
            timeout_ms: session.timeout_ms(),
        };
        let response = session.client.confirm("rollout promote", request).await?;
        session.print(&response, render::confirmed)?;
        Ok(exit_of(&response.acks))
    }
}

impl PolicyArgs {
    async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let session = Session::open(self.node, root)?;
        if self.waves || self.at_once {
            let waves = self.waves.then(|| self.pace.pace());
            session.client.set_rollout_policy(SetRolloutPolicyRequest { waves }).await?;
        }
        let response = session.client.rollout().await?;
        match session.format {
            None | Some(Format::Table) => write_stdout(&render::rollout_policy(response.policy.as_ref()))?,
            Some(_) => session.print(&json!({ "policy": response.policy }), |_| String::new())?,
        }
        Ok(Exit::Done)
    }
}
