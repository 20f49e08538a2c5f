//! Who is where: addresses and what holds for the cluster, compared with what is known.

use std::sync::Arc;
use std::time::Duration;

use shoal_configlog::known_level;
use shoal_model::state::{ClusterSetup, Command};
use tokio::time::MissedTickBehavior;

use crate::boot::{member_record, remember_setup};
use crate::node::Node;

/// Between two looks.
const CENSUS_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps addresses up to date: those of others as they gossip them, this node's own in the log; and what holds for the whole
/// cluster, of which this node has `written` down something for its next start.
pub async fn census(node: Arc<Node>, mut written: ClusterSetup) {
    let mut ticks = tokio::time::interval(CENSUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The entry in which this node has said where it is.
    let mut told = 0;
    let mut namesake = None;
    loop {
        ticks.tick().await;
        node.peers.learn_from(&node.gossip.view().load());
        node.gossip.set_load(u32::try_from(node.proxy.figures().in_flight).unwrap_or(u32::MAX));
        node.gossip.set_offered(node.proxy.offered());
        let applied = *node.log.applied().borrow();
        node.gossip.set_applied_index(applied);
        node.gossip.set_commands(known_level());
        let (setup, is_known) = node.log.with_state(|state| (state.setup, !state.nodes.is_empty()));
        if is_known && setup != written {
            match remember_setup(&node.settings.data_dir, setup) {
                Ok(()) => written = setup,
                Err(error) => tracing::debug!(%error, "what holds for the cluster is not on disk yet"),
            }
        }
        let Ok(mut record) = member_record(&node.settings, &node.identity) else { continue };
        let known = node.log.with_state(|state| {
            let known = state.nodes.get(&node.id()).cloned();
            known.map(|known| (known, state.whose_name_it_takes(node.id(), &record)))
        });
        let Some((known, taken_from)) = known else { continue };
        if let Some(of) = taken_from {
            if namesake.replace(of) != Some(of) {
                let (name, kept) = (&record.name, &known.name);
                tracing::warn!(%name, %of, %kept, "the name of this node is another one's: the cluster goes on calling it as before");
            }
            record.name.clone_from(&known.name);
        }
        if record == known || applied < told {
            continue;
        }
        let command = Command::UpdateNode { node_id: node.id(), record };
        match node.of_its_own("UpdateNode", node.log.propose(command)).await {
            Ok(proposed) => told = proposed.index,
            Err(error) => tracing::debug!(%error, "the new address is not in the log yet"),
        }
    }
}
