//! Opening the log: check whose it is, restore the state, take part.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::storage::RaftLogStorage;
use openraft::{BasicNode, Config, SnapshotPolicy};
use shoal_model::state::Timing;
use shoal_model::units::millis_u64;
use shoal_model::{ClusterId, NodeId};
use shoal_policy::recovery::LogEnd;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::purge_batch::PurgeBatches;
use super::{CLOSE_DEADLINE, ConfigLog, MembershipError, Shared, state_hash};
use crate::autopilot::{self, Liveness};
use crate::levels::oldest_level;
use crate::machine::{OnApplied, Raft, StateMachine};
use crate::network::{Dialer, Directory, Heard, Peers};
use crate::offline::StoppedLog;
use crate::room::Room;
use crate::store::{LogStore, Past, Stamp, StoreError};
use crate::timings::{Timings, suited_timing};
use crate::trouble::{Trouble, is_out_of_space};
use crate::types::TypeConfig;
use crate::unknown::Unknown;

/// The directory of snapshots, in the data directory.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// The file of the log, there as well.
pub(crate) const STORE: &str = "raft.redb";
/// How long a snapshot may take to be sent and installed.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);
/// Entries of one batch, whatever they weigh.
const MAX_BATCH_ENTRIES: u64 = 64;
/// For so long a leader waits for room on its disk before somebody else is to lead.
const FULL_FOR: Duration = Duration::from_secs(1);
/// Calls and notifications that may wait inside openraft.
const QUEUE: u64 = 4096;

/// When the log is cut off at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Entries after which a snapshot is made.
    pub after_entries: u64,
    /// Entries that are kept although a snapshot holds them: what comes in while a snapshot travels must still be there.
    pub kept_entries: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { after_entries: 2000, kept_entries: 1000 }
    }
}

/// What a log needs to know.
pub struct LogSettings {
    /// The node's data directory: `raft.redb` and `snapshots/` are in it.
    pub dir: PathBuf,
    /// Whether this node has a log already.
    pub past: Past,
    /// Who this node is.
    pub node_id: NodeId,
    /// In which cluster.
    pub cluster_id: ClusterId,
    /// Where other nodes reach it.
    pub address: String,
    /// What the cluster has agreed on; `None` = it has not, and this node goes by the speed of its disk.
    pub timing: Option<Timing>,
    /// Instead of what that comes to.
    pub timings: Option<Timings>,
    /// When it is compacted.
    pub compaction: Compaction,
    /// The way to other nodes.
    pub peers: Peers,
    /// Who is heard now.
    pub liveness: Liveness,
    /// Told of everything that takes effect.
    pub on_applied: OnApplied,
}

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its directory.
    #[error("cannot use {dir}: {source}")]
    Directory {
        /// Which.
        dir: String,
        /// Why.
        source: io::Error,
    },
    /// Its content.
    #[error("cannot restore the state from {dir}: {reason}")]
    Restore {
        /// Which directory.
        dir: String,
        /// Why.
        reason: String,
    },
    /// It is whole, and for another version.
    #[error("{reason}")]
    Version {
        /// Which.
        reason: String,
    },
    /// Its beginning.
    #[error("cannot begin the log of a new cluster: {reason}")]
    Bootstrap {
        /// Why.
        reason: String,
    },
}

/// What is on disk, ready to be used.
pub(crate) struct Opened<S> {
    pub store: S,
    pub trouble: Trouble,
    pub unknown: Unknown,
    pub room: Room,
    pub file_closed: oneshot::Receiver<()>,
    pub machine: StateMachine,
    pub timings: Timings,
}

impl OpenError {
    /// What is on disk cannot be used, by no fault of who started the process.
    fn is_damage(&self) -> bool {
        match self {
            Self::Store(StoreError::InUse { .. } | StoreError::Foreign { .. }) | Self::Bootstrap { .. } => {
                false
            }
            Self::Store(StoreError::Missing { .. } | StoreError::Damaged { .. } | StoreError::Io { .. })
            | Self::Directory { .. }
            | Self::Version { .. }
            | Self::Restore { .. } => true,
        }
    }

    fn is_out_of_space(&self) -> bool {
        match self {
            Self::Store(StoreError::Io { source, .. }) | Self::Directory { source, .. } => {
                is_out_of_space(source)
            }
            _ => false,
        }
    }
}

impl ConfigLog {
    /// Opens the log in `settings.dir`, restores the state as far as this node knows it to be committed, tells
    /// `on_applied` of it, and takes part from then on. Must be called on a tokio runtime.
    ///
    /// If this node has a log and it is damaged, the process can still serve what it served last. It then gets a log that
    /// takes no part: nothing is read from the damaged files or written to them, no vote is given, every proposal fails,
    /// and [`LogStatus::broken`](super::LogStatus::broken) says why.
    pub async fn open(settings: LogSettings) -> Result<Self, OpenError> {
        let settings = Arc::new(settings);
        // On a task of its own: a panic over what is on disk is damage, too.
        let opening = tokio::spawn(Self::take_part(settings.clone()));
        let opened = opening.await.unwrap_or_else(|error| {
            Err(OpenError::Restore { dir: settings.dir.display().to_string(), reason: error.to_string() })
        });
        match opened {
            Err(error) if settings.past == Past::Kept && error.is_damage() => {
                let reason = with_advice(&error, &settings.dir);
                tracing::error!(reason, "the log cannot be used; this node takes no part in decisions");
                let end = match error {
                    OpenError::Version { .. } => end_of_another_version(settings.clone()).await,
                    _ => None,
                };
                Ok(Self::stand_aside(&settings, reason, end))
            }
            opened => opened,
        }
    }

