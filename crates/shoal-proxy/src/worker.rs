//! One worker: a thread with its own runtime, sockets, pools and cells, which serves its connections from start to end.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use arc_swap::{ArcSwap, cache::Cache as Cached};
use http::HeaderValue;
use shoal_cache::{Cache, FillJob, WorkerCache};
use shoal_cluster::ClusterView;
use shoal_model::ConfigView;
use shoal_policy::forwarding::OwnName;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use crate::access_log::LogLine;
use crate::clock::{Clock, TICK};
use crate::connections::Connections;
use crate::deadline::Deadlines;
use crate::entropy::{Entropy, random_seed};
use crate::fetch::OriginFetch;
use crate::listener::{Arrival, Listener, Spread, WorkerListener, accept_loop, adopt};
use crate::metrics::{RouteCells, WorkerMetrics};
use crate::names::Names;
use crate::request_id::RequestIds;
use crate::shedding::{Memory, QueueProbe, Valve};
use crate::spans::RequestSpan;
use crate::upstream::{Standings, StickySeed, Upstreams};

/// Ticks between two looks at all connections and pools.
const REVIEW_EVERY: u32 = 5;
/// How long connections that nobody uses may take to close when a drain is over, ms.
const FAREWELL_MS: u64 = 300;
/// Fills that may wait for this worker.
const MAX_WAITING_FILLS: usize = 1024;

/// What a worker is told to do.
pub(crate) enum Command {
    /// Accept on this socket.
    Open(Arc<Listener>, std::net::TcpListener),
    /// Serve this connection, which another worker has accepted.
    Adopt(Arrival),
    /// Every answer is the last one of its connection.
    Retire,
    /// Let what is open end politely, at most for so long; then answer with what is left.
    Drain(Duration, oneshot::Sender<usize>),
}

/// What a worker starts from.
#[derive(Clone)]
pub(crate) struct WorkerSeed {
    pub(crate) node_name: Arc<str>,
    pub(crate) workers: usize,
    pub(crate) spread: Arc<Spread>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) config: Arc<ArcSwap<ConfigView>>,
    pub(crate) cluster: Arc<ArcSwap<ClusterView>>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) standings: Arc<Standings>,
    pub(crate) names: Arc<Names>,
    pub(crate) sticky_seed: StickySeed,
    pub(crate) access_log: SyncSender<LogLine>,
    /// Also where the site does not ask for it.
    pub(crate) logs_all: bool,
    pub(crate) spans: mpsc::Sender<Box<RequestSpan>>,
}

/// What all tasks of one worker share.
pub(crate) struct Worker {
    /// Counted from 0.
    pub(crate) number: usize,
    pub(crate) spread: Arc<Spread>,
    pub(crate) node_name: Arc<str>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) deadlines: Rc<Deadlines>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) routes: RouteCells,
    pub(crate) own: OwnName,
    pub(crate) cache: Rc<WorkerCache>,
    pub(crate) cache_statuses: CacheStatuses,
    pub(crate) upstreams: Upstreams,
    pub(crate) connections: Connections,
    /// Listeners that are not closed yet.
    accepting: Cell<usize>,
    /// Those that accept, and those whose connections go on.
    listeners: RefCell<Vec<Weak<WorkerListener>>>,
    memory: Arc<Memory>,
    /// Connections accepted in this tick, and in the one before.
    arrivals: Cell<(usize, usize)>,
    config: RefCell<Cached<Arc<ArcSwap<ConfigView>>, Arc<ConfigView>>>,
    cluster: RefCell<Cached<Arc<ArcSwap<ClusterView>>, Arc<ClusterView>>>,
    access_log: SyncSender<LogLine>,
    logs_all: bool,
    spans: mpsc::Sender<Box<RequestSpan>>,
    request_ids: RequestIds,
    entropy: Entropy,
}

