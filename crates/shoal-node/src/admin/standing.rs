//! Verbs that take a node out of service or out of its duties, and put it back: the order goes into the log, and whoever
//! gave it is told how far the node is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::{NodeState, NodeView};
use shoal_model::NodeId;
use shoal_model::state::{
    Command, NodeStanding, OtherReply, Refusal, STANDINGS, StandingOrder, StandingRecord,
};
use shoal_model::units::millis_u32;
use shoal_proto::admin::{SetStandingRequest, StandingProgress, StandingVerb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::base::linearizable_base;
use super::caller::{author_of, wait_of};
use super::failure::{self, Exit, with_exit};
use super::members::find;
use crate::drain::Phase;
use crate::node::{Node, now_ms};
use crate::report::{NodeReport, Wanted};
use crate::shares::{Portions, Share};

/// Callers who are told at once, on one node.
pub const WATCHERS: Portions = Portions { most: 16, each: 8, reserve: 8 };
/// Between two looks at the node.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Something is said at least so often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// How far the node is, until it is done.
pub type Telling = ReceiverStream<Result<StandingProgress, Status>>;

/// Gives the order, if there is anything to order, and tells.
pub async fn set(node: &Arc<Node>, request: SetStandingRequest, caller: &str) -> Result<Telling, Status> {
    let busy = |_| {
        let Portions { most, each, .. } = WATCHERS;
        let why = format!(
            "{most} nodes, or {each} by {caller:?}, are being watched by way of this one; ask another one"
        );
        with_exit(Code::ResourceExhausted, Exit::Remote, why)
    };
    let place = node.standing_watchers.take(caller, 1).map_err(busy)?;
    // What was ordered a moment ago through another node is known here from then on.
    linearizable_base(node).await?;
    let (id, name) = find(node, &request.node, request.node_id)?;
    let known = node.log.with_state(|state| state.standing(id));
    let refused = |why: String| with_exit(Code::FailedPrecondition, Exit::Local, format!("{name}: {why}"));
    // No flag would help.
    let misplaced = |why: String| with_exit(Code::InvalidArgument, Exit::Local, format!("{name}: {why}"));
    let next = next_standing(known.standing, &request).map_err(misplaced)?;
    if let Some(standing) = next {
        check(node, id, standing, request.force).map_err(refused)?;
        let author = author_of(&request.author, caller);
        let (force, at_ms) = (request.force, now_ms());
        let order = StandingOrder { node_id: id, standing, over: known.index, force, author, at_ms };
        let proposed = node.log.propose(Command::SetStanding(order)).await.map_err(failure::propose)?;
        proposed.reply.done().map_err(|other| match other {
            OtherReply::Refused(why @ (Refusal::LastInService { .. } | Refusal::StandingChanged { .. })) => {
                refused(why.to_string())
            }
            other => failure::reply(other),
        })?;
        node.await_applied(proposed.index, shoal_model::Revision(0), wait_of(request.timeout_ms)).await;
        tracing::info!(member = %id, name, standing = standing.name(), by = caller, "an operator's order");
    }
    let record = node.log.with_state(|state| state.standing(id));
    let (told, telling) = mpsc::channel(1);
    let watch = Watch {
        node: node.clone(),
        id,
        name,
        unchanged: next.is_none(),
        record,
        patience: wait_of(request.timeout_ms),
        started: Instant::now(),
    };
    tokio::spawn(watch.run(told, place));
    Ok(ReceiverStream::new(telling))
}

/// What the node gets; `None` = it has it.
fn next_standing(now: NodeStanding, request: &SetStandingRequest) -> Result<Option<NodeStanding>, String> {
    match (request.verb(), now) {
        (StandingVerb::Drain, NodeStanding::Drained { within_ms, leaves: _ }) => {
            let again =
                NodeStanding::Drained { within_ms: request.within_ms.or(within_ms), leaves: request.leave };
            // Who is to leave may have been started again since.
            Ok((again != now || request.leave).then_some(again))
        }
        (StandingVerb::Drain, NodeStanding::Active | NodeStanding::Cordoned) => {
            Ok(Some(NodeStanding::Drained { within_ms: request.within_ms, leaves: request.leave }))
        }
        (StandingVerb::Undrain, NodeStanding::Drained { .. })
        | (StandingVerb::Uncordon, NodeStanding::Cordoned) => Ok(Some(NodeStanding::Active)),
        (StandingVerb::Cordon, NodeStanding::Active) => Ok(Some(NodeStanding::Cordoned)),
        (StandingVerb::Cordon, NodeStanding::Cordoned)
        | (StandingVerb::Undrain | StandingVerb::Uncordon, NodeStanding::Active) => Ok(None),
        (StandingVerb::Cordon, NodeStanding::Drained { .. }) => {
            Err("it is drained, and so has no duties already".to_owned())
        }
        (StandingVerb::Undrain, NodeStanding::Cordoned) => {
            Err("it is cordoned, not drained: use `shoal node uncordon`".to_owned())
        }
        (StandingVerb::Uncordon, NodeStanding::Drained { .. }) => {
            Err("it is drained, not cordoned: use `shoal node undrain`".to_owned())
        }
        (StandingVerb::Unspecified, _) => Err("the request does not say what is wanted of it".to_owned()),
    }
}

/// What speaks against it, as this node sees the others.
fn check(node: &Arc<Node>, id: NodeId, standing: NodeStanding, force: bool) -> Result<(), String> {
    let view = node.gossip.view().load_full();
    let members = node.members();
    let is_old = |member: &NodeView| {
        member.id != node.id() && members.contains_key(&member.id) && member.commands < STANDINGS
    };
    let old: Vec<&str> =
        view.nodes.iter().filter(|member| is_old(member)).map(|member| &*member.name).collect();
    if !old.is_empty() {
        return Err(format!("{} would not understand it, being of an older version", old.join(", ")));
    }
    if force {
        return Ok(());
    }
    let heard = |other: NodeId, does: &dyn Fn(&NodeView) -> bool| view.node(other).is_some_and(does);
    let region = members.get(&id).map(|member| member.region.clone()).unwrap_or_default();
    let mut beside = members.iter().filter(|(other, member)| **other != id && member.region == region);
    let serves = match standing {
        NodeStanding::Active => true,
        NodeStanding::Cordoned => beside.any(|(other, _)| heard(*other, &NodeView::is_serving)),
        NodeStanding::Drained { .. } => beside.any(|(other, _)| heard(*other, &NodeView::takes_traffic)),
    };
    if !serves {
        return Err(format!(
            "no other node of the region {region:?} is heard that would serve in its place; --force does it all the same"
        ));
    }
    if matches!(standing, NodeStanding::Drained { leaves: true, .. }) {
        let voters: BTreeSet<NodeId> = node.log.status().voters.into_iter().collect();
        let is_there = |other: &NodeId| *other == node.id() || heard(*other, &|seen| seen.alive);
        let others = members.keys().copied().filter(|other| *other != id && is_there(other));
        let (voting, spare): (Vec<NodeId>, Vec<NodeId>) = others.partition(|other| voters.contains(other));
        let has_spare = node.log.with_state(|state| spare.iter().any(|id| state.may_vote(*id)));
        if voters.contains(&id) && !has_spare && voting.len() * 2 <= voters.len() {
            return Err(format!(
                "without it {} of {} voters are heard, which is no majority; --force does it all the same",
                voting.len(),
                voters.len()
            ));
        }
    }
    Ok(())
}

/// Somebody is told how far a node is.
struct Watch {
    node: Arc<Node>,
    id: NodeId,
    name: String,
    unchanged: bool,
    /// The order that is followed.
    record: StandingRecord,
    patience: Duration,
    started: Instant,
}

impl Watch {
    async fn run(self, told: mpsc::Sender<Result<StandingProgress, Status>>, _place: Share) {
        let mut last: Option<(StandingProgress, Instant)> = None;
        let mut heard_at = Instant::now();
        loop {
            let now = self.node.log.with_state(|state| state.standing(self.id));
            if now.index != self.record.index {
                let why = format!("{}: somebody else wants it {} now", self.name, now.standing.name());
                _ = told.send(Err(with_exit(Code::Aborted, Exit::Remote, why))).await;
                return;
            }
            let report = tokio::select! {
                report = self.node.report_of(self.id, Wanted::default()) => report,
                () = told.closed() => return,
            };
            if report.is_some() {
                heard_at = Instant::now();
            }
            let progress = self.judge(report.as_ref());
            let is_news = last.as_ref().is_none_or(|(before, at)| {
                let same = StandingProgress { elapsed_ms: before.elapsed_ms, ..progress.clone() };
                same != *before || at.elapsed() >= SIGN_OF_LIFE
            });
            let is_last = progress.done || heard_at.elapsed() >= self.patience;
            if is_news || is_last {
                last = Some((progress.clone(), Instant::now()));
                if told.send(Ok(progress)).await.is_err() {
                    return;
                }
            }
            if is_last {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = told.closed() => return,
            }
        }
    }

    fn judge(&self, report: Option<&NodeReport>) -> StandingProgress {
        let view = self.node.gossip.view().load();
        let state = view.node(self.id).map(|seen| seen.state);
        let seen =
            Seen { is_own: self.id == self.node.id(), state, phase: report.map(|it| &*it.drain.phase) };
        let (phase, done) = seen.judge(self.record.standing);
        StandingProgress {
            node_id: self.id.0,
            node: self.name.clone(),
            phase: phase.to_owned(),
            open_connections: report.map_or(0, |report| report.open_connections),
            cached_objects: report.map_or(0, |report| report.cache.objects),
            notes: report.map_or_else(Vec::new, |report| report.drain.notes.clone()),
            elapsed_ms: millis_u32(self.started.elapsed()),
            done,
            unchanged: self.unchanged,
        }
    }
}

/// A node as it shows itself.
struct Seen<'a> {
    /// It is the one that looks.
    is_own: bool,
    /// What it gossips.
    state: Option<NodeState>,
    /// What it answers; `None` = it does not.
    phase: Option<&'a str>,
}

