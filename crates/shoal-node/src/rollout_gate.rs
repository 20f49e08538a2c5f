//! Takes a revision back that some nodes try, and that does worse there than what the others serve; brings one that comes in
//! waves to the next nodes where it does not. The leader watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_model::Revision;
use shoal_model::state::{REFUSING_WHOLLY, RevertCause, Rollout, Waves};
use shoal_policy::rollout::{Bake, Counts, Evidence, Judgement, Said, Sighting, Tally, Trial};
use shoal_proxy::OTHER;

use crate::node::Node;
use crate::planted;
use crate::report::{BakeReport, JudgedReport, NodeReport, TrafficReport, Wanted};
use crate::rollout::{Silent, go_on, replace, revert};

/// Between two looks at all nodes.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What the leader watches: a new one begins anew.
#[derive(Default)]
struct Watched {
    /// Some nodes, until somebody confirms it.
    trial: Option<Trial>,
    /// A wave, and when it was looked at last.
    wave: Option<(Bake, Instant)>,
    /// Who keeps the next one waiting.
    waits_for: Option<Silent>,
}

/// Looks, for as long as it is polled.
pub async fn watch(node: Arc<Node>) {
    let mut watched = Watched::default();
    loop {
        tokio::time::sleep(watched.pause()).await;
        let leads = node.leads() || planted::looks_unled();
        let tried = node.waiting_rollout().filter(|(rollout, _)| leads && rollout.canary.is_some());
        let Some((rollout, record)) = tried else {
            watched = Watched::default();
            node.bake.send_replace(None);
            continue;
        };
        let sightings = look(&node, &rollout).await;
        let evidence = match &rollout.waves {
            None => watched.trial(&rollout).observe(&sightings).err(),
            Some(waves) => {
                let (bake, passed) = watched.wave(&rollout, waves);
                let judgement = bake.judge(&sightings, passed);
                node.bake.send_replace(report(&rollout, waves, &judgement, watched.waits_for.as_ref()));
                match judgement {
                    Judgement::Open { .. } => None,
                    Judgement::Bad(evidence) => Some(evidence),
                    Judgement::Good(_) | Judgement::Unmanned(_) if waves.paused_by.is_some() => None,
                    Judgement::Good(evidence) => {
                        let gone_on = go_on(&node, &rollout, record.index, evidence).await;
                        watched.note(&rollout, gone_on.err());
                        None
                    }
                    Judgement::Unmanned(why) => {
                        replace(&node, &rollout, record.index, why).await;
                        None
                    }
                }
            }
        };
        if let Some(evidence) = evidence {
            revert(&node, &rollout, record.index, cause_of(&node, &evidence), evidence.to_string()).await;
        }
    }
}

/// Why a revision goes, as far as every node knows of such a cause.
fn cause_of(node: &Node, evidence: &Evidence) -> RevertCause {
    let level = node.log.with_state(|state| state.level.number);
    match evidence.is_of_absence() && level >= REFUSING_WHOLLY {
        true => RevertCause::Unwatched,
        false => RevertCause::Worse,
    }
}

impl Watched {
    fn pause(&self) -> Duration {
        self.wave.as_ref().map_or(LOOK_INTERVAL, |(bake, _)| bake.pause())
    }

    fn trial(&mut self, rollout: &Rollout) -> &mut Trial {
        let going_on = self.trial.take().filter(|trial| trial.revision() == rollout.revision);
        self.trial.insert(going_on.unwrap_or_else(|| trial_of(rollout)))
    }

    /// The next wave of `rollout` waits for somebody, or for nobody: said once.
    fn note(&mut self, rollout: &Rollout, waits_for: Option<Silent>) {
        if let Some(silent) = waits_for.as_ref().filter(|_| self.waits_for != waits_for) {
            tracing::warn!(revision = %rollout.revision, why = %silent, "the rollout waits");
        }
        self.waits_for = waits_for;
    }

