//! A purge, whoever asks for it: into the log, and awaited until no node can serve what it forgets.
//!
//! A node serves hits only under a lease, and a lease is granted only to who has applied all that was committed when it was
//! asked for. So whoever is silent about a purge serves nothing of it either once its last lease from before has run out:
//! the leader knows when that was at the latest (see [`shoal_policy::cache::lease`]), and who has been silent for long is
//! not waited for again with each purge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shoal_cluster::NodeState;
use shoal_cluster::tls::cause_of;
use shoal_configlog::{ProposeError, Proposed, described_as};
use shoal_model::state::{Command, OtherReply, PurgeKind, PurgeScope};
use shoal_model::units::{millis_u32, millis_u64};
use shoal_model::{NodeId, Revision};
use shoal_policy::cache::lease::{LONGEST_LEASE, lapse_left, lapse_of, lease_said};
use shoal_policy::tcp::arrival;
use shoal_proto::admin::{AbsentNode, AckState, NodeAck};

use crate::acks::{absence, silent};
use crate::node::{Node, now_ms};
use crate::purge_trail::PurgeTrail;

/// For this node to apply what the leader has acknowledged: whoever asks here looks here next.
const OWN_WAIT: Duration = Duration::from_secs(1);
/// Between two questions to a node that does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A purge that somebody asks for.
#[derive(Clone, Debug)]
pub struct PurgeOrder {
    /// What is to be forgotten.
    pub scopes: Vec<PurgeScope>,
    /// Forget, or only treat as stale.
    pub kind: PurgeKind,
    /// It counts against `--purge-rate`.
    pub is_limited: bool,
    /// The same id is carried out once; empty = it gets one.
    pub request_id: String,
    /// How long to wait until no node can serve it any more; `None` = only until it is in the log.
    pub wait: Option<Duration>,
    /// Who asks, as the log of this node tells it.
    pub trail: PurgeTrail,
}

/// A purge that is in the log.
#[derive(Clone, Debug)]
pub struct Purged {
    /// Its sequence number.
    pub seq: u64,
    /// What each node that is there makes of it; empty = that was not asked.
    pub acks: Vec<NodeAck>,
    /// Members that are not there. Where the wait was long enough, their leases have run out.
    pub absent: Vec<AbsentNode>,
    /// All of it.
    pub elapsed: Duration,
    /// No node serves what it forgets.
    pub is_complete: bool,
}

/// Why a purge is not in the log, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// More than this node takes on.
    #[error(
        "more than {0} purges a second are asked for here; send many scopes in one, or raise --purge-rate"
    )]
    TooFast(u32),
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] ProposeError),
    /// The state said no.
    #[error(transparent)]
    Reply(#[from] OtherReply),
}

/// How fast purges may be asked for here, and how many there were.
#[derive(Debug, Default)]
pub struct PurgeRate {
    state: AtomicU64,
}

