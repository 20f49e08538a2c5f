//! The part of the cache that belongs to one worker thread, and its fast path.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::HeaderMap;
use http::{Method, Response, StatusCode};
use shoal_model::site::NoVarySearch;
use shoal_model::state::PurgeScope;
use shoal_model::view::CacheRuleView;
use shoal_policy::cache::content::is_cached_path;
use shoal_policy::cache::early::{is_due_early, likely_early_ms};
use shoal_policy::cache::invalidation::has_changed;
use shoal_policy::cache::key::{KeyParts, ObjectKey, host_scope, write_key, write_route};
use shoal_policy::cache::query::write_counted;
use shoal_policy::cache::reuse::Reuse;
use shoal_policy::cache::status::{CacheStatus, Detail};
use shoal_policy::cache::tags::invalidated_groups;
use shoal_policy::cache::trust::Trust;

use crate::body::CacheBody;
use crate::change::PendingChange;
use crate::chunks::Cut;
use crate::clock::now_ms;
use crate::counters::Cells;
use crate::dispatch::{FillJob, Job};
use crate::entropy::Entropy;
use crate::hot::{HotObjects, Ready};
use crate::lookup::{Choice, Found, Probe, Signs, Sought, is_cacheable_method, look, wishes};
use crate::node::Cache;
use crate::object::Object;
use crate::peer::client::PeerPool;
use crate::respond::{ADDED, answer_fields, source};
use crate::seam::{Bypass, CacheRequest, Fetch, Lookup};
use crate::search::Alias;
use crate::variants::Variants;

/// The part of the cache that belongs to one worker thread: its origin, its peer connections, its hottest objects.
pub struct WorkerCache {
    pub(crate) cache: Arc<Cache>,
    pub(crate) fetch: Rc<dyn Fetch>,
    pub(crate) cells: Arc<Cells>,
    pub(crate) peers: Rc<PeerPool>,
    /// Fills that tasks of this worker are working on.
    pub(crate) running: Cell<usize>,
    pub(crate) entropy: Entropy,
    hot: RefCell<HotObjects>,
    /// The text of the key that is being looked up.
    text: RefCell<Vec<u8>>,
}

impl Cache {
    /// The part of one worker thread; call it there. What it begins runs as local tasks of that thread.
    pub fn worker(self: &Arc<Self>, fetch: Rc<dyn Fetch>) -> Rc<WorkerCache> {
        WorkerCache::new(self.clone(), fetch)
    }
}

impl WorkerCache {
    fn new(cache: Arc<Cache>, fetch: Rc<dyn Fetch>) -> Rc<Self> {
        let cells = cache.new_cells();
        let peers = PeerPool::new(cache.settings.peers.clone(), cache.settings.cluster.clone());
        let hot = RefCell::new(HotObjects::new(cache.hot_budget.clone()));
        let (running, entropy, text) = (Cell::new(0), Entropy::new(), RefCell::default());
        Rc::new(Self { cache, fetch, cells, peers, running, entropy, hot, text })
    }

    /// The fastest path: the answer to a plain GET for an object that is in much use, signed by [`Fetch::sign`]. It looks
    /// at no field that forwarding would change, so it may be asked before the request is made ready for the origin.
    pub fn ready(&self, request: &CacheRequest<'_>) -> Option<Ready> {
        let head = request.head;
        if head.method != Method::GET || request.has_body || !Signs::read(&head.headers).is_plain() {
            return None;
        }
        // The lease first: what is applied by then is at least what it promises.
        let now_ms = now_ms();
        if !self.cache.purges.has_lease(now_ms) {
            return None;
        }
        let mut text = self.text.borrow_mut();
        let (key, alias) = self.write_key(&mut text, request);
        if alias.is_some() {
            return None;
        }
        let applied = self.cache.purges.applied();
        let ready = self.hot.borrow_mut().ready(key, &text, applied, now_ms)?;
        self.cells.hits.count_alone();
        Some(ready)
    }

    /// The fast path: what the memory of this node says (RFC 9111 §4), without waiting. A validation in the background may
    /// begin (RFC 5861 §3): call it where local tasks can be spawned.
    pub fn hit(self: &Rc<Self>, request: &CacheRequest<'_>) -> Lookup {
        self.look_up(request, None)
    }

