//! The origin's half of a fill: what is asked, and what becomes of the answer.

use http::header::{DATE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::reuse::Trouble;
use shoal_policy::cache::storage::{Exchange, Refusal, Storage, Stored, Terms, judge_storage};
use shoal_policy::cache::tags::read_tags;
use shoal_policy::cache::validation::{add_conditions, confirms, has_validator, merged_fields};
use shoal_policy::cache::vary::Selecting;
use shoal_policy::failure::Failure;

use super::{after, content_length, is_same_version};
use crate::body::OriginBody;
use crate::clock::now_ms;
use crate::fill::{FillHead, FillSource};
use crate::lookup::Found;
use crate::object::UNCOPIED;
use crate::seam::UntilClose;
use crate::task::{Asker, FillTask};
use crate::worker::WorkerCache;

/// What is stored on a node that does not own it lives at most this long, milliseconds.
const ORPHAN_MS: u64 = 60_000;
/// Tags are for us, not for downstream.
static TAG_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
];

impl WorkerCache {
    /// Asks the origin: about the object, if there is one to validate, else for the whole.
    pub(super) async fn fill_from_origin(&self, task: &mut FillTask, owners: Owners) {
        let mut validated = task.found.clone().filter(|found| has_validator(&found.object.fields));
        loop {
            let mut head = task.head.clone();
            task.fill().ask(self.cache.purges.applied());
            // What was purged since the lookup must not come back by a 304.
            validated = validated.filter(|found| self.cache.purges.check(&found.object).is_some());
            if let Some(found) = &validated {
                add_conditions(&mut head.headers, &found.object.fields);
            }
            self.cells.origin_fetches.count();
            let request_ms = now_ms();
            let response = match self.fetch.fetch(task.route.clone(), head, task.trace.clone()).await {
                Ok(response) => response,
                Err(failure) => return self.fail_or_serve_stale(task, failure),
            };
            if response.status() == StatusCode::NOT_MODIFIED
                && let Some(found) = validated.take()
            {
                if confirms(&found.object.fields, response.headers()) {
                    return self.refresh(task, &found, response, request_ms);
                }
                // A 304 about something that is not stored: ask for the whole, without conditions.
                continue;
            }
            return self.take_from_origin(task, owners, response, request_ms).await;
        }
    }

    /// A whole response: stored while it streams, or handed to the request that began the fill.
    async fn take_from_origin(
        &self,
        task: &mut FillTask,
        owners: Owners,
        mut response: Response<OriginBody>,
        request_ms: u64,
    ) {
        if let Some(found) = &task.found {
            if self.may_serve(task, found, Trouble::Status(response.status())) {
                self.cells.stale.count();
                return task.fill().resolve(found.object.clone());
            }
            if !response.status().is_server_error() {
                self.cache.store.remove(&found.object);
            }
        }
        let response_ms = now_ms();
        add_date(response.headers_mut(), response_ms);
        if response.extensions().get::<UntilClose>().is_some() {
            // What is cut short must not become an object, and here nobody could tell.
            return self.hand_over(task, response, true);
        }
        let length = response.body().size_hint().exact().or_else(|| content_length(response.headers()));
        let storage =
            judge_storage(&exchange(task, response.status(), response.headers(), request_ms, response_ms));
        let stored = match storage {
            Storage::Store(stored)
                if length.is_none_or(|length| length <= self.cache.most_bytes(&task.rule)) =>
            {
                stored
            }
            Storage::Store(_) => {
                // Something that large does not take the detour over another node.
                if task.asker != Asker::Downstream {
                    task.own = None;
                }
                return self.hand_over(task, response, true);
            }
            Storage::Refuse(refusal) => return self.hand_over(task, response, is_lasting(refusal)),
        };
        let is_owner = owners.includes(self.cache.settings.node);
        let head = self.origin_head(task, stored, &response, length, is_owner);
        let head =
            task.fill().begin(head, self.cache.most_bytes(&task.rule), self.cache.most_bytes(&task.rule));
        if self.stream_from_origin(task, &head, response.into_body(), 0).await {
            self.finish(task, &head, UNCOPIED);
        }
    }

