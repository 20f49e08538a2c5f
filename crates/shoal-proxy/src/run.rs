//! The run of a worker, from its first command until it was drained: it opens listeners, and looks after all it has at
//! every tick.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use shoal_cache::FillJob;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::TICK;
use crate::listener::{
    AfterDrain, Command, Listener, Lobby, Neighbours, Spread, WorkerListener, accept_loop, adopt, set_nodelay,
};
use crate::metrics::WorkerMetrics;
use crate::planted;
use crate::pulse::Beating;
use crate::shedding::{Memory, QueueProbe, Valve};
use crate::sources::{Sources, SourcesSeed};
use crate::worker::{Worker, WorkerSeed};

/// Ticks between two looks at all connections and pools.
const REVIEW_EVERY: u32 = 5;
/// Ticks between two times that free memory is given back. What a burst has needed would stay with a thread that is idle
/// afterwards: allocators look for it only when they are asked for more.
const TRIM_EVERY: u32 = 10;
/// How long connections that nobody uses may take to close when a drain is over, ms.
const FAREWELL_MS: u64 = 300;
/// Fills that may wait for this worker.
const MAX_WAITING_FILLS: usize = 1024;

/// What a run starts from.
#[derive(Clone)]
pub(crate) struct RunSeed {
    pub(crate) worker: WorkerSeed,
    pub(crate) sources: SourcesSeed,
    pub(crate) spread: Arc<Spread>,
    pub(crate) neighbours: Neighbours,
    pub(crate) memory: Arc<Memory>,
    pub(crate) trim_memory: fn(),
}

/// A worker at work.
struct Run {
    worker: Rc<Worker>,
    sources: Rc<Sources>,
    lobby: Rc<Lobby>,
    /// Listeners that are not closed yet.
    accepting: Cell<usize>,
    /// Those that accept, and those whose connections go on.
    listeners: RefCell<Vec<Weak<WorkerListener>>>,
    memory: Arc<Memory>,
}

impl Run {
    fn new(number: usize, seed: RunSeed, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        let worker = Worker::new(seed.worker, metrics);
        Rc::new(Self {
            sources: Sources::new(&worker, seed.sources),
            lobby: Lobby::new(number, seed.spread, seed.neighbours),
            accepting: Cell::new(0),
            listeners: RefCell::default(),
            memory: seed.memory,
            worker,
        })
    }

    fn open(self: &Rc<Self>, shared: Arc<Listener>, socket: std::net::TcpListener) {
        set_nodelay(&socket);
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = %shared.bound, %error, "cannot register the listening socket");
                shared.held.closed_by_worker();
                return;
            }
        };
        let listener = self.listener(shared);
        let run = self.clone();
        run.accepting.set(run.accepting.get() + 1);
        tokio::task::spawn_local(async move {
            accept_loop(listener, socket).await;
            run.accepting.set(run.accepting.get() - 1);
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
            let traffic = self.worker.metrics.listener(&shared.settings.load().view.name);
            let valve = Valve::default();
            let listener = Rc::new(WorkerListener {
                shared,
                worker: self.worker.clone(),
                sources: self.sources.clone(),
                lobby: self.lobby.clone(),
                traffic,
                valve,
            });
            self.listeners.borrow_mut().push(Rc::downgrade(&listener));
            listener
        })
    }

    /// Looks at what this worker has to do, and decides what it refuses.
    fn weigh(&self, now_ms: u64, queue: &QueueProbe) {
        let delay = queue.look();
        self.worker.metrics.queue_delay_us.set(delay.as_micros() as u64);
        self.memory.look(now_ms);
        self.lobby.turn();
        self.listeners.borrow_mut().retain(|listener| {
            let Some(listener) = listener.upgrade() else { return false };
            let limits = listener.shared.settings.load().view.overload;
            listener.valve.observe(now_ms, delay, &self.memory, &limits);
            true
        });
    }

    /// The slow pulse: everything that may have overstayed is looked at.
    fn review(&self, now_ms: u64) {
        self.lobby.connections.review(now_ms);
        self.make_room();
        self.sources.upstreams.review(&self.worker, now_ms);
    }

    /// Where most of the connections that there may be are there, idle ones end.
    fn make_room(&self) {
        let connections = &self.lobby.connections;
        if let Some((open, most)) = self.lobby.spread.room() {
            connections.make_room(open, most, None);
        }
        let listeners: Vec<_> = self.listeners.borrow().iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            let most = listener.shared.settings.load().view.limits.max_connections;
            connections.make_room(listener.shared.open.read(), most, Some(&listener.shared));
        }
    }
}

/// Runs a worker to its end: until it was drained, or until its commands stop coming.
pub(crate) async fn run(
    number: usize,
    seed: RunSeed,
    metrics: Arc<WorkerMetrics>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let _beating = Beating::of(&metrics.pulse);
    let cache = seed.sources.cache.clone();
    let trim_memory = seed.trim_memory;
    let run = Run::new(number, seed, metrics);
    let worker = run.worker.clone();
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
                Some(Command::Open(listener, socket)) => run.open(listener, socket),
                Some(Command::Adopt(arrival)) => adopt(run.listener(arrival.listener.clone()), arrival),
                Some(Command::Retire) => run.lobby.connections.retire_all(),
                Some(Command::Drain(within, then, answer)) => {
                    run.lobby.connections.retire_all();
                    let until_ms = worker.clock.tick() + within.as_millis() as u64;
                    draining = Some(Draining { until_ms, then, answer });
                }
                Some(Command::Resume) => {
                    run.lobby.connections.resume();
                    draining = None;
                }
            },
            Some(job) = fills.recv() => run.sources.cache.run_job(job),
            _ = ticks.tick() => {
                let now_ms = worker.clock.tick();
                worker.metrics.pulse.tick(now_ms);
                worker.with_config(planted::poison);
                worker.deadlines.fire(now_ms);
                run.weigh(now_ms, &queue);
                run.sources.upstreams.follow(&worker);
                tick_count = tick_count.wrapping_add(1);
                if tick_count.is_multiple_of(REVIEW_EVERY) {
                    run.review(now_ms);
                }
                if tick_count.is_multiple_of(TRIM_EVERY) {
                    trim_memory();
                }
                if let Some(at) = &draining {
                    if now_ms >= at.until_ms {
                        run.lobby.connections.finish_all();
                    }
                    let left = run.lobby.occupants();
                    // Other nodes, and other workers, may wait for what this one is fetching.
                    let is_idle = left == 0 && run.accepting.get() == 0 && run.sources.cache.running_fills() == 0;
                    if (is_idle || now_ms >= at.until_ms + FAREWELL_MS)
                        && let Some(at) = draining.take()
                    {
                        let _ = at.answer.send(left);
                        match at.then {
                            AfterDrain::End => return,
                            AfterDrain::Rest => run.lobby.connections.cut_all(),
                        }
                    }
                }
            },
        }
    }
}

struct Draining {
    until_ms: u64,
    then: AfterDrain,
    answer: oneshot::Sender<usize>,
}
