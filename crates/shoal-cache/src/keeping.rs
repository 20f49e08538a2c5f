//! What becomes of what comes in, and of what is used: the store, the disk, the second copy.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use shoal_model::site::Replicate;
use shoal_policy::cache::chunks::{Run, first_missing};
use shoal_policy::cache::fields::Fields;
use shoal_policy::cache::keeping::{Writing, judge_writing};
use shoal_policy::cache::key::url_of;
use shoal_policy::cache::search::NO_VARY_SEARCH;
use shoal_policy::cache::trust::Begun;

use crate::chunks::{Chunked, Cut, have_same_chunks};
use crate::clock::now_ms;
use crate::fill::Fill;
use crate::lookup::{Found, Wanted};
use crate::node::Cache;
use crate::object::Object;
use crate::peer::replicas::Parcel;

/// Larger objects are copied on their second hit, bytes.
const REPLICATE_AT_ONCE: u64 = 256 * 1024;

impl Cache {
    /// Stores what a fill brought in, unless the resource changed meanwhile or something newer is here. A part joins what is
    /// known of its version, and an object in chunks takes over those that are. Returns what is stored now, or would be.
    pub(crate) fn keep(&self, object: Arc<Object>, fill: &Fill) -> Arc<Object> {
        // An invalidation of what the object is kept as does not reach a fill for something else.
        let key = object.key;
        let came = object.clone();
        let is_changed = || {
            fill.is_spoilt()
                || (key != fill.key && self.changed_since(key, fill.asked_ms()))
                || self.is_overtaken_by_equal(&came, fill)
        };
        if is_changed() {
            return object;
        }
        // A slow body ends after another one that was begun later.
        let may_replace =
            |known: &Object| self.purges.rank(&object).may_replace(self.purges.rank(known), now_ms());
        let object = if object.body.is_whole() {
            if !self.store.insert_if(&object, may_replace) {
                return object;
            }
            object
        } else {
            let most_bytes = self.settings.ram_bytes / 2;
            // What a peer gave may come from after a purge that is still to be heard of here.
            let applied = self.purges.applied();
            let is_valid = |known: &Object| object.fill_seq <= applied && self.purges.check(known).is_some();
            self.store.add_part(&object, most_bytes, is_valid, may_replace)
        };
        // An invalidation between the two lines above has not seen it.
        if is_changed() {
            self.store.remove(&object);
            return object;
        }
        self.ensure_copy(&object);
        self.write(&object, is_changed);
        object
    }

    /// Other URLs may be answered from `object`, and one of them, nobody here knew which, has changed since the origin was
    /// asked for it. What a peer gives is as old as it says: that is seen to when it is used.
    fn is_overtaken_by_equal(&self, object: &Object, fill: &Fill) -> bool {
        object.fields.line(&NO_VARY_SEARCH).is_some()
            && matches!(fill.begun(), Begun::At(asked)
                if asked.wall_ms <= self.search.last_change_ms(url_of(&object.text).as_bytes()))
    }

    /// Stores an object that lies in chunks, and returns it with the chunks that are known of its version. Of another
    /// version nothing is taken over, whatever is stored.
    pub(crate) fn keep_chunked(&self, object: Arc<Object>, fill: &Fill) -> Arc<Object> {
        let stored = self.keep(object.clone(), fill);
        if have_same_chunks(&stored, &object) { stored } else { object }
    }

    /// Stores a chunk.
    pub(crate) fn keep_chunk(&self, chunk: &Arc<Object>) {
        self.store.insert_if(chunk, |_| true);
        self.ensure_copy(chunk);
        self.ensure_on_disk(chunk, || self.store.object_of(chunk).is_none());
    }

    /// The first chunks of what is wanted that are neither in memory nor on disk.
    pub(crate) fn missing_chunks(&self, wanted: &Wanted) -> Option<Run> {
        let chunked = wanted.object.chunked()?;
        first_missing(Run::around(wanted.span), |number| self.has_chunk(chunked, number))
    }

    /// All that a request with these `fields` asks for of `found` is here, in whatever form.
    pub(crate) fn has_all_of(&self, found: &Found, fields: &HeaderMap) -> bool {
        let is_here = |wanted| self.missing_chunks(&wanted).is_none();
        found.suffices() || found.wanted_of_chunks(fields).is_some_and(is_here)
    }

