//! `shoal upgrade status`, `finalize` and `hold`: the level of the cluster, and who may raise it when.

use std::sync::Arc;

use shoal_model::state::{Command, Hold, LEVELS};
use shoal_model::units::moment;
use shoal_policy::levels::Obstacle;
use shoal_proto::admin::{MemberVersion, SetUpgradeRequest, UpgradeAction, UpgradeStatusResponse};
use tonic::{Code, Status};

use super::base::{linearizable_base, put};
use super::caller::check_message;
use super::failure::{Exit, with_exit};
use crate::node::{Node, now_ms};

/// Nodes that are named where all have to be upgraded first.
const MAX_NAMED: usize = 5;

/// As this node knows it once it has applied everything that was committed before.
pub async fn status(node: &Arc<Node>) -> Result<UpgradeStatusResponse, Status> {
    linearizable_base(node).await?;
    Ok(known(node, false))
}

/// Raises the level, or says whether it is raised by itself; what is so already is not written again.
pub async fn set(
    node: &Arc<Node>,
    request: SetUpgradeRequest,
    caller: &str,
) -> Result<UpgradeStatusResponse, Status> {
    check_message(&request.message)?;
    linearizable_base(node).await?;
    let command = match request.action() {
        UpgradeAction::Finalize => finalizing(node)?,
        UpgradeAction::Hold => {
            let held = node.log.with_state(|state| state.level.held.clone());
            let hold = Hold { by: caller.to_owned(), message: request.message, at_ms: now_ms() };
            match held.filter(|_| !request.force) {
                Some(held) if (&held.by, &held.message) == (&hold.by, &hold.message) => None,
                Some(held) => return Err(is_held(&held)),
                None => Some(holding(node, Some(hold))?),
            }
        }
        UpgradeAction::Release => Some(holding(node, None)?),
        UpgradeAction::Unspecified => {
            return Err(with_exit(Code::InvalidArgument, Exit::Local, "no action is given"));
        }
    };
    let Some(command) = command else { return Ok(known(node, false)) };
    let what = command.to_string();
    put(node, command).await?;
    tracing::info!(what, by = caller, "the level of the cluster, or what becomes of it, was changed");
    linearizable_base(node).await?;
    Ok(known(node, true))
}

/// Whoever holds it has a reason, which nobody is to lose unseen.
fn is_held(held: &Hold) -> Status {
    let Hold { by, message, at_ms } = held;
    let colon = if message.is_empty() { "" } else { ": " };
    let since = moment(i64::try_from(at_ms / 1000).unwrap_or(i64::MAX));
    let why = format!("nothing was changed: it is held since {since} by {by}{colon}{message}");
    with_exit(Code::FailedPrecondition, Exit::Local, why)
}

/// What raises the level to what every member knows, or ends a hold of it; `None` = it is there.
fn finalizing(node: &Node) -> Result<Option<Command>, Status> {
    let (level, versions, outlook) = node.levels();
    if outlook.reachable > level.number {
        return Ok(Some(Command::SetLevel { from: level.number, to: outlook.reachable }));
    }
    if outlook.newest == level.number {
        // There is nothing to hold any more either.
        return level.held.map(|_| holding(node, None)).transpose();
    }
    let told = versions.iter().zip(&outlook.obstacles).filter_map(|(member, obstacle)| match obstacle {
        None => None,
        Some(Obstacle::NotHeard) => Some(format!("{} is not heard", member.name)),
        Some(Obstacle::Knows(level)) => Some(format!("{} knows up to level {level}", member.name)),
    });
    let told: Vec<String> = told.collect();
    let named = told.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let more = match told.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let why = format!(
        "not every node has the version that knows level {}: {named}{more}; upgrade them, or remove those that are gone \
         for good with `shoal node remove`",
        outlook.newest
    );
    Err(with_exit(Code::FailedPrecondition, Exit::Remote, why))
}

fn holding(node: &Node, hold: Option<Hold>) -> Result<Command, Status> {
    let unaware = node.members_without(LEVELS);
    if unaware.is_empty() {
        return Ok(Command::HoldLevel { hold });
    }
    let named = unaware.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let why = format!(
        "nodes of a version without levels are left, or are not heard ({named}); as long as they are, nothing is raised"
    );
    Err(with_exit(Code::FailedPrecondition, Exit::Remote, why))
}

fn known(node: &Node, changed: bool) -> UpgradeStatusResponse {
    let (level, versions, outlook) = node.levels();
    let held = level.held.as_ref();
    let nodes = versions.into_iter().zip(&outlook.obstacles).map(|(member, obstacle)| MemberVersion {
        node_id: member.id.0,
        node: member.name,
        version: member.version,
        knows: member.knows,
        heard: member.is_heard,
        waited_for: obstacle.is_some(),
    });
    UpgradeStatusResponse {
        level: level.number,
        reachable: outlook.reachable,
        newest: outlook.newest,
        held_by: held.map_or_else(String::new, |hold| hold.by.clone()),
        held_message: held.map_or_else(String::new, |hold| hold.message.clone()),
        held_at_ms: held.map_or(0, |hold| hold.at_ms),
        nodes: nodes.collect(),
        changed,
    }
}