    /// The wave that `rollout` is in, and how long nobody has looked at it.
    fn wave(&mut self, rollout: &Rollout, waves: &Waves) -> (&mut Bake, Duration) {
        let going_on = self.wave.take().filter(|(bake, _)| bake.is_of(rollout.revision, waves.wave));
        let begun = || (Bake::new(trial_of(rollout), waves.wave, waves.pace), Instant::now());
        let (bake, looked) = self.wave.insert(going_on.unwrap_or_else(begun));
        (bake, std::mem::replace(looked, Instant::now()).elapsed())
    }
}

fn trial_of(rollout: &Rollout) -> Trial {
    Trial::new(rollout.revision, rollout.before)
}

fn report(
    rollout: &Rollout,
    waves: &Waves,
    judgement: &Judgement,
    waits_for: Option<&Silent>,
) -> Option<BakeReport> {
    let waiting = waits_for.map_or_else(String::new, |silent| format!("; {silent}, and is waited for"));
    let (left, evidence) = match judgement {
        Judgement::Open { left, so_far } => (*left, so_far.clone()),
        Judgement::Good(evidence) => (Duration::ZERO, evidence.clone() + &waiting),
        Judgement::Bad(evidence) => (Duration::ZERO, evidence.to_string()),
        Judgement::Unmanned(why) => (Duration::ZERO, why.clone()),
    };
    let left_ms = left.as_millis() as u64;
    Some(BakeReport { revision: rollout.revision.0, wave: waves.wave, left_ms, evidence })
}

async fn look(node: &Arc<Node>, rollout: &Rollout) -> Vec<Sighting> {
    let mut reports = node.ask_reports(Wanted::TRAFFIC).await;
    let sighting = |(id, member): (_, shoal_model::state::MemberRecord)| {
        let asked = reports.iter_mut().find(|(asked, _, _)| *asked == id);
        let tries = rollout.includes(id);
        Sighting {
            id,
            name: member.name,
            region: member.region,
            tries,
            is_in_service: node.is_in_service(id),
            is_alive: asked.is_some(),
            said: asked.and_then(|(_, _, report)| report.take()).and_then(said),
        }
    };
    node.members().into_iter().map(sighting).collect()
}

fn said(report: NodeReport) -> Option<Said> {
    let traffic = report.traffic?;
    let of_route = |(name, sum): (String, TrafficReport)| {
        let TrafficReport { judged: JudgedReport { requests, faults: errors, times: durations }, .. } = sum;
        (name, Counts { requests, errors, unconnected: 0, durations })
    };
    let mut routes: BTreeMap<String, Counts> = traffic.routes.into_iter().map(of_route).collect();
    // What no route is for speaks neither for nor against one: strangers can ask for as much of that as they like.
    let mut all = Counts { unconnected: traffic.unconnected, ..Counts::default() };
    routes.values().for_each(|counts| all += counts);
    // Which routes have no series of their own is another thing on each node.
    routes.remove(OTHER);
    let counts = Tally { all, routes };
    Some(Said {
        active: Revision(report.active_revision),
        refused: report.refused,
        up_ms: traffic.at_ms,
        counts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::NodeTrafficReport;

    #[test]
    fn routes_count_by_what_is_judged_and_what_they_share_in_all_alone() {
        let route = |requests, faults| {
            let judged = JudgedReport { requests, faults, times: Vec::new() };
            // What the cache and the node answered by themselves is in none of that.
            TrafficReport { requests: 1_000, judged, ..TrafficReport::default() }
        };
        let of_older_version = TrafficReport { requests: 7, faults: 7, ..TrafficReport::default() };
        let routes =
            [("shop", route(9, 1)), (OTHER, route(5, 2)), ("other", route(3, 1)), ("old", of_older_version)];
        let routes = routes.map(|(name, counts)| (name.to_owned(), counts)).into();
        let traffic = Some(NodeTrafficReport { routes, ..NodeTrafficReport::default() });
        let counts = said(NodeReport { traffic, ..NodeReport::default() }).unwrap().counts;
        assert_eq!((counts.all.requests, counts.all.errors), (17, 4));
        let of = |name: &str| counts.routes.get(name).map(|counts| (counts.requests, counts.errors));
        let seen = ["shop", OTHER, "other", "old"].map(of);
        assert_eq!(seen, [Some((9, 1)), None, Some((3, 1)), Some((0, 0))]);
    }
}
