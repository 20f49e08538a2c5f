//! `shoal node drain`, `undrain`, `cordon` and `uncordon`: one call, and a line whenever something has changed.

use clap::Args;
use shoal_model::units::{Period, millis_u64};
use shoal_proto::admin::{SetStandingRequest, StandingProgress, StandingVerb};

use super::Session;
use super::author::author;
use super::target::TargetArgs;
use crate::client::NodeArgs;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::render;

/// Take a node out of service without losing a request, and keep it so until `undrain`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node drain n2
  shoal node drain n2 --deadline 2m --leave

Any node can be asked for any other. The node stops being ready, has its --drain-hook withdraw what leads to it, accepts
for --drain-delay more, closes its listeners, lets every connection end with its next answer (those that are open after the
deadline are cut off), gives what it has cached to its next owners, and hands on its vote, if another node can have it.
The process goes on: the node knows of every change, and comes back by `shoal node undrain`. It stays drained when it is
restarted, and when --leave has ended it. Ctrl-C ends the waiting and not the draining; asking again goes on waiting.
The last node of a region that serves is not drained without --force. --timeout is how long the node may say nothing.
Exit codes: 0 it is drained, 1 it is refused, 5 the node says nothing: it drains when it hears of it.")]
pub(super) struct DrainArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// How long connections may take to end, from when the listeners are closed [default: the node's --drain-timeout]
    #[arg(long, value_name = "TIME", value_parser = Period::parse)]
    deadline: Option<Period>,
    /// End the process once the node is drained
    #[arg(long)]
    leave: bool,
    /// Also the last node of its region that serves
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Put a drained node back into service
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node undrain n2

Its listeners open first; then it is ready, its --drain-hook announces it, and it owns objects, checks endpoints and may
vote again. A node that is still draining stops doing so. One that is not drained stays as it is.")]
pub(super) struct UndrainArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Let a node serve traffic and nothing else: it owns no cached objects, checks no endpoints and votes only if it must
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node cordon n2

For a node that is to be watched, or is about to go: requests go on coming in and being answered there, out of what it has
cached as well, but no other node depends on it. It keeps its vote only while no other node can have it, and leads only
while no other voter can. It stays cordoned when it is restarted. The last node of a region that has duties is not
cordoned without --force.")]
pub(super) struct CordonArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Also the last node of its region that has duties
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Let a cordoned node do its part again
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  shoal node uncordon n2")]
pub(super) struct UncordonArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    node: NodeArgs,
}

impl DrainArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let request = SetStandingRequest {
            within_ms: within_ms(self.deadline),
            leave: self.leave,
            force: self.force,
            ..request(StandingVerb::Drain, self.target)
        };
        set("node drain", request, self.node, root).await
    }
}

impl UndrainArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        set("node undrain", request(StandingVerb::Undrain, self.target), self.node, root).await
    }
}

impl CordonArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        let request = SetStandingRequest { force: self.force, ..request(StandingVerb::Cordon, self.target) };
        set("node cordon", request, self.node, root).await
    }
}

impl UncordonArgs {
    pub(super) async fn run(self, root: NodeArgs) -> Result<Exit, Failure> {
        set("node uncordon", request(StandingVerb::Uncordon, self.target), self.node, root).await
    }
}

/// A node's deadline, as requests have it.
pub(super) fn within_ms(deadline: Option<Period>) -> Option<u64> {
    deadline.map(|deadline| millis_u64(deadline.0))
}

fn request(verb: StandingVerb, target: TargetArgs) -> SetStandingRequest {
    let (node, node_id) = target.into_parts();
    SetStandingRequest { node, node_id, verb: verb.into(), author: author(), ..SetStandingRequest::default() }
}

async fn set(
    verb: &'static str,
    request: SetStandingRequest,
    node: NodeArgs,
    root: NodeArgs,
) -> Result<Exit, Failure> {
    carry_out(&Session::open(node, root)?, verb, request).await
}

/// Asks for it, and tells until it is so.
pub(super) async fn carry_out(
    session: &Session,
    verb: &'static str,
    request: SetStandingRequest,
) -> Result<Exit, Failure> {
    let wanted = request.verb();
    let request = SetStandingRequest { timeout_ms: session.timeout_ms(), ..request };
    let shows_progress = session.format.unwrap_or(Format::Table) == Format::Table;
    let mut last: Option<StandingProgress> = None;
    let told = |progress: StandingProgress| {
        let line = render::progress(last.as_ref(), &progress);
        last = Some(progress);
        match line {
            Some(line) if shows_progress => output::write_stdout(&line),
            Some(_) | None => Ok(()),
        }
    };
    session.client.set_standing(verb, request, told).await?;
    let last = last.unwrap_or_default();
    session.print(&last, |last| render::standing(wanted, last))?;
    Ok(if last.done { Exit::Done } else { Exit::Unacknowledged })
}