    async fn take_part(settings: Arc<LogSettings>) -> Result<Self, OpenError> {
        let dir = settings.dir.display().to_string();
        let for_files = settings.clone();
        let opened = tokio::task::spawn_blocking(move || open_files(&for_files)).await;
        let opened = opened.map_err(|error| OpenError::Restore { dir, reason: error.to_string() })??;
        Self::take_part_with(&settings, opened).await
    }

    /// The same with a log that is open.
    pub(crate) async fn take_part_with<S: RaftLogStorage<TypeConfig>>(
        settings: &LogSettings,
        opened: Opened<S>,
    ) -> Result<Self, OpenError> {
        let dir = settings.dir.display().to_string();
        let Opened { store, trouble, unknown, room, file_closed, machine, timings } = opened;
        let unusable = |reason: String| OpenError::Restore { dir: dir.clone(), reason };
        let config = raft_config(settings.cluster_id, timings, settings.compaction).map_err(&unusable)?;
        let directory = Directory::new(settings.peers.clone(), machine.clone());
        let heard = Arc::new(Heard::default());
        let dialer = Dialer { local: settings.node_id.0, directory: directory.clone(), heard: heard.clone() };
        let troubles = [trouble, machine.trouble()];
        let raft = Raft::build(settings.node_id.0, Arc::new(config), dialer, store, machine.clone());
        let raft = match Box::pin(raft).await {
            Ok(raft) => raft,
            Err(error) => {
                // Nobody else will wait for it, and an operator may want to look at the file.
                _ = tokio::time::timeout(CLOSE_DEADLINE, file_closed).await;
                let of_version = machine.trouble().of_version().map(|reason| OpenError::Version { reason });
                return Err(of_version.unwrap_or_else(|| unusable(error.to_string())));
            }
        };
        check_oldest(&machine)?;
        machine.finish_restore();
        raft.run();
        // Answered by the core after its first report, so that the status is right from the start.
        raft.with_raft_state(|_| ()).await.map_err(|error| unusable(error.to_string()))?;

        let log = Self {
            shared: Arc::new(Shared {
                node_id: settings.node_id,
                raft: Ok(raft),
                machine,
                troubles,
                unknown,
                left_to_another: None,
                room,
                directory,
                heard,
                timings,
                address: settings.address.clone(),
                opened: Instant::now(),
                tasks: Mutex::default(),
                file_closed: Mutex::new(Some(file_closed)),
                purges: PurgeBatches::default(),
                left_over: Mutex::default(),
                askers: Mutex::default(),
                hashed: watch::Sender::new(None),
                is_passed_on: AtomicBool::new(false),
            }),
        };
        let tasks = vec![
            tokio::spawn(autopilot::run(log.clone(), settings.liveness.clone())),
            tokio::spawn(compact_when_large(log.clone())),
            tokio::spawn(state_hash::run(log.clone())),
            tokio::spawn(hand_over_when_full(log.clone())),
        ];
        super::lock(&log.shared.tasks).extend(tasks);
        Ok(log)
    }

