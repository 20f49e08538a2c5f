//! The data plane of a node: starts the workers, changes the listeners, drains.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use shoal_cache::Cache;
use shoal_cluster::ClusterView;
use shoal_model::{ConfigView, UpstreamId};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::access_log::AccessLog;
use crate::clock::Clock;
use crate::health_event::HealthEvent;
use crate::listener::{self, AfterDrain, BindError, Command, Listeners, Owner, Ports, Spread, TicketSeed};
use crate::metrics::{self, TrafficFigures, WorkerMetrics};
use crate::names::{Discovery, Names};
use crate::pulse::Pulse;
use crate::purge::AskedPurge;
use crate::run::{RunSeed, run};
use crate::shedding::Memory;
use crate::sources::SourcesSeed;
use crate::spans::RequestSpan;
use crate::spent;
use crate::upstream::{Standings, StickySeed, SystemRoots};
use crate::worker::WorkerSeed;

/// How much longer than its deadline a drain may take: a worker looks up only now and then.
const DRAIN_SLACK: Duration = Duration::from_secs(1);

/// What a [`Proxy`] is built from.
pub struct ProxySettings {
    /// Worker threads; at least one is started.
    pub workers: usize,
    /// Connections of downstreams on all listeners together, beyond which new ones are closed at once. `None` = as many as
    /// each listener may have.
    pub max_connections: Option<usize>,
    /// Host of listeners written as `":PORT"`.
    pub listen_ip: IpAddr,
    /// This node's `--name`, as `Via` shows it.
    pub node_name: Arc<str>,
    /// The site; [`Proxy::apply`] stores the next one here.
    pub config: Arc<ArcSwap<ConfigView>>,
    /// Who is there, and which endpoints are available.
    pub cluster: Arc<ArcSwap<ClusterView>>,
    /// The node's cache.
    pub cache: Arc<Cache>,
    /// Where ejections by traffic are reported; events are dropped while it is full.
    pub health_events: mpsc::Sender<HealthEvent>,
    /// Where the spans of sampled requests go; they are dropped, and counted, while it is full.
    pub spans: mpsc::Sender<Box<RequestSpan>>,
    /// Who carries out the purges that requests ask for; those that find it full are refused.
    pub purges: mpsc::Sender<AskedPurge>,
    /// What the keys of TLS session tickets follow from: nodes that share it resume each other's sessions.
    pub ticket_seed: TicketSeed,
    /// What the keys of session cookies follow from: nodes that share it lead a session to the same endpoint.
    pub sticky_seed: StickySeed,
    /// Where access log lines go that no file is named for. `None` = to stderr, and then only listeners with an access log
    /// of their own have any.
    pub access_log: Option<Box<dyn io::Write + Send>>,
    /// Gives memory that is free back to the system; every worker calls it now and then, for its own thread.
    pub trim_memory: fn(),
}

/// The data plane of a node.
pub struct Proxy {
    listen_ip: IpAddr,
    ticket_seed: TicketSeed,
    clock: Arc<Clock>,
    config: Arc<ArcSwap<ConfigView>>,
    standings: Arc<Standings>,
    discovery: Discovery,
    cluster: Arc<ArcSwap<ClusterView>>,
    access_log: AccessLog,
    workers: Vec<WorkerHandle>,
    spread: Arc<Spread>,
    metrics: Vec<Arc<WorkerMetrics>>,
    /// Held while they change.
    listeners: Mutex<Listeners>,
}

struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
}

/// What was read anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reread {
    /// Files of access logs that were opened.
    pub access_logs: usize,
    /// Names of endpoints that are looked up.
    pub names: usize,
    /// Authorities of the system; `None` = nothing has needed them.
    pub authorities: Option<usize>,
}

/// A few figures for status pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyFigures {
    /// Connections open now, on all listeners.
    pub open_connections: usize,
    /// Requests under way now.
    pub in_flight: u64,
    /// Requests since the start.
    pub requests: u64,
}

