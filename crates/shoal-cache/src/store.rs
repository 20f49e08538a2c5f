//! The objects this node holds in memory, within a budget of bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use moka::notification::RemovalCause;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::validation::is_same_version;

use crate::disk::DiskBody;
use crate::object::{Object, Variants};

/// Locks under which the variants of a key are replaced.
const LOCKS: usize = 64;

/// The objects this node holds.
pub(crate) struct Store {
    objects: moka::sync::Cache<ObjectKey, Arc<Variants>>,
    locks: [Mutex<()>; LOCKS],
    evictions: Arc<AtomicU64>,
}

impl Store {
    /// An empty store that holds at most `budget_bytes`.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let evicted = evictions.clone();
        // No invalidation closures, ever: they are not memory-safe under eviction in this version. Purges judge each
        // object by its sequence number instead.
        let objects = moka::sync::Cache::builder()
            .max_capacity(budget_bytes)
            .weigher(|_: &ObjectKey, variants: &Arc<Variants>| variants.weight())
            .eviction_listener(move |_, variants: Arc<Variants>, cause| {
                variants.supersede();
                if cause == RemovalCause::Size {
                    evicted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        Self { objects, locks: [const { Mutex::new(()) }; LOCKS], evictions }
    }

    /// The variants under `key`; the texts of their keys are still to be compared.
    pub(crate) fn find(&self, key: ObjectKey) -> Option<Arc<Variants>> {
        self.objects.get(&key)
    }

    /// Puts `object` in, beside its variants.
    pub(crate) fn insert(&self, object: Arc<Object>) {
        self.replace(object.key, |variants| Some(variants.with(object)));
    }

    /// Puts `part` in: as one object with what is known of its version, as long as that `is_valid` and both have no more than
    /// `most_bytes`; else in the place of it. Returns what is stored now.
    pub(crate) fn add_part(
        &self,
        part: Arc<Object>,
        most_bytes: u64,
        is_valid: impl Fn(&Object) -> bool,
    ) -> Arc<Object> {
        let mut stored = part.clone();
        self.replace(part.key, |variants| {
            let known = variants.objects.iter().find(|known| known.has_place_of(&part));
            let known = known.filter(|known| is_same_version(&known.fields, &part.fields) && is_valid(known));
            if let Some(known) = known {
                if known.body.is_whole() {
                    stored = known.clone();
                    return None;
                }
                let completed = known.completed(&part);
                if completed.body_bytes <= most_bytes {
                    stored = completed;
                }
            }
            Some(variants.with(stored.clone()))
        });
        stored
    }

    /// Puts `object` in, if `may_replace` says so of what it takes the place of; says whether it did.
    pub(crate) fn insert_if(&self, object: &Arc<Object>, may_replace: impl FnOnce(&Object) -> bool) -> bool {
        let mut is_in = true;
        self.replace(object.key, |variants| {
            let known = variants.objects.iter().find(|known| known.has_place_of(object));
            is_in = known.is_none_or(|known| may_replace(known));
            is_in.then(|| variants.with(object.clone()))
        });
        is_in
    }

    /// Puts `object`, which was on disk, in, if it is still what is there (`is_current`) and nothing newer is here; answers
    /// what there is of its key then.
    pub(crate) fn insert_loaded(
        &self,
        object: &Arc<Object>,
        is_current: impl FnOnce() -> bool,
    ) -> Option<Arc<Variants>> {
        self.replace(object.key, |variants| {
            let is_known = variants.objects.iter().any(|known| known.has_place_of(object));
            (!is_known && is_current()).then(|| variants.with(object.clone()))
        })
    }

    /// Puts `other`, which is the same, in the place of `object`, if that is still there.
    pub(crate) fn exchange(&self, object: &Arc<Object>, other: Arc<Object>) {
        self.replace(object.key, |variants| {
            variants.objects.iter().any(|known| Arc::ptr_eq(known, object)).then(|| variants.with(other))
        });
    }

    /// Something is there under `key`. Asking does not count as a use.
    pub(crate) fn has(&self, key: ObjectKey) -> bool {
        self.objects.contains_key(&key)
    }

    /// `object` is still there, and nothing came in its place.
    pub(crate) fn holds(&self, object: &Object) -> bool {
        self.find(object.key)
            .is_some_and(|variants| variants.objects.iter().any(|known| known.is_same_as(object)))
    }

    /// Takes `object` out, if it is still there.
    pub(crate) fn remove(&self, object: &Object) {
        self.replace(object.key, |variants| {
            variants.objects.iter().any(|known| known.is_same_as(object)).then(|| variants.without(object))
        });
    }

    /// Takes out what has a body on disk that `is_gone`.
    pub(crate) fn forget_on_disk(&self, key: ObjectKey, is_gone: impl Fn(&DiskBody) -> bool) {
        let has_gone = |object: &Arc<Object>| object.disk_body().is_some_and(|body| is_gone(body));
        self.replace(key, |variants| {
            let gone = variants.objects.iter().find(|object| has_gone(object))?;
            Some(variants.without(gone))
        });
    }

    /// Takes everything under `key` out and says how much it was.
    pub(crate) fn forget(&self, key: ObjectKey) -> usize {
        let mut dropped = 0;
        self.replace(key, |variants| {
            dropped = variants.objects.len();
            (dropped > 0).then(Variants::default)
        });
        dropped
    }

    /// Takes everything out and says how much it was.
    pub(crate) fn forget_everything(&self) -> usize {
        self.objects.iter().map(|(key, _)| self.forget(*key)).sum()
    }

    /// Answers what there is then, if it has changed.
    fn replace(
        &self,
        key: ObjectKey,
        change: impl FnOnce(&Variants) -> Option<Variants>,
    ) -> Option<Arc<Variants>> {
        let _guard = self.locks[key.0 as usize % LOCKS].lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.objects.get(&key).unwrap_or_default();
        let changed = Arc::new(change(&known)?);
        if changed.objects.is_empty() {
            self.objects.invalidate(&key);
        } else {
            self.objects.insert(key, changed.clone());
        }
        known.supersede();
        Some(changed)
    }

    /// Everything that is stored now.
    pub(crate) fn all(&self) -> Vec<Arc<Object>> {
        self.objects.iter().flat_map(|(_, variants)| variants.objects.clone()).collect()
    }

    /// Keys, bytes and evictions so far.
    pub(crate) fn figures(&self) -> StoreFigures {
        self.objects.run_pending_tasks();
        StoreFigures {
            objects: self.objects.entry_count(),
            bytes: self.objects.weighted_size(),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

/// How full the store is.
pub(crate) struct StoreFigures {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) evictions: u64,
}
