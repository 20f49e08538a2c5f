//! The Raft log on disk: entries are readable at once and acknowledged after their fsync, which a thread of its own waits for.

mod patient_file;
mod tables;
mod tail;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use openraft::storage::{LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use redb::Database;
use tokio::sync::{Semaphore, oneshot};

#[cfg(test)]
pub use tables::write_at_once;
pub use tables::{Past, Stamp, StoreError, open_stopped, read_batch, write_beginning, write_end};

use self::tables::{encode, read_entries};
use self::tail::{Budget, Tail};
use self::writer::{Order, Task};
use crate::room::Room;
use crate::trouble::Trouble;
use crate::types::{Entry, IoFlushed, LogId, TypeConfig, Vote};
use crate::unknown::Unknown;

/// Orders that may wait for the writer.
const MAX_WAITING_ORDERS: usize = 1024;
/// Encoded bytes of one batch of entries that is sent to a peer. A single entry may be larger: up to
/// [`MAX_ENTRY_BYTES`](crate::network::MAX_ENTRY_BYTES).
const MAX_BATCH_BYTES: usize = 512 << 10;

/// A handle on the log; clones read and write the same one.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    places: Arc<Semaphore>,
}

/// What the handles and the writer share. The fields are dropped in this order: once `_closed` is, the file is free.
struct Shared {
    database: Database,
    tail: Mutex<Tail>,
    trouble: Trouble,
    unknown: Unknown,
    room: Room,
    _closed: oneshot::Sender<()>,
}

impl Shared {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogStore {
    /// Opens or creates the log. The receiver resolves when the last handle is gone and the file is closed. Blocks.
    pub fn open(path: &Path, stamp: Stamp, past: Past) -> Result<(Self, oneshot::Receiver<()>), StoreError> {
        // redb meets some kinds of damage with a panic.
        let room = Room::default();
        let opening = catch_unwind(|| {
            let (database, tail) = tables::open(path, stamp, past, room.clone())?;
            let unknown = unknown_of(&database, &tail)
                .map_err(|source| StoreError::Io { path: path.display().to_string(), source })?;
            Ok::<_, StoreError>((database, tail, unknown))
        });
        let (database, tail, unknown) = opening.unwrap_or_else(|_| {
            let reason = "reading it panicked".to_owned();
            Err(StoreError::Damaged { path: path.display().to_string(), reason })
        })?;
        let (closing, closed) = oneshot::channel();
        let shared = Arc::new(Shared {
            database,
            tail: Mutex::new(tail),
            trouble: Trouble::default(),
            unknown,
            room,
            _closed: closing,
        });
        let (orders, queue) = mpsc::channel();
        let for_writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("config-log".to_owned())
            .spawn(move || writer::run(&for_writer, &queue))
            .map_err(|source| StoreError::Io { path: path.display().to_string(), source })?;
        shared.room.be_patient();
        Ok((Self { shared, orders, places: Arc::new(Semaphore::new(MAX_WAITING_ORDERS)) }, closed))
    }

    /// Why nothing can be written any more, if so.
    pub fn trouble(&self) -> Trouble {
        self.shared.trouble.clone()
    }

    /// From where on this version does not know it, if so.
    pub fn unknown(&self) -> Unknown {
        self.shared.unknown.clone()
    }

    /// What its writes wait for.
    pub fn room(&self) -> Room {
        self.shared.room.clone()
    }

    async fn order(&self, task: Task) -> io::Result<()> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        self.orders
            .send(Order { task, _place: place })
            .map_err(|_| io::Error::other("the log's writer has stopped"))
    }

    async fn order_and_wait(
        &self,
        task: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Task,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.order(task(done)).await?;
        answer.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }

    /// Entries of `start..end`, oldest first, as long as the budget lasts. What is not in memory is read off the runtime.
    async fn read(&self, start: u64, end: u64, mut budget: Budget) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut next = start;
        loop {
            let disk_end = {
                let tail = self.shared.tail();
                let memory_from = tail.first_index().unwrap_or(u64::MAX);
                if next >= memory_from {
                    tail.copy(next, end, &mut budget, &mut entries);
                    return Ok(entries);
                }
                memory_from.min(end)
            };
            let shared = Arc::clone(&self.shared);
            let read = tokio::task::spawn_blocking(move || {
                let found = read_entries(&shared.database, next, disk_end, &mut budget)?;
                Ok::<_, io::Error>((found, budget))
            });
            let (found, budget_left) = read.await.map_err(io::Error::other)??;
            entries.extend(found);
            if disk_end == end || budget_left.is_spent() {
                return Ok(entries);
            }
            // Entries may have left memory meanwhile, so look again instead of copying blindly.
            (next, budget) = (disk_end, budget_left);
        }
    }
}

/// Of what is not known to be committed: the rest is applied at once, which tells.
fn unknown_of(database: &Database, tail: &Tail) -> io::Result<Unknown> {
    let unknown = Unknown::default();
    let mut next = tail.committed.map_or(0, |id| id.index + 1);
    loop {
        let entries = read_batch(database, next)?;
        let Some(last) = entries.last() else { return Ok(unknown) };
        next = last.log_id.index + 1;
        unknown.note(&entries);
    }
}