    fn origin_head(
        &self,
        task: &FillTask,
        stored: Stored,
        response: &Response<OriginBody>,
        length: Option<u64>,
        is_owner: bool,
    ) -> FillHead {
        let fill = task.fill();
        let Stored { mut terms, vary, without } = stored;
        if !is_owner {
            terms.lifetime_ms = terms.lifetime_ms.min(terms.initial_age_ms + ORPHAN_MS);
            terms.stale_while_revalidate_ms = 0;
        }
        let has_own = without.iter().any(|name| response.headers().contains_key(name));
        let without = [&without[..], &TAG_FIELDS].concat();
        let fields = stored_fields(response.headers(), &without);
        FillHead {
            status: response.status(),
            fields,
            own_fields: has_own.then(|| stored_fields(response.headers(), &TAG_FIELDS)),
            terms,
            selecting: Selecting::of(&vary, &task.head.headers),
            tags: read_tags(self.cache.settings.key_seed, &fill.text, response.headers()),
            fill_seq: fill.fill_seq(),
            checked_seq: fill.fill_seq(),
            length,
            is_shareable: terms.is_fresh(terms.response_ms),
            is_stored: true,
            source: FillSource::Origin,
        }
    }

    /// Reads the body to its end, without its first `skip` bytes.
    async fn stream_from_origin(
        &self,
        task: &FillTask,
        head: &FillHead,
        mut body: OriginBody,
        mut skip: u64,
    ) -> bool {
        let fill = task.fill();
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(piece)) => {
                    let piece = after(piece, &mut skip);
                    if !piece.is_empty() && !fill.push(piece).await {
                        return false;
                    }
                }
                // Trailers are dropped: they must not become fields of the object.
                Ok(Err(_)) => {}
                Err(failure) => {
                    fill.fail(failure);
                    return false;
                }
            }
        }
        self.check_length(task, head)
    }

    /// Goes on behind the first `skip` bytes, if the origin still has the same version.
    pub(super) async fn continue_from_origin(&self, task: &FillTask, head: &FillHead, skip: u64) -> bool {
        self.cells.origin_fetches.count();
        match self.fetch.fetch(task.route.clone(), task.head.clone(), None).await {
            Ok(response)
                if is_same_version(head, &response)
                    && response.extensions().get::<UntilClose>().is_none() =>
            {
                self.stream_from_origin(task, head, response.into_body(), skip).await
            }
            Ok(_) | Err(_) => {
                task.fill().fail(Failure::UpstreamReset);
                false
            }
        }
    }

    /// A 304: the object lives on under the terms of now.
    fn refresh(&self, task: &FillTask, found: &Found, response: Response<OriginBody>, request_ms: u64) {
        let response_ms = now_ms();
        let object = &found.object;
        let fill = task.fill();
        let mut not_modified = response.into_parts().0.headers;
        add_date(&mut not_modified, response_ms);
        let fields = merged_fields(&object.fields, &not_modified);
        let storage = judge_storage(&exchange(task, object.status, &fields, request_ms, response_ms));
        let named = read_tags(self.cache.settings.key_seed, &fill.text, &fields);
        let tags = if named.is_empty() { object.tags.clone() } else { named };
        match storage {
            Storage::Store(Stored { terms, without, .. }) => {
                // What a 304 says to one request is not for the next one, either.
                let fields = stored_fields(&fields, &[&without[..], &TAG_FIELDS].concat());
                let refreshed = object.refreshed(fields, terms, tags, fill.fill_seq());
                self.cache.keep(refreshed.clone(), fill);
                fill.resolve(refreshed);
            }
            // It is good for this one request, and for no other.
            Storage::Refuse(_) => {
                self.cache.store.remove(object);
                let fields = stored_fields(&fields, &TAG_FIELDS);
                let terms = Terms { response_ms, initial_age_ms: 0, always_validate: true, ..object.terms };
                fill.resolve(object.refreshed(fields, terms, tags, fill.fill_seq()));
            }
        }
    }
}

fn exchange<'a>(
    task: &'a FillTask,
    status: StatusCode,
    response: &'a HeaderMap,
    request_ms: u64,
    response_ms: u64,
) -> Exchange<'a> {
    Exchange {
        method: &task.head.method,
        request: &task.head.headers,
        wishes: Wishes { no_store: task.wishes.no_store, ..Wishes::default() },
        status,
        response,
        request_ms,
        response_ms,
        set_cookie: task.rule.set_cookie,
    }
}

/// The next response will be no more cacheable than this one.
const fn is_lasting(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Status
        | Refusal::NoStore
        | Refusal::Private
        | Refusal::Vary
        | Refusal::SetCookie
        | Refusal::NoLifetime => true,
        // These are about the request.
        Refusal::Method | Refusal::RequestNoStore | Refusal::Authorization => false,
    }
}

/// `Date` is added where the origin sent none (RFC 9110 §6.6.1).
fn add_date(fields: &mut HeaderMap, now_ms: u64) {
    if !fields.contains_key(DATE) {
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now_ms);
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
            fields.insert(DATE, date);
        }
    }
}