    /// The same of `loaded`, which is what there is of the key, if that was just read.
    pub(crate) fn look_up(self: &Rc<Self>, request: &CacheRequest<'_>, loaded: Option<Variants>) -> Lookup {
        let head = request.head;
        if !is_cacheable_method(&head.method) {
            return Lookup::Bypass(Bypass::Method);
        }
        let signs = Signs::read(&head.headers);
        if request.has_body || signs.has_precondition || !is_cached_path(request.rule, head.uri.path()) {
            return Lookup::Bypass(Bypass::Request);
        }
        let mut text = self.text.borrow_mut();
        let (key, alias) = self.write_key(&mut text, request);
        let now_ms = now_ms();
        let is_plain = signs.is_plain() && head.method == Method::GET;
        let hot = || self.hot.borrow_mut().variants(key);
        let variants = loaded
            .or_else(hot)
            .or_else(|| self.cache.store.find(key).inspect(|found| self.hot.borrow_mut().keep(key, found)));
        let wishes = wishes(request.rule, signs, &head.headers);
        let trust = self.cache.trust(request.rule, now_ms);
        let (method, fields) = (&head.method, &head.headers);
        let alias = alias.as_ref();
        let sought = Sought { text: &text, alias, method, fields, signs, wishes: &wishes, trust, now_ms };
        let choice = look(variants.as_ref(), &sought, &self.cache.purges);
        match choice {
            Choice::Found(Found { ref object, reuse: Reuse::Fresh, cut: Some(ref cut), .. }) => {
                let may_prepare = is_plain && trust == Trust::Verified;
                let response = self.serve(request, object, cut, trust, may_prepare, now_ms);
                if self.is_due_early(request.rule, object, now_ms) {
                    self.revalidate(request, &Probe::new(key, &sought, choice));
                }
                Lookup::Fresh(response)
            }
            choice @ Choice::Found(_) => Lookup::Stale(Box::new(Probe::new(key, &sought, choice))),
            choice @ (Choice::OtherVariants(_) | Choice::Nothing) => {
                Lookup::Miss(Box::new(Probe::new(key, &sought, choice)))
            }
        }
    }

    /// To be called for every [`Bypass::Method`] request before it goes to the origin, and told what came of it: what a safe
    /// method asks for is not forgotten.
    pub fn expect_change(&self, request: &CacheRequest<'_>) -> PendingChange {
        let mut text = Vec::new();
        write_url(&mut text, request);
        let target = String::from_utf8_lossy(&text).into_owned();
        PendingChange::new(&self.cache, &request.head.method, target)
    }

    /// The groups that the origin's answer to `request` makes invalid (RFC 9875 §3), as what a purge of them means.
    pub fn invalidated_groups(
        &self,
        request: &CacheRequest<'_>,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> Vec<PurgeScope> {
        if !has_changed(&request.head.method, status) {
            return Vec::new();
        }
        let mut text = Vec::new();
        write_url(&mut text, request);
        let target = String::from_utf8_lossy(&text);
        let groups = invalidated_groups(self.cache.settings.key_seed, &target, fields);
        groups.into_iter().map(PurgeScope::Tag).collect()
    }

    /// The host of `request`, as scopes have it.
    pub fn host_scope(&self, request: &CacheRequest<'_>) -> u64 {
        host_scope(self.cache.settings.key_seed, KeyParts::of(request.host).host)
    }

    /// What a purge of the URL of `request` means: its objects on every route.
    pub fn purge_scope(&self, request: &CacheRequest<'_>) -> PurgeScope {
        let mut text = Vec::new();
        write_url(&mut text, request);
        PurgeScope::Url(ObjectKey::of(self.cache.settings.key_seed, &text).0)
    }

    /// Starts what was begun elsewhere. Returns at once; it runs as a local task of this worker.
    pub fn run_job(self: &Rc<Self>, job: FillJob) {
        match job.0 {
            Job::Fill(task) => self.start(*task),
            Job::Rest(task) => {
                let worker = self.clone();
                tokio::task::spawn_local(async move { Box::pin(worker.fetch_rest(*task)).await });
            }
        }
    }