impl<'a> Seen<'a> {
    /// How far it is towards `standing`, and whether it is there.
    fn judge(&self, standing: NodeStanding) -> (&'a str, bool) {
        let has_left = self.state == Some(NodeState::Left);
        let Some(phase) = self.phase.filter(|_| !has_left) else {
            return if has_left { ("left", standing.is_drained()) } else { ("silent", false) };
        };
        let done = match standing {
            NodeStanding::Active => phase == Phase::Serving.name() && self.state == Some(NodeState::Ready),
            NodeStanding::Cordoned => {
                phase == Phase::Serving.name() && self.state == Some(NodeState::Cordoned)
            }
            // Of its own goodbye nobody could tell.
            NodeStanding::Drained { leaves, .. } => {
                phase == Phase::Drained.name() && (!leaves || self.is_own)
            }
        };
        (phase, done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAINED: NodeStanding = NodeStanding::Drained { within_ms: None, leaves: false };

    #[test]
    fn what_is_so_already_is_not_ordered_again() {
        let request = |verb: StandingVerb, within_ms: Option<u64>, leave: bool| SetStandingRequest {
            verb: verb.into(),
            within_ms,
            leave,
            ..SetStandingRequest::default()
        };
        let drained = |within_ms, leaves| NodeStanding::Drained { within_ms, leaves };
        let check =
            |now: NodeStanding, request: SetStandingRequest, expected: Result<Option<NodeStanding>, &str>| {
                let found = next_standing(now, &request);
                match (&found, expected) {
                    (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                    (found, expected) => {
                        assert_eq!(found.as_ref().ok(), expected.ok().as_ref(), "{now:?} {request:?}");
                    }
                }
            };
        use StandingVerb::{Cordon, Drain, Uncordon, Undrain, Unspecified};
        check(NodeStanding::Active, request(Drain, Some(5), false), Ok(Some(drained(Some(5), false))));
        check(NodeStanding::Cordoned, request(Drain, None, true), Ok(Some(drained(None, true))));
        check(DRAINED, request(Drain, None, false), Ok(None));
        check(drained(Some(5), false), request(Drain, None, false), Ok(None));
        check(drained(Some(5), false), request(Drain, Some(9), false), Ok(Some(drained(Some(9), false))));
        check(drained(None, true), request(Drain, None, true), Ok(Some(drained(None, true))));
        check(DRAINED, request(Undrain, None, false), Ok(Some(NodeStanding::Active)));
        check(NodeStanding::Active, request(Undrain, None, false), Ok(None));
        check(NodeStanding::Active, request(Uncordon, None, false), Ok(None));
        check(NodeStanding::Cordoned, request(Uncordon, None, false), Ok(Some(NodeStanding::Active)));
        check(NodeStanding::Active, request(Cordon, None, false), Ok(Some(NodeStanding::Cordoned)));
        check(NodeStanding::Cordoned, request(Cordon, None, false), Ok(None));
        check(DRAINED, request(Cordon, None, false), Err("it is drained"));
        check(DRAINED, request(Uncordon, None, false), Err("node undrain"));
        check(NodeStanding::Cordoned, request(Undrain, None, false), Err("node uncordon"));
        check(NodeStanding::Active, request(Unspecified, None, false), Err("does not say"));
    }

    #[test]
    fn a_node_is_there_when_it_says_so() {
        use NodeState::{Cordoned, Draining, Left, Ready};
        let leaves = NodeStanding::Drained { within_ms: None, leaves: true };
        for (is_own, state, phase, standing, expected) in [
            (false, Some(Draining), Some("connections"), DRAINED, ("connections", false)),
            (false, Some(Draining), Some("drained"), DRAINED, ("drained", true)),
            (false, Some(Draining), Some("drained"), leaves, ("drained", false)),
            (true, Some(Draining), Some("drained"), leaves, ("drained", true)),
            (false, Some(Left), Some("cache"), leaves, ("left", true)),
            (false, Some(Left), None, DRAINED, ("left", true)),
            (false, Some(Draining), None, DRAINED, ("silent", false)),
            (false, Some(Draining), Some("drained"), NodeStanding::Active, ("drained", false)),
            (false, Some(Draining), Some("serving"), NodeStanding::Active, ("serving", false)),
            (false, Some(Ready), Some("serving"), NodeStanding::Active, ("serving", true)),
            (false, Some(Left), None, NodeStanding::Active, ("left", false)),
            (false, Some(Ready), Some("serving"), NodeStanding::Cordoned, ("serving", false)),
            (false, Some(Cordoned), Some("serving"), NodeStanding::Cordoned, ("serving", true)),
            (false, None, None, NodeStanding::Cordoned, ("silent", false)),
        ] {
            let seen = Seen { is_own, state, phase };
            assert_eq!(seen.judge(standing), expected, "{state:?} {phase:?} {standing:?}");
        }
    }
}