    /// The chunk is in memory or on disk.
    pub(crate) fn has_chunk(&self, chunked: &Chunked, number: u64) -> bool {
        let is_on_disk = |key| self.disk.as_ref().is_some_and(|disk| disk.has(key));
        chunked.peek(number).is_some() || is_on_disk(chunked.key(number))
    }

    /// An answer is `cut` from `object`: that is a use, and may be the one that makes it worth a copy, or a place on disk.
    pub(crate) fn use_cut(&self, object: &Arc<Object>, cut: &Cut, now_ms: u64) {
        for used in std::iter::once(object).chain(cut.chunks()) {
            self.use_object(used, now_ms);
        }
    }

    /// An answer has some of `object`, which may be a chunk.
    pub(crate) fn use_object(&self, object: &Arc<Object>, now_ms: u64) {
        object.hits.fetch_add(1, Ordering::Relaxed);
        object.used_ms.store(now_ms, Ordering::Relaxed);
        self.ensure_copy(object);
        // An invalidation between the lookup and now has not seen it.
        self.ensure_on_disk(object, || self.changed_since(object.home(), object.terms.response_ms));
    }

    /// Writes an object that has just been stored, if it is worth it; what the disk had in its place goes in any case.
    /// `is_changed` is asked when it is on its way: an invalidation before that has not seen it.
    pub(crate) fn write(&self, object: &Arc<Object>, is_changed: impl FnOnce() -> bool) {
        let Some(disk) = &self.disk else { return };
        if object.disk.is_seen_to.load(Ordering::Relaxed) {
            // A body that is on disk stays where it is: after a restart, the object is as old as it was written. Unless it
            // is known to be worth less since.
            if disk.outlives(object) {
                disk.forget_variant(object);
            }
        } else if !self.ensure_on_disk(object, is_changed) {
            disk.forget_variant(object);
        }
    }

    /// Sees to it that an object of the store is written, once it is worth it. Says whether it is on its way.
    pub(crate) fn ensure_on_disk(&self, object: &Arc<Object>, is_changed: impl FnOnce() -> bool) -> bool {
        let is_part = !object.body.is_whole() && object.chunked().is_none();
        let is_seen_to = object.disk.is_seen_to.load(Ordering::Relaxed) || is_part;
        let Some(disk) = self.disk.as_ref().filter(|_| !is_seen_to) else { return false };
        let hits = object.hits.load(Ordering::Relaxed).into();
        let most_bytes = disk.most_object_bytes();
        let is_offered =
            match judge_writing(object.body_bytes, most_bytes, hits, object.useless_at_ms(), now_ms()) {
                Writing::Now if self.placement.owners(object.home()).includes(self.settings.node) => {
                    let is_taken = disk.offer(object.clone());
                    object.disk.is_seen_to.store(is_taken, Ordering::Relaxed);
                    is_taken
                }
                Writing::Now | Writing::Never => {
                    object.disk.is_seen_to.store(true, Ordering::Relaxed);
                    false
                }
                Writing::OnNextHit => false,
            };
        if is_offered && is_changed() {
            disk.forget(object.key);
        }
        is_offered
    }

    /// Takes out an object that is not to be used any more.
    pub(crate) fn discard(&self, object: &Object) {
        if let Some(disk) = &self.disk {
            disk.forget_variant(object);
        }
        self.store.remove(object);
    }

    /// Sees to it that the other owner has a copy, if this node is an owner and the object, or chunk, is worth it.
    pub(crate) fn ensure_copy(&self, object: &Arc<Object>) {
        let placement_id = self.placement.id();
        if object.copied_under.load(Ordering::Relaxed) == placement_id
            || !object.is_copyable()
            || !is_worth_a_copy(object)
        {
            return;
        }
        let owners = self.placement.owners(object.home());
        if owners.includes(self.settings.node)
            && let Some(other) = owners.other_than(self.settings.node)
            && self.replicas.offer(Parcel { object: object.clone(), terms: None, peer: other })
        {
            object.copied_under.store(placement_id, Ordering::Relaxed);
        }
    }
}

fn is_worth_a_copy(object: &Object) -> bool {
    match object.replicate {
        Replicate::Always => true,
        Replicate::Never => false,
        Replicate::Auto => object.body_bytes <= REPLICATE_AT_ONCE || object.hits.load(Ordering::Relaxed) >= 2,
    }
}
