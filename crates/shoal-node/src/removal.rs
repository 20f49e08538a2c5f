//! Taking a member out of the cluster for good: whether it may be, and what has to happen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_configlog::ProposeError;
use shoal_model::state::{Command, OtherReply, REVOKING, Refusal};
use shoal_model::{NodeId, Revision};
use shoal_policy::cache::lease::{lapse_of, lease_said};

use crate::acks::{Acknowledged, absence};
use crate::node::Node;
use crate::report::Wanted;

/// Between two looks at the membership.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// On whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removing {
    /// An operator says that it is gone.
    Gone,
    /// An operator wants it gone, whether it is or not.
    Forced,
    /// An operator does not trust it any more.
    Revoked,
    /// Another machine asks for its name.
    Replaced,
}

/// A member that is none any more.
#[derive(Debug)]
pub struct Removal {
    /// Index of the entry.
    pub index: u64,
    /// What it was before: alive, dead, left, unknown.
    pub state: &'static str,
    /// For how long at most it may serve hits, once it is not told of purges any more.
    pub lapse: Duration,
}

/// A member is still one, or may be.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// It may not be removed.
    #[error(transparent)]
    Objection(#[from] Objection),
    /// The log did not take it.
    #[error(transparent)]
    Log(ProposeError),
    /// The agreed state said no.
    #[error(transparent)]
    Reply(OtherReply),
}

/// Why a member is not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    #[error("it is the node that was asked; ask another one")]
    Itself,
    #[error("it is heard: stop it first (SIGTERM lets it drain)")]
    Heard,
    #[error("it has not been heard here at all, so that nobody can tell whether it is gone")]
    NeverHeard,
    #[error(
        "not every node has said that it knows what that means: upgrade all, or give `shoal node remove --force`"
    )]
    NotKnown,
    #[error(
        "of the {left} voters that would be left {heard} are heard, which is no majority: start the others first"
    )]
    Quorum { heard: usize, left: usize },
    #[error(
        "it alone votes, and no other node is heard that may vote and is in service: `shoal node promote` \
         one, or `shoal node uncordon` it, first"
    )]
    NoHeir,
}

/// What is known of the cluster where the removal is asked for.
#[derive(Debug)]
struct Scene {
    local: NodeId,
    voters: Vec<NodeId>,
    /// This node included.
    heard: BTreeSet<NodeId>,
    /// Those that are given no vote: operators do not let them vote, or have taken them out of service.
    barred: BTreeSet<NodeId>,
}

/// What speaks against removing `id`, which is in `state`; `None` = nothing.
fn objection(scene: &Scene, id: NodeId, state: &str, removing: Removing) -> Option<Objection> {
    match (state, removing) {
        _ if id == scene.local => return Some(Objection::Itself),
        ("alive", Removing::Gone | Removing::Replaced) => return Some(Objection::Heard),
        ("unknown", Removing::Replaced) => return Some(Objection::NeverHeard),
        _ => {}
    }
    let left: Vec<&NodeId> = scene.voters.iter().filter(|voter| **voter != id).collect();
    let heard = left.iter().filter(|voter| scene.heard.contains(voter)).count();
    // The only voter may go where somebody succeeds it.
    let may_succeed = |other: &NodeId| *other != id && !scene.barred.contains(other);
    if left.is_empty() && !scene.voters.is_empty() && !scene.heard.iter().any(may_succeed) {
        return Some(Objection::NoHeir);
    }
    let keeps_quorum = left.len() == scene.voters.len() || left.is_empty() || heard * 2 > left.len();
    (!keeps_quorum).then_some(Objection::Quorum { heard, left: left.len() })
}

/// Removes the member `id`, if nothing speaks against it. That the voters do without it is left to the leader's autopilot.
pub async fn remove(node: &Arc<Node>, id: NodeId, removing: Removing) -> Result<Removal, RemovalError> {
    let state = state_of(node, id).await;
    let scene = Scene {
        local: node.id(),
        voters: node.log.status().voters,
        heard: node.live_members().into_iter().map(|(id, _)| id).collect(),
        barred: node.members().into_keys().filter(|id| !node.may_be_given_a_vote(*id)).collect(),
    };
    if let Some(objection) = objection(&scene, id, state, removing) {
        return Err(objection.into());
    }
    let is_known = node.log.with_state(|state| state.operators.has_begun() || !state.revoked.is_empty());
    if removing == Removing::Revoked && !is_known && !node.members_without(REVOKING).is_empty() {
        return Err(Objection::NotKnown.into());
    }
    let said = node.members().get(&id).map_or(0, |member| member.purge_lease_ms);
    let command = match removing {
        Removing::Gone | Removing::Forced | Removing::Replaced => Command::RemoveNode { node_id: id },
        Removing::Revoked => Command::RevokeNode { node_id: id },
    };
    let proposed = node.log.propose(command).await.map_err(RemovalError::Log)?;
    match proposed.reply.done() {
        // Somebody else was faster, or this was tried twice.
        Ok(()) | Err(OtherReply::Refused(Refusal::UnknownNode(_))) => {
            // Who has left has none.
            let lapse = if state == "left" { Duration::ZERO } else { lapse_of(lease_said(said)) };
            Ok(Removal { index: proposed.index, state, lapse })
        }
        Err(other) => Err(RemovalError::Reply(other)),
    }
}