impl Worker {
    fn new(number: usize, seed: WorkerSeed, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        Rc::new_cyclic(|worker| Self {
            number,
            spread: seed.spread,
            deadlines: Deadlines::new(seed.clock.clone()),
            own: OwnName::new(&seed.node_name),
            cache: seed
                .cache
                .worker(Rc::new(OriginFetch::new(worker.clone(), OwnName::new(&seed.node_name)))),
            cache_statuses: CacheStatuses::new(&seed.node_name),
            upstreams: Upstreams::new(seed.workers, seed.standings, seed.names, &seed.sticky_seed),
            connections: Connections::default(),
            accepting: Cell::new(0),
            listeners: RefCell::default(),
            memory: seed.memory,
            arrivals: Cell::default(),
            config: RefCell::new(Cached::new(seed.config)),
            cluster: RefCell::new(Cached::new(seed.cluster)),
            access_log: seed.access_log,
            logs_all: seed.logs_all,
            spans: seed.spans,
            request_ids: RequestIds::new(random_seed()),
            entropy: Entropy::new(random_seed()),
            node_name: seed.node_name,
            clock: seed.clock,
            routes: RouteCells::new(metrics.clone()),
            metrics,
        })
    }

    /// Reads the site as it is now. Its count of references is left alone: all workers would fight for it.
    pub(crate) fn with_config<R>(&self, read: impl FnOnce(&ConfigView) -> R) -> R {
        read(self.config.borrow_mut().load())
    }

    /// Reads the cluster as it is now, likewise.
    pub(crate) fn with_cluster<R>(&self, read: impl FnOnce(&ClusterView) -> R) -> R {
        read(self.cluster.borrow_mut().load())
    }

    /// A number that is no secret.
    pub(crate) fn entropy(&self) -> u64 {
        self.entropy.next()
    }

    pub(crate) fn next_request_id(&self) -> HeaderValue {
        self.request_ids.next()
    }

    /// Everything is logged that no listener has settings for.
    pub(crate) fn logs_access(&self) -> bool {
        self.logs_all
    }

    /// Writes to the node's own output.
    pub(crate) fn access_log(&self, text: String) {
        self.write_log(LogLine { text, path: None });
    }

    pub(crate) fn write_log(&self, line: LogLine) {
        if self.access_log.try_send(line).is_err() {
            self.metrics.log_lines_dropped.add(1);
        }
    }

    pub(crate) fn send_span(&self, span: Box<RequestSpan>) {
        if self.spans.try_send(span).is_err() {
            self.metrics.spans_dropped.add(1);
        }
    }

    fn open(self: &Rc<Self>, shared: Arc<Listener>, socket: std::net::TcpListener) {
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = %shared.bound, %error, "cannot register the listening socket");
                shared.held.closed_by_worker();
                return;
            }
        };
        let listener = self.listener(shared);
        let worker = self.clone();
        worker.accepting.set(worker.accepting.get() + 1);
        tokio::task::spawn_local(async move {
            accept_loop(listener, socket).await;
            worker.accepting.set(worker.accepting.get() - 1);
        });
    }

    /// `shared` as this worker has it.
    fn listener(self: &Rc<Self>, shared: Arc<Listener>) -> Rc<WorkerListener> {
        let known = self
            .listeners
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .find(|known| Arc::ptr_eq(&known.shared, &shared));
        known.unwrap_or_else(|| {
            let traffic = self.metrics.listener(&shared.settings.load().view.name);
            let valve = Valve::default();
            let listener = Rc::new(WorkerListener { shared, worker: self.clone(), traffic, valve });
            self.listeners.borrow_mut().push(Rc::downgrade(&listener));
            listener
        })
    }

    /// A connection was accepted here.
    pub(crate) fn count_arrival(&self) {
        let (now, before) = self.arrivals.get();
        self.arrivals.set((now + 1, before));
    }

    /// More connections came in the last tick than there are: they live so shortly that the kernel spreads them well.
    pub(crate) fn has_short_connections(&self) -> bool {
        self.arrivals.get().1 > self.spread.open(self.number)
    }

    /// Looks at what this worker has to do, and decides what it refuses.
    fn weigh(&self, now_ms: u64, queue: &QueueProbe) {
        let delay = queue.look();
        self.metrics.queue_delay_us.set(delay.as_micros() as u64);
        self.memory.look(now_ms);
        let (now, _) = self.arrivals.get();
        self.arrivals.set((0, now));
        self.listeners.borrow_mut().retain(|listener| {
            let Some(listener) = listener.upgrade() else { return false };
            let limits = listener.shared.settings.load().view.overload;
            listener.valve.observe(now_ms, delay, &self.memory, &limits);
            true
        });
    }

    /// The slow pulse: everything that may have overstayed is looked at.
    fn review(&self, now_ms: u64) {
        self.connections.review(now_ms);
        self.make_room();
        self.upstreams.review(self, now_ms);
    }

    /// Where most of the connections that there may be are there, idle ones end.
    fn make_room(&self) {
        if let Some((open, most)) = self.spread.room() {
            self.connections.make_room(open, most, None);
        }
        let listeners: Vec<_> = self.listeners.borrow().iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            let most = listener.shared.settings.load().view.limits.max_connections;
            self.connections.make_room(listener.shared.open.read(), most, Some(&listener.shared));
        }
    }
}

