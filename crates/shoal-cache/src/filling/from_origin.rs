//! The origin's half of a fill: what is asked, and what becomes of the answer.

use std::rc::Rc;
use std::time::Instant;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use shoal_policy::cache::chunks::CHUNK_BYTES;
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::early::spread_lifetime_ms;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::fill_request::limit_to_shared;
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::reuse::Trouble;
use shoal_policy::cache::selecting::{Selecting, Selector};
use shoal_policy::cache::span::Span;
use shoal_policy::cache::storage::{Storage, Stored, Terms};
use shoal_policy::cache::tags::{TAG_FIELDS, read_tags};
use shoal_policy::cache::validation::{confirms, confirms_tags, strong_validator};
use shoal_policy::cache::vary::Vary;
use shoal_policy::failure::Failure;

use super::describing::is_of_chunks;
use super::in_chunks::Reading;
use super::origin_answer::{add_date, judge, next_piece, speaks_of_part};
use super::question::Question;
use super::{Step, after, broken, content_length, object};
use crate::body::OriginBody;
use crate::chunks::is_kept_in_chunks;
use crate::clock::now_ms;
use crate::fill::{FillHead, FillSource};
use crate::lookup::{Found, known_selectors};
use crate::object::UNCOPIED;
use crate::orphans::ORPHAN_MS;
use crate::portion::Portion;
use crate::seam::UntilClose;
use crate::search::Home;
use crate::stored_body::StoredBody;
use crate::task::{Asker, FillTask, Unshared};
use crate::worker::WorkerCache;

impl WorkerCache {
    /// Asks the origin: about what is stored, for what that lacks, or for what downstream asked for.
    pub(super) async fn fill_from_origin(self: &Rc<Self>, task: &mut FillTask, owners: Owners) {
        if self.await_description(task).await == Step::Done {
            return;
        }
        if task.found.as_ref().is_some_and(Found::reads_chunks) {
            match self.read_chunks(task).await {
                Reading::Done => return,
                Reading::Changed(Some((response, request_ms))) if is_of_use(task, &response) => {
                    return self.take_from_origin(task, owners, response, request_ms).await;
                }
                Reading::Changed(_) => self.forget_found(task),
            }
        }
        // Held until the body is there; who asks for himself alone takes his body with him.
        task.under_way = match self.cache.fill_limits.begin(&task.route.upstream).await {
            Ok(under_way) => Some(under_way),
            Err(failure) => return self.decline(task, failure),
        };
        let mut unlimited = self.limit_request(task);
        loop {
            task.fill().ask(self.cache.purges.applied(), now_ms());
            // What was purged since the lookup must not come back by a 304 or as a part of something new.
            let is_valid = |found: &Found| self.cache.purges.check(&found.object).is_some();
            let question = match &task.found {
                Some(found) if is_valid(found) => Question::of(task),
                Some(_) => Question::Plain,
                None => self.first_question(task),
            };
            let mut head = task.head.clone();
            question.write(&task.asked_tags, &mut head.headers);
            self.cells.origin_fetches.count();
            let request_ms = now_ms();
            let asked = Instant::now();
            let fetched = self.fetch.fetch(task.route.clone(), head, task.trace.clone()).await;
            self.cells.origin_times.note(asked.elapsed());
            task.fill().note_answer(fetched.as_ref().ok().map(Response::status));
            let response = match fetched {
                Ok(response) => response,
                Err(failure) => return self.fail_or_serve_stale(task, failure),
            };
            let status = response.status();
            let response = match question {
                Question::Validation(found) if status == StatusCode::NOT_MODIFIED => {
                    if confirms(&found.object.fields, response.headers()) {
                        return self.refresh(task, &found, owners, response, request_ms);
                    }
                    if confirms_tags(&task.asked_tags, response.headers()) {
                        return self.hand_over(task, Unshared { response, why: None }, false);
                    }
                    // A 304 about something that is not stored: ask without conditions.
                    task.found = None;
                    continue;
                }
                Question::Completion(completion) => {
                    let found = completion.found.object.clone();
                    match self.complete(task, completion, response, request_ms).await {
                        Ok(()) => return,
                        Err(response) if !speaks_of_part(status) => response,
                        Err(_) => {
                            // What is here and what comes do not belong together.
                            self.cache.discard(&found);
                            task.found = None;
                            continue;
                        }
                    }
                }
                Question::Wide(_)
                    if status == StatusCode::PARTIAL_CONTENT
                        && !is_of_chunks(task, &response, request_ms) =>
                {
                    // It is not kept in chunks: what is asked for is enough, and the others have nothing to wait for.
                    self.leave_whole(task);
                    task.description = None;
                    continue;
                }
                Question::Validation(_) | Question::Wide(_) | Question::Plain => response,
            };
            if let Some(fields) = unlimited.take()
                && let Vary::Fields(names) = Vary::read(response.headers())
                && names.iter().any(|name| fields.contains_key(name) && !task.head.headers.contains_key(name))
            {
                // The response was chosen by what the origin was not told.
                let selectors: Vec<Selector> = names.into_iter().map(Selector::from).collect();
                task.head.headers = fields;
                limit_to_shared(&mut task.head.headers, &task.rule, &selectors);
                continue;
            }
            return self.take_from_origin(task, owners, response, request_ms).await;
        }
    }

