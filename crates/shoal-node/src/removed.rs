//! A node that was removed while it was away: it finds out, serves nobody what may be old, and stays away.
//!
//! Nobody tells it: it is not in the membership, and gossip ignores it. So it asks when it misses the others, or one of them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use shoal_cluster::identity::write_private;
use shoal_model::{NodeId, Revision};
use tokio::time::MissedTickBehavior;
use tonic::Code;

use crate::node::Node;

/// What a removed node answers, and ends with.
pub const ADVICE: &str = "this node was removed from the cluster; start it with an empty data directory to join again \
                          (`--join` and a new `--token`)";
/// Its mark in the data directory.
const MARK: &str = "removed";
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Members that are asked at each look, in turn.
const ASKED_AT_ONCE: usize = 3;
/// With a quorum only every so many looks: it may be one of nodes that are all of before the cluster was recovered.
const QUIET_LOOKS: usize = 5;
/// Time for their answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The data directory of a removed node is good for nothing but to look at.
pub fn refuse_to_start(dir: &Path) -> anyhow::Result<()> {
    match dir.join(MARK).try_exists() {
        Ok(true) => bail!(ADVICE),
        Ok(false) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot look into {}", dir.display())),
    }
}

/// Looks until this node was removed; then says so, marks the data directory and cancels [`Node::removed`].
pub async fn notice(node: Arc<Node>) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0_usize;
    loop {
        looks.tick().await;
        let is_urgent = !node.log.status().quorum;
        let asks = is_urgent || turn.is_multiple_of(QUIET_LOOKS);
        if node.log.has_left(node.id()) || (asks && is_told(&node, turn, is_urgent).await) {
            break;
        }
        turn = turn.wrapping_add(1);
    }
    tracing::error!(node = %node.id(), name = node.identity.name, "{ADVICE}");
    if let Err(error) = mark(&node.settings.data_dir) {
        tracing::error!(%error, "the data directory could not be marked: it can be started once more");
    }
    node.removed.cancel();
    std::future::pending().await
}

/// Whether one of the next few members (of those that are not heard, unless `anybody` is asked) says that this node is none of them. Each has to prove with its certificate that it
/// is of the cluster, and none can be wrong: ids are not used again.
async fn is_told(node: &Node, turn: usize, anybody: bool) -> bool {
    let view = node.gossip.view().load_full();
    let is_missed = |id: &NodeId| anybody || view.node(*id).is_none_or(|other| !other.alive);
    let others = node.members().into_keys().filter(|id| *id != node.id());
    let others: Vec<NodeId> = others.filter(is_missed).collect();
    let first = turn.wrapping_mul(ASKED_AT_ONCE).checked_rem(others.len()).unwrap_or(0);
    let asked = others.iter().cycle().skip(first);
    let answers = asked.take(ASKED_AT_ONCE.min(others.len())).map(|id| async {
        let answer = node.await_applied_on(*id, 0, Revision(0), ANSWER_TIMEOUT);
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Err(status)) => status.code() == Code::PermissionDenied,
            Ok(Ok(_)) | Err(_) => false,
        }
    });
    let mut told = false;
    for answer in answers {
        told |= answer.await;
    }
    told
}

fn mark(dir: &Path) -> io::Result<()> {
    write_private(&dir.join(MARK), ADVICE.as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_directory_is_not_started() {
        let dir = tempfile::tempdir().unwrap();
        refuse_to_start(dir.path()).unwrap();
        mark(dir.path()).unwrap();
        let message = refuse_to_start(dir.path()).unwrap_err().to_string();
        assert!(message.contains("removed from the cluster"), "{message}");
    }
}