    /// Fills that this worker is working on, for whomever: a worker that drains waits for them.
    pub fn running_fills(&self) -> usize {
        self.running.get()
    }

    /// The key of `request` and its text. `None` = the URL of the key is not the one asked for.
    pub(crate) fn key_and_text(&self, request: &CacheRequest<'_>) -> Option<(ObjectKey, String)> {
        let mut text = Vec::new();
        let (key, alias) = self.write_key(&mut text, request);
        alias.is_none().then(|| (key, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Writes the text of the key of `request`, only the URL of which is hashed; says what was asked for, if that is not it.
    fn write_key(&self, text: &mut Vec<u8>, request: &CacheRequest<'_>) -> (ObjectKey, Option<Alias>) {
        text.clear();
        write_url(text, request);
        let alias = match request.rule.no_vary_search {
            NoVarySearch::Honor => self.cache.reduce(text),
            NoVarySearch::Ignore => None,
        };
        let key = ObjectKey::of(self.cache.settings.key_seed, text);
        write_route(text, &request.route.key_name);
        (key, alias)
    }

    /// The object is fetched again although it is fresh: before all that use it need it at once. Only its owner does that,
    /// once in the cluster.
    fn is_due_early(&self, rule: &CacheRuleView, object: &Object, now_ms: u64) -> bool {
        rule.early_refresh
            && is_due_early(&object.terms, now_ms, self.entropy.draw())
            && self.cache.placement.owners(object.key).primary == Some(self.cache.settings.node)
    }

    /// Until when an answer may be given again without looking at the object: while nothing in it changes, and before it may
    /// be due early.
    fn prepared_until_ms(&self, rule: &CacheRuleView, object: &Object, now_ms: u64) -> u64 {
        let age_ms = object.terms.age_ms(now_ms);
        let left_ms = u64::try_from(object.terms.time_left_ms(now_ms)).unwrap_or(0);
        let early_ms = if rule.early_refresh { likely_early_ms(&object.terms) } else { 0 };
        now_ms + (1000 - age_ms % 1000).min(left_ms.saturating_sub(early_ms))
    }

    /// A hit that was not prepared: prepares the next ones, and sees to the second copy.
    fn serve(
        &self,
        request: &CacheRequest<'_>,
        object: &Arc<Object>,
        cut: &Cut,
        trust: Trust,
        may_prepare: bool,
        now_ms: u64,
    ) -> Response<CacheBody> {
        self.cells.hits.count_alone();
        self.cache.use_cut(object, cut, now_ms);
        let detail = source(trust, object, cut);
        if detail == Detail::LocalDisk {
            self.cells.disk_hits.count_alone();
        }
        let status = CacheStatus::hit(&self.cache.settings.name, ttl_seconds(object, now_ms), detail);
        // What is prepared cannot go on from the origin where the disk fails, nor look for chunks.
        let may_prepare = may_prepare && object.body.is_whole() && detail != Detail::LocalDisk;
        let until_ms = self.prepared_until_ms(request.rule, object, now_ms);
        let is_checked = self.cache.purges.applied() <= object.checked_seq.load(Ordering::Relaxed);
        if may_prepare && until_ms > now_ms && is_checked {
            let mut fields =
                answer_fields(object.fields.to_map(ADDED), &object.terms, status.value(), now_ms);
            self.fetch.sign(&mut fields);
            self.hot.borrow_mut().prepare(object, fields, until_ms);
        }
        self.respond_with(request, object, cut, &status, now_ms)
    }
}

/// Whole seconds of freshness left.
pub(crate) fn ttl_seconds(object: &Object, now_ms: u64) -> i64 {
    object.terms.time_left_ms(now_ms).div_euclid(1000)
}

/// The URL of `request`, as far as the route lets its query count.
fn write_url(text: &mut Vec<u8>, request: &CacheRequest<'_>) {
    let path_and_query = request.head.uri.path_and_query().map_or("/", |path| path.as_str());
    write_key(text, request.https, request.host, "");
    write_counted(text, &request.rule.key.query, path_and_query);
}
