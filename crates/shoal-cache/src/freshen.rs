//! A HEAD that the store cannot answer: the origin is asked, and what is stored hears of the answer (RFC 9111 §4.3.5).

use std::sync::Arc;

use http::header::HeaderMap;
use http::{Method, Request, StatusCode};
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::fill_request::limit_to_shared;
use shoal_policy::cache::key::url_of;
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::reuse::{Freshened, Reuse, Trouble};
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::cache::sources::Hop;
use shoal_policy::cache::storage::{Exchange, Storage, Stored, Terms, judge_storage};
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::cache::tags::{TAG_FIELDS, renewed_tags};
use shoal_policy::cache::validation::{head_confirms, merged_fields, remove_conditions};
use shoal_policy::failure::Failure;

use crate::boarding::Came;
use crate::chunks::Cut;
use crate::clock::now_ms;
use crate::fill::{Fill, Joined};
use crate::lookup::{Found, Probe};
use crate::object::Object;
use crate::seam::{Answer, CacheRequest, Change};
use crate::task::{Unshared, counted_uri};
use crate::worker::WorkerCache;

/// A 200 to HEAD, and when it was asked for and received, Unix milliseconds.
struct Heard<'a> {
    fields: &'a HeaderMap,
    request_ms: u64,
    response_ms: u64,
}

impl WorkerCache {
    /// Asks the origin with HEAD, since `found` may not be used just like that.
    pub(crate) async fn ask_with_head(
        &self,
        request: &CacheRequest<'_>,
        probe: &Probe,
        found: &Found,
    ) -> Answer {
        // Whoever changes the resource meanwhile finds this among the running fills, and spoils it.
        let Joined::New(reader) =
            self.cache.flights.begin_alone(self.cache.new_fill(probe.key, &probe.text, Hop::Ingress))
        else {
            return Answer::Failed(Failure::Overflow);
        };
        let landing = self.cache.flights.landing(reader.fill());
        let mut asked = Request::new(());
        *asked.method_mut() = Method::HEAD;
        *asked.uri_mut() = counted_uri(&request.head.uri, request.rule);
        *asked.version_mut() = request.head.version;
        *asked.headers_mut() = request.head.headers.clone();
        remove_conditions(asked.headers_mut());
        limit_to_shared(asked.headers_mut(), request.rule, &probe.selectors);
        self.cells.origin_fetches.count();
        let request_ms = now_ms();
        let (route, trace) = (request.route.clone(), request.trace.cloned());
        let response = match self.fetch.fetch(route, asked.into_parts().0, trace).await {
            Ok(response) => response,
            Err(failure) => return self.bridge_or_fail(request, probe, found, failure),
        };
        let fields = &request.head.headers;
        if self.cache.may_serve(
            request.rule,
            found,
            fields,
            &probe.wishes,
            Trouble::Status(response.status()),
        ) {
            self.cells.stale.count();
            let came = Came { answered: Some(response.status().as_u16()), is_collapsed: false };
            return self.respond_asked(request, probe, &found.object, &Cut::whole(), came);
        }
        if response.status() == StatusCode::OK {
            let heard = Heard { fields: response.headers(), request_ms, response_ms: now_ms() };
            if self.hear(request, probe, landing.fill(), &heard) {
                // Other nodes have what is not the newest, too, and would go on using it.
                self.cache.tell_everywhere(vec![Change { key: probe.key, url: None }]).await;
            }
        }
        Answer::Response(self.pass_on(request, probe, Unshared { response, why: None }))
    }

    fn bridge_or_fail(
        &self,
        request: &CacheRequest<'_>,
        probe: &Probe,
        found: &Found,
        failure: Failure,
    ) -> Answer {
        let fields = &request.head.headers;
        if self.cache.may_serve(request.rule, found, fields, &probe.wishes, Trouble::Failure(failure)) {
            self.cells.stale.count();
            let came = Came { answered: None, is_collapsed: false };
            return self.respond_asked(request, probe, &found.object, &Cut::whole(), came);
        }
        let may_be_purged = failure.is_disconnect() && found.reuse == Reuse::Unverified;
        Answer::Failed(if may_be_purged { Failure::Unverified } else { failure })
    }

    /// Brings every stored response that the request chooses up to date, or makes it stale where it is another version. Says
    /// whether one was fresh that is.
    fn hear(&self, request: &CacheRequest<'_>, probe: &Probe, fill: &Arc<Fill>, heard: &Heard<'_>) -> bool {
        let Some(variants) = self.cache.store.find(probe.key) else { return false };
        let mut was_fresh = false;
        let chosen = variants.objects().iter().filter(|object| {
            *object.text == *probe.text
                && object.status == StatusCode::OK
                && (object.body.is_whole() || object.chunked().is_some())
                && object.selecting().matches(&request.head.headers)
        });
        for object in chosen {
            // What was purged must not come back; what may have been is not made better by a HEAD.
            if self.cache.purges.check(object) != Some(Freshened::Untouched) {
                continue;
            }
            if object.body.length().is_some_and(|length| head_confirms(&object.fields, length, heard.fields))
            {
                self.freshen(request, probe, object, fill, heard);
            } else {
                was_fresh |= object.terms.is_fresh(heard.response_ms);
                let lifetime_ms = object.terms.lifetime_ms.min(object.terms.age_ms(heard.response_ms));
                let terms = Terms { lifetime_ms, ..object.terms };
                let (selecting, fields) = (object.selecting().clone(), object.fields.clone());
                self.cache.keep(
                    object.refreshed(selecting, fields, terms, object.tags().into(), object.fill_seq),
                    fill,
                );
            }
        }
        was_fresh
    }

    /// The object is what the origin has: it lives on with the fields and under the terms of now.
    fn freshen(
        &self,
        request: &CacheRequest<'_>,
        probe: &Probe,
        object: &Arc<Object>,
        fill: &Arc<Fill>,
        heard: &Heard<'_>,
    ) {
        let fields = merged_fields(object.fields.to_map(heard.fields.len()), heard.fields);
        let exchange = Exchange {
            method: &Method::GET,
            request: &request.head.headers,
            url: url_of(&probe.text),
            wishes: Wishes { no_store: probe.wishes.no_store, ..Wishes::default() },
            status: object.status,
            response: &fields,
            request_ms: heard.request_ms,
            response_ms: heard.response_ms,
            rule: request.rule,
        };
        let seed = self.cache.settings.key_seed;
        let tags = renewed_tags(seed, &probe.text, object.tags(), &fields, heard.fields);
        match judge_storage(&exchange).with_tags(&tags) {
            Storage::Store(Stored { terms, selectors, without }) => {
                let fields = stored_fields(&fields, &[&without[..], &TAG_FIELDS].concat());
                // The answer is that to this request, whatever else had been asked for before.
                let selecting = match object.is_chosen_by(&selectors) {
                    true => object.selecting().clone(),
                    false => Selecting::of(&selectors, &request.head.headers),
                };
                let fields = StoredFields::of(&fields);
                let refreshed = object.refreshed(selecting, fields, terms, tags, fill.fill_seq());
                if !refreshed.has_place_of(object) {
                    self.cache.discard(object);
                }
                self.cache.keep(refreshed, fill);
            }
            Storage::Refuse(Refusal::RequestNoStore) => {}
            Storage::Refuse(_) => self.cache.discard(object),
        }
    }
}
