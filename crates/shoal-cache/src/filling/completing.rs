//! Completing an object: what is here and what the origin still has, under one validator (RFC 9111 §3.4).

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{Response, StatusCode};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::span::{Segment, Span};
use shoal_policy::cache::storage::{Storage, Stored, Terms};
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::cache::tags::{TAG_FIELDS, read_tags};
use shoal_policy::cache::validation::{continues, is_same_version, merged_fields};
use shoal_policy::failure::Failure;

use super::content_length;
use super::origin_answer::{add_date, judge, next_piece};
use super::question::Completion;
use crate::body::OriginBody;
use crate::clock::now_ms;
use crate::fill::{FillHead, FillSource};
use crate::object::{Object, UNCOPIED};
use crate::portion::Portion;
use crate::seam::UntilClose;
use crate::task::FillTask;
use crate::worker::WorkerCache;

/// `response` carries `span` of the version that `object` is of, whose body has `length` bytes, and nothing else.
pub(super) fn accepts<B>(object: &Object, span: Span, length: u64, response: &Response<B>) -> bool {
    let (fields, range) = (response.headers(), ContentRange::read(response.headers()));
    let is_it = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            range.is_some_and(|range| {
                range.span == span && range.length.is_none_or(|announced| announced == length)
            }) && continues(&object.fields, fields)
        }
        // A range of everything may be answered as if there was none.
        StatusCode::OK => {
            Span::all(length) == Some(span)
                && content_length(fields) == Some(length)
                && is_same_version(&object.fields, fields)
        }
        _ => false,
    };
    is_it && response.extensions().get::<UntilClose>().is_none()
}

impl Completion {
    fn accepts(&self, span: Span, response: &Response<OriginBody>) -> bool {
        accepts(&self.found.object, span, self.length, response)
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
        if !completion.accepts(completion.missing, &response) {
            return Err(response);
        }
        let Some(head) = self.completed_head(task, &completion, &response, request_ms) else {
            return Err(response);
        };
        let most_bytes = self.cache.most_bytes(&task.rule);
        let head = task.fill().begin(head, most_bytes, most_bytes);
        match self.assemble(task, &completion, response.into_body()).await {
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
        let Storage::Store(Stored { terms: owned, without, .. }) =
            judge(task, object.status, &fields, request_ms, response_ms)
        else {
            return None;
        };
        let terms = self.limit(owned, self.cache.placement.owners(fill.key));
        let named = read_tags(self.cache.settings.key_seed, &fill.text, &fields);
        let tags = if named.is_empty() { object.tags().into() } else { named };
        let without = [&without[..], &TAG_FIELDS, &[CONTENT_RANGE, CONTENT_LENGTH]].concat();
        let fields = StoredFields::of(&stored_fields(&fields, &without));
        Some((object.refreshed(object.selecting().clone(), fields, terms, tags, fill.fill_seq()), owned))
    }

    /// Passes on what is here and what comes, in order. `false` = nobody wants it.
    async fn assemble(
        &self,
        task: &FillTask,
        completion: &Completion,
        first: OriginBody,
    ) -> Result<bool, Failure> {
        if let Some(span) = completion.held
            && !self.push_held(task, completion, span).await?
        {
            return Ok(false);
        }
        if !self.push_missing(task, completion.missing, first).await? {
            return Ok(false);
        }
        for segment in &completion.rest {
            let goes_on = match segment {
                Segment::Held(span) => self.push_held(task, completion, *span).await?,
                Segment::Missing(span) => {
                    let body = self.fetch_missing(task, completion, *span).await?;
                    self.push_missing(task, *span, body).await?
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

    /// Passes on a body that has to be as long as `span`.
    async fn push_missing(&self, task: &FillTask, span: Span, mut body: OriginBody) -> Result<bool, Failure> {
        let mut left = span.bytes();
        while let Some(piece) = next_piece(&mut body).await {
            let piece = piece?;
            left = left.checked_sub(piece.len() as u64).ok_or(Failure::UpstreamProtocol)?;
            if !piece.is_empty() && !task.fill().push(piece).await {
                return Ok(false);
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
    ) -> Result<OriginBody, Failure> {
        let mut head = task.head.clone();
        completion.write(span, &mut head.headers);
        self.cells.origin_fetches.count();
        let response = self.fetch.fetch(task.route.clone(), head, None).await?;
        if !completion.accepts(span, &response) {
            if !response.status().is_server_error() {
                self.cache.discard(&completion.found.object);
            }
            return Err(Failure::UpstreamReset);
        }
        Ok(response.into_body())
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
