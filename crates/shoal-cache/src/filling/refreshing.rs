//! A 304: what is stored lives on under the terms of now.

use std::sync::Arc;

use http::{HeaderMap, Response};
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::storage::{Storage, Stored, Terms};
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::cache::tags::{TAG_FIELDS, renewed_tags};
use shoal_policy::cache::validation::{confirms_as_well, merged_fields};

use super::origin_answer::{add_date, judge};
use crate::body::OriginBody;
use crate::clock::now_ms;
use crate::lookup::Found;
use crate::object::Object;
use crate::task::FillTask;
use crate::worker::WorkerCache;

impl WorkerCache {
    /// The origin confirms the object.
    pub(super) fn refresh(
        &self,
        task: &FillTask,
        found: &Found,
        owners: Owners,
        response: Response<OriginBody>,
        request_ms: u64,
    ) {
        let response_ms = now_ms();
        let object = &found.object;
        let fill = task.fill();
        let mut not_modified = response.into_parts().0.headers;
        add_date(&mut not_modified, response_ms);
        let fields = merged_fields(object.fields.to_map(not_modified.len()), &not_modified);
        let seed = self.cache.settings.key_seed;
        let tags = renewed_tags(seed, &fill.text, object.tags(), &fields, &not_modified);
        let storage = judge(task, object.status, &fields, request_ms, response_ms).with_tags(&tags);
        match storage {
            Storage::Store(Stored { mut terms, selectors, without }) => {
                if owners.includes(self.cache.settings.node) {
                    self.spread(task, &mut terms);
                }
                let terms = self.limit(terms, owners);
                // What a 304 says to one request is not for the next one, either.
                let fields = StoredFields::of(&stored_fields(&fields, &[&without[..], &TAG_FIELDS].concat()));
                let selecting = self.selecting(task, selectors);
                let refreshed = object.refreshed(selecting, fields, terms, tags, fill.fill_seq());
                if !refreshed.has_place_of(object) {
                    self.cache.discard(object);
                }
                self.cache.keep(refreshed.clone(), fill);
                self.refresh_others(task, &refreshed, &not_modified, request_ms);
                fill.resolve(refreshed);
            }
            // It is good for this one request, and for no other.
            Storage::Refuse(refusal) => {
                // What this request wants is no reason for the others.
                if refusal != Refusal::RequestNoStore {
                    self.cache.discard(object);
                }
                let fields = StoredFields::of(&stored_fields(&fields, &TAG_FIELDS));
                let terms = Terms { response_ms, initial_age_ms: 0, always_validate: true, ..object.terms };
                let selecting = object.selecting().clone();
                fill.resolve(object.refreshed(selecting, fields, terms, tags, fill.fill_seq()));
            }
        }
    }

    /// The 304 about `refreshed` speaks of all variants of the same version (RFC 9111 §4.3.4).
    fn refresh_others(&self, task: &FillTask, refreshed: &Object, not_modified: &HeaderMap, request_ms: u64) {
        let fill = task.fill();
        let Some(variants) = self.cache.store.find(fill.key) else { return };
        let speaks_of = |other: &&Arc<Object>| {
            other.text == fill.text
                && !other.has_place_of(refreshed)
                && confirms_as_well(&other.fields, not_modified)
                && self.cache.purges.check(other).is_some()
        };
        for other in variants.objects().iter().filter(speaks_of) {
            let fields = merged_fields(other.fields.to_map(not_modified.len()), not_modified);
            let response_ms = refreshed.terms.response_ms;
            let storage = judge(task, other.status, &fields, request_ms, response_ms);
            let seed = self.cache.settings.key_seed;
            let tags = renewed_tags(seed, &fill.text, other.tags(), &fields, not_modified);
            match storage.with_tags(&tags) {
                Storage::Store(Stored { terms, selectors, without }) if other.is_chosen_by(&selectors) => {
                    let without = [&without[..], &TAG_FIELDS].concat();
                    let fields = StoredFields::of(&stored_fields(&fields, &without));
                    let selecting = other.selecting().clone();
                    self.cache.keep(other.refreshed(selecting, fields, terms, tags, fill.fill_seq()), fill);
                }
                Storage::Store(_) | Storage::Refuse(Refusal::TooManyTags) => self.cache.discard(other),
                Storage::Refuse(_) => {}
            }
        }
    }
}
