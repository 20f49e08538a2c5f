//! The keys of the gossip: the leader has them changed, and every node takes over what the log says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_cluster::identity::{Identity, KeyRing, Purpose, random_bytes};
use shoal_configlog::{ProposeError, Proposed};
use shoal_model::state::{Command, GossipKey, GossipKeyStep, GossipKeys, KEEPING_KEYS, KeyOrder};
use shoal_policy::gossip_keys::{Keys, Scene, Step, next_step};

use crate::node::{Node, now_ms};

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A node that is heard and has not applied a step for so long is worth a warning.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// What the log says of them, opened; `None` = one of them cannot be.
pub fn open_gossip_keys(identity: &Identity, keys: &GossipKeys) -> Option<KeyRing> {
    let place = identity.cluster_id.0.to_be_bytes();
    let open = |key: GossipKey| match key.id {
        0 => Some(identity.secret.expose().to_vec()),
        _ => identity.secret.unseal(Purpose::GossipKeys, &place, &key.sealed).ok(),
    };
    let opened: Option<Vec<_>> = keys.believed().into_iter().map(open).collect();
    KeyRing::of_keys(opened?.iter().map(Vec::as_slice))
}

/// Takes the next step whenever it is due and this node leads, for as long as it is polled.
pub async fn keep_gossip_keys(node: Arc<Node>) {
    let mut waits_since: Option<(u64, Instant)> = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if !node.leads() {
            continue;
        }
        let keys = node.known_gossip_keys();
        let uptime = node.started.elapsed();
        let scene = Scene { now_ms: now_ms(), uptime, applied_by_all: node.applied_by_all() };
        let step = match next_step(&keys, &scene) {
            Step::Wait => {
                warn_of_long_wait(&keys, &mut waits_since);
                continue;
            }
            Step::Make if node.knows_gossip_keys() => node.next_gossip_key(),
            // Nobody can tell what an older version would make of it.
            Step::Make => continue,
            Step::Use => GossipKeyStep::Use { id: keys.newest },
            Step::Drop => GossipKeyStep::Drop { id: keys.in_use },
        };
        let what = becomes(&step);
        let command = Command::KeepKeys(KeyOrder::Gossip(step));
        match node.of_its_own("KeepKeys", node.log.propose_as_leader(command)).await {
            Ok(proposed) => tell(&proposed, what),
            Err(error) => tracing::debug!(%error, "the keys of the gossip are as they were"),
        }
    }
}

fn warn_of_long_wait(keys: &Keys, waits_since: &mut Option<(u64, Instant)>) {
    let waiting = (keys.newest != keys.in_use).then_some(keys.newest);
    match (waiting, *waits_since) {
        (None, _) => *waits_since = None,
        (Some(key), Some((of, since))) if of == key => {
            if since.elapsed() > LONG_WAIT {
                tracing::warn!(
                    key,
                    "a node that is heard has not applied the new key of the gossip: it is not used yet"
                );
                *waits_since = Some((key, Instant::now()));
            }
        }
        (Some(key), _) => *waits_since = Some((key, Instant::now())),
    }
}

fn becomes(step: &GossipKeyStep) -> &'static str {
    match step {
        GossipKeyStep::Make { .. } => "made",
        GossipKeyStep::Use { .. } => "used",
        GossipKeyStep::Drop { .. } => "the only one that is believed",
    }
}

fn tell(proposed: &Proposed, what: &str) {
    tracing::info!(index = proposed.index, "a new key of the gossip is {what}");
}

impl Node {
    fn known_gossip_keys(&self) -> Keys {
        self.log.with_state(|state| {
            let (keys, newest) = (&state.keys.gossip, state.keys.gossip.newest());
            Keys {
                newest: newest.id,
                made_at_ms: newest.made_at_ms,
                in_use: keys.in_use(),
                in_use_since: keys.in_use_since(),
                is_known_outside: keys.is_known_outside(),
                is_betrayed: !keys.are_without(&state.revoked),
            }
        })
    }

    /// Every member knows what it means: since it was done once, and before that once each has said so.
    pub(crate) fn knows_gossip_keys(&self) -> bool {
        self.log.with_state(|state| state.keys.gossip.newest().id != 0)
            || self.members_without(KEEPING_KEYS).is_empty()
    }

    /// A new one, by chance.
    pub(crate) fn next_gossip_key(&self) -> GossipKeyStep {
        let place = self.identity.cluster_id.0.to_be_bytes();
        let sealed = self.identity.secret.seal(Purpose::GossipKeys, &place, &random_bytes::<32>());
        self.log.with_state(|state| GossipKeyStep::Make {
            sealed,
            after: state.keys.gossip.newest().id,
            without: state.revoked.clone(),
            at_ms: now_ms(),
        })
    }

    /// Puts a step into the log, wherever this node stands.
    pub(crate) async fn propose_gossip_key(&self, step: GossipKeyStep) -> Result<Proposed, ProposeError> {
        let what = becomes(&step);
        let proposed = self.log.propose(Command::KeepKeys(KeyOrder::Gossip(step))).await?;
        tell(&proposed, what);
        Ok(proposed)
    }

    /// What every member that is heard has applied of the log.
    fn applied_by_all(&self) -> u64 {
        let view = self.gossip.view().load_full();
        let own = *self.log.applied().borrow();
        let heard = self.live_members().into_iter().filter(|(id, _)| *id != self.id());
        let applied = heard.map(|(id, _)| view.node(id).map_or(0, |node| node.applied_index));
        applied.min().map_or(own, |least| least.min(own))
    }
}
