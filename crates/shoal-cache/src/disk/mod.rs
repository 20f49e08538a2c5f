//! Objects on disk: what memory has no room for, and what is still there after a restart.
//!
//! Segments are files that are only ever appended to, by one thread. The oldest goes when there is no room for a new one;
//! what was used of it is written once more. An index in memory says where each object is. Nothing is trusted that was
//! read: every record has sums, and what does not fit is not there. What was forgotten is written down as gone, so that it
//! does not come back with a restart, however the process ended. Only what is full is synced: when the machine ends, what was
//! said to be gone at last may be lost. Purges judge what was read as they judge what is in memory.

mod active;
mod body;
mod distrust;
mod index;
mod jobs;
mod list;
mod load;
mod meta;
mod record;
mod recovery;
mod scan;
mod segment;
mod sweep;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use shoal_model::units::millis_u64;
use shoal_policy::cache::key::ObjectKey;
use tokio::sync::watch;

pub(crate) use body::{DiskBody, Patience};
pub use distrust::distrust_disk;
pub(crate) use load::Loads;

use active::Files;
use distrust::{UntilPanic, take_away_distrusted};
use index::{Entry, Index};
use jobs::{Jobs, Work};
use record::variant_of;
use segment::Epoch;
use writer::{Ground, Writer, free_bytes};

use crate::clock::now_ms;
use crate::object::Object;
use crate::store::Store;

/// Bodies beyond are read piece by piece and never held as a whole, bytes.
pub(crate) const STREAMED_BYTES: u64 = 256 * 1024;
/// The least that a cache on disk may have, bytes.
pub const LEAST_DISK_BYTES: u64 = 8 << 20;
/// Bytes of a segment, where there is room for a few.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Segments that the budget is divided into at least.
const LEAST_SEGMENTS: u64 = 8;
/// And at most, about.
const MOST_SEGMENTS: u64 = 128;
/// The largest object takes this fraction of the budget.
const OBJECT_SHARE: u64 = 4;
/// Where a disk has so many times the room of the memory, large bodies lie there alone: files go as a whole, with what of
/// them would have stayed in memory.
const ROOMIER: u64 = 2;
/// Who writes in a directory has locked this file.
const LOCK: &str = "lock";
/// How often a directory that another process has is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where objects go that are to outlive the process, and how much room they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// A directory for nothing else; it is made where there is none.
    pub directory: PathBuf,
    /// Bytes of it, at least [`LEAST_DISK_BYTES`].
    pub budget_bytes: u64,
}

/// The objects on disk.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    budget_bytes: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
    pub(crate) loads: Loads,
}

/// What the writer and those who read share.
struct Shared {
    index: Index,
    files: RwLock<Files>,
    jobs: Jobs,
    figures: Figures,
    state: watch::Sender<State>,
    /// How often something was forgotten, so that it is after a crash.
    orders_done: watch::Sender<u64>,
    store: Arc<Store>,
    /// It was said that a record was not what was written.
    has_told_of_damage: AtomicBool,
}

/// How far the disk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// What is there is being read, or another process has it.
    Opening,
    Open,
    /// It was closed, or could not be opened.
    Closed,
}

/// Since the start, but for `bytes`.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Of all segments.
    pub(crate) bytes: AtomicU64,
    /// Objects that were written.
    pub(crate) written: AtomicU64,
    /// Objects that were not, because the disk was too slow or too full.
    pub(crate) dropped: AtomicU64,
    /// Bytes of bodies that were read.
    pub(crate) read_bytes: AtomicU64,
    /// Objects that went with their segment.
    pub(crate) evicted: AtomicU64,
    /// Records that were not what was written, and segments of others.
    pub(crate) damaged: AtomicU64,
    /// Reads and writes that failed.
    pub(crate) errors: AtomicU64,
    /// Until what was there had been read, milliseconds.
    pub(crate) open_ms: AtomicU64,
}

