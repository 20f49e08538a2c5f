//! Answers over DNS for the domains of the site, to whoever asks: off unless `--dns-listen` is given.
//!
//! Everybody may send what he likes here, so it has a thread of its own: neither requests nor consensus wait for it, and what
//! it dies of ends nothing else.

mod figures;
mod tcp;
mod udp;

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use shoal_cluster::{ClusterView, NodeState, NodeView};
use shoal_model::ConfigView;
use shoal_policy::dns::{Candidate, Carrier, ResponseRate, Scene, Verdict, reply, truncated};
use shoal_policy::readiness::Scope;
use tokio_util::sync::CancellationToken;

use crate::node::Node;

pub use figures::DnsFigures;

/// Before what has died answers again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Between two looks whether others are heard.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a responder may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsLimits {
    /// Answers a second over UDP to one network, a /24 or a /56; 0 = as many as are asked for.
    pub rate: u32,
    /// Connections at once.
    pub max_connections: usize,
}

/// The sockets of one address.
#[derive(Debug)]
pub struct DnsSockets {
    /// Datagrams.
    pub udp: UdpSocket,
    /// Connections.
    pub tcp: TcpListener,
}

/// What answers are made of.
struct Responder {
    config: Arc<ArcSwap<ConfigView>>,
    cluster: Arc<ArcSwap<ClusterView>>,
    region: String,
    limits: DnsLimits,
    rate: Mutex<ResponseRate>,
    started: Instant,
    turn: AtomicU64,
    candidates: ArcSwap<(Arc<ClusterView>, Vec<Candidate>)>,
    figures: Arc<DnsFigures>,
}

impl Responder {
    /// That of `node`.
    fn of(node: &Node) -> Arc<Self> {
        // Spreads networks over the buckets of the rate: nobody outside can know which of them share one.
        let seed = RandomState::new().hash_one(Instant::now());
        let limits = node.settings.dns_limits;
        Arc::new(Self {
            config: node.config.clone(),
            cluster: node.gossip.view().clone(),
            region: node.settings.region.clone(),
            limits,
            rate: Mutex::new(ResponseRate::new(limits.rate, seed)),
            started: Instant::now(),
            turn: AtomicU64::new(seed),
            candidates: ArcSwap::default(),
            figures: node.dns_figures.clone(),
        })
    }