    /// The origin is not asked: it has enough to do.
    fn decline(&self, task: &FillTask, failure: Failure) {
        let trouble = Trouble::Status(StatusCode::SERVICE_UNAVAILABLE);
        match &task.found {
            Some(found)
                if self.cache.may_serve(&task.rule, found, &task.head.headers, &task.wishes, trouble) =>
            {
                self.bridge(task, found, trouble);
            }
            Some(_) | None => task.fill().fail(failure),
        }
    }

    /// Takes off what the origin is not to know for a response that is shared, and gives back what there was.
    fn limit_request(&self, task: &mut FillTask) -> Option<HeaderMap> {
        if task.rule.fill_fields.is_none() && task.rule.key.cookies.is_empty() {
            return None;
        }
        let variants = self.cache.store.find(task.fill().key);
        let known = variants.map(|variants| known_selectors(&variants, task.fill().text.as_bytes()));
        let unlimited = task.head.headers.clone();
        limit_to_shared(&mut task.head.headers, &task.rule, &known.unwrap_or_default());
        Some(unlimited)
    }

    /// An answer to what downstream asked for: stored while it streams, or handed to the request that began the fill.
    async fn take_from_origin(
        self: &Rc<Self>,
        task: &mut FillTask,
        owners: Owners,
        mut response: Response<OriginBody>,
        request_ms: u64,
    ) {
        if let Some(found) = &task.found {
            let trouble = Trouble::Status(response.status());
            if self.cache.may_serve(&task.rule, found, &task.head.headers, &task.wishes, trouble) {
                return self.bridge(task, found, trouble);
            }
            // A part may belong to what is here: that shows when it is stored.
            if !response.status().is_server_error() && response.status() != StatusCode::PARTIAL_CONTENT {
                self.cache.discard(&found.object);
            }
        }
        let response_ms = now_ms();
        add_date(response.headers_mut(), response_ms);
        if response.extensions().get::<UntilClose>().is_some() {
            // What is cut short must not become an object, and here nobody could tell.
            return self.refuse(task, response, Refusal::UntilClose);
        }
        let storage = judge(task, response.status(), response.headers(), request_ms, response_ms);
        let is_partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let part = is_partial.then(|| ContentRange::read(response.headers())).flatten();
        let length = match part {
            Some(part) => Some(part.span.bytes()),
            None => response.body().size_hint().exact().or_else(|| content_length(response.headers())),
        };
        let status = if part.is_some() { StatusCode::OK } else { response.status() };
        let chunked_length = part
            .map_or(length, |part| part.length)
            .filter(|length| is_kept_in_chunks(&task.rule, status, response.headers(), *length))
            .filter(|_| part.is_none() || !self.is_left_whole(task));
        // A part of what is too large to be stored is not stored, either.
        let whole_length = part.map_or(length, |part| part.length.or(length));
        let most_bytes = self.cache.most_bytes(&task.rule);
        let stored = match storage {
            Storage::Store(stored) if chunked_length.is_some() => stored,
            Storage::Store(stored) if whole_length.is_none_or(|length| length <= most_bytes) => stored,
            Storage::Store(_) => {
                // Something that large does not take the detour over another node.
                if task.asker != Asker::Downstream {
                    task.own = None;
                }
                return self.refuse(task, response, Refusal::TooLarge);
            }
            Storage::Refuse(refusal) => return self.refuse(task, response, refusal),
        };
        let (home, owners) = match self.home(task, response.headers()) {
            Home::Here => (None, owners),
            Home::Elsewhere(key, text) => (Some((key, text)), self.cache.placement.owners(key)),
            // It says that it is not for what else was asked for under this key.
            Home::Nowhere => return self.refuse(task, response, Refusal::Query),
        };
        let mut head = self.origin_head(task, stored, &response, length, part, owners);
        head.home = home;
        if let Some(length) = chunked_length {
            return self.take_in_chunks(task, head, length, response.into_body(), UNCOPIED).await;
        }
        // It says no more about what others want to know than they find out themselves.
        task.description = None;
        let head = task.fill().begin(head, most_bytes, most_bytes);
        if self.stream_from_origin(task, &head, response.into_body(), 0).await {
            self.finish(task, &head, UNCOPIED);
        }
    }