impl Disk {
    /// Begins to open what is in the directory, or to begin there: until that is done, nothing is found. `epoch` is of the
    /// cluster: objects of another are not taken over.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(crate) fn open(settings: DiskSettings, epoch: u128, store: Arc<Store>) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(store));
        let (budget_bytes, keeper) = (settings.budget_bytes, shared.clone());
        let thread = std::thread::Builder::new().name("cache-disk".to_owned()).spawn(move || {
            let keeper = Keeper(keeper);
            keep(&settings, Epoch(epoch), &keeper.0);
        })?;
        Ok(Self { shared, budget_bytes, thread: Mutex::new(Some(thread)), loads: Loads::default() })
    }

    /// Waits until what was there can be found, or never will be.
    pub(crate) async fn opened(&self) {
        // The sender lives as long as this does.
        _ = self.shared.state.subscribe().wait_for(|state| *state != State::Opening).await;
    }

    /// Writes `object` when there is time for it; false = there is none.
    pub(crate) fn offer(&self, object: Arc<Object>) -> bool {
        let is_taken = self.shared.jobs.offer(object);
        if !is_taken {
            self.shared.figures.dropped.fetch_add(1, Relaxed);
        }
        is_taken
    }

    /// What is there of `key` is not to be used any more, not even after a restart. Says how much it was.
    pub(crate) fn forget(&self, key: ObjectKey) -> usize {
        self.shared.jobs.forget(key, None, || self.shared.index.forget(key, None))
    }

    /// What is there in the place of `object` is not to be used any more.
    pub(crate) fn forget_variant(&self, object: &Object) {
        let (key, variant) = (object.key, Some(variant(object)));
        self.shared.jobs.forget(key, variant, || self.shared.index.forget(key, variant));
    }

    /// What is there in the place of `object` would be of use for longer than it, by its own account.
    pub(crate) fn outlives(&self, object: &Object) -> bool {
        let (variant, useless_at) = (variant(object), object.useless_at_ms() / 1000);
        let known = self.shared.index.find(object.key);
        known.iter().any(|entry| entry.variant == variant && u64::from(entry.expires) > useless_at)
    }

    /// Something of use is there under `key`, as far as the index knows.
    pub(crate) fn has(&self, key: ObjectKey) -> bool {
        self.shared.is_open() && self.shared.index.has(key, now_seconds())
    }

    /// Nothing that is there is to be used any more. Says how much it was.
    pub(crate) fn forget_everything(&self) -> usize {
        self.shared.jobs.forget_everything(|| self.shared.index.clear())
    }

    /// Waits until what was forgotten so far does not come back after a crash of the process: it is written, not synced.
    pub(crate) async fn forgotten(&self) {
        let orders = self.shared.jobs.orders();
        // The sender lives as long as this does.
        _ = self.shared.orders_done.subscribe().wait_for(|done| *done >= orders).await;
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    pub(crate) const fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// Bytes of body that are written at most.
    pub(crate) const fn most_object_bytes(&self) -> u64 {
        self.budget_bytes / OBJECT_SHARE
    }

    /// How many objects there are.
    pub(crate) fn objects(&self) -> usize {
        self.shared.index.len()
    }

    /// Writes what was offered, and lets go of the directory. It waits for the disk.
    pub(crate) fn close(&self) {
        self.shared.jobs.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that has panicked has said so.
            _ = thread.join();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Nothing is there yet; `store` is what lies in memory beside it.
    fn new(store: Arc<Store>) -> Self {
        Self {
            index: Index::new(),
            files: RwLock::default(),
            jobs: Jobs::default(),
            figures: Figures::default(),
            state: watch::Sender::new(State::Opening),
            orders_done: watch::Sender::new(0),
            store,
            has_told_of_damage: AtomicBool::new(false),
        }
    }

    fn is_open(&self) -> bool {
        *self.state.borrow() == State::Open
    }

    fn file(&self, segment: u32) -> Option<Arc<File>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(&segment).cloned()
    }

    /// What `entry` says is there could not be read: it is there no longer. Said once; the figures tell the rest.
    fn lost(&self, entry: &Entry, error: &io::Error) {
        let is_damage = matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::UnexpectedEof);
        let figure = if is_damage { &self.figures.damaged } else { &self.figures.errors };
        figure.fetch_add(1, Relaxed);
        self.index.remove(entry);
        self.store.forget_on_disk(entry.key(), |body| body.is_of(entry));
        if !self.has_told_of_damage.swap(true, Relaxed) {
            let segment = entry.place.segment;
            tracing::warn!(segment, %error, "an object on disk cannot be read: it is dropped, and so is every further one");
        }
    }

    /// What was forgotten while what is there was being read goes from it: it may have been read later.
    fn forget_again(&self, work: &Work) {
        if work.forget_everything {
            self.index.clear();
        }
        for (key, variant) in &work.forget {
            self.index.forget(*key, *variant);
        }
    }

    /// Nothing is found from now on.
    fn close(&self) {
        self.jobs.close();
        self.state.send_replace(State::Closed);
        // Nobody waits for what will not be.
        self.orders_done.send_replace(u64::MAX);
        self.index.clear();
        self.files.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The thread's own: when it goes, nothing is found any more, and nobody waits.
struct Keeper(Arc<Shared>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The life of the thread: gets the directory, reads what is there, writes until it is closed.
fn keep(settings: &DiskSettings, epoch: Epoch, shared: &Arc<Shared>) {
    let _mark = UntilPanic(&settings.directory);
    match begin(settings, epoch, shared) {
        Ok(Some(writer)) => writer.run(),
        Ok(None) => {}
        Err(error) => {
            shared.figures.errors.fetch_add(1, Relaxed);
            distrust_disk(&settings.directory);
            let directory = settings.directory.display();
            tracing::error!(%directory, %error, "the disk of the cache cannot be used: objects are kept in memory only");
        }
    }
}

/// `None` = it was closed meanwhile.
fn begin(settings: &DiskSettings, epoch: Epoch, shared: &Arc<Shared>) -> io::Result<Option<Writer>> {
    let directory = settings.directory.clone();
    std::fs::create_dir_all(&directory)?;
    let Some(lock) = lock(settings, shared)? else {
        if shared.jobs.orders() > 0 {
            distrust_disk(&directory);
        }
        return Ok(None);
    };
    let began = Instant::now();
    take_away_distrusted(&directory)?;
    let found = recovery::recover(&directory, epoch, now_seconds(), &shared.index)?;
    let mut sealed = VecDeque::with_capacity(found.files.len());
    for (segment, file) in &found.files {
        sealed.push_back((*segment, file.metadata()?.len()));
    }
    shared.figures.damaged.fetch_add(found.refused, Relaxed);
    *shared.files.write().unwrap_or_else(PoisonError::into_inner) = found.files;
    let used: u64 = sealed.iter().map(|(_, bytes)| bytes).sum();
    // While a segment goes, its successor is there already.
    let room = free_bytes(&directory)?.saturating_add(used) / LEAST_SEGMENTS * (LEAST_SEGMENTS - 1);
    let budget_bytes = settings.budget_bytes.min(room);
    tell_of_room(settings, budget_bytes, &shared.store);
    let segment_bytes = SEGMENT_BYTES.max(budget_bytes / MOST_SEGMENTS).min(budget_bytes / LEAST_SEGMENTS);
    let tail = tail::open(&directory)?;
    let ground = Ground { directory, epoch, budget_bytes, segment_bytes, lock, tail };
    let writer = Writer::new(ground, shared.clone(), sealed, found.next);
    shared.jobs.open(|work| shared.forget_again(work));
    let (objects, took) = (shared.index.len(), began.elapsed());
    shared.figures.open_ms.store(millis_u64(took), Relaxed);
    tracing::info!(objects, took_ms = took.as_millis() as u64, "the disk of the cache is open");
    shared.state.send_replace(State::Open);
    Ok(Some(writer))
}

/// A disk of `budget_bytes` has that much more room than `store`, that bodies need not lie in both.
fn is_roomier(budget_bytes: u64, store: &Store) -> bool {
    budget_bytes / ROOMIER >= store.budget_bytes()
}

/// What the operator may not have meant: `budget_bytes` are left of what is wanted.
fn tell_of_room(settings: &DiskSettings, budget_bytes: u64, store: &Store) {
    let (wanted, directory) = (settings.budget_bytes, settings.directory.display());
    let [wanted_mib, budget_mib, memory_mib] =
        [wanted, budget_bytes, store.budget_bytes()].map(|bytes| bytes >> 20);
    if budget_bytes < wanted {
        tracing::warn!(%directory, wanted_mib, budget_mib, "the disk of the cache has less room than it is given");
    }
    if budget_bytes < store.budget_bytes() {
        tracing::info!(
            budget_mib,
            memory_mib,
            "the disk of the cache has less room than its memory: after a restart, less is there again"
        );
    }
}

/// Waits until no other process has the directory: the one before this lets go of it when it has handed over, or is gone.
/// `None` = it was closed meanwhile.
fn lock(settings: &DiskSettings, shared: &Shared) -> io::Result<Option<File>> {
    // A pipe of that name would wait for somebody at its other end.
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(settings.directory.join(LOCK))?;
    let mut has_told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if shared.jobs.wait_for_close(LOCK_PAUSE) => return Ok(None),
            Err(TryLockError::WouldBlock) if !std::mem::replace(&mut has_told, true) => {
                let directory = settings.directory.display();
                tracing::warn!(%directory, "another process has the disk of the cache: waiting for it");
            }
            Err(TryLockError::WouldBlock) => {}
        }
    }
}

/// What a damaged disk may say.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    scan::fuzz(bytes);
    meta::fuzz(bytes);
}

/// Tells an object from the others under its key.
fn variant(object: &Object) -> u16 {
    let mut place = object.text.as_bytes().to_vec();
    for (selector, value) in object.selecting().parts() {
        place.extend_from_slice(selector.to_string().as_bytes());
        // Absent is not the same as empty.
        place.push(u8::from(value.is_some()));
        place.extend_from_slice(value.unwrap_or_default());
        place.push(b'\n');
    }
    variant_of(&place)
}

fn now_seconds() -> u64 {
    now_ms() / 1000
}
