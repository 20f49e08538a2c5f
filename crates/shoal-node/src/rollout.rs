//! Watches over the revision that waits to be confirmed. Every node counts the time; the one that leads when it is over
//! has the cluster go back to what was before. Whoever led or published meanwhile may be gone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shoal_configlog::ProposeError;
use shoal_model::state::{
    Command, MemberRecord, Pace, Refusal, Reply, RevertCause, RevisionRecord, Rollout, RolloutStep, Waves,
};
use shoal_model::{NodeId, Revision};
use shoal_policy::rollout::{
    Candidate, Following, LastLook, has_lost_touch, is_overdue, left, missed, next_wave, refuses_already,
    stand_in,
};
use shoal_proto::admin;

use crate::node::{Node, now_ms};
use crate::report::{NodeReport, Wanted};

/// A revision that is not to be served for now, while nobody can say in the log what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The revision.
    pub revision: Revision,
    /// What is served in its place until the log can tell.
    pub before: Revision,
    /// Nobody has confirmed it in time; else it is only that nobody watches over its waves.
    pub is_late: bool,
}

/// The node of this name is heard and in service, and does not answer: until it does, or is gone, no wave follows that would
/// pass it over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {0:?} is heard, but does not answer")]
pub(crate) struct Silent(String);

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
        let overdue = rollout.and_then(|rollout| {
            let is_late = left.is_some_and(|left| is_overdue(left, log.staleness, silence));
            let is_alone = rollout.waves.is_some() && has_lost_touch(log.staleness, silence);
            let Rollout { revision, before, .. } = *rollout;
            (is_late || is_alone).then_some(Overdue { revision, before, is_late })
        });
        note_overdue(&node, overdue);
        if let Some((rollout, record)) = &waiting
            && left == Some(Duration::ZERO)
            && node.leads()
        {
            revert(&node, rollout, record.index, RevertCause::NotConfirmed, String::new()).await;
        }
        tokio::time::sleep(left.filter(|left| !left.is_zero()).unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL))
            .await;
    }
}

/// Without a quorum nobody can say what becomes of a revision whose time is over, or that some have before the others: then
/// each node serves what was before.
fn note_overdue(node: &Node, overdue: Option<Overdue>) {
    node.overdue.send_if_modified(|known| {
        let is_new = *known != overdue;
        *known = overdue;
        is_new
    });
}