    /// The answer to a datagram, if it is to have one.
    fn answer_datagram(&self, question: &[u8], source: IpAddr) -> Option<Vec<u8>> {
        self.figures.datagrams.fetch_add(1, Relaxed);
        let now_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let verdict = self.rate.lock().unwrap_or_else(PoisonError::into_inner).admit(source, now_us);
        match verdict {
            Verdict::Send => self.answer(question, Carrier::Udp),
            Verdict::Truncate => {
                self.figures.limited_truncated.fetch_add(1, Relaxed);
                truncated(question)
            }
            Verdict::Drop => {
                self.figures.limited_dropped.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// The answer to a question, if it is one.
    fn answer(&self, question: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
        let config = self.config.load();
        let known = self.candidates();
        let scene = Scene {
            zones: &config.dns,
            // Numbers of versions go round (RFC 1982).
            serial: config.revision.0 as u32,
            region: &self.region,
            candidates: &known.1,
            turn: self.turn.fetch_add(1, Relaxed),
        };
        let Some(reply) = reply(question, &scene, carrier) else {
            self.figures.ignored.fetch_add(1, Relaxed);
            return None;
        };
        self.figures.count(&reply);
        Some(reply.bytes)
    }

    /// Who may be answered, made anew when the cluster has changed.
    fn candidates(&self) -> Arc<(Arc<ClusterView>, Vec<Candidate>)> {
        let view = self.cluster.load_full();
        let known = self.candidates.load_full();
        if Arc::ptr_eq(&known.0, &view) {
            return known;
        }
        let fresh = candidates_of(&view);
        let known = Arc::new((view, fresh));
        self.candidates.store(known.clone());
        known
    }
}

/// Every node with public addresses.
fn candidates_of(view: &ClusterView) -> Vec<Candidate> {
    let with_addresses = view.nodes.iter().filter(|node| !node.public.is_empty());
    let candidate = |node: &NodeView| {
        // A node hears everybody but itself. One that joins is ready only where it takes the place of a process that was.
        let is_there = node.alive || node.id == view.local;
        let is_meant = !matches!(node.state, NodeState::Draining | NodeState::Left);
        Candidate {
            id: node.id,
            region: node.region.clone(),
            zone: node.zone.clone(),
            ready: is_there && is_meant && node.ready.of(Scope::Dns).is_sent_requests(),
            addresses: node.public.clone(),
        }
    };
    with_addresses.map(candidate).collect()
}

/// Nodes with public addresses, and those of them that are ready.
pub fn count_candidates(view: &ClusterView) -> (usize, usize) {
    let candidates = candidates_of(view);
    (candidates.len(), candidates.iter().filter(|one| one.ready).count())
}

/// Answers on `sockets` until `stop`.
pub async fn serve(node: Arc<Node>, sockets: Vec<DnsSockets>, stop: CancellationToken) -> anyhow::Result<()> {
    if sockets.is_empty() || stop.run_until_cancelled(joined(&node)).await.is_none() {
        stop.cancelled().await;
        return Ok(());
    }
    let responder = Responder::of(&node);
    loop {
        let (answering, stopped) = (responder.clone(), stop.clone());
        let copies =
            sockets.iter().map(|one| Ok(DnsSockets { udp: one.udp.try_clone()?, tcp: one.tcp.try_clone()? }));
        let copies = copies.collect::<std::io::Result<Vec<_>>>()?;
        // A thread of its own, whose panics arrive here.
        let thread = tokio::task::spawn_blocking(move || answer_on(answering, copies, stopped));
        let why = match thread.await {
            _ if stop.is_cancelled() => return Ok(()),
            Ok(Ok(())) => "it returned".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        responder.figures.restarts.fetch_add(1, Relaxed);
        tracing::error!(why, "answers over DNS have ended; beginning again");
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// A node that has heard nobody yet would answer nobody but itself: questions wait.
async fn joined(node: &Node) {
    while !node.readiness_facts(None).look.has_joined() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn answer_on(
    responder: Arc<Responder>,
    sockets: Vec<DnsSockets>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let mut answering = tokio::task::JoinSet::new();
        let doors = Arc::new(tcp::Doors::new(responder.limits.max_connections));
        for DnsSockets { udp, tcp } in sockets {
            let udp = tokio::net::UdpSocket::from_std(udp)?;
            let tcp = tokio::net::TcpListener::from_std(tcp)?;
            answering.spawn(udp::serve(udp, responder.clone()));
            answering.spawn(tcp::serve(tcp, responder.clone(), doors.clone()));
        }
        // None of them returns: what ends first has died.
        match stop.run_until_cancelled(answering.join_next()).await {
            None | Some(None | Some(Ok(()))) => Ok(()),
            Some(Some(Err(error))) => Err(std::io::Error::other(error)),
        }
    });
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use shoal_model::NodeId;
    use shoal_policy::readiness::{Ready, ReadyIn};

    use super::*;

    #[test]
    fn who_is_heard_in_service_and_ready_is_answered() {
        let node = |id: u64, state, alive, ready| NodeView {
            region: "eu".into(),
            zone: "a".into(),
            state,
            alive,
            ready: ReadyIn::all(ready),
            public: [IpAddr::from([192, 0, 2, id as u8])].into(),
            ..NodeView::serving(NodeId(id))
        };
        use NodeState::{Cordoned, Draining, Joining, Left, Ready as InService};
        let mut nodes = vec![
            node(1, InService, false, Ready::Yes), // itself, which does not hear itself
            node(2, InService, true, Ready::Yes),
            node(3, InService, true, Ready::Held),
            node(4, Cordoned, true, Ready::Yes),
            node(5, InService, true, Ready::No),
            node(6, InService, false, Ready::Yes),
            node(7, Draining, true, Ready::Yes),
            node(8, Left, true, Ready::Yes),
            node(9, Joining, true, Ready::No),
            node(10, InService, true, Ready::Yes),
        ];
        nodes[9].public = Arc::default();
        let view = ClusterView { local: NodeId(1), nodes, ..ClusterView::default() };
        let ready: Vec<u64> =
            candidates_of(&view).iter().filter(|one| one.ready).map(|one| one.id.0).collect();
        assert_eq!(ready, [1, 2, 3, 4]);
        assert_eq!(count_candidates(&view), (9, 4));
    }
}
