//! Whether the state of this node is that of the others, again and again: the same entries lead everybody to the same state,
//! unless something is broken that nobody would notice otherwise.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shoal_configlog::Divergence;
use shoal_model::NodeId;
use shoal_model::state::{COMPARING, Command};
use shoal_policy::agreement::{Agreement, StateHash, agreement};

use crate::node::Node;

/// Between two looks at what others say.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two comparisons, at least, and only if something was changed since.
const COMPARE_INTERVAL: Duration = Duration::from_secs(10);
/// Of its time, at most one part in so many goes into looking at the whole state.
const COST: u32 = 100;

/// Compares, and takes over the state of the others where this node's is another, for as long as it is polled.
pub async fn watch(node: Arc<Node>) {
    let mut last = Instant::now();
    let mut own: Option<StateHash> = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let hashed = *node.log.hashed().borrow();
        if own != hashed.map(|hashed| hashed.hash) {
            own = hashed.map(|hashed| hashed.hash);
            last = Instant::now();
            node.gossip.set_state_hash(own);
        }
        let pause = COMPARE_INTERVAL.max(hashed.map_or(Duration::ZERO, |hashed| hashed.took * COST));
        if last.elapsed() >= pause && is_due(&node, own) {
            last = Instant::now();
            if let Err(error) = node.log.propose(Command::CompareStates).await {
                tracing::debug!(%error, "the states are not compared yet");
            }
        }
        if let Some(divergence) = own.and_then(|own| divergence(&node, own)) {
            take_over(&node, divergence).await;
        }
    }
}

/// This node leads, something has changed since `own` state was hashed, and everybody knows what is wanted.
fn is_due(node: &Node, own: Option<StateHash>) -> bool {
    let log = node.log.status();
    let compared = own.map_or(0, |own| own.index);
    log.leader == Some(node.id())
        && log.quorum
        && log.applied > compared
        && node.members_without(COMPARING).is_empty()
}

fn divergence(node: &Node, own: StateHash) -> Option<Divergence> {
    let view = node.gossip.view().load_full();
    let heard = view.nodes.iter().filter(|other| other.alive && other.id != node.id());
    let said: Vec<(NodeId, StateHash)> =
        heard.clone().filter_map(|other| Some((other.id, other.state_hash?))).collect();
    match agreement(own, &said, heard.count(), node.log.status().leader) {
        Agreement::Differs { others } => Some(Divergence { index: own.index, others }),
        Agreement::Same | Agreement::Unknown => None,
    }
}

async fn take_over(node: &Node, divergence: Divergence) {
    if node.log.divergence() != Some(divergence) {
        node.divergences.fetch_add(1, Ordering::Relaxed);
        tracing::error!("{divergence}");
    }
    match node.log.take_over_state(divergence).await {
        Ok(index) => tracing::warn!(index, "the state of this node is that of the others again"),
        Err(why) => tracing::error!(why, "the state of the others was not taken over yet"),
    }
}
