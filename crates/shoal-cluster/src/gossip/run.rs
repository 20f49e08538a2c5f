//! The running gossip: one generation of chitchat after the other, folded into views.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chitchat::transport::Transport;
use chitchat::{Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use shoal_model::NodeId;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use xxhash_rust::xxh3::Xxh3;

use super::fold::{Folded, Folder, Report, Row};
use super::hear::{Heard, SpokenFor, say_and_hear};
use super::keys;
use super::seal::Party;
use super::transport::{GossipCounters, SealedTransport, unix_ms};
use super::twin::TwinWatch;
use super::{GossipSettings, HealthState, Shared, Wire};

/// The dead are forgotten after this long; their earlier generations count against the size of messages for half of it.
const GRACE_PERIOD: Duration = Duration::from_secs(15 * 60);
/// Gaps between signs of life that are remembered per node.
const SAMPLES: usize = 1000;
/// Gaps of more usual ones than this say nothing about them: who was held to be dead, for 8 of them, and is back would else
/// be given several times as long the next time.
const MAX_SAMPLE_INTERVALS: u32 = 4;
/// Rounds of gossip between two calls to members that are silent.
const RECONTACT_ROUNDS: u32 = 10;
/// Silent members called at once.
const MAX_RECONTACTS: usize = 8;
/// The more nodes there are, the longer are the gaps between signs of life of one of them, and the later its death is
/// noticed. So many members call each other more often than the gossip does by itself: twice a round one more, so that a
/// death is known to all within 3 s. Fewer need not, and of more the messages are too large.
const CROWD: RangeInclusive<usize> = 10..=100;
/// Members that are told at once of a death. Each tells as many: all know within a few messages.
const SPREAD_CALLS: u64 = 3;
/// Pause before the gossip starts again after it ended by itself.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// Keeps the gossip going for as long as it is polled.
pub(super) struct Runner {
    settings: GossipSettings,
    advertise: SocketAddr,
    wire: Wire,
    shared: Arc<Shared>,
    folder: Folder,
    twins: TwinWatch,
    generation: u64,
    /// The members that were called last, whether they answered or not.
    called: Option<BTreeMap<NodeId, SocketAddr>>,
    recontacted: usize,
    /// Calls of living members beside those of the gossip itself.
    more_calls: usize,
    /// Calls to tell of a death, so far.
    spread_calls: u64,
    /// When the last ones of them were made.
    spread_at: Option<Instant>,
    received_before: u64,
}

/// Why a round is due.
enum Due {
    /// Something has changed, or some time has passed.
    Round,
    /// Silent members are to be called.
    Recontact,
    /// One more member is to be called, if there are many.
    Call,
    /// The gossip ended by itself.
    Ended(String),
}

impl Runner {
    pub(super) fn new(
        settings: GossipSettings,
        advertise: SocketAddr,
        wire: Wire,
        shared: Arc<Shared>,
    ) -> Self {
        let folder = Folder::new(settings.node_id, settings.timing.interval);
        let mut runner = Self {
            settings,
            advertise,
            wire,
            shared,
            folder,
            twins: TwinWatch::default(),
            generation: 0,
            called: None,
            recontacted: 0,
            more_calls: 0,
            spread_calls: 0,
            spread_at: None,
            received_before: 0,
        };
        runner.publish_own();
        runner
    }

    pub(super) async fn run(mut self) {
        loop {
            let reason = self.run_generation().await;
            GossipCounters::count(&self.shared.counters.restarts);
            tracing::error!(reason, "the gossip ended by itself and starts again");
            sleep(RESTART_PAUSE).await;
        }
    }

    /// Runs until the gossip ends by itself, and tells why it did.
    async fn run_generation(&mut self) -> String {
        // It must rise with every start, even when the clock was set back while we ran.
        self.generation = (unix_ms() * 1_000_000).max(self.generation + 1);
        let transport = self.transport();
        let config = chitchat_config(&self.settings, self.generation, self.advertise);
        let handle = match spawn_chitchat(config, Vec::new(), &*transport).await {
            Ok(handle) => handle,
            Err(error) => return error.to_string(),
        };
        let shared = self.shared.clone();
        let watch_keys = |chitchat: &mut Chitchat| {
            let shared = shared.clone();
            chitchat.subscribe_event("", move |_| shared.wake.notify_one())
        };
        let _subscription = handle.with_chitchat(watch_keys).await;
        let period = self.settings.timing.interval;
        let mut tick = interval(period / 2);
        let mut recontact = interval(RECONTACT_ROUNDS * period);
        let mut call = interval(period / 2);
        call.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        recontact.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended = pin!(ended(&handle));
        let mut last_round = Instant::now();
        loop {
            let due = tokio::select! {
                reason = &mut ended => Due::Ended(reason),
                () = self.shared.wake.notified() => Due::Round,
                _ = tick.tick() => Due::Round,
                _ = recontact.tick() => Due::Recontact,
                _ = call.tick() => Due::Call,
            };
            match due {
                Due::Ended(reason) => return reason,
                Due::Recontact => {
                    self.call_silent_members(&handle);
                    self.warn_of_silence();
                }
                Due::Call => self.call_one_more(&handle),
                Due::Round => {
                    let now = Instant::now();
                    if now.duration_since(last_round) > 2 * period {
                        self.folder.stalled(now);
                    }
                    last_round = now;
                    if let Err(SpokenFor) = self.round(&handle).await {
                        return "another node spoke for this one".to_owned();
                    }
                    if self.has_new_members() {
                        self.call_silent_members(&handle);
                    }
                    // Changes come in bursts: they are folded together.
                    sleep(period / 20).await;
                }
            }
        }
    }

    fn transport(&self) -> Box<dyn Transport> {
        let socket = match &self.wire {
            Wire::Udp(socket) => socket.clone(),
            #[cfg(test)]
            Wire::Simulated(air) => return Box::new(air.clone()),
        };
        Box::new(SealedTransport {
            socket,
            keys: self.shared.keys.clone(),
            ring: ring(&self.settings),
            local: Party { id: self.settings.node_id.0, address: self.advertise },
            generation: self.generation,
            counters: self.shared.counters.clone(),
            members: self.shared.members.clone(),
        })
    }

    /// Says what is new of this node, hears what is new of others, and publishes what follows.
    async fn round(&mut self, handle: &ChitchatHandle) -> Result<(), SpokenFor> {
        let own = self.shared.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let local = self.settings.node_id;
        let heard = handle.with_chitchat(|chitchat| say_and_hear(chitchat, &own, local)).await?;
        let Heard { reports, selves } = heard;
        let interval = self.settings.timing.interval;
        let twin = self.twins.look(self.generation, &selves, interval, Instant::now());
        self.shared.twin.send_if_modified(|known| std::mem::replace(known, twin) != twin);
        let folded = self.fold(reports);
        if folded.mass_death {
            tracing::warn!(
                "more than half of the other nodes fell silent at once: keeping the last view for a while"
            );
            self.call_silent_members(handle);
        }
        let (missed, is_news) = (folded.missed.clone(), folded.is_news);
        self.publish(folded);
        self.say_whom_it_misses(handle, missed).await;
        if is_news {
            self.spread(handle);
        }
        Ok(())
    }

    async fn say_whom_it_misses(&self, handle: &ChitchatHandle, missed: String) {
        handle.with_chitchat(|chitchat| chitchat.self_node_state().set(keys::MISSED, missed.as_str())).await;
        self.shared.own.lock().unwrap_or_else(PoisonError::into_inner).insert(keys::MISSED, missed);
    }

    /// What this node says, and all that it has heard, goes to a few others at once, and from these to all.
    fn spread(&mut self, handle: &ChitchatHandle) {
        let (calls, now) = (self.spread_calls, Instant::now());
        if self.spread_at.is_some_and(|last| now.duration_since(last) < self.settings.timing.interval / 5) {
            return;
        }
        (self.spread_calls, self.spread_at) = (calls.wrapping_add(SPREAD_CALLS), Some(now));
        let view = self.shared.view.load();
        let living: Vec<NodeId> = view.nodes.iter().filter(|node| node.alive).map(|node| node.id).collect();
        for call in 0..SPREAD_CALLS {
            if let Some(id) = any_of(&living, view.local, calls.wrapping_add(call)) {
                self.call(handle, id);
            }
        }
    }

    fn call(&self, handle: &ChitchatHandle, id: NodeId) {
        let members = self.shared.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = members.known().and_then(|members| members.get(&id)) {
            // It fails only when the gossip has ended, which is noticed elsewhere.
            let _ = handle.gossip(*address);
        }
    }

    /// The first view, before anything is sent.
    fn publish_own(&mut self) {
        let own = self.shared.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let value = |key: &str| own.get(key).map(String::as_str);
        let report = Report::read(&Row {
            id: self.settings.node_id,
            generation: 0,
            address: self.advertise,
            heartbeat: 0,
            heard: true,
            value: &value,
        });
        let folded = self.fold(vec![report]);
        self.publish(folded);
    }

    fn fold(&mut self, reports: Vec<Report>) -> Folded {
        let members = self.shared.members.lock().unwrap_or_else(PoisonError::into_inner);
        let members: Option<BTreeSet<_>> = members.known().map(|known| known.keys().copied().collect());
        self.folder.fold(reports, members.as_ref(), Instant::now(), unix_ms() / 1000)
    }

    fn publish(&self, folded: Folded) {
        let Folded { view, here, elsewhere, silence, .. } = folded;
        let silence_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        self.shared.counters.silence_ms.store(silence_ms, Ordering::Relaxed);
        let health = HealthState { here, elsewhere, fresh_for: self.folder.fresh_for() };
        *self.shared.health() = health;
        if *self.shared.view.load_full() != view {
            let view = Arc::new(view);
            self.shared.view.store(view.clone());
            self.shared.changes.send_replace(view);
        }
    }

    /// Members that came or moved since they were called, all of them after a restart: they need not wait to be called.
    fn has_new_members(&mut self) -> bool {
        let members = self.shared.members.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = members.known() != self.called.as_ref();
        if is_new {
            self.called = members.known().cloned();
        }
        is_new
    }

    /// After a partition has healed, the gossip itself would rarely try those that fell silent.
    fn call_silent_members(&mut self, handle: &ChitchatHandle) {
        let view = self.shared.view.load_full();
        let members = self.shared.members.lock().unwrap_or_else(PoisonError::into_inner);
        let members = members.known().cloned().unwrap_or_default();
        let is_silent = |(id, _): &(NodeId, SocketAddr)| {
            *id != view.local && view.node(*id).is_none_or(|node| !node.alive)
        };
        let silent: Vec<_> = members.into_iter().filter(is_silent).collect();
        for place in 0..silent.len().min(MAX_RECONTACTS) {
            let (_, address) = silent[(self.recontacted + place) % silent.len()];
            // As in `call`.
            let _ = handle.gossip(address);
        }
        self.recontacted = self.recontacted.wrapping_add(MAX_RECONTACTS);
    }

    /// Of the living, each in its turn.
    fn call_one_more(&mut self, handle: &ChitchatHandle) {
        let view = self.shared.view.load();
        if !CROWD.contains(&view.nodes.len()) {
            return;
        }
        let living: Vec<NodeId> = view.nodes.iter().filter(|node| node.alive).map(|node| node.id).collect();
        let Some(id) = turn_of(&living, view.local, self.more_calls) else { return };
        self.more_calls = self.more_calls.wrapping_add(1);
        self.call(handle, id);
    }

    fn warn_of_silence(&mut self) {
        let view = self.shared.view.load_full();
        let received = self.shared.counters.received.load(Ordering::Relaxed);
        let others_alive = view.nodes.iter().any(|node| node.alive && node.id != view.local);
        if others_alive && received == self.received_before {
            tracing::warn!(
                rounds = RECONTACT_ROUNDS,
                "no gossip was heard from nodes that are held to be alive"
            );
        }
        self.received_before = received;
    }
}

/// Whom `local` calls when it has done so `calls` times. Nodes that do it at once call different ones.
fn turn_of(living: &[NodeId], local: NodeId, calls: usize) -> Option<NodeId> {
    let place = living.iter().position(|id| *id == local)?;
    let others = living.len().checked_sub(1).filter(|others| *others > 0)?;
    Some(living[(place + 1 + calls % others) % living.len()])
}

/// Whom `local` calls with its `call`-th word of a death: nobody knows whom the others call, and few are called by two.
fn any_of(living: &[NodeId], local: NodeId, call: u64) -> Option<NodeId> {
    let others: Vec<_> = living.iter().filter(|id| **id != local).collect();
    let mut hash = Xxh3::new();
    hash.update(&local.0.to_be_bytes());
    hash.update(&call.to_be_bytes());
    let place = usize::try_from(hash.digest() % others.len().max(1) as u64).ok()?;
    others.get(place).map(|id| **id)
}

fn ring(settings: &GossipSettings) -> String {
    format!("{}/{}", settings.cluster_id, settings.cluster_epoch)
}

/// The gossip library's part of a generation that is reached at `advertise`.
pub(super) fn chitchat_config(
    settings: &GossipSettings,
    generation: u64,
    advertise: SocketAddr,
) -> ChitchatConfig {
    let timing = settings.timing;
    let detector = FailureDetectorConfig::new(
        timing.phi_threshold,
        SAMPLES,
        MAX_SAMPLE_INTERVALS * timing.initial_interval,
        timing.initial_interval,
        GRACE_PERIOD,
    );
    ChitchatConfig {
        chitchat_id: ChitchatId::new(settings.node_id.to_string(), generation, advertise),
        cluster_id: ring(settings),
        gossip_interval: timing.interval,
        listen_addr: settings.listen,
        seed_nodes: settings.seeds.iter().map(SocketAddr::to_string).collect(),
        failure_detector_config: detector,
        marked_for_deletion_grace_period: GRACE_PERIOD,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

/// How the gossip ends by itself.
pub(super) fn ended(handle: &ChitchatHandle) -> impl Future<Output = String> + use<> {
    let terminated = handle.termination_watcher();
    async move {
        match terminated.await {
            Ok(()) => "it was shut down".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_called_in_turn_and_nobody_by_two_at_once() {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let living = ids(&[1, 4, 5, 9]);
        let calls_of =
            |local| (0..4).filter_map(|calls| turn_of(&living, NodeId(local), calls)).collect::<Vec<_>>();
        assert_eq!(calls_of(1), ids(&[4, 5, 9, 4]));
        assert_eq!(calls_of(4), ids(&[5, 9, 1, 5]));
        assert_eq!(calls_of(9), ids(&[1, 4, 5, 1]));
        assert_eq!(calls_of(7), ids(&[]), "it does not know itself yet");
        assert_eq!(turn_of(&ids(&[3]), NodeId(3), 9), None);
        assert_eq!(turn_of(&[], NodeId(3), 9), None);
    }
}