/// Proposes what every leader would. Whoever confirms at the same time is in time if he is before it in the log.
pub(crate) async fn revert(node: &Node, rollout: &Rollout, index: u64, cause: RevertCause, message: String) {
    let revision = rollout.revision;
    let request_id = format!("revert of revision {revision} in entry {index}");
    match propose(node, revision, RolloutStep::Revert(cause), message, request_id).await {
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

/// More nodes serve the revision from now on, or all do, as every leader would have it; fails with whom that waits for.
pub(crate) async fn go_on(
    node: &Arc<Node>,
    rollout: &Rollout,
    index: u64,
    evidence: String,
) -> Result<(), Silent> {
    if let Some(step) = node.next_step(rollout).await? {
        take(node, rollout.revision, index, step, evidence).await;
    }
    Ok(())
}

/// Another node gets the revision in the place of those of this wave, of which none is left to be watched. Where there is none
/// the cluster goes back, which says nothing against the revision.
pub(crate) async fn replace(node: &Arc<Node>, rollout: &Rollout, index: u64, why: String) {
    let (Some(waves), Some(serving)) = (&rollout.waves, &rollout.canary) else { return };
    let next = stand_in(rollout.revision, waves, serving, &node.candidates(rollout.before).await);
    match next {
        Some(next) => take(node, rollout.revision, index, RolloutStep::Advance(next), why).await,
        None => {
            let why = format!("{why}, and there is no other");
            revert(node, rollout, index, RevertCause::Aborted, why).await;
        }
    }
}

async fn take(node: &Node, revision: Revision, index: u64, step: RolloutStep, evidence: String) {
    let told = format!("{step:?}");
    let request_id = match &step {
        RolloutStep::Advance(next) => format!("wave {} of revision {revision} in entry {index}", next.wave),
        _ => format!("the end of revision {revision} in entry {index}"),
    };
    match propose(node, revision, step, evidence.clone(), request_id).await {
        Ok(Reply::Done | Reply::Confirmed(_)) => {
            tracing::info!(%revision, step = told, evidence, "the rollout goes on")
        }
        // Somebody else was faster.
        Ok(_) => {}
        Err(error) => tracing::warn!(%revision, %error, "the rollout does not go on yet"),
    }
}

/// Of this node's own accord, once, and only while it leads.
async fn propose(
    node: &Node,
    revision: Revision,
    step: RolloutStep,
    message: String,
    request_id: String,
) -> Result<Reply, ProposeError> {
    let (author, at_ms) = (NOBODY.to_owned(), now_ms());
    let command = Command::Rollout { request_id, revision, step, author, message, at_ms };
    let proposed = node.of_its_own("Rollout", node.log.propose_as_leader(command)).await;
    proposed.map(|proposed| proposed.reply)
}

impl Node {
    /// What follows the wave that `rollout` is in; `None` = it has no waves.
    pub(crate) async fn next_step(
        self: &Arc<Self>,
        rollout: &Rollout,
    ) -> Result<Option<RolloutStep>, Silent> {
        let (Some(waves), Some(serving)) = (&rollout.waves, &rollout.canary) else { return Ok(None) };
        match next_wave(rollout.revision, waves, serving, &self.candidates(rollout.before).await) {
            Following::Wave(next) => Ok(Some(RolloutStep::Advance(next))),
            Following::Everybody => Ok(Some(RolloutStep::Confirm)),
            Following::Wait(name) => Err(Silent(name)),
        }
    }

    /// Every member, as one that may have a revision before others, which serve the one `before` until it is their turn.
    pub(crate) async fn candidates(self: &Arc<Self>, before: Revision) -> Vec<Candidate> {
        let reports = self.ask_reports(Wanted::default()).await;
        let candidate = |(id, member): (NodeId, MemberRecord)| {
            let heard = reports.iter().find(|(alive, _, _)| *alive == id);
            let report = heard.and_then(|(_, _, report)| report.as_ref());
            Candidate {
                id,
                name: member.name,
                region: member.region,
                is_alive: heard.is_some() && self.is_in_service(id),
                answers: report.is_some(),
                refuses_already: report.is_some_and(|report| is_sick(report, before)),
            }
        };
        self.members().into_iter().map(candidate).collect()
    }

    /// Nobody has drained this member.
    pub(crate) fn is_in_service(&self, id: NodeId) -> bool {
        !self.log.with_state(|state| state.standing(id)).standing.is_drained()
    }

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
            left_out: Vec::new(),
            waves: rollout.waves.as_ref().map(|waves| {
                let nodes = rollout.canary.as_ref().map_or(0, BTreeSet::len) as u32;
                admin::Waves { nodes, members: self.members().len() as u32, ..waves_message(waves) }
            }),
        })
    }

    /// The same with the nodes that do not count in it, as they say now.
    pub(crate) async fn rollout_seen(self: &Arc<Self>) -> Option<admin::Rollout> {
        let rollout = self.rollout_message()?;
        Some(with_left_out(rollout, &self.ask_reports(Wanted::default()).await))
    }

    /// What whoever leads sees of the wave that `rollout` is in.
    pub(crate) async fn watch_of(self: &Arc<Self>, rollout: &admin::Rollout) -> Option<admin::WaveWatch> {
        let wave = rollout.waves.as_ref()?.wave;
        let leader = self.log.status().leader?;
        let bake = self.report_of(leader, Wanted::default()).await?.bake?;
        let is_it = bake.revision == rollout.revision && bake.wave == wave;
        is_it.then_some(admin::WaveWatch { left_ms: bake.left_ms, evidence: bake.evidence })
    }

    fn names_of(&self, chosen: Option<&BTreeSet<NodeId>>) -> Vec<String> {
        let Some(chosen) = chosen else { return Vec::new() };
        let members = self.members().into_iter().filter(|(id, _)| chosen.contains(id));
        members.map(|(_, member)| member.name).collect()
    }
}

fn is_sick(report: &NodeReport, before: Revision) -> bool {
    refuses_already(Revision(report.active_revision), &report.refused, before)
}

/// `rollout` with those of the nodes that do not count in it.
pub(crate) fn with_left_out(
    rollout: admin::Rollout,
    reports: &[(NodeId, String, Option<NodeReport>)],
) -> admin::Rollout {
    let before = Revision(rollout.before);
    let left_out = reports.iter().filter_map(|(id, name, report)| {
        let report = report.as_ref().filter(|report| is_sick(report, before))?;
        Some(admin::LeftOutNode { node_id: id.0, node: name.clone(), why: report.refused.clone() })
    });
    admin::Rollout { left_out: left_out.collect(), ..rollout }
}

/// For operators, but for how many nodes there are.
pub(crate) fn waves_message(waves: &Waves) -> admin::Waves {
    let passed = waves.passed.iter().map(|passed| admin::PassedWave {
        stage: passed.stage.to_string(),
        nodes: passed.nodes,
        evidence: passed.evidence.clone(),
        at_ms: passed.at_ms,
    });
    admin::Waves {
        wave: waves.wave,
        stage: waves.stage.to_string(),
        paused_by: waves.paused_by.clone().unwrap_or_default(),
        passed: passed.collect(),
        pace: Some(pace_message(waves.pace)),
        ..admin::Waves::default()
    }
}

/// For operators.
pub(crate) fn pace_message(pace: Pace) -> admin::Pace {
    admin::Pace { bake_ms: pace.bake_ms, checks: pace.checks, urgent: pace.is_urgent }
}