/// Runs a worker to its end: until it was drained, or until its commands stop coming.
pub(crate) async fn run(
    number: usize,
    seed: WorkerSeed,
    metrics: Arc<WorkerMetrics>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let cache = seed.cache.clone();
    let worker = Worker::new(number, seed, metrics);
    let queue = QueueProbe::start();
    let (fill_sender, mut fills) = mpsc::channel::<FillJob>(MAX_WAITING_FILLS);
    cache.register_worker(fill_sender);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick_count: u32 = 0;
    let mut draining: Option<Draining> = None;
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => return,
                Some(Command::Open(listener, socket)) => worker.open(listener, socket),
                Some(Command::Adopt(arrival)) => adopt(worker.listener(arrival.listener.clone()), arrival),
                Some(Command::Retire) => worker.connections.retire_all(),
                Some(Command::Drain(within, answer)) => {
                    worker.connections.retire_all();
                    let until_ms = worker.clock.tick() + within.as_millis() as u64;
                    draining = Some(Draining { until_ms, answer });
                }
            },
            Some(job) = fills.recv() => worker.cache.run_job(job),
            _ = ticks.tick() => {
                let now_ms = worker.clock.tick();
                worker.deadlines.fire(now_ms);
                worker.weigh(now_ms, &queue);
                worker.upstreams.follow(&worker);
                tick_count = tick_count.wrapping_add(1);
                if tick_count.is_multiple_of(REVIEW_EVERY) {
                    worker.review(now_ms);
                }
                if let Some(at) = &draining {
                    if now_ms >= at.until_ms {
                        worker.connections.finish_all();
                    }
                    // Those included that are still on their way from another worker.
                    let left = worker.connections.len() + worker.spread.coming(number);
                    // Other nodes, and other workers, may wait for what this one is fetching.
                    let is_idle = left == 0 && worker.accepting.get() == 0 && worker.cache.running_fills() == 0;
                    if (is_idle || now_ms >= at.until_ms + FAREWELL_MS)
                        && let Some(at) = draining.take()
                    {
                        let _ = at.answer.send(left);
                        return;
                    }
                }
            },
        }
    }
}

/// `Cache-Status` of what passes by the cache (RFC 9211 §2.2).
pub(crate) struct CacheStatuses {
    pub(crate) method: HeaderValue,
    pub(crate) bypass: HeaderValue,
}

impl CacheStatuses {
    fn new(node: &str) -> Self {
        // A name that is no token goes as a string (RFC 8941 §3.3).
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let is_token = node.starts_with(|c: char| c.is_ascii_alphabetic()) && node.chars().all(is_plain);
        let plain: String =
            node.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
        let name = if is_token { plain } else { format!("\"{plain}\"") };
        let member = |forward: &str| {
            let text = format!("{name}; fwd={forward}");
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("shoal; fwd=bypass"))
        };
        Self { method: member("method"), bypass: member("bypass") }
    }
}

struct Draining {
    until_ms: u64,
    answer: oneshot::Sender<usize>,
}
