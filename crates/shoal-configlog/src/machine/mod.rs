//! The replicated state in memory: changed only by applying entries in order, kept on disk only as snapshots.

mod applied;
mod document;
mod files;
#[cfg(test)]
mod recorded;
mod replacing;
mod weight;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use shoal_model::Revision;
use shoal_model::state::{Command, ConfigState, Reply, UnknownCommand};
use tokio::sync::{Notify, watch};

pub use applied::{Applied, OnApplied};
pub use document::{Hasher, Header, Snapshot, StateDocument, Unreadable, read_state};
pub use files::SnapshotDir;
pub use replacing::{Compared, Divergence};
pub use weight::{MAX_STATE_BYTES, weight_problem};

use self::replacing::Replacing;
use crate::levels::known_level;
use crate::mutex::lock;
use crate::planted;
use crate::room::Room;
use crate::trouble::Trouble;
use crate::types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};

/// What runs the log for the machine.
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Site text applied since the last snapshot that calls for another one, however few entries it came in.
const SNAPSHOT_AFTER_BYTES: u64 = 16 << 20;

/// A handle on the state; clones see the same one.
#[derive(Clone)]
pub struct StateMachine {
    shared: Arc<Shared>,
}

struct Shared {
    state: RwLock<ConfigState>,
    mark: Mutex<Mark>,
    applied: watch::Sender<u64>,
    listener: Mutex<Listener>,
    snapshots: SnapshotDir,
    trouble: Trouble,
    bytes_since_snapshot: AtomicU64,
    /// Of the newest one that was written, taken over or read.
    snapshot_bytes: AtomicU64,
    wants_snapshot: Notify,
    replacing: Replacing,
}

/// How far the state is.
#[derive(Clone, Debug, Default)]
struct Mark {
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

/// Who is told: nobody while the state is restored, since a restart is not a change.
enum Listener {
    Restoring(OnApplied),
    Listening(OnApplied),
}

impl StateMachine {
    /// An empty state whose snapshots are in `dir` and wait for `room`; openraft restores it from there. Blocks.
    pub fn open(dir: PathBuf, room: Room, on_applied: OnApplied) -> io::Result<Self> {
        Ok(Self::on(SnapshotDir::open(dir, room)?, on_applied))
    }

    /// A state that stays empty, of which nobody is ever told, and that leaves `dir` alone.
    pub fn unused(dir: PathBuf) -> Self {
        Self::on(SnapshotDir::untouched(dir), Arc::new(|_| {}))
    }