impl Proxy {
    /// Starts the workers. Nothing is listened on until [`Proxy::apply`]. Must be called on the control runtime, where names
    /// are looked up.
    pub fn start(settings: ProxySettings) -> io::Result<Self> {
        let count = settings.workers.max(1);
        let clock = Arc::new(Clock::new());
        let logs_all = settings.access_log.is_some();
        let out = settings.access_log.unwrap_or_else(|| Box::new(io::stderr()));
        let standings = Arc::new(Standings::new(settings.health_events));
        let access_log = AccessLog::start(out)?;
        let discovery = Discovery::on(Handle::try_current().map_err(io::Error::other)?);
        let (commands, received): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let spread = Spread::over(count, settings.max_connections);
        let worker = WorkerSeed {
            node_name: settings.node_name,
            workers: count,
            clock: clock.clone(),
            config: settings.config.clone(),
            cluster: settings.cluster.clone(),
            names: discovery.names().clone(),
            access_log: access_log.clone(),
            logs_all,
            spans: settings.spans,
            purges: settings.purges,
        };
        let sources = SourcesSeed {
            cache: settings.cache,
            standings: standings.clone(),
            sticky_seed: settings.sticky_seed,
        };
        let seed = RunSeed {
            worker,
            sources,
            spread: spread.clone(),
            neighbours: commands.iter().map(mpsc::UnboundedSender::downgrade).collect(),
            memory: Arc::new(Memory::new()),
            trim_memory: settings.trim_memory,
        };
        let names = metrics::Names::default();
        let metrics: Vec<_> = (0..count).map(|_| Arc::new(WorkerMetrics::new(&names))).collect();
        for (number, (received, metrics)) in received.into_iter().zip(&metrics).enumerate() {
            start_worker(number, seed.clone(), metrics.clone(), received)?;
        }
        let workers = commands.into_iter().map(|commands| WorkerHandle { commands }).collect();
        Ok(Self {
            listen_ip: settings.listen_ip,
            ticket_seed: settings.ticket_seed,
            clock,
            config: settings.config,
            standings,
            discovery,
            cluster: settings.cluster,
            access_log,
            workers,
            spread,
            metrics,
            listeners: Mutex::default(),
        })
    }

    /// Makes `config` the site that is served: opens what is new, keeps what stays with its connections, drains what is
    /// gone. On any error nothing changes at all.
    pub fn apply(&self, config: Arc<ConfigView>) -> Result<(), Vec<BindError>> {
        if config.upstreams.iter().any(|upstream| upstream.transport.wants_system_roots()) {
            // Reading them takes a while: no worker shall wait for it, nor who looks at the listeners.
            SystemRoots::current();
        }
        self.apply_to(&mut self.listeners(), config)
    }

    fn apply_to(&self, listeners: &mut Listeners, config: Arc<ConfigView>) -> Result<(), Vec<BindError>> {
        listeners.leaving.retain(|listener| listener.is_leaving());
        listeners.ending.retain(|listener| listener.open.read() > 0);
        let plan = listener::plan(listeners, &config, self.listen_ip, self.workers.len(), self.ticket_seed)?;
        spent::let_go(self.config.swap(config.clone()));
        self.discovery.follow(&config);
        self.access_log.follow(&config);
        for (listener, settings) in plan.keep {
            listener.settings.store(Arc::new(settings));
        }
        for closed in &plan.close {
            closed.close();
        }
        listeners.open.retain(|listener| !listener.closing.is_cancelled());
        listeners.leaving.extend(plan.close);
        for (listener, sockets) in plan.open {
            // Of a process with more workers there are more sockets, and each has connections of its own waiting.
            for (worker, socket) in self.workers.iter().cycle().zip(sockets) {
                // A worker that is gone was drained: the node is on its way out.
                let _ = worker.commands.send(Command::Open(listener.clone(), socket));
            }
            listeners.open.push(listener);
        }
        Ok(())
    }

