//! Tells the cluster of a revision that this node cannot live with, where that is the revision's fault.

use std::sync::Arc;
use std::time::Duration;

use shoal_model::Revision;
use shoal_model::state::Command;
use shoal_policy::rollout::{Blame, Fate, blame};

use crate::activation::{Poison, Sign};
use crate::admin::CATCH_UP_WAIT;
use crate::node::{Node, now_ms};
use crate::report::{NodeReport, Wanted};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks, for as long as it is polled.
pub async fn watch(node: Arc<Node>) {
    // What this node has died of, and others live with.
    let mut spared = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some((Poison { revision, sign }, why)) = unheard_of(&node) else { continue };
        if spared == Some(revision) {
            continue;
        }
        // Not by what the crash guard has marked now: that may be the next revision already.
        let blame = match sign {
            Sign::Deaths => blame_for_deaths(&node, revision).await,
            Sign::Failure => Blame::Revision,
        };
        match blame {
            Blame::Revision => isolate(&node, revision, &why).await,
            Blame::Node => {
                spared = Some(revision);
                tracing::warn!(%revision, "this node has died of what others live with: it is not in quarantine");
            }
            Blame::Open => {}
        }
    }
}

/// The revision that this node will never serve, and why, as long as the cluster does not know that.
fn unheard_of(node: &Node) -> Option<(Poison, String)> {
    let activation = node.activation.borrow().clone();
    let poison = activation.poison?;
    let revision = poison.revision;
    let is_news = node.log.with_state(|state| {
        let record = state.revisions.record(revision).filter(|record| !record.fingerprint.is_empty());
        let known = record.and_then(|record| state.revisions.quarantine().find(&record.fingerprint));
        record.is_some() && known.is_none_or(|known| known.revision < revision)
    });
    let (_, why) = activation.refused.filter(|(refused, _)| is_news && *refused == revision)?;
    Some((poison, why))
}

/// Asks the others what they have made of it.
async fn blame_for_deaths(node: &Arc<Node>, revision: Revision) -> Blame {
    let is_on_trial = node
        .log
        .with_state(|state| state.revisions.record(revision).is_some_and(|record| record.is_on_trial()));
    let reports = node.ask_reports(Wanted::default()).await;
    let others = node.members().into_keys().filter(|id| *id != node.id()).map(|id| {
        let report = reports.iter().find(|(of, _, _)| *of == id).and_then(|(_, _, report)| report.as_ref());
        report.map_or(Fate::Unheard, |report| fate(report, revision))
    });
    blame(is_on_trial, &others.collect::<Vec<_>>())
}

fn fate(report: &NodeReport, revision: Revision) -> Fate {
    match () {
        () if report.died_of == revision.0 => Fate::Died,
        () if report.proven_revision == revision.0 => Fate::Proven,
        () => Fate::Undecided,
    }
}

async fn isolate(node: &Node, revision: Revision, why: &str) {
    let why = format!("{} has refused it: {why}", node.identity.name);
    let command = Command::Quarantine { revision, why, at_ms: now_ms() };
    match node.of_its_own("Quarantine", node.log.propose(command)).await {
        Ok(proposed) => {
            tracing::warn!(%revision, "what this node cannot live with is in quarantine");
            // Or it would be told again.
            node.await_applied(proposed.index, Revision(0), CATCH_UP_WAIT).await;
        }
        Err(error) => tracing::debug!(%revision, %error, "the cluster cannot be told yet"),
    }
}