/// `start..end` of any range of indexes.
fn span(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end.max(start))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = span(&range);
        self.read(start, end, Budget::of(usize::MAX)).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, Budget::of(MAX_BATCH_BYTES)).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.tail().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(self.shared.tail().log_state())
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.order_and_wait(|done| Task::Vote { vote, done }).await?;
        self.shared.tail().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.tail().committed = committed;
        self.order(Task::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.tail().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IoFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.shared.unknown.note(&entries);
        let mut encoded = Vec::new();
        let mut fresh = Vec::new();
        for entry in entries {
            let bytes = encode(&entry)?;
            let (index, weight) = (entry.log_id.index, bytes.len());
            encoded.push((index, bytes));
            fresh.push((entry, weight));
        }
        {
            let mut tail = self.shared.tail();
            for (entry, bytes) in fresh {
                tail.push(entry, bytes);
            }
        }
        self.order(Task::Append { entries: encoded, flushed }).await
    }

    async fn truncate_after(&mut self, after: Option<LogId>) -> io::Result<()> {
        self.order_and_wait(|done| Task::Truncate { after, done }).await?;
        self.shared.tail().truncate(after);
        self.shared.unknown.truncate(after);
        Ok(())
    }

    async fn purge(&mut self, up_to: LogId) -> io::Result<()> {
        self.order_and_wait(|done| Task::Purge { up_to, done }).await?;
        self.shared.tail().purge(up_to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use openraft::testing::log::{StoreBuilder, Suite};
    use openraft::type_config::TypeConfigExt;
    use openraft::vote::RaftLeaderId;
    use openraft::{EntryPayload, StorageError};
    use shoal_model::{ClusterId, NodeId};
    use tempfile::TempDir;

    use super::*;
    use crate::machine::StateMachine;

    const STAMP: Stamp = Stamp { node_id: NodeId(1), cluster_id: ClusterId(7) };

    struct Builder;

    impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
        async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
            let dir = tempfile::tempdir().unwrap();
            let (store, _) = LogStore::open(&dir.path().join("raft.redb"), STAMP, Past::MayBeNew).unwrap();
            let machine =
                StateMachine::open(dir.path().join("snapshots"), Room::default(), Arc::new(|_| {})).unwrap();
            machine.finish_restore();
            Ok((dir, store, machine))
        }
    }

    #[tokio::test]
    async fn openraft_is_content_with_the_store() {
        Box::pin(Suite::test_all(Builder)).await.unwrap();
    }

    fn id(index: u64) -> LogId {
        LogId::new(openraft::impls::leader_id_adv::LeaderId::new(1, 1).to_committed(), index)
    }

    fn entries(indexes: std::ops::Range<u64>) -> Vec<Entry> {
        indexes.map(|index| Entry::new(id(index), EntryPayload::Blank)).collect()
    }

    async fn append(store: &mut LogStore, indexes: std::ops::Range<u64>) {
        let (flushed, answer) = TypeConfig::oneshot();
        store.append(entries(indexes), IoFlushed::signal(flushed)).await.unwrap();
        answer.await.unwrap().unwrap();
    }

    async fn reopen(
        path: &Path,
        store: LogStore,
        closed: oneshot::Receiver<()>,
    ) -> (LogStore, oneshot::Receiver<()>) {
        drop(store);
        assert!(closed.await.is_err(), "the sender is only ever dropped");
        LogStore::open(path, STAMP, Past::Kept).unwrap()
    }

    #[tokio::test]
    async fn everything_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raft.redb");
        let (mut store, closed) = LogStore::open(&path, STAMP, Past::MayBeNew).unwrap();
        append(&mut store, 1..9).await;
        store.truncate_after(Some(id(6))).await.unwrap();
        store.purge(id(2)).await.unwrap();
        let vote = Vote::new(3, 1);
        store.save_vote(&vote).await.unwrap();
        store.save_committed(Some(id(5))).await.unwrap();

        let (mut store, closed) = reopen(&path, store, closed).await;
        let state = store.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(2)), Some(id(6))));
        assert_eq!(store.read_vote().await.unwrap(), Some(vote));
        assert_eq!(store.read_committed().await.unwrap(), Some(id(5)), "written on closing at the latest");
        append(&mut store, 7..8).await;
        assert_eq!(
            store.try_get_log_entries(..).await.unwrap(),
            entries(3..8),
            "from the disk and from memory"
        );

        let (mut store, _) = reopen(&path, store, closed).await;
        assert_eq!(store.try_get_log_entries(4..=5).await.unwrap(), entries(4..6));
        assert_eq!(store.get_log_state().await.unwrap().last_log_id, Some(id(7)));
    }

    #[tokio::test]
    async fn what_was_acknowledged_survives_a_sudden_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("raft.redb"), dir.path().join("copy.redb"));
        let (mut store, _closed) = LogStore::open(&path, STAMP, Past::MayBeNew).unwrap();
        append(&mut store, 1..6).await;
        store.save_committed(Some(id(5))).await.unwrap();
        append(&mut store, 6..8).await;
        std::fs::copy(&path, &copy).unwrap();
        let (mut store, _closed) = LogStore::open(&copy, STAMP, Past::Kept).unwrap();
        assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries(1..8));
        assert_eq!(store.read_committed().await.unwrap(), Some(id(5)), "travels with the next entries");
    }

    #[tokio::test]
    async fn a_lost_or_damaged_log_is_no_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raft.redb");
        let refusal = || LogStore::open(&path, STAMP, Past::Kept).err().unwrap().to_string();
        assert!(refusal().contains("is missing or empty"));
        let (mut store, closed) = LogStore::open(&path, STAMP, Past::MayBeNew).unwrap();
        append(&mut store, 1..200).await;
        drop(store);
        assert!(closed.await.is_err());
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&b""[..], &whole[..whole.len() / 2], &[0xa5; 8192]] {
            std::fs::write(&path, damaged).unwrap();
            let why = refusal();
            assert!(why.contains(&path.display().to_string()), "{why}");
        }
        // A flipped bit is noticed, or is where nothing is kept.
        for place in (0..whole.len()).step_by(whole.len() / 40) {
            let mut bad = whole.clone();
            bad[place] ^= 4;
            std::fs::write(&path, bad).unwrap();
            let Ok((mut store, closed)) = LogStore::open(&path, STAMP, Past::Kept) else { continue };
            assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries(1..200), "byte {place}");
            drop(store);
            assert!(closed.await.is_err());
        }
    }

    #[tokio::test]
    async fn a_log_belongs_to_one_node_and_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raft.redb");
        let (store, closed) = LogStore::open(&path, STAMP, Past::MayBeNew).unwrap();
        let check = |stamp, expected: &str| {
            let error = LogStore::open(&path, stamp, Past::Kept).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(STAMP, "in use by another process");
        drop(store);
        assert!(closed.await.is_err());
        check(Stamp { node_id: NodeId(2), ..STAMP }, "belongs to node n1");
        check(Stamp { cluster_id: ClusterId(8), ..STAMP }, "of cluster 0000000000000007");
        LogStore::open(&path, STAMP, Past::MayBeNew).unwrap();
    }
}
