//! Completing an object: what is here and what the origin still has, under one validator (RFC 9111 §3.4).

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{Response, StatusCode};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::span::{Segment, Span};
use shoal_policy::cache::storage::{Storage, Stored, Terms};
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::cache::tags::{TAG_FIELDS, renewed_tags};
use shoal_policy::cache::validation::{continues, is_same_version, merged_fields};
use shoal_policy::failure::Failure;

use super::origin_answer::{add_date, judge, next_piece};
use super::question::Completion;
use super::{after, content_length};
use crate::body::OriginBody;
use crate::clock::now_ms;
use crate::fill::{FillHead, FillSource};
use crate::object::{Object, UNCOPIED};
use crate::portion::Portion;
use crate::seam::UntilClose;
use crate::task::FillTask;
use crate::worker::WorkerCache;

/// Which stretch of a body of `length` bytes `response` carries, if that is of the version that `object` is of.
fn carried<B>(object: &Object, length: u64, response: &Response<B>) -> Option<Span> {
    if response.extensions().get::<UntilClose>().is_some() {
        return None;
    }
    let (fields, range) = (response.headers(), ContentRange::read(response.headers()));
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let of_it = |range: &ContentRange| range.length.is_none_or(|announced| announced == length);
            range.filter(of_it).filter(|_| continues(&object.fields, fields)).map(|range| range.span)
        }
        // A range of everything may be answered as if there was none.
        StatusCode::OK => {
            let is_it = content_length(fields) == Some(length) && is_same_version(&object.fields, fields);
            Span::all(length).filter(|_| is_it)
        }
        _ => None,
    }
}

/// `response` carries `span` of the version that `object` is of, whose body has `length` bytes, and nothing else.
pub(super) fn accepts<B>(object: &Object, span: Span, length: u64, response: &Response<B>) -> bool {
    carried(object, length, response) == Some(span)
}

/// A body that has the bytes of a missing stretch. A server may send more than it was asked for (RFC 9110 §14.2).
struct Missing {
    span: Span,
    /// What the body carries.
    carried: Span,
    body: OriginBody,
}

impl Completion {
    /// What `response` carries, if all of `span` is among it.
    fn carried_with(&self, span: Span, response: &Response<OriginBody>) -> Option<Span> {
        carried(&self.found.object, self.length, response).filter(|carried| carried.contains(span))
    }
}

impl WorkerCache {
    /// Takes the answer to a question for what is missing. Gives it back where it cannot be put together with what is here.
    pub(super) async fn complete(
        &self,
        task: &mut FillTask,
        completion: Completion,
        response: Response<OriginBody>,
        request_ms: u64,
    ) -> Result<(), Response<OriginBody>> {
        let span = completion.missing;
        let Some(carried) = completion.carried_with(span, &response) else { return Err(response) };
        let Some(head) = self.completed_head(task, &completion, &response, request_ms) else {
            return Err(response);
        };
        let most_bytes = self.cache.most_bytes(&task.rule);
        let head = task.fill().begin(head, most_bytes, most_bytes);
        let first = Missing { span, carried, body: response.into_body() };
        match self.assemble(task, &completion, first).await {
            Ok(true) => self.finish(task, &head, UNCOPIED),
            Ok(false) => {}
            Err(failure) => self.break_off(task, &head, failure),
        }
        Ok(())
    }

    /// The head under which the object goes on. `None` = its new fields do not allow that.
    fn completed_head(
        &self,
        task: &FillTask,
        completion: &Completion,
        response: &Response<OriginBody>,
        request_ms: u64,
    ) -> Option<FillHead> {
        let (object, owned) = self.confirmed(task, &completion.found.object, response, request_ms)?;
        let range = ContentRange { span: completion.wanted, length: Some(completion.length) };
        let head = head_of(&object, range, task.portion != Portion::Whole, response.status());
        Some(FillHead { orphan_of: (object.terms != owned).then_some(owned), ..head })
    }