impl PurgeRate {
    fn admits(&self, now_us: u64, per_second: u32) -> bool {
        let next = |state| arrival::admit(state, now_us, per_second);
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// A purge in the log, a moment after its commit.
struct Committed {
    seq: u64,
    /// For how long at least members have not been told how far the log is committed.
    silences: BTreeMap<NodeId, Duration>,
    at: Instant,
}

impl Committed {
    /// When a lease of `lease` has run out that `node` had before the purge.
    fn lapse(&self, node: NodeId, lease: Duration) -> Instant {
        self.at + lapse_left(lease, self.silences.get(&node).copied())
    }

    /// A lease of `lease` that `node` had before the purge had run out by then.
    fn has_lapsed(&self, node: NodeId, lease: Duration) -> bool {
        self.silences.get(&node).is_some_and(|silent| *silent >= lapse_of(lease))
    }
}

/// How long one member is waited for.
#[derive(Clone, Copy)]
struct PurgeWait {
    seq: u64,
    /// From then on it has no lease from before the purge.
    lapses: Instant,
    /// It had none when the purge was committed.
    has_lapsed: bool,
    /// Whoever asked waits no longer.
    deadline: Instant,
}

/// What one member made of it.
enum Heard {
    Ack(NodeAck),
    /// It is not alive, and can serve nothing.
    Absent,
    /// It was removed meanwhile.
    Gone,
}

impl Node {
    /// Carries out `order`.
    pub(crate) async fn purge(self: &Arc<Self>, order: PurgeOrder) -> Result<Purged, PurgeError> {
        let started = Instant::now();
        let per_second = self.settings.purge_rate;
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if order.is_limited && !self.purge_rate.admits(now_us, per_second) {
            self.purge_figures.note_refused();
            return Err(PurgeError::TooFast(per_second));
        }
        let PurgeOrder { scopes, kind, is_limited: _, mut request_id, wait, trail } = order;
        if request_id.is_empty() {
            // With an id the log may be asked again when an answer is lost.
            request_id = self.new_request_id();
        }
        let command = Command::Purge { request_id, scopes, kind, at_ms: now_ms() };
        let proposing = described_as(trail.summary(), self.log.propose(command));
        let Proposed { reply, silences, .. } = proposing.await?;
        let seq = reply.purged()?;
        trail.tell(seq, kind);
        let committed = Committed { seq, silences, at: Instant::now() };
        let reached = self.await_applied(seq, Revision(0), OWN_WAIT).await;
        let members = self.members_to_wait_for(&committed, reached.applied_index >= seq);
        let lapses = members.iter().map(|(id, (_, lease))| {
            let left = lapse_left(*lease, committed.silences.get(id).copied());
            (*id, millis_u64(left))
        });
        self.purge_history.note_lapses(seq, lapses.collect());
        let Some(wait) = wait else {
            self.purge_figures.note(None);
            let elapsed = started.elapsed();
            return Ok(Purged { seq, acks: Vec::new(), absent: Vec::new(), elapsed, is_complete: false });
        };
        let (acks, absent) = self.await_purged(&committed, members, started + wait).await;
        let is_complete = acks.iter().all(|ack| matches!(ack.state(), AckState::Applied | AckState::Lapsed));
        let elapsed = started.elapsed();
        self.purge_figures.note(is_complete.then_some(elapsed));
        Ok(Purged { seq, acks, absent, elapsed, is_complete })
    }

    /// Whoever may serve what a purge forgets: names, and how long their leases may be. `knows_members`: what is applied here
    /// says how long those may be that do not know of the purge.
    fn members_to_wait_for(
        &self,
        committed: &Committed,
        knows_members: bool,
    ) -> BTreeMap<NodeId, (String, Duration)> {
        let lease_of = |said_ms| if knows_members { lease_said(said_ms) } else { LONGEST_LEASE };
        let known = self.members().into_iter();
        let mut members: BTreeMap<NodeId, (String, Duration)> =
            known.map(|(id, member)| (id, (member.name, lease_of(member.purge_lease_ms)))).collect();
        if !knows_members {
            // The leader knows of members that are not known here yet.
            for id in committed.silences.keys() {
                members.entry(*id).or_insert_with(|| (id.to_string(), LONGEST_LEASE));
            }
        }
        members
    }

    /// Asks every member, until it has applied the purge, or until its lease has run out, when it cannot serve what is older.
    async fn await_purged(
        self: &Arc<Self>,
        committed: &Committed,
        members: BTreeMap<NodeId, (String, Duration)>,
        deadline: Instant,
    ) -> (Vec<NodeAck>, Vec<AbsentNode>) {
        let asking: Vec<_> = members
            .into_iter()
            .map(|(id, (name, lease))| {
                let wait = PurgeWait {
                    seq: committed.seq,
                    lapses: committed.lapse(id, lease),
                    has_lapsed: committed.has_lapsed(id, lease),
                    deadline,
                };
                let (node, asked) = (self.clone(), name.clone());
                let asking = tokio::spawn(async move { node.await_one_purged(id, asked, wait).await });
                (id, name, asking)
            })
            .collect();
        let (mut acks, mut absent) = (Vec::new(), Vec::new());
        for (id, name, heard) in asking {
            match heard.await {
                Ok(Heard::Ack(ack)) => acks.push(ack),
                Ok(Heard::Absent) => absent.push(self.absent(id, name)),
                Ok(Heard::Gone) => {}
                Err(error) => acks.push(silent(id, name, format!("asking it failed: {error}"))),
            }
        }
        (acks, absent)
    }

    async fn await_one_purged(&self, id: NodeId, name: String, wait: PurgeWait) -> Heard {
        let PurgeWait { seq, lapses, has_lapsed, deadline } = wait;
        let started = Instant::now();
        let ack = |state: AckState, detail: String| {
            let elapsed_ms = millis_u32(started.elapsed());
            let (state, node) = (state.into(), name.clone());
            Heard::Ack(NodeAck { node_id: id.0, node, state, detail, elapsed_ms, ..NodeAck::default() })
        };
        let end = lapses.min(deadline);
        let mut trouble = "it did not answer in time".to_owned();
        loop {
            // One that is back is still said to have left, for a moment.
            if has_lapsed && self.has_left(id) {
                return Heard::Absent;
            }
            let left = end.saturating_duration_since(Instant::now());
            let asking = self.await_applied_on(id, seq, Revision(0), left);
            match tokio::time::timeout(left, asking).await {
                Ok(Ok(reached)) if reached.applied_index >= seq => {
                    return ack(AckState::Applied, String::new());
                }
                Ok(Ok(reached)) => trouble = reached.refused.or(reached.out_of_space).unwrap_or(trouble),
                Ok(Err(status)) => trouble = cause_of(&status),
                Err(_) => {}
            }
            if Instant::now() >= end {
                break;
            }
            tokio::time::sleep(ASK_AGAIN.min(end.saturating_duration_since(Instant::now()))).await;
        }
        if Instant::now() < lapses {
            return ack(AckState::Silent, trouble);
        }
        if !self.is_member(id) {
            return Heard::Gone;
        }
        match self.live_members().iter().any(|(live, _)| *live == id) {
            true => ack(AckState::Lapsed, format!("{trouble}; its lease has run out, it serves no hits")),
            false => Heard::Absent,
        }
    }

    /// It said goodbye, after it had served its last request.
    pub(crate) fn has_left(&self, id: NodeId) -> bool {
        self.gossip.view().load().node(id).is_some_and(|node| node.state == NodeState::Left)
    }

    fn absent(&self, id: NodeId, name: String) -> AbsentNode {
        let view = self.gossip.view().load();
        let state = absence(view.node(id)).unwrap_or("dead").to_owned();
        AbsentNode { node_id: id.0, node: name, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_purges_may_come_at_once() {
        let rate = PurgeRate::default();
        let admitted = |now_us| (0..50).filter(|_| rate.admits(now_us, 10)).count();
        assert_eq!([admitted(0), admitted(500_000), admitted(500_000), admitted(9_000_000)], [10, 5, 0, 10]);
    }
}
