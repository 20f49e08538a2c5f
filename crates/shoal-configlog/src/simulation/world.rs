//! The nodes of one story, who runs and who does not.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use histories::History;
use openraft::BasicNode;
use rand::RngExt;
use shoal_model::{ClusterId, NodeId};
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::clients;
use super::disk::Disk;
use super::fate;
use super::figures::Figures;
use super::seeded::{dice, sow};
use super::wire::Network;
use crate::log::{Compaction, ConfigLog, LogSettings, Opened};
use crate::machine::StateMachine;
use crate::mutex::lock;
use crate::room::Room;
use crate::store::Past;
use crate::timings::Timings;
use crate::trouble::Trouble;
use crate::unknown::Unknown;

/// For how long things go wrong.
const STORM: Duration = Duration::from_secs(6);
/// How long it may take, once nothing goes wrong any more, until every node answers what is agreed.
pub const RECOVERY: Duration = Duration::from_secs(12);
/// For all nodes to have applied the same.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Where nodes are said to be: the wire knows better.
pub const ADDRESS: &str = "127.0.0.1:1";
/// Between two looks.
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What came of a seed.
pub struct Played {
    pub outcome: Result<(), String>,
    pub figures: Figures,
    /// Of everything that was asked and answered, and when.
    pub trace: u64,
}

/// Everything there is; handles are the same one.
#[derive(Clone)]
pub struct World {
    shared: Arc<Shared>,
}

struct Shared {
    network: Network,
    history: History,
    places: BTreeMap<NodeId, Mutex<Place>>,
    compaction: Compaction,
    began: Instant,
    ended: AtomicBool,
    figures: Mutex<Figures>,
    tells: bool,
}

/// Where a node runs, or does not.
struct Place {
    disk: Disk,
    dir: TempDir,
    /// How often it was started.
    process: u64,
    running: Option<Process>,
}

/// A node that runs.
#[derive(Clone)]
pub struct Process {
    pub log: ConfigLog,
    gone: Arc<(AtomicBool, Notify)>,
}

impl Process {
    /// What comes of `doing` it, unless the node is killed meanwhile.
    pub async fn unless_killed<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        let killed = async {
            let mut notified = std::pin::pin!(self.gone.1.notified());
            notified.as_mut().enable();
            if !self.gone.0.load(Ordering::Relaxed) {
                notified.await;
            }
        };
        tokio::select! {
            biased;
            () = killed => None,
            done = Box::pin(doing) => Some(done),
        }
    }
}

/// Plays one seed; `tells` = prints what happens.
pub fn play(seed: u64, tells: bool) -> Played {
    sow(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing").block_on(async {
        let world = World::new(tells);
        let outcome = Box::pin(world.live()).await;
        let operations = world.shared.history.operations();
        let verified = outcome.and_then(|()| operations.verify().map_err(|violation| violation.to_string()));
        let mut trace = DefaultHasher::new();
        format!("{operations:?} {:?}", world.shared.began.elapsed()).hash(&mut trace);
        if tells {
            operations.all.iter().for_each(|operation| println!("{operation:?}"));
        }
        let mut figures = *world.figures();
        let outcome = verified.map(|picture| {
            figures.acknowledged = picture.acknowledged as u64;
            figures.reads = picture.reads as u64;
            figures.unknown = picture.unknown as u64;
            figures.unseen = picture.unseen as u64;
        });
        Played { outcome, figures, trace: trace.finish() }
    })
}

/// Plays one scene with the nodes of `seed`, before anything has happened to them.
pub fn scene<T>(
    seed: u64,
    scene: impl AsyncFnOnce(&World, NodeId) -> Result<T, String>,
) -> Result<T, String> {
    sow(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs nothing").block_on(async {
        let world = World::new(false);
        for node in world.nodes() {
            world.start(node).await?;
        }
        world.found().await?;
        let leader = world.process(NodeId(1)).and_then(|first| first.log.status().leader);
        Box::pin(scene(&world, leader.ok_or("nobody leads")?)).await
    })
}

impl World {
    fn new(tells: bool) -> Self {
        let mut dice = dice();
        let nodes = if dice.random_range(0..5) == 0 { 5 } else { 3 };
        let place = |_| Place { disk: Disk::default(), dir: snapshot_dir(), process: 0, running: None };
        let compaction = match dice.random_range(0..2) {
            0 => Compaction { after_entries: 30, kept_entries: 10 },
            _ => Compaction::default(),
        };
        let shared = Shared {
            network: Network::new(),
            history: History::since(0, 0),
            places: (1..=nodes).map(|id| (NodeId(id), Mutex::new(place(id)))).collect(),
            compaction,
            began: Instant::now(),
            ended: AtomicBool::new(false),
            figures: Mutex::default(),
            tells,
        };
        Self { shared: Arc::new(shared) }
    }

    pub fn network(&self) -> &Network {
        &self.shared.network
    }

    pub fn history(&self) -> &History {
        &self.shared.history
    }