    /// Whether [`Proxy::apply`] could make `config` the site that is served: every port could be bound. Nothing changes, and
    /// nobody who connects meanwhile notices.
    pub fn rehearse(&self, config: &ConfigView) -> Result<(), Vec<BindError>> {
        let mut listeners = self.listeners();
        listeners.leaving.retain(|listener| listener.is_leaving());
        listener::plan(&listeners, config, self.listen_ip, 0, self.ticket_seed).map(drop)
    }

    /// Sockets of the process whose place this one takes: a listener on the address of one accepts on it. To be called
    /// before the first [`Proxy::apply`].
    pub fn inherit(&self, sockets: Vec<TcpListener>, owner: Owner) {
        let mut listeners = self.listeners();
        listeners.inherited = sockets;
        listeners.owner = owner;
    }

    /// Closes what was inherited and not wanted by any listener until now, unless its owner keeps it open: nobody could
    /// bind the address anew.
    pub fn close_unclaimed(&self) {
        let mut listeners = self.listeners();
        if listeners.owner == Owner::Node {
            listeners.inherited.clear();
        }
    }

    /// A duplicate of every listening socket, for a process that takes the place of this one.
    pub fn listening_sockets(&self) -> io::Result<Vec<TcpListener>> {
        let listeners = self.listeners();
        let sockets = listeners.open.iter().map(|listener| listener.held.duplicate());
        let mut sockets: Vec<_> = sockets.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect();
        for spare in &listeners.inherited {
            let bound = spare.local_addr()?;
            if listeners.open.iter().all(|listener| listener.bound != bound) {
                sockets.push(spare.try_clone()?);
            }
        }
        Ok(sockets)
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every open listener: its name and the address it is bound to.
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.connections_by_listener().into_iter().map(|(name, bound, _)| (name, bound)).collect()
    }

    /// Every open listener, the address it is bound to, and its connections.
    pub fn connections_by_listener(&self) -> Vec<(Arc<str>, SocketAddr, usize)> {
        let listeners = self.listeners();
        let open = listeners.open.iter();
        open.map(|listener| {
            (listener.settings.load().view.name.clone(), listener.bound, listener.open.read())
        })
        .collect()
    }

    /// Goes on serving and accepting, but tells every downstream with the next answer (HTTP/2: at once) to go elsewhere.
    pub fn retire(&self) {
        for worker in &self.workers {
            // A worker that is gone has no connections.
            let _ = worker.commands.send(Command::Retire);
        }
    }

    /// Stops accepting, lets every connection end with its next answer, and stops the workers: when nothing is open any
    /// more, at the latest after `within`. Connections that nobody uses are closed then; answers how many others were cut
    /// off.
    pub async fn drain(&self, within: Duration, ports: Ports) -> usize {
        for listener in self.listeners().open.iter() {
            listener.drain(ports);
        }
        self.end_connections(within, AfterDrain::End).await
    }

    /// Accepts on nothing until [`Proxy::resume`]: sites are checked and kept meanwhile, but nothing is bound. Connections go
    /// on.
    pub fn stop_accepting(&self) {
        let mut listeners = self.listeners();
        listeners.is_resting = true;
        for listener in std::mem::take(&mut listeners.open) {
            listener.drain(Ports::Closed);
            listeners.leaving.push(listener.clone());
            listeners.ending.push(listener);
        }
    }

    /// Stops accepting, and lets every connection end with its next answer. Those that nobody uses are closed after `within`,
    /// and a moment later the others are cut off; answers how many these were. All else goes on, until [`Proxy::resume`] or
    /// [`Proxy::drain`].
    pub async fn rest(&self, within: Duration) -> usize {
        self.stop_accepting();
        self.end_connections(within, AfterDrain::Rest).await
    }

