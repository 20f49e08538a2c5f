//! The objects this node holds in memory, within a budget of bytes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::validation::is_same_version;

use crate::disk::DiskBody;
use crate::object::Object;
use crate::residents::{Resident, Residents};
use crate::variants::Variants;

/// Locks under which the variants of a key are replaced.
const LOCKS: usize = 64;

/// The objects this node holds.
pub(crate) struct Store {
    residents: Residents<Variants>,
    locks: [Mutex<()>; LOCKS],
    evictions: AtomicU64,
    is_closed: AtomicBool,
}

impl Store {
    /// An empty store that holds at most `budget_bytes`.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        Self {
            residents: Residents::new(budget_bytes),
            locks: [const { Mutex::new(()) }; LOCKS],
            evictions: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Bytes of objects that it holds at most.
    pub(crate) const fn budget_bytes(&self) -> u64 {
        self.residents.budget_bytes()
    }

    /// Nothing is here any more, nor ever will be.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        // Whoever began to put something in before has done so now.
        self.locks.iter().for_each(|lock| drop(lock.lock()));
        self.residents.each(|variants| {
            variants.supersede();
            self.residents.remove(variants.key());
        });
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// The variants under `key`, for use; the texts of their keys are still to be compared.
    pub(crate) fn find(&self, key: ObjectKey) -> Option<Variants> {
        self.residents.find(key)
    }

    /// The variants under `key`. That is no use of them.
    pub(crate) fn peek(&self, key: ObjectKey) -> Option<Variants> {
        self.residents.peek(key)
    }

    /// Puts `part` in: as one object with what is known of its version, as long as that `is_valid` and both have no more than
    /// `most_bytes`; else in the place of it, if it `may_replace` that. Returns what is stored now.
    pub(crate) fn add_part(
        &self,
        part: &Arc<Object>,
        most_bytes: u64,
        is_valid: impl Fn(&Object) -> bool,
        may_replace: impl Fn(&Object) -> bool,
    ) -> Arc<Object> {
        let mut stored = part.clone();
        self.replace(part.key, |variants| {
            let known = variants.objects().iter().find(|known| known.has_place_of(part));
            if let Some(known) = known.filter(|known| is_valid(known)) {
                let is_other = !is_same_version(&known.fields, &part.fields);
                if is_other && may_replace(known) {
                    return Some(variants.with(part.clone()));
                }
                if is_other || known.body.is_whole() {
                    stored = known.clone();
                    return None;
                }
                let completed = known.completed(part);
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
        let mut is_in = false;
        self.replace(object.key, |variants| {
            let known = variants.objects().iter().find(|known| known.has_place_of(object));
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
    ) -> Option<Variants> {
        self.replace(object.key, |variants| {
            let is_known = variants.objects().iter().any(|known| known.has_place_of(object));
            (!is_known && is_current()).then(|| variants.with(object.clone()))
        })
    }

    /// Puts `other`, which is the same, in the place of `object`, if that is still there.
    pub(crate) fn exchange(&self, object: &Arc<Object>, other: Arc<Object>) {
        self.replace(object.key, |variants| {
            variants.objects().iter().any(|known| Arc::ptr_eq(known, object)).then(|| variants.with(other))
        });
    }

    /// Something is there under `key`. Asking does not count as a use.
    pub(crate) fn has(&self, key: ObjectKey) -> bool {
        self.residents.has(key)
    }

    /// `object` is still there, and nothing came in its place.
    pub(crate) fn holds(&self, object: &Object) -> bool {
        self.peek(object.key)
            .is_some_and(|variants| variants.objects().iter().any(|known| known.is_same_as(object)))
    }

    /// The object that `part` is a chunk of, or is, as long as that is there and leads to it.
    pub(crate) fn object_of(&self, part: &Arc<Object>) -> Option<Arc<Object>> {
        let Some(of) = part.chunk_of() else { return self.holds(part).then(|| part.clone()) };
        let known = self.peek(of.home)?;
        let leads_to = |object: &&Arc<Object>| object.chunked().is_some_and(|chunked| chunked.leads_to(part));
        known.objects().iter().find(leads_to).cloned()
    }

    /// Takes `object` out, if it is still there.
    pub(crate) fn remove(&self, object: &Object) {
        self.replace(object.key, |variants| {
            variants.objects().iter().any(|known| known.is_same_as(object)).then(|| variants.without(object))
        });
    }

    /// Takes out what has a body on disk that `is_gone`.
    pub(crate) fn forget_on_disk(&self, key: ObjectKey, is_gone: impl Fn(&DiskBody) -> bool) {
        let has_gone = |object: &Arc<Object>| object.disk_body().is_some_and(|body| is_gone(body));
        self.replace(key, |variants| {
            let gone = variants.objects().iter().find(|object| has_gone(object))?;
            Some(variants.without(gone))
        });
    }

    /// Takes everything under `key` out and says how much it was.
    pub(crate) fn forget(&self, key: ObjectKey) -> usize {
        let mut dropped = 0;
        self.replace(key, |variants| {
            dropped = variants.objects().len();
            (dropped > 0).then(Variants::default)
        });
        dropped
    }

    /// Takes everything out and says how much it was.
    pub(crate) fn forget_everything(&self) -> usize {
        let mut forgotten = 0;
        self.residents.each(|variants| forgotten += self.forget(variants.key()));
        forgotten
    }

    /// Answers what there is then, if it has changed.
    fn replace(
        &self,
        key: ObjectKey,
        change: impl FnOnce(&Variants) -> Option<Variants>,
    ) -> Option<Variants> {
        let _guard = self.locks[key.0 as usize % LOCKS].lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed() {
            return None;
        }
        let known = self.peek(key).unwrap_or_default();
        let changed = change(&known)?;
        known.supersede();
        // Whoever finds the old state until it is replaced finds that it is superseded.
        let changed = changed.renewed();
        if changed.objects().is_empty() {
            self.residents.remove(key);
        } else {
            self.residents.insert(changed.clone(), |_| _ = self.evictions.fetch_add(1, Ordering::Relaxed));
        }
        Some(changed)
    }

    /// Everything that is stored now.
    pub(crate) fn all(&self) -> Vec<Arc<Object>> {
        let mut all = Vec::new();
        self.each(|object| all.push(object.clone()));
        all
    }

    /// Looks at everything that is stored now. It does not count as a use.
    pub(crate) fn each(&self, mut look: impl FnMut(&Arc<Object>)) {
        self.residents.each(|variants| variants.objects().iter().for_each(&mut look));
    }

    /// Keys, bytes and evictions so far.
    pub(crate) fn figures(&self) -> StoreFigures {
        StoreFigures {
            objects: self.residents.count(),
            bytes: self.residents.bytes(),
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
