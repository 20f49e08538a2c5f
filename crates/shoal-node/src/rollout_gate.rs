//! Takes a revision back that some nodes try, and that does worse there than what the others serve. The leader watches.

use std::sync::Arc;
use std::time::Duration;

use shoal_model::Revision;
use shoal_model::state::{RevertCause, Rollout};
use shoal_policy::rollout::{Counts, Said, Sighting, Trial};

use crate::node::Node;
use crate::report::{NodeReport, Wanted};
use crate::rollout::revert;

/// Between two looks at all nodes.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Looks, for as long as it is polled.
pub async fn watch(node: Arc<Node>) {
    let mut trial: Option<Trial> = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let leads = node.log.status().leader == Some(node.id());
        let tried = node.waiting_rollout().filter(|(rollout, _)| leads && rollout.canary.is_some());
        let Some((rollout, record)) = tried else {
            trial = None;
            continue;
        };
        let sightings = look(&node, &rollout).await;
        let going_on = trial.take().filter(|trial| trial.revision() == rollout.revision);
        let trial = trial.insert(going_on.unwrap_or_else(|| Trial::new(rollout.revision)));
        if let Some(evidence) = trial.observe(&sightings) {
            revert(&node, &rollout, record.index, RevertCause::Worse, evidence.to_string()).await;
        }
    }
}

async fn look(node: &Arc<Node>, rollout: &Rollout) -> Vec<Sighting> {
    let mut reports = node.ask_reports(Wanted::TRAFFIC).await;
    let sighting = |(id, member): (_, shoal_model::state::MemberRecord)| {
        let asked = reports.iter_mut().find(|(asked, _, _)| *asked == id);
        let tries = rollout.includes(id);
        Sighting {
            id,
            name: member.name,
            tries,
            is_alive: asked.is_some(),
            said: asked.and_then(|(_, _, report)| report.take()).and_then(said),
        }
    };
    node.members().into_iter().map(sighting).collect()
}

fn said(report: NodeReport) -> Option<Said> {
    let total = report.traffic?.total;
    let counts = Counts { requests: total.requests, errors: total.errors };
    Some(Said { active: Revision(report.active_revision), refused: report.refused, counts })
}
