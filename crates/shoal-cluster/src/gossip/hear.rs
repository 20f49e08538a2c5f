//! What a round says of this node, and hears of others.

use std::collections::BTreeSet;

use chitchat::{Chitchat, ChitchatId};
use shoal_model::NodeId;

use super::fold::{Report, Row};
use super::keys::{self, OwnKeys};
use super::twin::OtherSelf;

/// The gossip library believes what others say of this node, the versions of its keys, too, and panics beyond the last one.
/// No generation comes this far by itself.
const MAX_OWN_VERSION: u64 = 1 << 62;

/// What a round hears of others.
pub(super) struct Heard {
    pub(super) reports: Vec<Report>,
    pub(super) selves: Vec<OtherSelf>,
}

/// Somebody else has said of this generation what only it may: it cannot be used any longer.
#[derive(Debug)]
pub(super) struct SpokenFor;

/// Says `own` of this node, and hears what all others say.
pub(super) fn say_and_hear(
    chitchat: &mut Chitchat,
    own: &OwnKeys,
    local: NodeId,
) -> Result<Heard, SpokenFor> {
    let state = chitchat.self_node_state();
    if state.max_version() > MAX_OWN_VERSION {
        return Err(SpokenFor);
    }
    for (key, value) in own {
        state.set(key, value);
    }
    Ok(Heard { reports: read_reports(chitchat, local), selves: read_other_selves(chitchat, local) })
}

/// Every generation of every node but earlier ones of this node, as far as something is known of it.
fn read_reports(chitchat: &Chitchat, local: NodeId) -> Vec<Report> {
    let live: BTreeSet<_> = chitchat.live_nodes().collect();
    let read = |(chitchat_id, state): (&ChitchatId, &chitchat::NodeState)| {
        let id = node_id(&chitchat_id.node_id)?;
        let of_earlier_self = id == local && chitchat_id != chitchat.self_chitchat_id();
        if of_earlier_self || !state.contains_key(keys::NAME) {
            return None;
        }
        let value = |key: &str| state.get(key);
        Some(Report::read(&Row {
            id,
            generation: chitchat_id.generation_id,
            address: chitchat_id.gossip_advertise_addr,
            heard: live.contains(chitchat_id),
            heartbeat: state.heartbeat().into(),
            value: &value,
        }))
    };
    chitchat.node_states().iter().filter_map(read).collect()
}

/// The generations of this node that [`read_reports`] leaves out.
fn read_other_selves(chitchat: &Chitchat, local: NodeId) -> Vec<OtherSelf> {
    let own = chitchat.self_chitchat_id();
    let others = chitchat.node_states().iter().filter(|(id, _)| *id != own);
    let others = others.filter(|(id, _)| node_id(&id.node_id) == Some(local));
    let read = |(id, state): (&ChitchatId, &chitchat::NodeState)| OtherSelf {
        generation: id.generation_id,
        address: id.gossip_advertise_addr,
        heartbeat: state.heartbeat().into(),
    };
    others.map(read).collect()
}

fn node_id(text: &str) -> Option<NodeId> {
    text.starts_with('n').then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::SocketAddr;

    use chitchat::{ChitchatConfig, FailureDetectorConfig};
    use tokio::sync::watch;

    use super::*;

    #[test]
    fn a_node_speaks_for_as_long_as_there_are_versions() {
        let check = |version: u64, expected: bool| {
            let address = SocketAddr::from(([127, 0, 0, 1], 7400));
            let config = ChitchatConfig {
                chitchat_id: ChitchatId::new("n1", 1, address),
                cluster_id: "ring".to_owned(),
                gossip_interval: Default::default(),
                listen_addr: address,
                seed_nodes: Vec::new(),
                failure_detector_config: FailureDetectorConfig::default(),
                marked_for_deletion_grace_period: Default::default(),
                catchup_callback: None,
                extra_liveness_predicate: None,
            };
            let (_, seeds) = watch::channel(HashSet::new());
            let mut chitchat = Chitchat::with_chitchat_id_and_seeds(config, seeds, Vec::new());
            chitchat.self_node_state().set_max_version(version);
            let own = OwnKeys::from([(keys::NAME, "one".to_owned()), (keys::ZONE, "a".to_owned())]);
            let heard = say_and_hear(&mut chitchat, &own, NodeId(1));
            assert_eq!(heard.is_ok_and(|heard| heard.reports.len() == 1), expected, "{version}");
        };
        check(0, true);
        check(1_000_000, true);
        check(MAX_OWN_VERSION, true);
        check(MAX_OWN_VERSION + 1, false);
        check(u64::MAX - 1, false);
        check(u64::MAX, false);
    }
}
