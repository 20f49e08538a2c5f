//! The cache of one node: everything that its workers and its peers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_model::state::{PurgeKind, PurgeScope, PurgeTables};
use shoal_model::view::CacheRuleView;
use shoal_policy::cache::key::{
    KeyParts, ObjectKey, group_scope, host_scope, key_of_url, prefix_scope, tag_scope,
};
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::reuse::Freshened;
use shoal_policy::cache::sources::{Hop, asks_owners, may_wait};
use shoal_policy::cache::trust::{Trust, is_plausible, may_join};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::clock::{moment, now_ms};
use crate::counters::{Cells, Counters};
use crate::disk::{Disk, DiskSettings, distrust_disk};
use crate::dispatch::{Dispatch, FillJob};
use crate::fill::{Errand, Fill, FillBudget, FillLimits, Flights, Joined};
use crate::hot::HotBudget;
use crate::orphans::{Orphans, look_after};
use crate::peer::intake_room::IntakeRoom;
use crate::peer::replicas::Replicas;
use crate::placement::Placement;
use crate::portion::Portion;
use crate::promotion::Promotions;
use crate::purges::Purges;
use crate::recent::Recent;
use crate::reminders::{INVALIDATE_TIMEOUT, Reminders};
use crate::seam::CacheSettings;
use crate::search::SearchRules;
use crate::store::Store;

/// A URL that proved uncacheable is not waited for again for this long.
const UNCACHEABLE_MEMORY: Duration = Duration::from_secs(120);
/// How many such URLs are remembered.
const MAX_UNCACHEABLE: usize = 100_000;
/// For how long a copy made before an invalidation may still be on its way.
pub(crate) const TOMBSTONE_LIFE: Duration = Duration::from_secs(60);
/// How many invalidated keys are remembered.
const MAX_TOMBSTONES: usize = 100_000;
/// Given-up requests that the origin may still be working on, and that are kept in mind for that.
const MAX_ABANDONED: usize = 1024;
/// Those who count hits by object at once.
const MAX_ONLOOKERS: usize = 2;
/// What the workers keep at hand of the memory for objects: this fraction.
const HOT_SHARE: u64 = 32;
/// What copies of objects that other nodes own may take of the memory for objects: this fraction.
const PROMOTED_SHARE: u64 = 5;
/// What running fills may hold together beside the stored objects: this fraction of their memory.
const FILL_SHARE: u64 = 2;
/// For what waits for the disk when the node stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at what a successor has still to be told.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The cache of one node: store, running fills, purge tables, placement.
pub struct Cache {
    pub(crate) settings: CacheSettings,
    pub(crate) store: Arc<Store>,
    pub(crate) disk: Option<Disk>,
    pub(crate) purges: Purges,
    /// How many records of purges there were that all that is stored was checked against.
    pub(crate) swept_records: AtomicU64,
    pub(crate) search: SearchRules,
    pub(crate) flights: Arc<Flights>,
    fill_budget: Arc<FillBudget>,
    pub(crate) fill_limits: FillLimits,
    pub(crate) hot_budget: Arc<HotBudget>,
    pub(crate) promotions: Promotions,
    pub(crate) placement: Placement,
    pub(crate) replicas: Replicas,
    pub(crate) intake_room: IntakeRoom,
    pub(crate) reminders: Reminders,
    pub(crate) orphans: Orphans,
    /// Requests of peers that are being answered.
    pub(crate) peers_under_way: watch::Sender<usize>,
    /// Hashes of the texts of keys whose responses are not stored, and why, if known: nobody waits for those.
    uncacheable: Recent<Option<Refusal>>,
    /// When keys were invalidated, Unix milliseconds.
    tombstones: Recent<u64>,
    /// When everything was, likewise.
    forgotten_ms: AtomicU64,
    /// Figures of the control runtime.
    pub(crate) cells: Arc<Cells>,
    worker_cells: Mutex<Vec<Arc<Cells>>>,
    /// The workers that take on fills of peers.
    pub(crate) dispatch: Dispatch,
    /// Places for given-up requests whose effect is not known.
    pub(crate) abandoned: Arc<Semaphore>,
    /// Places for those who count hits by object: each look goes through the whole store.
    pub(crate) onlookers: Semaphore,
    pub(crate) control: Handle,
}