    /// Accepts again, on the listeners of the site there is now. On any error nothing is accepted on.
    pub fn resume(&self) -> Result<(), Vec<BindError>> {
        let mut listeners = self.listeners();
        listeners.is_resting = false;
        for worker in &self.workers {
            // A worker that is gone was drained: the node is on its way out.
            let _ = worker.commands.send(Command::Resume);
        }
        let resumed = self.apply_to(&mut listeners, self.config.load_full());
        listeners.is_resting = resumed.is_err();
        resumed
    }

    /// Tells all workers that what is open shall end, and waits for it.
    async fn end_connections(&self, within: Duration, then: AfterDrain) -> usize {
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (answer, answered) = oneshot::channel();
            if worker.commands.send(Command::Drain(within, then, answer)).is_ok() {
                answers.push(answered);
            }
        }
        let all = async {
            let mut left = 0;
            for answer in answers {
                left += answer.await.unwrap_or(0);
            }
            left
        };
        timeout(within + DRAIN_SLACK, all).await.unwrap_or_else(|_| self.open_connections())
    }

    /// Reads anew what this node itself reads from files: logs are opened by their names again, names of endpoints looked
    /// up (by what the system's files say now), and the system's authorities read. Waits for the disk.
    pub fn reread(&self) -> Reread {
        Reread {
            access_logs: self.access_log.reopen(),
            names: self.discovery.look_up_again(&self.config.load()),
            authorities: SystemRoots::reread(),
        }
    }

    /// Access logs that cannot be written to, and why.
    pub fn broken_access_logs(&self) -> Vec<(Arc<Path>, String)> {
        self.access_log.broken()
    }

    /// Where the names of endpoints lead.
    pub fn names(&self) -> &Arc<Names> {
        self.discovery.names()
    }

    /// Requests a second that come in here for upstreams with endpoints in several regions.
    pub fn offered(&self) -> Vec<(UpstreamId, u32)> {
        self.standings.offers.rates()
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        let listeners = self.listeners();
        let all = listeners.open.iter().chain(&listeners.ending);
        all.map(|listener| listener.open.read()).sum()
    }

    /// Signs of life of the workers, in the order of their numbers.
    pub fn pulses(&self) -> Vec<Arc<Pulse>> {
        self.metrics.iter().map(|worker| worker.pulse.clone()).collect()
    }

    /// A few figures for status pages.
    pub fn figures(&self) -> ProxyFigures {
        ProxyFigures {
            open_connections: self.open_connections(),
            in_flight: self.metrics.iter().map(|worker| worker.in_flight()).fold(0, u64::wrapping_add),
            requests: self.metrics.iter().map(|worker| worker.requests()).sum(),
        }
    }

    /// What went through this node, by route.
    pub fn traffic(&self) -> TrafficFigures {
        TrafficFigures::of(&self.metrics)
    }

    /// Appends all figures as Prometheus text.
    pub fn render_metrics(&self, out: &mut String) {
        metrics::render(&self.metrics, out);
        metrics::render_ticks(&self.metrics, self.clock.tick(), out);
        self.access_log.render(out);
        let help = "Connections of a listener that are open.";
        metrics::head(out, "shoal_listener_open_connections", "gauge", help);
        for listener in self.listeners().open.iter() {
            let labels = format!("listener=\"{}\"", metrics::escape(&listener.settings.load().view.name));
            metrics::line(out, "shoal_listener_open_connections", &labels, listener.open.read() as u64);
        }
        self.spread.render(out);
        let config = self.config.load();
        self.standings.render(&self.names().upstreams(&config), &self.cluster.load(), out);
        self.names().render(&config, out);
    }
}

fn start_worker(
    number: usize,
    seed: RunSeed,
    metrics: Arc<WorkerMetrics>,
    commands: mpsc::UnboundedReceiver<Command>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let _fatal = AbortOnPanic;
        LocalSet::new().block_on(&runtime, run(number, seed, metrics, commands));
    })?;
    Ok(())
}

/// A node with a dead worker would still get its share of connections and serve none of them.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a worker died, and the node with it");
            std::process::abort();
        }
    }
}
