//! Watches over the revision that waits to be confirmed. Every node counts the time; the one that leads when it is over
//! has the cluster go back to what was before. Whoever led or published meanwhile may be gone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shoal_model::state::{Command, Refusal, Reply, RevertCause, RevisionRecord, Rollout, RolloutStep};
use shoal_model::{NodeId, Revision};
use shoal_policy::rollout::{LastLook, is_overdue, left, missed};
use shoal_proto::admin;

use crate::node::{Node, now_ms};

/// A revision that nobody has confirmed in time, while nobody can say so in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The revision.
    pub revision: Revision,
    /// What is served in its place until the log can tell.
    pub before: Revision,
}

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Who stands in the history where nobody has done it.
const NOBODY: &str = "the cluster";

/// What this node knows of the revision that waits.
#[derive(Debug, Default)]
pub struct RolloutClock {
    seen: Mutex<Option<Seen>>,
}

/// A revision that was found to be waiting.
#[derive(Clone, Copy, Debug)]
struct Seen {
    revision: Revision,
    /// When it was found.
    at: Instant,
    /// How much of the time was over then.
    missed: Duration,
}

impl RolloutClock {
    /// How long `rollout` may wait from now on; of one that was not noticed yet, as long as ever.
    fn left(&self, rollout: &Rollout) -> Duration {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let within = Duration::from_millis(rollout.confirm_within_ms);
        seen.filter(|seen| seen.revision == rollout.revision)
            .map_or(within, |seen| left(within, seen.missed, seen.at.elapsed()))
    }

    /// Begins to count, where `rollout` is another than before.
    fn notice(&self, rollout: Option<&Rollout>, written_ms: u64, last_look: Option<LastLook>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.map(|seen| seen.revision) == rollout.map(|rollout| rollout.revision) {
            return;
        }
        *seen = rollout.map(|rollout| {
            let missed = missed(last_look, written_ms, now_ms());
            Seen { revision: rollout.revision, at: Instant::now(), missed }
        });
    }
}

/// Counts, and reverts, for as long as it is polled.
pub async fn watch(node: Arc<Node>) {
    let mut last: Option<(Instant, bool)> = None;
    loop {
        let waiting = node.waiting_rollout();
        let last_look = last.map(|(at, in_touch)| LastLook { ago: at.elapsed(), in_touch });
        let rollout = waiting.as_ref().map(|(rollout, _)| rollout);
        let written_ms = waiting.as_ref().map_or(0, |(_, record)| record.at_ms);
        node.rollout_clock.notice(rollout, written_ms, last_look);
        let log = node.log.status();
        // Who is still being told what was committed long ago was not there either.
        last = Some((Instant::now(), log.quorum && log.applied >= log.committed));
        let left = rollout.map(|rollout| node.rollout_clock.left(rollout));
        let silence = node.log.timings().silence();
        let overdue = rollout.filter(|_| left.is_some_and(|left| is_overdue(left, log.staleness, silence)));
        note_overdue(&node, overdue);
        if let Some((rollout, record)) = &waiting
            && left == Some(Duration::ZERO)
            && log.leader == Some(node.id())
        {
            revert(&node, rollout, record.index, RevertCause::NotConfirmed, String::new()).await;
        }
        tokio::time::sleep(left.filter(|left| !left.is_zero()).unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL))
            .await;
    }
}

/// Without a quorum nobody can say what becomes of a revision whose time is over: then each node serves what was before.
fn note_overdue(node: &Node, rollout: Option<&Rollout>) {
    let overdue = rollout.map(|rollout| Overdue { revision: rollout.revision, before: rollout.before });
    node.overdue.send_if_modified(|known| {
        let is_new = *known != overdue;
        *known = overdue;
        is_new
    });
}

/// Proposes what every leader would, under the same id. Whoever confirms at the same time is in time if he is before it in
/// the log.
pub(crate) async fn revert(node: &Node, rollout: &Rollout, index: u64, cause: RevertCause, message: String) {
    let revision = rollout.revision;
    let command = Command::Rollout {
        request_id: format!("revert of revision {revision} in entry {index}"),
        revision,
        step: RolloutStep::Revert(cause),
        author: NOBODY.to_owned(),
        message,
        at_ms: now_ms(),
    };
    match node.log.propose(command).await.map(|proposed| proposed.reply) {
        Ok(Reply::Published(by)) => {
            tracing::warn!(%revision, %by, before = %rollout.before, why = %cause, "the cluster goes back");
        }
        Ok(Reply::Refused(Refusal::NotUnconfirmed(_))) => {}
        Ok(reply) => {
            tracing::error!(%revision, ?reply, "the log answers the end of a rollout with something else")
        }
        Err(error) => tracing::warn!(%revision, %error, why = %cause, "the cluster does not go back yet"),
    }
}

impl Node {
    /// The revision that waits to be confirmed and its record, as far as this node has applied the log.
    pub(crate) fn waiting_rollout(&self) -> Option<(Rollout, RevisionRecord)> {
        self.log.with_state(|state| {
            let rollout = state.revisions.rollout()?.clone();
            let record = state.revisions.record(rollout.revision)?.clone();
            Some((rollout, record))
        })
    }

    /// The same for operators, with the time that is left.
    pub(crate) fn rollout_message(&self) -> Option<admin::Rollout> {
        let (rollout, record) = self.waiting_rollout()?;
        Some(admin::Rollout {
            revision: rollout.revision.0,
            before: rollout.before.0,
            author: record.author,
            message: record.message,
            at_ms: record.at_ms,
            confirm_within_ms: rollout.confirm_within_ms,
            left_ms: self.rollout_clock.left(&rollout).as_millis() as u64,
            nodes: self.names_of(rollout.canary.as_ref()),
        })
    }

    fn names_of(&self, chosen: Option<&BTreeSet<NodeId>>) -> Vec<String> {
        let Some(chosen) = chosen else { return Vec::new() };
        let members = self.members().into_iter().filter(|(id, _)| chosen.contains(id));
        members.map(|(_, member)| member.name).collect()
    }

    /// Names of members that are not known to know commands of this number: an older version runs there, or nobody has
    /// heard of them for long.
    pub(crate) fn members_without(&self, command: u32) -> Vec<String> {
        let view = self.gossip.view().load_full();
        let knows = |id| id == self.id() || view.node(id).is_some_and(|said| said.commands >= command);
        self.members().into_iter().filter(|(id, _)| !knows(*id)).map(|(_, member)| member.name).collect()
    }
}