    /// The object, now that the origin has sent some of its version, and the terms on which an owner would keep it. `None` =
    /// its new fields do not allow that.
    pub(super) fn confirmed(
        &self,
        task: &FillTask,
        object: &Object,
        response: &Response<OriginBody>,
        request_ms: u64,
    ) -> Option<(Arc<Object>, Terms)> {
        let fill = task.fill();
        let response_ms = now_ms();
        let mut received = response.headers().clone();
        add_date(&mut received, response_ms);
        let fields = merged_fields(object.fields.to_map(received.len()), &received);
        let seed = self.cache.settings.key_seed;
        let tags = renewed_tags(seed, &fill.text, object.tags(), &fields, &received);
        let storage = judge(task, object.status, &fields, request_ms, response_ms);
        let Storage::Store(Stored { terms: owned, selectors, without }) = storage.with_tags(&tags) else {
            return None;
        };
        if !object.is_chosen_by(&selectors) {
            return None;
        }
        let terms = self.limit(owned, self.cache.placement.owners(fill.key));
        let without = [&without[..], &TAG_FIELDS, &[CONTENT_RANGE, CONTENT_LENGTH]].concat();
        let fields = StoredFields::of(&stored_fields(&fields, &without));
        Some((object.refreshed(object.selecting().clone(), fields, terms, tags, fill.fill_seq()), owned))
    }

    /// Passes on what is here and what comes, in order. `false` = nobody wants it.
    async fn assemble(
        &self,
        task: &FillTask,
        completion: &Completion,
        first: Missing,
    ) -> Result<bool, Failure> {
        if let Some(span) = completion.held
            && !self.push_held(task, completion, span).await?
        {
            return Ok(false);
        }
        if !self.push_missing(task, first).await? {
            return Ok(false);
        }
        for segment in &completion.rest {
            let goes_on = match segment {
                Segment::Held(span) => self.push_held(task, completion, *span).await?,
                Segment::Missing(span) => {
                    let missing = self.fetch_missing(task, completion, *span).await?;
                    self.push_missing(task, missing).await?
                }
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn push_held(&self, task: &FillTask, completion: &Completion, span: Span) -> Result<bool, Failure> {
        let slice = completion.found.object.body.slice(span).ok_or(Failure::Internal)?;
        for piece in slice.pieces(span.bytes()) {
            if !task.fill().push(piece).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes on what is missing. What comes behind it is not waited for.
    async fn push_missing(&self, task: &FillTask, missing: Missing) -> Result<bool, Failure> {
        let Missing { span, carried, mut body } = missing;
        let (mut before, mut left) = (span.first - carried.first, span.bytes());
        while let Some(piece) = next_piece(&mut body).await {
            let mut piece = after(piece?, &mut before);
            if carried.last > span.last {
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            left = left.checked_sub(piece.len() as u64).ok_or(Failure::UpstreamProtocol)?;
            if !piece.is_empty() && !task.fill().push(piece).await {
                return Ok(false);
            }
            if left == 0 && carried.last > span.last {
                break;
            }
        }
        if left == 0 { Ok(true) } else { Err(Failure::UpstreamProtocol) }
    }

    /// The next missing stretch. What has begun is never gone on with by bytes of another version.
    async fn fetch_missing(
        &self,
        task: &FillTask,
        completion: &Completion,
        span: Span,
    ) -> Result<Missing, Failure> {
        let mut head = task.head.clone();
        completion.write(span, &mut head.headers);
        self.cells.origin_fetches.count();
        let response = self.fetch.fetch(task.route.clone(), head, None).await?;
        let Some(carried) = completion.carried_with(span, &response) else {
            if !response.status().is_server_error() {
                self.cache.discard(&completion.found.object);
            }
            return Err(Failure::UpstreamReset);
        };
        Ok(Missing { span, carried, body: response.into_body() })
    }
}

/// The head of an answer with `range` of `object`, which says that it is a part, or that it is the whole. The origin has
/// `answered` so.
pub(super) fn head_of(object: &Object, range: ContentRange, is_part: bool, answered: StatusCode) -> FillHead {
    let mut fields = object.fields.to_map(0);
    if is_part {
        fields.remove(CONTENT_LENGTH);
    } else {
        fields.insert(CONTENT_LENGTH, range.span.bytes().into());
    }
    FillHead {
        status: object.status,
        fields,
        own_fields: None,
        terms: object.terms,
        home: None,
        orphan_of: None,
        selecting: object.selecting().clone(),
        tags: object.tags().into(),
        fill_seq: object.fill_seq,
        checked_seq: object.fill_seq,
        length: Some(range.span.bytes()),
        part: is_part.then_some(range),
        answered,
        is_shareable: object.terms.is_fresh(object.terms.response_ms),
        is_stored: true,
        source: FillSource::Origin,
        chunked: None,
    }
}