    pub(super) fn origin_head(
        &self,
        task: &FillTask,
        stored: Stored,
        response: &Response<OriginBody>,
        length: Option<u64>,
        part: Option<ContentRange>,
        owners: Owners,
    ) -> FillHead {
        let fill = task.fill();
        let Stored { terms: mut owned, selectors, without } = stored;
        if owners.includes(self.cache.settings.node) {
            self.spread(task, &mut owned);
        }
        let terms = self.limit(owned, owners);
        let has_own = without.iter().any(|name| response.headers().contains_key(name));
        // A part is an incomplete 200 (RFC 9111 §3.3): what it says of itself is not for the whole.
        let of_part = if part.is_some() { &[CONTENT_RANGE, CONTENT_LENGTH][..] } else { &[] };
        let own_without = [&TAG_FIELDS, of_part].concat();
        let without = [&without[..], &own_without].concat();
        let fields = stored_fields(response.headers(), &without);
        FillHead {
            status: if part.is_some() { StatusCode::OK } else { response.status() },
            fields,
            own_fields: has_own.then(|| stored_fields(response.headers(), &own_without)),
            terms,
            home: None,
            orphan_of: (terms != owned).then_some(owned),
            selecting: self.selecting(task, selectors),
            tags: read_tags(self.cache.settings.key_seed, &fill.text, response.headers()),
            fill_seq: fill.fill_seq(),
            checked_seq: fill.fill_seq(),
            length,
            part,
            answered: response.status(),
            is_shareable: terms.is_fresh(terms.response_ms),
            is_stored: true,
            source: FillSource::Origin,
            chunked: None,
        }
    }

    /// What is stored on a node that does not own it is an orphan, and does not live for long.
    pub(super) fn limit(&self, terms: Terms, owners: Owners) -> Terms {
        if owners.includes(self.cache.settings.node) {
            return terms;
        }
        let lifetime_ms = terms.lifetime_ms.min(terms.initial_age_ms.saturating_add(ORPHAN_MS));
        Terms { lifetime_ms, stale_while_revalidate_ms: 0, ..terms }
    }

    /// Objects that come together do not all expire together.
    pub(super) fn spread(&self, task: &FillTask, terms: &mut Terms) {
        if task.rule.early_refresh {
            terms.lifetime_ms = spread_lifetime_ms(terms, self.entropy.draw());
        }
    }

    /// What chose a response. One that does not say was chosen by what others of its URL say (RFC 9111 §4.1).
    pub(super) fn selecting(&self, task: &FillTask, mut selectors: Vec<Selector>) -> Selecting {
        let fill = task.fill();
        if selectors.is_empty()
            && let Some(variants) = self.cache.store.find(fill.key)
        {
            selectors = known_selectors(&variants, fill.text.as_bytes());
        }
        Selecting::of(&selectors, &task.head.headers)
    }

    /// Reads the body to its end, without its first `skip` bytes.
    pub(super) async fn stream_from_origin(
        &self,
        task: &FillTask,
        head: &FillHead,
        mut body: OriginBody,
        mut skip: u64,
    ) -> bool {
        let fill = task.fill();
        while let Some(piece) = next_piece(&mut body).await {
            match piece {
                Ok(piece) => {
                    let piece = after(piece, &mut skip);
                    if !piece.is_empty() && !fill.push(piece).await {
                        return false;
                    }
                }
                Err(failure) => {
                    self.break_off(task, head, failure);
                    return false;
                }
            }
        }
        self.check_length(task, head)
    }

    /// The body broke off. What has come is kept as a part, if the rest can be asked for under a strong validator and it is
    /// known how much that is (RFC 9111 §3.3).
    pub(super) fn break_off(&self, task: &FillTask, head: &FillHead, failure: Failure) {
        let fill = task.fill();
        let is_kept = head.is_stored
            && matches!(head.source, FillSource::Origin)
            && strong_validator(&head.fields).is_some();
        if is_kept
            && let Some(part) = head.received(fill.received_bytes())
            && let Some(pieces) = fill.pieces()
        {
            self.cache.keep(object(task, head, StoredBody::part(part, &pieces), UNCOPIED, None), fill);
        }
        fill.fail(failure);
    }

    /// Goes on where a body broke off, if the origin still has the same version.
    pub(super) async fn continue_from_origin(&self, task: &FillTask, head: &FillHead) -> bool {
        let broken = broken(task, head);
        let mut request = task.head.clone();
        if broken.ask(&mut request.headers) {
            self.cells.origin_fetches.count();
            if let Ok(response) = self.fetch.fetch(task.route.clone(), request, None).await
                && response.extensions().get::<UntilClose>().is_none()
                && let Some(skip) = broken.continued_by(response.status(), response.headers())
            {
                return self.stream_from_origin(task, head, response.into_body(), skip).await;
            }
        }
        task.fill().fail(Failure::UpstreamReset);
        false
    }
}

/// The answer, which is not about what was asked for, is worth taking: what is wanted of it comes soon.
fn is_of_use(task: &FillTask, response: &Response<OriginBody>) -> bool {
    let begin = match &task.portion {
        Portion::Part { range, .. } => {
            content_length(response.headers()).and_then(|length| range.within(length))
        }
        Portion::Whole | Portion::Several | Portion::Description => Some(Span { first: 0, last: 0 }),
    };
    !speaks_of_part(response.status())
        && (!response.status().is_success() || begin.is_some_and(|span| span.first < CHUNK_BYTES))
}
