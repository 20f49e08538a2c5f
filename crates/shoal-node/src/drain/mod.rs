//! Leaving service without a lost request, and coming back: one way, whether the process is to end or an operator wants
//! the node drained.
//!
//! The order: `/readyz` fails and the gossip says `draining`, so that balancers, owners of objects, checkers and voters
//! move; the hook withdraws what leads here (routes, DNS); traffic that is on its way anyway is served for a while; the
//! listeners close and every connection ends with its next answer; what is cached goes to its next owners; somebody else
//! leads and votes. Each step that is done stays done, so that whoever comes second goes on where the first has stopped.

mod hook;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shoal_cluster::{ClusterView, NodeState};
use shoal_model::state::NodeStanding;
use shoal_proxy::Ports;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;

use self::hook::{Event, run as run_hook};
use crate::node::Node;

/// How long somebody else may take to get the vote of a drained node.
const VOTE_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at who votes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Notes that are kept.
const MAX_NOTES: usize = 8;
/// Between two attempts to open the listeners again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// What a node is doing about leaving service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing: it serves, or is about to.
    #[default]
    Serving,
    /// The hook withdraws what leads here.
    Hook,
    /// Withdrawn, and still accepting.
    Grace,
    /// The listeners are closed; connections end.
    Connections,
    /// What is cached goes to its next owners.
    Cache,
    /// Somebody else gets to lead, and to vote.
    Vote,
    /// Done.
    Drained,
}

impl Phase {
    /// As reports and operators have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Hook => "hook",
            Self::Grace => "grace",
            Self::Connections => "connections",
            Self::Cache => "cache",
            Self::Vote => "vote",
            Self::Drained => "drained",
        }
    }

    /// Why the node is not ready, for who asks `/readyz`; `None` = it is not because of this.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Serving => None,
            Self::Hook => Some("draining: the hook withdraws what leads here"),
            Self::Grace => Some("draining: withdrawn, and still accepting"),
            Self::Connections => Some("draining: connections end"),
            Self::Cache => Some("draining: the cache goes to its next owners"),
            Self::Vote => Some("draining: somebody else gets to lead and to vote"),
            Self::Drained => Some("drained: nothing is listened on"),
        }
    }
}

/// How far a node is with leaving service, and what was noteworthy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// What did not go as it should, or why something was left out.
    pub notes: Vec<String>,
}

/// What has been done, so that it is not done twice.
#[derive(Debug, Default)]
pub struct Done {
    hook: bool,
    grace: bool,
    cache: bool,
}

/// The node's way out of service, and back.
pub struct Drain {
    progress: watch::Sender<Progress>,
    /// Held by whoever works on it.
    turn: Arc<Mutex<Done>>,
    /// The process is to end: operators' orders are not followed any more.
    stopping: CancellationToken,
    /// An operator wants the process to end, now that the node is drained.
    pub told_to_leave: CancellationToken,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            progress: watch::Sender::default(),
            turn: Arc::default(),
            stopping: CancellationToken::new(),
            told_to_leave: CancellationToken::new(),
        }
    }
}

impl Drain {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Every step.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether the node is on its way out of service, or out of it.
    pub fn has_begun(&self) -> bool {
        self.progress.borrow().phase != Phase::Serving
    }