    fn on(snapshots: SnapshotDir, on_applied: OnApplied) -> Self {
        let shared = Shared {
            state: RwLock::default(),
            mark: Mutex::default(),
            applied: watch::Sender::new(0),
            listener: Mutex::new(Listener::Restoring(on_applied)),
            snapshots,
            trouble: Trouble::default(),
            bytes_since_snapshot: AtomicU64::new(0),
            snapshot_bytes: AtomicU64::new(0),
            wants_snapshot: Notify::new(),
            replacing: Replacing::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The state is as it was before the restart: tell the listener once, and everything that happens from now on.
    pub fn finish_restore(&self) {
        let on_applied = {
            let mut listener = lock(&self.shared.listener);
            let (Listener::Restoring(on_applied) | Listener::Listening(on_applied)) = &*listener;
            let on_applied = Arc::clone(on_applied);
            *listener = Listener::Listening(Arc::clone(&on_applied));
            on_applied
        };
        on_applied(Applied::Snapshot { state: &self.read(), index: *self.shared.applied.borrow() });
    }

    /// Why no snapshot can be written any more, if so.
    pub fn trouble(&self) -> Trouble {
        self.shared.trouble.clone()
    }

    /// Looks at the state.
    pub fn read(&self) -> RwLockReadGuard<'_, ConfigState> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of the last applied entry, now and whenever it changes; 0 = none.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// Bytes of the state, as it was when it was a document the last time; 0 = it was none yet.
    pub fn snapshot_bytes(&self) -> u64 {
        self.shared.snapshot_bytes.load(Ordering::Relaxed)
    }

    /// Resolves when so much was applied that a snapshot is due before its time.
    pub async fn wants_snapshot(&self) {
        self.shared.wants_snapshot.notified().await;
    }

    fn tell(&self, what: Applied<'_>) {
        let on_applied = match &*lock(&self.shared.listener) {
            Listener::Restoring(_) => return,
            Listener::Listening(on_applied) => Arc::clone(on_applied),
        };
        on_applied(what);
    }

    /// An error = this version does not know what the entry says: nothing that comes after it is applied either.
    fn apply_entry(&self, entry: Entry) -> io::Result<Reply> {
        let index = entry.log_id.index;
        let reply = match entry.payload {
            EntryPayload::Blank => Reply::Done,
            EntryPayload::Normal(command) => {
                match command.opened(known_level()).map_err(|unknown| self.stop(unknown))? {
                    Some(command) => self.apply_command(index, command),
                    None => Reply::Done,
                }
            }
            EntryPayload::Membership(membership) => {
                lock(&self.shared.mark).membership = StoredMembership::new(Some(entry.log_id), membership);
                Reply::Done
            }
        };
        lock(&self.shared.mark).last_applied = Some(entry.log_id);
        self.shared.applied.send_replace(index);
        Ok(reply)
    }

    /// From now on nothing is applied, since `why`.
    fn stop(&self, why: UnknownCommand) -> io::Error {
        self.shared.trouble.stop(&why);
        io::Error::new(io::ErrorKind::Unsupported, why)
    }

    fn apply_command(&self, index: u64, command: Command) -> Reply {
        self.count_bytes(&command);
        let change = Change::of(&command);
        let (reply, before) = {
            let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
            let before = state.revisions.active().0;
            let diverge = planted::divergence(&command);
            let reply = state.apply(index, command);
            if let Some(diverge) = diverge {
                diverge(&mut state);
            }
            (reply, before)
        };
        // Locked for reading: only this task writes, so nobody waits, and the listener sees exactly this entry's state.
        let state = self.read();
        match (change, &reply) {
            (Change::Site, Reply::Published(newer)) if *newer != before => self.tell_revision(&state, index),
            // A wave has no other answer.
            (Change::Site, Reply::Confirmed(_) | Reply::Done) => self.tell_revision(&state, index),
            (Change::Purge(scopes, kind), Reply::Purged { seq }) if *seq == index => {
                self.tell(Applied::Purge { seq: index, scopes: &scopes, kind });
            }
            (Change::Members, Reply::Done | Reply::Admitted(_)) => {
                self.tell(Applied::Members { nodes: &state.nodes, revoked: &state.revoked, index });
            }
            (Change::Forgetting(up_to), Reply::Done) => {
                self.tell(Applied::PurgesForgotten { up_to: up_to.min(index), index });
            }
            (Change::Comparing, _) => self.freeze_for_comparison(index, &state),
            (Change::Keys, Reply::Done) => self.tell(Applied::Keys { keys: &state.keys }),
            // Refused, or answered from memory: nothing has changed.
            (
                Change::Site
                | Change::Purge(..)
                | Change::Forgetting(_)
                | Change::Members
                | Change::Keys
                | Change::Silent,
                _,
            ) => {}
        }
        reply
    }

    fn tell_revision(&self, state: &ConfigState, index: u64) {
        let (revision, site): (Revision, Arc<str>) = state.revisions.active();
        self.tell(Applied::Revision { revision, index, site, revisions: &state.revisions });
    }

    fn count_bytes(&self, command: &Command) {
        let bytes = command.site_text().map_or(0, |text| text.len() as u64);
        let before = self.shared.bytes_since_snapshot.fetch_add(bytes, Ordering::Relaxed);
        if before < SNAPSHOT_AFTER_BYTES && before + bytes >= SNAPSHOT_AFTER_BYTES {
            self.shared.wants_snapshot.notify_one();
        }
    }

    fn put_in_place(&self, state: ConfigState, meta: &SnapshotMeta) {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        *self.shared.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        *lock(&self.shared.mark) =
            Mark { last_applied: meta.last_log_id, membership: meta.last_membership.clone() };
        self.shared.bytes_since_snapshot.store(0, Ordering::Relaxed);
        self.tell(Applied::Snapshot { state: &self.read(), index });
        self.shared.applied.send_replace(index);
    }

    /// The state as it is now as a document, and what it covers.
    pub async fn document(&self) -> io::Result<(Header, StateDocument)> {
        let Builder { state, meta, .. } = self.freeze();
        blocking(move || {
            let document = StateDocument::of(&state)?;
            Ok((Header::of(meta, &document), document))
        })
        .await
    }

    /// The state as it is now, frozen; texts are shared, not copied.
    fn freeze(&self) -> Builder {
        let mark = lock(&self.shared.mark).clone();
        let meta = SnapshotMeta { last_log_id: mark.last_applied, last_membership: mark.membership };
        Builder { shared: Arc::clone(&self.shared), state: Arc::new(self.read().clone()), meta }
    }
}

/// What a command may change, as far as anyone outside wants to know.
enum Change {
    Site,
    Purge(Vec<shoal_model::state::PurgeScope>, shoal_model::state::PurgeKind),
    Forgetting(u64),
    Members,
    Comparing,
    Keys,
    Silent,
}

impl Change {
    fn of(command: &Command) -> Self {
        match command {
            Command::AskedBy { command, .. } => Self::of(command),
            Command::Publish { .. } | Command::Rollout { .. } => Self::Site,
            Command::Purge { scopes, kind, .. } => Self::Purge(scopes.clone(), *kind),
            Command::ForgetPurges { up_to } => Self::Forgetting(*up_to),
            Command::CompareStates => Self::Comparing,
            Command::Bootstrap { .. }
            | Command::Admit(_)
            | Command::UpdateNode { .. }
            | Command::RemoveNode { .. }
            | Command::RevokeNode { .. }
            | Command::Recover { .. } => Self::Members,
            Command::UploadPart { .. }
            | Command::SetRolloutPolicy { .. }
            | Command::Quarantine { .. }
            | Command::CreateToken { .. }
            | Command::SetStanding(_)
            | Command::SetVote { .. }
            | Command::ChangeSetup(_)
            | Command::GiveCertificate { .. }
            | Command::RevokeOperator { .. }
            | Command::SetLevel { .. }
            | Command::HoldLevel { .. }
            | Command::Later(_) => Self::Silent,
            Command::KeepKeys(_) => Self::Keys,
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = StateDocument;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let mark = lock(&self.shared.mark).clone();
        Ok((mark.last_applied, mark.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let reply = self.apply_in_turn(entry).await?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        // Of entries that openraft has still to hand over it must not be told that they are in a snapshot.
        (force || !self.is_ahead()).then(|| self.freeze())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.freeze()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, document: StateDocument) -> io::Result<()> {
        let (snapshots, meta_to_save) = (self.shared.snapshots.clone(), meta.clone());
        let trouble = self.shared.trouble.clone();
        let bytes = document.bytes.len() as u64;
        let restoring = matches!(&*lock(&self.shared.listener), Listener::Restoring(_));
        let state = blocking(move || {
            let state = document.read().map_err(|error| error.note_in(&trouble))?;
            // While restoring, the document was just read from its file.
            if !restoring {
                snapshots.save(&meta_to_save, &document).inspect_err(|error| trouble.note(error))?;
            }
            Ok(state)
        })
        .await?;
        self.put_in_place(state, meta);
        self.shared.snapshot_bytes.store(bytes, Ordering::Relaxed);
        self.shared.replacing.is_as_handed_over();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let snapshots = self.shared.snapshots.clone();
        blocking(move || snapshots.load()).await
    }
}

/// A frozen state on its way to the disk.
pub struct Builder {
    shared: Arc<Shared>,
    state: Arc<ConfigState>,
    meta: SnapshotMeta,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = StateDocument;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (state, meta) = (Arc::clone(&self.state), self.meta.clone());
        let (snapshots, trouble) = (self.shared.snapshots.clone(), self.shared.trouble.clone());
        let snapshot = blocking(move || {
            let document = StateDocument::of(&state)?;
            snapshots.save(&meta, &document).inspect_err(|error| trouble.note(error))?;
            Ok(Snapshot { meta, snapshot: document })
        })
        .await?;
        self.shared.bytes_since_snapshot.store(0, Ordering::Relaxed);
        self.shared.snapshot_bytes.store(snapshot.snapshot.bytes.len() as u64, Ordering::Relaxed);
        Ok(snapshot)
    }
}

/// Runs `work` where nobody waits for it; in this room's own tests here, since the time of the simulation would pass
/// meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    if cfg!(test) {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
