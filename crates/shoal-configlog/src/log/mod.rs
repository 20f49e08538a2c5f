//! The config log of one node: opening it, looking at it, closing it.

mod asked;
mod confirmed;
mod forward;
mod membership;
mod no_quorum;
mod open;
mod propose;
mod purge_batch;
mod read_index;
mod reason;
mod site_change;
mod state_hash;
mod status;
mod transfer;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_model::NodeId;
use shoal_model::state::ConfigState;
use shoal_policy::cache::lease::Askers;
use shoal_policy::recovery::LogEnd;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use asked::{described_as, on_behalf_of};
pub use membership::MembershipError;
pub(crate) use membership::Replication;
#[cfg(test)]
pub(crate) use open::Opened;
pub use open::{Compaction, LogSettings, OpenError};
pub(crate) use open::{SNAPSHOTS, STORE};
pub use propose::{ProposeError, Proposed};
pub use site_change::SiteChange;
pub use state_hash::{Divergence, Hashed};
pub use status::LogStatus;
pub use transfer::{Led, TransferError, Unfit};

use self::propose::Attempt;
use self::purge_batch::PurgeBatches;
use crate::autopilot::learners_problem;
use crate::machine::{Raft, StateMachine, weight_problem};
use crate::mutex::lock;
use crate::network::{Directory, Heard, RaftRpc};
use crate::room::Room;
use crate::timings::Timings;
use crate::trouble::Trouble;
use crate::unknown::Unknown;

/// How long closing waits for the last task of openraft to let go of the file.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Between two looks at who leads, while somebody waits for it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A handle on this node's copy of the log; clones are the same one.
#[derive(Clone)]
pub struct ConfigLog {
    shared: Arc<Shared>,
}

struct Shared {
    node_id: NodeId,
    /// Or why this node takes no part.
    raft: Result<Raft, String>,
    machine: StateMachine,
    /// What has gone wrong with the disk since: in the log's file, and among the snapshots.
    troubles: [Trouble; 2],
    /// From where on this version does not know the log.
    unknown: Unknown,
    /// How far a log is that this version cannot use, and another one can.
    left_to_another: Option<LogEnd>,
    /// What both wait for when the disk is full.
    room: Room,
    directory: Directory,
    heard: Arc<Heard>,
    timings: Timings,
    address: String,
    opened: Instant,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Purges on their way into the log.
    purges: PurgeBatches<Attempt>,
    /// Site documents of this node whose parts are to be withdrawn.
    left_over: Mutex<VecDeque<String>>,
    /// Who has asked this node, as the leader, how far the log is committed.
    askers: Mutex<Askers>,
    /// Of the state after the newest entry after which all are compared.
    hashed: watch::Sender<Option<Hashed>>,
    file_closed: Mutex<Option<oneshot::Receiver<()>>>,
    /// Another process has the log of this node, and answers on its address.
    is_passed_on: AtomicBool,
}

impl ConfigLog {
    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.shared.node_id
    }

    /// The heartbeats and elections in force.
    pub fn timings(&self) -> Timings {
        self.shared.timings
    }

    /// Looks at the replicated state as far as this node has applied it. Keep it short: applying waits meanwhile.
    pub fn with_state<T>(&self, look: impl FnOnce(&ConfigState) -> T) -> T {
        look(&self.shared.machine.read())
    }

    fn called(&self, node: NodeId) -> String {
        self.with_state(|state| state.called(node))
    }

    /// The index of the last applied entry, now and whenever it changes; 0 = none.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.machine.applied()
    }

    /// The consensus service, to be served to nodes on the cluster address, with
    /// [`MAX_MESSAGE_BYTES`](shoal_cluster::channel::MAX_MESSAGE_BYTES) both ways.
    pub fn raft_rpc(&self) -> RaftRpc {
        RaftRpc::new(self.shared.raft.clone(), self.shared.machine.clone(), Arc::clone(&self.shared.heard))
    }

    /// The state as far as this node has applied it, as snapshots hold it (JSON), and after which entry it is so.
    pub async fn state_document(&self) -> std::io::Result<(u64, bytes::Bytes)> {
        let (header, document) = self.shared.machine.document().await?;
        Ok((header.meta.last_log_id.map_or(0, |id| id.index), document.bytes))
    }

    /// What is to be said of how large the state is; `None` = nothing.
    pub fn weight_problem(&self) -> Option<String> {
        weight_problem(self.shared.machine.snapshot_bytes())
    }

    /// What is to be said of how many learners this node feeds; `None` = nothing, or another one leads.
    pub fn learners_problem(&self) -> Option<String> {
        self.replication().and_then(|known| learners_problem(known.learners.len()))
    }

    /// openraft, if this node takes part.
    pub(crate) fn raft(&self) -> Option<&Raft> {
        self.shared.raft.as_ref().ok()
    }

    /// Compacts the log now instead of at the next threshold.
    pub async fn trigger_snapshot(&self) {
        let Ok(raft) = &self.shared.raft else { return };
        if let Err(error) = raft.trigger().snapshot().await {
            tracing::debug!(%error, "no snapshot of a stopped log");
        }
    }

    /// Takes no further part in the log, and returns once its file is closed.
    pub async fn shutdown(&self) {
        for task in lock(&self.shared.tasks).drain(..) {
            task.abort();
        }
        self.shared.room.give_up();
        if let Ok(raft) = &self.shared.raft
            && let Err(error) = raft.shutdown().await
        {
            tracing::warn!(%error, "the log's core ended badly");
        }
        let closed = lock(&self.shared.file_closed).take();
        if let Some(closed) = closed {
            // The sender is dropped, never used: an error is the good news.
            if tokio::time::timeout(CLOSE_DEADLINE, closed).await.is_err() {
                tracing::warn!("the log's file is still open");
            }
        }
    }

    /// The same as [`Self::shutdown`], for the sake of another process of this node: what is proposed here from now on goes
    /// to that one.
    pub async fn pass_on(&self) {
        self.shared.is_passed_on.store(true, Ordering::Release);
        self.shutdown().await;
    }

    /// Another process has the log of this node.
    pub fn is_passed_on(&self) -> bool {
        self.shared.is_passed_on.load(Ordering::Acquire)
    }
}