    pub fn figures(&self) -> MutexGuard<'_, Figures> {
        lock(&self.shared.figures)
    }

    /// Nobody asks anything new.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Relaxed)
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        self.shared.places.keys().copied().collect()
    }

    fn place(&self, node: NodeId) -> MutexGuard<'_, Place> {
        lock(&self.shared.places[&node])
    }

    pub fn disk(&self, node: NodeId) -> Disk {
        self.place(node).disk.clone()
    }

    /// The node, if it runs.
    pub fn process(&self, node: NodeId) -> Option<Process> {
        self.place(node).running.clone()
    }

    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.shared.tells {
            println!("{:>6} ms: {}", self.shared.began.elapsed().as_millis(), what());
        }
    }

    async fn live(&self) -> Result<(), String> {
        for node in self.nodes() {
            self.start(node).await?;
        }
        self.found().await?;
        let asking = clients::gather(self);
        fate::storm(self, STORM).await?;
        fate::calm(self).await?;
        self.recovers().await?;
        self.shared.ended.store(true, Ordering::Relaxed);
        for asked in asking {
            asked.await.map_err(|error| format!("who asks panicked: {error}"))?;
        }
        self.recovers().await?;
        self.agrees().await
    }

    /// All nodes are the voters of a new cluster.
    async fn found(&self) -> Result<(), String> {
        let voters: BTreeMap<u64, BasicNode> =
            self.nodes().iter().map(|node| (node.0, BasicNode::new(ADDRESS))).collect();
        let first = self.process(NodeId(1)).ok_or("the first node does not run")?;
        let raft = first.log.raft().ok_or("the first node takes no part")?;
        Box::pin(raft.initialize(voters)).await.map_err(|error| error.to_string())?;
        self.recovers().await
    }

    /// Starts a node on what it has on its disk.
    pub async fn start(&self, node: NodeId) -> Result<(), String> {
        let (store, settings, machine) = {
            let mut place = self.place(node);
            place.process += 1;
            let dir = place.dir.path().to_owned();
            let machine = StateMachine::open(dir.join("snapshots"), Room::default(), Arc::new(|_| {}));
            let settings = LogSettings {
                dir,
                past: Past::MayBeNew,
                node_id: node,
                cluster_id: ClusterId(7),
                address: ADDRESS.into(),
                timing: None,
                timings: Some(Timings::LAN),
                compaction: self.shared.compaction,
                peers: self.shared.network.peers(node, place.process),
                liveness: Arc::new(BTreeSet::new),
                on_applied: Arc::new(|_| {}),
            };
            (place.disk.open(), settings, machine.map_err(|error| error.to_string())?)
        };
        let (_, file_closed) = oneshot::channel();
        let timings = Timings::LAN;
        let opened = Opened {
            store,
            trouble: Trouble::default(),
            unknown: Unknown::default(),
            room: Room::default(),
            file_closed,
            machine,
            timings,
        };
        let log = Box::pin(ConfigLog::take_part_with(&settings, opened)).await;
        let log = log.map_err(|error| format!("{node} does not start: {error}"))?;
        let mut place = self.place(node);
        self.shared.network.open(node, place.process, &log);
        place.running = Some(Process { log, gone: Arc::default() });
        self.tell(|| format!("{node} runs"));
        Ok(())
    }

    /// The node is gone, and what it had not flushed.
    pub fn kill(&self, node: NodeId) {
        let mut place = self.place(node);
        let Some(process) = place.running.take() else { return };
        place.disk.crash();
        self.shared.network.close(node);
        process.gone.0.store(true, Ordering::Relaxed);
        process.gone.1.notify_waiters();
        // What is left of it does nothing that anybody would notice.
        tokio::spawn(async move { Box::pin(process.log.shutdown()).await });
        self.tell(|| format!("{node} is killed"));
    }

    /// Every node answers what is agreed, soon.
    pub async fn recovers(&self) -> Result<(), String> {
        let since = Instant::now();
        for node in self.nodes() {
            loop {
                let process = self.process(node).ok_or_else(|| format!("{node} does not run"))?;
                if clients::read(self, &process).await.is_some() {
                    break;
                }
                if since.elapsed() > RECOVERY {
                    let status = process.log.status();
                    return Err(format!("{node} has not recovered within {RECOVERY:?}: {status:?}"));
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        self.tell(|| format!("all answer after {:?}", since.elapsed()));
        Ok(())
    }

    /// All nodes come to the same state.
    pub async fn agrees(&self) -> Result<(), String> {
        let since = Instant::now();
        let processes: Vec<Process> = self.nodes().iter().filter_map(|node| self.process(*node)).collect();
        let term = processes.iter().map(|process| process.log.status().term).max().unwrap_or(0);
        self.figures().terms = term;
        loop {
            let applied: BTreeSet<u64> =
                processes.iter().map(|process| *process.log.applied().borrow()).collect();
            if applied.len() == 1 {
                break;
            }
            if since.elapsed() > CATCH_UP {
                return Err(format!("not the same is applied everywhere: {applied:?}"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let states: BTreeSet<String> = processes
            .iter()
            .map(|process| process.log.with_state(|state| serde_json::to_string(state).unwrap_or_default()))
            .collect();
        if states.len() == 1 { Ok(()) } else { Err(format!("nodes have come to differ: {states:#?}")) }
    }
}

/// In memory, where there is such a place: the disk of the machine is not what is simulated.
fn snapshot_dir() -> TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    dir.expect("a directory can be made")
}