/// As the gossip has it; but who answers a call is alive, whatever is said of it.
async fn state_of(node: &Arc<Node>, id: NodeId) -> &'static str {
    match absence(node.gossip.view().load().node(id)) {
        None => "alive",
        Some("left") => "left",
        Some(_) if id == node.id() || node.report_of(id, Wanted::default()).await.is_some() => "alive",
        Some(state) => state,
    }
}

impl Node {
    /// Waits until every live node has applied the `removal` of `id`, the leader has taken it out of the log's membership, and
    /// its last lease has run out, for no purge waits for it any more: who has, and whether it is out.
    pub(crate) async fn await_removal(
        self: &Arc<Self>,
        id: NodeId,
        removal: &Removal,
        timeout: Duration,
    ) -> (Acknowledged, bool) {
        let index = removal.index;
        let started = Instant::now();
        // From then on nobody waits for the removed node.
        self.await_applied(index, Revision(0), timeout).await;
        let acks = self.await_everywhere(index, Revision(0), timeout.saturating_sub(started.elapsed())).await;
        while !self.log.has_left(id) {
            if started.elapsed() >= timeout {
                return (acks, false);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        tokio::time::sleep(removal.lapse).await;
        (acks, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen from node 1.
    fn check(
        (voters, heard): (&[u64], &[u64]),
        (id, state): (u64, &str),
        removing: Removing,
        expected: Option<Objection>,
    ) {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let scene = Scene {
            local: NodeId(1),
            voters: ids(voters),
            heard: ids(heard).into_iter().collect(),
            barred: [NodeId(9)].into(),
        };
        let found = objection(&scene, NodeId(id), state, removing);
        assert_eq!(found, expected, "{id} {state} {removing:?} of {voters:?}, heard {heard:?}");
    }

    #[test]
    fn who_is_heard_stays_unless_forced() {
        use Removing::{Forced, Gone, Replaced, Revoked};
        let all: (&[u64], &[u64]) = (&[1, 2, 3], &[1, 2, 3]);
        let but_three: (&[u64], &[u64]) = (&[1, 2, 3], &[1, 2]);
        for (cluster, member, removing, expected) in [
            (but_three, (3, "dead"), Gone, None),
            (but_three, (3, "left"), Gone, None),
            (but_three, (3, "unknown"), Gone, None),
            (but_three, (3, "dead"), Replaced, None),
            (but_three, (3, "left"), Replaced, None),
            (but_three, (3, "unknown"), Replaced, Some(Objection::NeverHeard)),
            (all, (3, "alive"), Gone, Some(Objection::Heard)),
            (all, (3, "alive"), Replaced, Some(Objection::Heard)),
            (all, (3, "alive"), Forced, None),
            (all, (3, "alive"), Revoked, None),
            (but_three, (3, "unknown"), Revoked, None),
            (all, (1, "alive"), Revoked, Some(Objection::Itself)),
            (all, (1, "alive"), Forced, Some(Objection::Itself)),
            (all, (1, "alive"), Replaced, Some(Objection::Itself)),
        ] {
            check(cluster, member, removing, expected);
        }
    }

    #[test]
    fn the_voters_that_are_left_can_decide() {
        use Removing::{Forced, Gone};
        let lost = |heard, left| Some(Objection::Quorum { heard, left });
        check((&[1, 2, 3], &[1, 2]), (2, "alive"), Forced, lost(1, 2));
        check((&[1, 2, 3, 4, 5], &[1, 2, 3]), (3, "alive"), Forced, lost(2, 4));
        check((&[1, 2, 3, 4, 5], &[1, 2, 3]), (5, "dead"), Gone, None);
        check((&[1, 2, 3], &[1, 2, 4]), (4, "alive"), Forced, None); // it does not vote
        check((&[2], &[1, 2]), (2, "alive"), Forced, None);
        check((&[2], &[2, 9]), (2, "alive"), Forced, Some(Objection::NoHeir));
        check((&[2], &[3, 9]), (2, "dead"), Gone, None);
        check((&[2], &[2, 3]), (9, "dead"), Gone, None); // it does not vote
    }
}