    fn stand_aside(settings: &LogSettings, reason: String, end: Option<LogEnd>) -> Self {
        let machine = StateMachine::unused(settings.dir.join(SNAPSHOTS));
        let shared = Shared {
            node_id: settings.node_id,
            raft: Err(reason),
            directory: Directory::new(settings.peers.clone(), machine.clone()),
            machine,
            troubles: Default::default(),
            unknown: Unknown::default(),
            left_to_another: end,
            room: Room::default(),
            heard: Arc::new(Heard::default()),
            timings: settings.timings.unwrap_or(Timings::LAN),
            address: settings.address.clone(),
            opened: Instant::now(),
            tasks: Mutex::default(),
            file_closed: Mutex::default(),
            purges: PurgeBatches::default(),
            left_over: Mutex::default(),
            askers: Mutex::default(),
            hashed: watch::Sender::new(None),
            is_passed_on: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes this node the only voter of a new cluster. Does nothing if the log has begun already. Never to be called
    /// because no peer answered: that would make two clusters out of one.
    pub async fn bootstrap(&self) -> Result<(), OpenError> {
        let failed = |reason: String| OpenError::Bootstrap { reason };
        let raft = self.shared.raft.as_ref().map_err(|reason| failed(reason.clone()))?;
        if raft.is_initialized().await.map_err(|error| failed(error.to_string()))? {
            return Ok(());
        }
        let node = BasicNode::new(&self.shared.address);
        let voters = std::collections::BTreeMap::from([(self.shared.node_id.0, node)]);
        Box::pin(raft.initialize(voters)).await.map_err(|error| failed(error.to_string()))
    }
}

/// This version can still be a node of a cluster of this level.
fn check_oldest(machine: &StateMachine) -> Result<(), OpenError> {
    let (level, is_new) = {
        let state = machine.read();
        (state.level.number, state.nodes.is_empty())
    };
    let oldest = oldest_level();
    if is_new || level >= oldest {
        return Ok(());
    }
    let reason = format!(
        "the cluster is at level {level}, and this version works from level {oldest} on: start the version of before, \
         finalize the upgrade of all nodes to the one between, then come back to this one"
    );
    Err(OpenError::Version { reason })
}

/// What is wrong, and what an operator can do about it.
fn with_advice(error: &OpenError, dir: &Path) -> String {
    let dir = dir.display();
    if let OpenError::Version { reason } = error {
        return format!("{reason}; the last known site is served meanwhile");
    }
    let repair = match error.is_out_of_space() {
        true => format!("free space for {dir}, then restart this node"),
        false => format!(
            "to repair this node, stop it, move {dir} away and join the cluster again with a new token, or put back a \
             whole copy of {dir} that was made while it was stopped"
        ),
    };
    format!("{error}; the last known site is served meanwhile; {repair}")
}

/// How far a log is that a later version has written to.
async fn end_of_another_version(settings: Arc<LogSettings>) -> Option<LogEnd> {
    let whose = Stamp { node_id: settings.node_id, cluster_id: settings.cluster_id };
    let read = tokio::task::spawn_blocking(move || StoppedLog::open(&settings.dir, whose));
    let end = read.await.ok()?.ok()?.end().clone();
    end.unknown.is_some().then_some(end)
}

fn open_files(settings: &LogSettings) -> Result<Opened<LogStore>, OpenError> {
    let dir = &settings.dir;
    let unusable = |source| OpenError::Directory { dir: dir.display().to_string(), source };
    std::fs::create_dir_all(dir).map_err(unusable)?;
    let timings = match settings.timings {
        Some(timings) => timings,
        None => Timings::of(match settings.timing {
            Some(timing) => timing,
            None => suited_timing(dir).map_err(unusable)?,
        }),
    };
    let stamp = Stamp { node_id: settings.node_id, cluster_id: settings.cluster_id };
    let (store, file_closed) = LogStore::open(&dir.join(STORE), stamp, settings.past)?;
    let on_applied = settings.on_applied.clone();
    let machine = StateMachine::open(dir.join(SNAPSHOTS), store.room(), on_applied).map_err(unusable)?;
    Ok(Opened {
        trouble: store.trouble(),
        unknown: store.unknown(),
        room: store.room(),
        store,
        file_closed,
        machine,
        timings,
    })
}

fn raft_config(cluster_id: ClusterId, timings: Timings, compaction: Compaction) -> Result<Config, String> {
    let config = Config {
        cluster_name: cluster_id.to_string(),
        heartbeat_interval: millis_u64(timings.heartbeat),
        election_timeout_min: millis_u64(timings.election_min),
        election_timeout_max: millis_u64(timings.election_max),
        install_snapshot_timeout: millis_u64(SNAPSHOT_DEADLINE),
        max_payload_entries: MAX_BATCH_ENTRIES,
        max_append_entries: Some(MAX_BATCH_ENTRIES),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(compaction.after_entries),
        max_in_snapshot_log_to_keep: compaction.kept_entries,
        // A follower further behind gets a snapshot; only then can it miss entries between two compactions.
        replication_lag_threshold: compaction.after_entries + compaction.kept_entries,
        api_channel_size: Some(QUEUE),
        notification_channel_size: Some(QUEUE),
        // A node that was cut off must not depose a healthy leader when it comes back.
        enable_pre_vote: Some(true),
        // What it has sent to others it may not have flushed itself: leading on in the same term, it would give the places of
        // what it has lost to something else, and those who have it would not notice.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| error.to_string())
}

/// Who has no room goes on leading, since the others acknowledge without it; but it answers nobody once it has to vote.
async fn hand_over_when_full(log: ConfigLog) {
    let mut looks = tokio::time::interval(FULL_FOR);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if log.shared.room.missing_for(FULL_FOR).is_none() {
            continue;
        }
        match log.transfer_leader(None).await {
            Ok(()) => tracing::warn!("there is no room for the log here: another node leads now"),
            Err(MembershipError::NotLeader | MembershipError::NoHeir) => {}
            Err(error) => tracing::debug!(%error, "nobody takes the lead of a node without room"),
        }
    }
}

/// Entries are few and large when sites are: compacts by bytes what the policy counts in entries.
async fn compact_when_large(log: ConfigLog) {
    loop {
        log.shared.machine.wants_snapshot().await;
        log.trigger_snapshot().await;
    }
}
