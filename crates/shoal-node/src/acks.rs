//! Waiting for the nodes: who has an entry in force, who refused it, and who is silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::tls::cause_of;
use shoal_cluster::{NodeState, NodeView};
use shoal_model::units::millis_u32;
use shoal_model::{NodeId, Revision};
use shoal_proto::admin::{AbsentNode, AckState, NodeAck};

use crate::everybody::ask_all;
use crate::node::{Node, Reached};

/// What became of an entry on the members.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Of those that were waited for.
    pub acks: Vec<NodeAck>,
    /// Nobody waits for these: they are not alive, or have only begun to join.
    pub absent: Vec<AbsentNode>,
}

impl Node {
    /// Waits until every live node that is to serve `revision` has applied `index` and decided about it; nodes that die
    /// meanwhile are left out once the others have noticed. Who was still joining when the entry was committed opens its
    /// listeners only after it has caught up with more than that, and is not waited for.
    pub(crate) async fn await_everywhere(
        self: &Arc<Self>,
        index: u64,
        revision: Revision,
        timeout: Duration,
    ) -> Acknowledged {
        let started = Instant::now();
        // From then on this node knows who took part when it was committed.
        self.await_applied(index, Revision(0), timeout).await;
        let joining = self.joining_members();
        let timeout = timeout.saturating_sub(started.elapsed());
        let serves = |id: &NodeId| {
            self.log.with_state(|state| {
                let rollout = state.revisions.rollout().filter(|rollout| rollout.revision == revision);
                rollout.is_none_or(|rollout| rollout.includes(*id))
            })
        };
        let is_awaited = |id: &NodeId| serves(id) && !joining.contains_key(id);
        let awaited = self.live_members().into_iter().filter(|(id, _)| is_awaited(id));
        let waits = ask_all(awaited, |id, name| {
            let node = self.clone();
            async move { node.await_one(id, name, index, revision, timeout).await }
        });
        let acks = waits.await.into_iter().filter_map(|wait| match wait.answer {
            Ok(ack) => ack,
            Err(why) => Some(silent(wait.id, wait.name, why)),
        });
        let acks = acks.collect();
        Acknowledged { acks, absent: self.absent_besides(&joining) }
    }

    /// Members that nobody waits for now: they are not alive, and catch up when they are back, or are joining.
    pub(crate) fn absent_members(&self) -> Vec<AbsentNode> {
        self.absent_besides(&self.joining_members())
    }

    /// Those that are not alive, and `joining`.
    fn absent_besides(&self, joining: &BTreeMap<NodeId, String>) -> Vec<AbsentNode> {
        let view = self.gossip.view().load_full();
        let local = self.id();
        self.log.with_state(|state| {
            let others = state.nodes.iter().filter(|(id, _)| **id != local);
            let absent = others.filter_map(|(id, member)| {
                let is_joining = joining.contains_key(id).then_some("joining");
                let state = absence(view.node(*id)).or(is_joining)?.to_owned();
                Some(AbsentNode { node_id: id.0, node: member.name.clone(), state })
            });
            absent.collect()
        })
    }

    /// Members, by id and name, that were admitted but do not serve yet, and to which the log is not replicated yet.
    fn joining_members(&self) -> BTreeMap<NodeId, String> {
        let view = self.gossip.view().load_full();
        let is_new = |id: &NodeId| view.node(*id).is_some_and(|seen| seen.state == NodeState::Joining);
        let live = self.live_members().into_iter();
        live.filter(|(id, _)| *id != self.id() && is_new(id) && self.log.is_outside(*id)).collect()
    }

    /// `None` = the node is not alive any more.
    async fn await_one(
        &self,
        id: NodeId,
        name: String,
        index: u64,
        revision: Revision,
        timeout: Duration,
    ) -> Option<NodeAck> {
        let started = Instant::now();
        let mut trouble = "it did not answer in time".to_owned();
        while let Some(left) = timeout.checked_sub(started.elapsed()) {
            match self.await_applied_on(id, index, revision, left).await {
                Ok(reached) => {
                    if let Some((state, detail, serves)) = outcome(reached, index, revision) {
                        let (state, elapsed_ms) = (state.into(), millis_u32(started.elapsed()));
                        return Some(NodeAck {
                            node_id: id.0,
                            node: name,
                            state,
                            detail,
                            elapsed_ms,
                            serves,
                        });
                    }
                }
                Err(status) => trouble = cause_of(&status),
            }
            if !self.live_members().iter().any(|(live, _)| *live == id) {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let elapsed_ms = millis_u32(started.elapsed());
        Some(NodeAck { elapsed_ms, ..silent(id, name, trouble) })
    }
}

/// What a node has made of an entry, why, and what it serves in the place of what it has refused; `None` = it is waited for.
fn outcome(reached: Reached, index: u64, revision: Revision) -> Option<(AckState, String, u64)> {
    match reached {
        Reached { refused: Some(why), active, .. } => Some((AckState::Refused, why, active.0)),
        Reached { applied_index, active, .. } if applied_index >= index && active >= revision => {
            Some((AckState::Applied, String::new(), 0))
        }
        // It goes on by itself once there is room, which may take days.
        Reached { out_of_space: Some(why), .. } => Some((AckState::Silent, why, 0)),
        Reached { refused: None, out_of_space: None, .. } => None,
    }
}

/// Nobody knows what that node does.
pub(crate) fn silent(id: NodeId, name: String, why: String) -> NodeAck {
    let state = AckState::Silent.into();
    NodeAck { node_id: id.0, node: name, state, detail: why, ..NodeAck::default() }
}

/// Why nobody waits for a node; `None` = it is there.
pub(crate) fn absence(seen: Option<&NodeView>) -> Option<&'static str> {
    match seen {
        None => Some("unknown"),
        Some(seen) if seen.state == NodeState::Left => Some("left"),
        Some(seen) if !seen.alive => Some("dead"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_room_is_not_waited_for() {
        let check = |(applied_index, active): (u64, u64),
                     refused: &str,
                     full: &str,
                     expected: Option<(AckState, &str, u64)>| {
            let said = |why: &str| Some(why.to_owned()).filter(|why| !why.is_empty());
            let (active, refused, out_of_space) = (Revision(active), said(refused), said(full));
            let reached = Reached { applied_index, active, refused, out_of_space };
            let text = format!("{reached:?}");
            let outcome = outcome(reached, 10, Revision(3));
            let outcome = outcome.as_ref().map(|(state, why, serves)| (*state, &**why, *serves));
            assert_eq!(outcome, expected, "{text}");
        };
        check((9, 2), "", "", None);
        check((10, 2), "", "", None);
        check((10, 3), "", "", Some((AckState::Applied, "", 0)));
        check((12, 4), "", "", Some((AckState::Applied, "", 0)));
        check((10, 2), "a bad page", "", Some((AckState::Refused, "a bad page", 2)));
        check((9, 2), "", "no room", Some((AckState::Silent, "no room", 0)));
        check((10, 3), "", "no room", Some((AckState::Applied, "", 0))); // it came just now
    }
}