impl Cache {
    /// A cache of what is on disk, see [`Self::opened`]. Call it on the control runtime: replicas and invalidations are sent
    /// from there. A disk that cannot be used is said in the log, and memory goes on alone.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(settings: CacheSettings) -> Arc<Self> {
        let cells = Arc::new(Cells::default());
        let hot_bytes = settings.ram_bytes / HOT_SHARE;
        let store = Arc::new(Store::new(settings.ram_bytes - hot_bytes));
        let disk = settings.disk.clone().and_then(|disk| open_disk(disk, settings.key_seed, &store));
        let cache = Arc::new(Self {
            purges: Purges::new(settings.key_seed),
            swept_records: AtomicU64::new(0),
            search: SearchRules::new(settings.key_seed),
            flights: Arc::new(Flights::new()),
            fill_budget: Arc::new(FillBudget::new(settings.ram_bytes / FILL_SHARE)),
            fill_limits: FillLimits::default(),
            hot_budget: Arc::new(HotBudget::new(hot_bytes)),
            promotions: Promotions::new(settings.ram_bytes / PROMOTED_SHARE),
            placement: Placement::new(settings.node, settings.cluster.clone(), now_ms()),
            replicas: Replicas::start(
                settings.peers.clone(),
                store.clone(),
                cells.clone(),
                settings.ram_bytes,
            ),
            intake_room: IntakeRoom::new(settings.intake_bytes),
            orphans: Orphans::default(),
            peers_under_way: watch::Sender::new(0),
            reminders: Reminders::new(settings.peers.clone(), settings.cluster.clone()),
            store,
            disk,
            uncacheable: Recent::new(UNCACHEABLE_MEMORY, MAX_UNCACHEABLE),
            tombstones: Recent::new(TOMBSTONE_LIFE, MAX_TOMBSTONES),
            forgotten_ms: AtomicU64::new(0),
            cells,
            worker_cells: Mutex::default(),
            dispatch: Dispatch::default(),
            abandoned: Arc::new(Semaphore::new(MAX_ABANDONED)),
            onlookers: Semaphore::new(MAX_ONLOOKERS),
            control: Handle::current(),
            settings,
        });
        tokio::spawn(look_after(Arc::downgrade(&cache)));
        cache
    }

    /// Waits until what was on disk can be found, or never will be.
    pub async fn opened(&self) {
        if let Some(disk) = &self.disk {
            disk.opened().await;
        }
    }

    /// Writes what is to be written and lets go of the directory: another process may have it then. Nothing is found on disk
    /// from now on. Ends after 10 s whatever the disk does.
    pub async fn close_disk(self: &Arc<Self>) {
        let cache = self.clone();
        let closing = tokio::task::spawn_blocking(move || cache.disk.as_ref().map(Disk::close));
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::error!("the disk of the cache is too slow: the objects it did not take are lost");
        }
    }

    /// Another process takes the place of this one, and hears of purges and changes from now on. Requests that are left here
    /// find nothing stored and leave nothing behind; what they change is told to that process as it is to other nodes. Call
    /// it before [`Self::close_disk`]: what is forgotten later does not reach the disk from here.
    pub fn retire(&self) {
        self.placement.set_successor(true);
        self.store.close();
    }

    /// The process that was to take the place of this one does not, nor does any other: what changes until there is one
    /// could come back from the disk.
    pub fn lose_successor(&self) {
        self.placement.set_successor(false);
        if let Some(disk) = &self.settings.disk {
            distrust_disk(&disk.directory);
        }
    }

    /// Waits until the process that takes the place of this one knows of all that has changed here; not at all if there is
    /// none.
    pub async fn successor_told(&self) {
        while self.placement.has_successor() && self.reminders.owes(self.settings.node) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// It knows of changes no longer, nor has anything stored.
    pub(crate) fn is_retired(&self) -> bool {
        self.store.is_closed()
    }

    /// The figures of one more worker.
    pub(crate) fn new_cells(&self) -> Arc<Cells> {
        let cells = Arc::new(Cells::default());
        self.worker_cells.lock().unwrap_or_else(PoisonError::into_inner).push(cells.clone());
        cells
    }

    /// Takes on a worker for the fills that peers ask for. Its loop hands what it receives to
    /// [`crate::WorkerCache::run_job`]. A fill for which no worker has room is an overflow.
    pub fn register_worker(&self, jobs: mpsc::Sender<FillJob>) {
        self.dispatch.add_worker(jobs);
    }

    /// A purge was applied from the log, of which `seq` is the index. Called in the order of the log.
    pub fn record_purge(&self, seq: u64, scopes: &[PurgeScope], kind: PurgeKind) {
        self.purges.record(seq, scopes, kind);
    }

    /// Purges up to log index `up_to` are remembered no longer one by one, since the entry at `index` was applied: what was
    /// not checked against them is validated before its next use.
    pub fn forget_purges(&self, up_to: u64, index: u64) {
        self.purges.forget(up_to, index);
    }

    /// A snapshot was installed: its purge tables, and the log index it stands for. Called in the order of the log, as
    /// [`Self::record_purge`] is: it takes the place of nothing newer.
    pub fn replace_purges(&self, tables: &PurgeTables, applied: u64) {
        self.purges.replace(tables, applied);
    }

    /// The log is applied up to index `seq`. Purges are recorded before this says so.
    pub fn set_applied(&self, seq: u64) {
        self.purges.advance(seq);
    }

    /// Until `until_ms` (Unix milliseconds) this node serves what it has stored without asking: it knows of every purge
    /// that was committed a moment ago. Beyond that, and before the first lease, the route's `purge_unverified` says what
    /// becomes of hits. The newest word counts: 0 takes a lease back.
    pub fn set_lease(&self, until_ms: u64) {
        self.purges.set_lease(until_ms);
    }

    /// Hits are served without asking now.
    pub fn has_lease(&self) -> bool {
        !self.is_retired() && self.purges.has_lease(now_ms())
    }

    /// For how long they still may be.
    pub fn lease_left(&self) -> Duration {
        match self.has_lease() {
            true => self.purges.lease_left(now_ms()),
            false => Duration::ZERO,
        }
    }

    /// Figures since the start, of all workers and the control runtime together. Each is read by itself: they need not be of
    /// the same moment.
    pub fn counters(&self) -> Counters {
        let store = self.store.figures();
        let (purge_records, purge_floor) = self.purges.remembered();
        let purge_records = purge_records as u64;
        let mut sum = Counters {
            objects: store.objects,
            bytes: store.bytes,
            budget_bytes: self.settings.ram_bytes,
            evictions: store.evictions,
            purge_seq: self.purges.newest(),
            purge_records,
            purge_floor,
            ..Counters::default()
        };
        if let Some(disk) = &self.disk {
            add_disk(disk, &mut sum);
        }
        self.cells.add_to(&mut sum);
        for cells in self.worker_cells.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            cells.add_to(&mut sum);
        }
        sum
    }

    /// The keys that what a URL (`http://host/path?query`) asks for may have, its own first, and who owns each; ask
    /// `CacheService.Lookup` of each node what it holds. Empty = not a URL.
    pub fn locate(&self, url: &str) -> Vec<(ObjectKey, Owners)> {
        let text = key_of_url(url).and_then(|text| String::from_utf8(text).ok());
        let keys = text.iter().flat_map(|text| self.keys_of(text));
        keys.map(|key| (key, self.placement.owners(key))).collect()
    }

    /// The scope of one URL (`http://host/path?query`); `None` = not a URL.
    pub fn purge_scope_url(&self, url: &str) -> Option<PurgeScope> {
        let text = key_of_url(url)?;
        Some(PurgeScope::Url(ObjectKey::of(self.settings.key_seed, &text).0))
    }

    /// The scope of everything below a path of a host, whatever the scheme and port (`host/path`, or a URL); a host alone
    /// is all of the host. `None` = there is no host.
    pub fn purge_scope_prefix(&self, prefix: &str) -> Option<PurgeScope> {
        let KeyParts { host, path } = KeyParts::of(prefix.trim());
        if host.is_empty() {
            return None;
        }
        let seed = self.settings.key_seed;
        Some(match path.trim_end_matches('/') {
            "" => PurgeScope::Host(host_scope(seed, host)),
            path => PurgeScope::Prefix(prefix_scope(seed, host, path)),
        })
    }

    /// The scope of a tag, as in `Surrogate-Key`, `Cache-Tag` and `xkey`.
    pub fn purge_scope_tag(&self, tag: impl AsRef<[u8]>) -> PurgeScope {
        PurgeScope::Tag(tag_scope(self.settings.key_seed, tag))
    }

    /// The scope of a group of an origin (`https://host:port`, its scheme's default port left out; RFC 9875).
    pub fn purge_scope_group(&self, origin: &str, group: &str) -> PurgeScope {
        PurgeScope::Tag(group_scope(self.settings.key_seed, origin, group))
    }

    /// How far stored objects may be trusted now, on a route with this rule.
    pub(crate) fn trust(&self, rule: &CacheRuleView, now_ms: u64) -> Trust {
        if is_plausible(now_ms) && !self.is_retired() {
            Trust::of(self.purges.has_lease(now_ms), rule.purge_unverified)
        } else {
            Trust::Doubted
        }
    }

    /// What is behind this text of a key is not stored: nobody is to wait for it.
    pub(crate) fn remember_uncacheable(&self, text: &str, why: Option<Refusal>) {
        self.uncacheable.note(ObjectKey::of(self.settings.key_seed, text.as_bytes()), why);
    }

    pub(crate) fn is_uncacheable(&self, text: &str) -> bool {
        self.uncacheable.of(ObjectKey::of(self.settings.key_seed, text.as_bytes())).is_some()
    }

    /// Why what is behind this text of a key was not stored lately, if that is so and known.
    pub(crate) fn why_uncacheable(&self, text: &str) -> Option<Refusal> {
        self.uncacheable.of(ObjectKey::of(self.settings.key_seed, text.as_bytes())).flatten()
    }

    /// A fill that is about to begin with a request that has come as far as `hop`.
    pub(crate) fn new_fill(&self, key: ObjectKey, text: &str, hop: Hop) -> Fill {
        self.new_fill_of(key, key, text, hop)
    }

    /// The same, of what is stored under `key` and has the owners of `home`.
    pub(crate) fn new_fill_of(&self, home: ObjectKey, key: ObjectKey, text: &str, hop: Hop) -> Fill {
        let asks_owners = asks_owners(hop, self.placement.owners(home), self.settings.node);
        Fill::new(key, text, self.purges.applied(), asks_owners, &self.fill_budget)
    }

    /// A place in the running fill for `errand`, if no purge came after it began, nor can have come; else in a new one. A
    /// part may come with the whole.
    pub(crate) fn board(
        &self,
        rule: &CacheRuleView,
        key: ObjectKey,
        errand: Errand<'_>,
        begin: impl FnOnce() -> Fill,
    ) -> Joined {
        let now = moment();
        // The lease first: what is applied by then is at least what it promises.
        let trust = self.trust(rule, now.wall_ms);
        let may_join = |fill: &Fill| {
            *fill.text == *errand.text
                && may_wait(errand.hop, fill.waits_for_owners())
                && may_join(trust, fill.begun(), now)
                && fill.judge(|subject| self.purges.check_subject(subject)) == Some(Freshened::Untouched)
                && errand.alias.is_none_or(|alias| {
                    alias.may_wait_for(fill.begun())
                        && self.purges.check_alias(alias, fill.fill_seq()) == Some(Freshened::Untouched)
                })
        };
        if let Portion::Part { range, .. } = errand.portion {
            let whole = Errand { portion: &Portion::Whole, ..errand };
            let may_wait = |fill: &Fill| may_join(fill) && fill.is_about_to_bring(*range);
            if let Some(reader) = self.flights.join_running(key, whole, may_wait) {
                return Joined::Running(reader);
            }
        }
        self.flights.join(key, errand, may_join, begin)
    }

    /// Forgets what is stored under `key` and spoils what is being filled; says how much was stored.
    pub(crate) fn forget(&self, key: ObjectKey) -> usize {
        self.tombstones.note(key, now_ms());
        self.flights.spoil(key);
        // The disk first: what is read from it meanwhile is only stored while it is still there.
        let on_disk = self.disk.as_ref().map_or(0, |disk| disk.forget(key));
        self.store.forget(key).max(on_disk)
    }

    /// Forgets all that is stored and spoils all that is being filled; says how much was stored.
    pub(crate) fn forget_everything(&self) -> usize {
        self.forgotten_ms.fetch_max(now_ms(), Ordering::AcqRel);
        self.flights.spoil_all();
        let on_disk = self.disk.as_ref().map_or(0, Disk::forget_everything);
        self.store.forget_everything().max(on_disk)
    }

    /// The resource changed after a response that arrived at `response_ms`.
    pub(crate) fn changed_since(&self, key: ObjectKey, response_ms: u64) -> bool {
        if response_ms <= self.forgotten_ms.load(Ordering::Acquire) {
            return true;
        }
        self.tombstones.of(key).is_some_and(|changed_ms| response_ms <= changed_ms)
    }

    /// When the resource was last known to have changed, Unix milliseconds; 0 = not of late.
    pub(crate) fn last_change_ms(&self, key: ObjectKey) -> u64 {
        let all_ms = self.forgotten_ms.load(Ordering::Acquire);
        self.tombstones.of(key).unwrap_or_default().max(all_ms)
    }

    /// The key of a URL, as the text of a key has it.
    pub(crate) fn key_of(&self, url: &str) -> ObjectKey {
        ObjectKey::of(self.settings.key_seed, url.as_bytes())
    }

    /// The keys of what a request for this URL is answered from: its own, and that of an equal one.
    pub(crate) fn keys_of(&self, url: &str) -> impl Iterator<Item = ObjectKey> + use<> {
        [Some(self.key_of(url)), self.search.equal(url)].into_iter().flatten()
    }

    /// Waits until what was forgotten here does not come back after a crash; but not for long.
    pub(crate) async fn forgotten(&self) {
        if let Some(disk) = &self.disk
            && tokio::time::timeout(INVALIDATE_TIMEOUT, disk.forgotten()).await.is_err()
        {
            tracing::warn!(
                "the disk of the cache is slow: what was forgotten may come back if the node crashes now"
            );
        }
    }

    /// Bytes of body that may be stored where `rule` holds.
    pub(crate) fn most_bytes(&self, rule: &CacheRuleView) -> u64 {
        rule.max_object_bytes.min(self.settings.ram_bytes / 2)
    }
}

/// `None` = it cannot be; that is said, and memory is enough to go on with.
fn open_disk(settings: DiskSettings, key_seed: u64, store: &Arc<Store>) -> Option<Disk> {
    // Whoever has other keys has other objects and other purges.
    let epoch = ObjectKey::of(key_seed, b"what is on disk").0;
    match Disk::open(settings, epoch, store.clone()) {
        Ok(disk) => Some(disk),
        Err(error) => {
            tracing::error!(%error, "no thread for the disk of the cache: objects are kept in memory only");
            None
        }
    }
}

fn add_disk(disk: &Disk, sum: &mut Counters) {
    let figures = disk.figures();
    let read = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    sum.disk_objects = disk.objects() as u64;
    sum.disk_bytes = read(&figures.bytes);
    sum.disk_budget_bytes = disk.budget_bytes();
    sum.disk_read_bytes = read(&figures.read_bytes);
    sum.disk_written = read(&figures.written);
    sum.disk_dropped = read(&figures.dropped);
    sum.disk_evictions = read(&figures.evicted);
    sum.disk_damaged = read(&figures.damaged);
    sum.disk_errors = read(&figures.errors);
    sum.disk_open_ms = read(&figures.open_ms);
}