    fn enter(&self, phase: Phase) {
        if self.progress.borrow().phase == phase {
            return;
        }
        tracing::info!(phase = phase.name(), "draining");
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    fn note(&self, note: String) {
        tracing::warn!(note, "while draining");
        self.progress.send_modify(|progress| {
            if !progress.notes.contains(&note) && progress.notes.len() < MAX_NOTES {
                progress.notes.push(note);
            }
        });
    }

    /// A process begins whose node is drained: it is as if it had been drained here, but for what only a look can tell.
    pub fn begin_drained(&self, proxy: &shoal_proxy::Proxy) {
        proxy.stop_accepting();
        if let Ok(mut done) = self.turn.try_lock() {
            *done = Done { hook: true, grace: true, cache: true };
        }
        self.enter(Phase::Connections);
    }

    async fn turn(&self) -> OwnedMutexGuard<Done> {
        self.turn.clone().lock_owned().await
    }
}

/// The process is to end: drains as far as that is not done, hands everything on and says goodbye.
pub async fn leave(node: &Arc<Node>) {
    node.drain.stopping.cancel();
    let mut done = node.drain.turn().await;
    let is_twin = node.stand_back.is_cancelled();
    if is_twin {
        // From now on only the other process speaks in the name of this node.
        node.log.shutdown().await;
        node.gossip.stop().await;
        *done = Done { hook: true, grace: done.grace, cache: true };
    }
    node.drain.enter(node.drain.progress().phase.max(Phase::Hook));
    node.gossip.set_state(NodeState::Draining);
    let within = node.settings.drain_timeout;
    let closed = async { node.proxy.drain(within, Ports::Closed).await };
    stop_serving(node, &mut done, within, closed).await;
    if !is_twin {
        node.log.hand_over().await;
        node.gossip.leave().await;
    }
}

/// An operator wants the node out of service while its process goes on.
async fn drain(node: &Arc<Node>, within: Duration) {
    let mut done = node.drain.turn().await;
    node.gossip.set_state(NodeState::Draining);
    if node.drain.progress().phase == Phase::Drained {
        return;
    }
    node.drain.enter(node.drain.progress().phase.max(Phase::Hook));
    stop_serving(node, &mut done, within, async { node.proxy.rest(within).await }).await;
    node.drain.enter(Phase::Vote);
    node.log.hand_over().await;
    if let Some(note) = yield_vote(node).await {
        node.drain.note(note);
    }
    node.drain.enter(Phase::Drained);
}

/// Both ways have this in common; `closed` ends the connections and answers how many were cut off.
async fn stop_serving(
    node: &Arc<Node>,
    done: &mut Done,
    within: Duration,
    closed: impl Future<Output = usize>,
) {
    let Done { hook, grace, cache } = done;
    let serving = async {
        if !*hook {
            if let Some(why) = run_hook(node, Event::Withdraw).await {
                node.drain.note(why);
            }
            *hook = true;
        }
        if !*grace {
            node.drain.enter(Phase::Grace);
            tokio::time::sleep(node.settings.drain_delay).await;
            *grace = true;
        }
        node.drain.enter(Phase::Connections);
        let cut_off = closed.await;
        if cut_off > 0 {
            node.drain.note(format!("{cut_off} connections were cut off after {within:?}"));
        }
        node.drain.enter(Phase::Cache);
    };
    let handing_over = async {
        if !*cache {
            hand_over_cache(node, within).await;
            *cache = true;
        }
    };
    tokio::join!(serving, handing_over);
    // Peers that read from this node get the rest: without it they would have to begin again.
    let _ = tokio::time::timeout(within, node.cache.peers_answered()).await;
}

/// Nodes that own what is cached here from now on get it, as far as there is time.
async fn hand_over_cache(node: &Arc<Node>, within: Duration) {
    let (settings, budget) = (&node.settings, node.settings.handover_bytes_per_second);
    if budget > 0 {
        let patience = settings.drain_delay + within;
        let _ = tokio::time::timeout(patience, node.cache.hand_over(budget)).await;
    }
}

/// Waits until the leader has given the vote of this node to another one; answers why it has not.
async fn yield_vote(node: &Node) -> Option<String> {
    let until = Instant::now() + VOTE_PATIENCE;
    loop {
        let status = node.log.status();
        if !status.broken.is_empty() || !status.voters.contains(&node.id()) {
            return None;
        }
        let has_successor = node.log.with_state(|state| {
            let view = node.gossip.view().load();
            let mut others = state.nodes.keys().filter(|id| !status.voters.contains(id));
            others.any(|id| {
                is_there(&view, *id) && state.may_vote(*id) && state.standing(*id).standing.is_active()
            })
        });
        if !has_successor {
            return Some("it keeps its vote: there is no other node that could have it".to_owned());
        }
        if Instant::now() >= until {
            return Some(format!(
                "it still votes after {VOTE_PATIENCE:?}; the leader goes on looking for another"
            ));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn is_there(view: &ClusterView, id: shoal_model::NodeId) -> bool {
    view.node(id).is_some_and(|node| node.alive && node.state != NodeState::Left)
}

/// The node serves again: its listeners open first, then everybody is told.
async fn resume(node: &Arc<Node>, standing: NodeStanding) {
    let done = node.drain.turn().await;
    if !node.drain.has_begun() {
        node.gossip.set_state(state_of(standing));
        return;
    }
    let resuming = node.clone();
    // Not to be given up halfway, whatever is ordered next: that waits for its turn.
    let resumed = tokio::spawn(async move { open_again(&resuming, done, standing).await });
    if let Err(error) = resumed.await {
        tracing::error!(%error, "coming back into service failed");
    }
}

async fn open_again(node: &Arc<Node>, mut done: OwnedMutexGuard<Done>, standing: NodeStanding) {
    loop {
        let proxy = node.proxy.clone();
        let opened = tokio::task::spawn_blocking(move || proxy.resume()).await;
        let why = match opened {
            Ok(Ok(())) => break,
            Ok(Err(errors)) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => error.to_string(),
        };
        node.drain.note(format!("it cannot serve again: {why}"));
        if node.drain.stopping.is_cancelled() || node.standing().standing.is_drained() {
            return;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    let was_withdrawn = done.hook;
    *done = Done::default();
    node.drain.progress.send_replace(Progress::default());
    node.gossip.set_state(state_of(standing));
    tracing::info!("in service again");
    if was_withdrawn && let Some(why) = run_hook(node, Event::Announce).await {
        tracing::warn!(why, "what leads here was not announced again");
    }
}

/// What a node with this standing says of itself.
pub const fn state_of(standing: NodeStanding) -> NodeState {
    match standing {
        NodeStanding::Active => NodeState::Ready,
        NodeStanding::Cordoned => NodeState::Cordoned,
        NodeStanding::Drained { .. } => NodeState::Draining,
    }
}

/// Does what operators want of this node, for as long as it is polled.
pub async fn follow(node: Arc<Node>) {
    let mut applied = node.log.applied();
    let began_at = *applied.borrow_and_update();
    tokio::select! {
        () = node.drain.stopping.cancelled() => return std::future::pending().await,
        () = announce(&node) => {}
    }
    loop {
        let order = node.standing();
        let (standing, index) = (order.standing, order.index);
        let acting = async {
            act(&node, standing).await;
            if matches!(standing, NodeStanding::Drained { leaves: true, .. }) && index > began_at {
                node.drain.told_to_leave.cancel();
            }
            std::future::pending::<()>().await;
        };
        let changed = async {
            while node.standing().index == index {
                if applied.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = node.drain.stopping.cancelled() => return std::future::pending().await,
            () = acting => {}
            () = changed => {}
        }
    }
}

/// What leads here may lead here, now that the node serves.
async fn announce(node: &Node) {
    let _turn = node.drain.turn().await;
    if !node.drain.has_begun()
        && let Some(why) = run_hook(node, Event::Announce).await
    {
        tracing::warn!(why, "what leads here was not announced");
    }
}

async fn act(node: &Arc<Node>, standing: NodeStanding) {
    match standing {
        NodeStanding::Active | NodeStanding::Cordoned => resume(node, standing).await,
        NodeStanding::Drained { within_ms, .. } => {
            drain(node, within_ms.map_or(node.settings.drain_timeout, Duration::from_millis)).await;
        }
    }
}

impl Node {
    /// It was told to stop, or an operator has taken it out of service.
    pub fn is_draining(&self) -> bool {
        self.drain.has_begun()
    }

    /// The process is to end.
    pub fn is_stopping(&self) -> bool {
        self.drain.stopping.is_cancelled()
    }

    /// What operators want of this node.
    pub fn standing(&self) -> shoal_model::state::StandingRecord {
        self.log.with_state(|state| state.standing(self.id()))
    }

    /// Everything is there: the others may count on it, as far as operators want that.
    pub fn begin_to_serve(&self) {
        self.started_serving.store(true, Ordering::Relaxed);
        self.gossip.set_state(state_of(self.standing().standing));
    }
}
