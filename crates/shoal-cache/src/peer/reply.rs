//! What a peer is answered with: the object, or the fields that tell of it where those are enough.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::heat::{HOT_FOR_MS, Heat};
use shoal_policy::cache::range::Extract;
use shoal_policy::cache::status::{CacheStatus, Detail, Forwarded};
use shoal_policy::failure::Failure;

use super::server::PeerRequest;
use super::wire::{self, AnswerKind, InChunks, Meta};
use crate::body::CacheBody;
use crate::chunks::Cut;
use crate::clock::now_ms;
use crate::fill::{FillHead, FillReader, FillSource};
use crate::lookup::Probe;
use crate::node::Cache;
use crate::object::Object;
use crate::respond::{several, source};
use crate::stored_body::StoredBody;
use crate::task::Unshared;

impl PeerRequest {
    /// What is stored.
    pub(super) fn hit(
        &self,
        cache: &Arc<Cache>,
        object: &Arc<Object>,
        cut: &Cut,
        now_ms: u64,
    ) -> Response<CacheBody> {
        // Two that count at once may lose one: an object becomes hot a request later then.
        let heat = Heat(object.heat.load(Ordering::Relaxed)).touched(now_ms);
        object.heat.store(heat.0, Ordering::Relaxed);
        cache.use_cut(object, cut, now_ms);
        let left = object.terms.time_left_ms(now_ms).div_euclid(1000);
        let detail = source(cache.trust(&self.rule, now_ms), object, cut);
        if detail == Detail::LocalDisk {
            cache.cells.disk_hits.count();
        }
        let status = CacheStatus::hit(&cache.settings.name, left, detail);
        let mut response = self.stored(AnswerKind::Hit, object, cut, &status, now_ms);
        if heat.is_hot() {
            response.headers_mut().insert(wire::HOT.clone(), HeaderValue::from(HOT_FOR_MS));
        }
        response
    }

    /// The origin was asked about the object.
    pub(super) fn validated(
        &self,
        cache: &Cache,
        probe: &Probe,
        object: &Object,
        cut: &Cut,
    ) -> Response<CacheBody> {
        let status = CacheStatus::forwarded(&cache.settings.name, probe.why);
        self.stored(AnswerKind::Filling, object, cut, &status, now_ms())
    }

    /// What is asked for of an object: a single part is marked as such, else it is the whole.
    fn stored(
        &self,
        kind: AnswerKind,
        object: &Object,
        cut: &Cut,
        status: &CacheStatus<'_>,
        now_ms: u64,
    ) -> Response<CacheBody> {
        let mut fields = object.fields.to_map(wire::OWN_FIELDS);
        let meta = Meta::of(object.terms, object.tags(), object.fill_seq, &object.checked_seq);
        meta.write(&mut fields, now_ms);
        wire::write_selecting(object.selecting(), &mut fields);
        if let Some(length) = self.told_length(object) {
            leave_body_out(&mut fields, length);
            return respond(kind, object.status, fields, status, CacheBody::empty());
        }
        match (&cut.extract, &object.body) {
            (Extract::Part(span), body) => {
                let response = respond(kind, object.status, fields, status, cut.part_body(object, *span));
                as_part(response, ContentRange { span: *span, length: body.length() })
            }
            (
                Extract::Whole | Extract::Parts(_) | Extract::Unsatisfiable,
                StoredBody::Whole(_) | StoredBody::OnDisk(_),
            )
            | (Extract::Whole, StoredBody::Chunked(_)) => {
                respond(kind, object.status, fields, status, cut.whole_body(object))
            }
            (Extract::Parts(spans), StoredBody::Chunked(_)) if self.is_verbatim => {
                let parts = several(fields, spans, object.body.length(), |span| cut.part_body(object, span));
                let (head, body) = parts.into_parts();
                respond(kind, head.status, head.headers, status, body)
            }
            // Whoever asks does not know better.
            (
                Extract::Whole | Extract::Parts(_) | Extract::Unsatisfiable,
                StoredBody::Spans(_) | StoredBody::Chunked(_),
            ) => bare(AnswerKind::Miss),
        }
    }

    /// Bytes of the body of `object`, if its fields answer, and will do alone.
    pub(super) fn told_length(&self, object: &Object) -> Option<u64> {
        object.told_length(&self.head.method, &self.head.headers).filter(|_| self.is_verbatim)
    }

    /// What is on its way in.
    pub(super) fn filling(
        &self,
        cache: &Cache,
        probe: &Probe,
        head: &FillHead,
        reader: FillReader,
        collapsed: bool,
    ) -> Response<CacheBody> {
        let mut fields = head.fields.clone();
        let meta = Meta {
            terms: head.terms,
            tags: head.tags.clone(),
            fill_seq: head.fill_seq,
            checked_seq: head.checked_seq,
        };
        meta.write(&mut fields, now_ms());
        wire::write_selecting(&head.selecting, &mut fields);
        let (kind, status) = match head.source {
            FillSource::Store(detail) => {
                let left = head.terms.time_left_ms(now_ms()).div_euclid(1000);
                (AnswerKind::Hit, CacheStatus::hit(&cache.settings.name, left, detail))
            }
            FillSource::Origin | FillSource::Peer { .. } => {
                let status = CacheStatus {
                    forwarded_status: Some(head.answered.as_u16()),
                    stored: head.is_stored,
                    collapsed,
                    ..CacheStatus::forwarded(&cache.settings.name, probe.why)
                };
                (AnswerKind::Filling, status)
            }
        };
        let told_length = head.chunked.as_ref().and_then(|object| self.told_length(object));
        let body = match told_length {
            Some(length) => {
                leave_body_out(&mut fields, length);
                CacheBody::empty()
            }
            None => CacheBody::filling(reader, head.length),
        };
        let mut response = respond(kind, head.status, fields, &status, body);
        // The nodes that it came through before this one.
        if let FillSource::Peer { member: Some(member), .. } = &head.source {
            let members = [member.as_bytes(), status.value().as_bytes()].join(&b", "[..]);
            if let Ok(members) = HeaderValue::from_bytes(&members) {
                response.headers_mut().insert(wire::MEMBER.clone(), members);
            }
        }
        match head.part {
            Some(part) if told_length.is_none() => as_part(response, part),
            Some(_) | None => response,
        }
    }
}

/// Marks a response whose body is only a part.
fn as_part(mut response: Response<CacheBody>, range: ContentRange) -> Response<CacheBody> {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let fields = response.headers_mut();
    fields.insert(CONTENT_LENGTH, HeaderValue::from(range.span.bytes()));
    wire::insert(fields, &CONTENT_RANGE, range.to_string());
    response
}

/// The fields are the answer: they are of an object with a body of `length` bytes.
fn leave_body_out(fields: &mut HeaderMap, length: u64) {
    fields.remove(CONTENT_LENGTH);
    InChunks { length, number: None }.write(fields);
}

/// The origin's response, for this request alone.
pub(super) fn own_answer(cache: &Cache, probe: &Probe, unshared: Unshared) -> Response<CacheBody> {
    let mut response = unshared.response.map(CacheBody::origin);
    let why = if probe.found.is_some() { Forwarded::Stale } else { probe.why };
    let status = CacheStatus {
        forwarded_status: Some(response.status().as_u16()),
        detail: unshared.why.map(Detail::NotStored),
        ..CacheStatus::forwarded(&cache.settings.name, why)
    };
    if let Some(why) = unshared.why {
        wire::write_refusal(why, response.headers_mut());
    }
    response.headers_mut().insert(wire::ANSWER.clone(), AnswerKind::Own.value());
    response.headers_mut().insert(wire::MEMBER.clone(), status.value());
    response
}

fn respond(
    kind: AnswerKind,
    status: StatusCode,
    mut fields: HeaderMap,
    member: &CacheStatus<'_>,
    body: CacheBody,
) -> Response<CacheBody> {
    fields.insert(wire::ANSWER.clone(), kind.value());
    fields.insert(wire::MEMBER.clone(), member.value());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

/// An answer that is only its kind.
pub(super) fn bare(kind: AnswerKind) -> Response<CacheBody> {
    let mut response = Response::new(CacheBody::empty());
    response.headers_mut().insert(wire::ANSWER.clone(), kind.value());
    response
}

pub(super) fn failed(failure: Failure) -> Response<CacheBody> {
    let mut response = bare(AnswerKind::Failed);
    wire::write_failure(failure, response.headers_mut());
    response
}

/// Not a request of a peer's cache.
pub(super) fn refuse(status: StatusCode) -> Response<CacheBody> {
    let mut response = Response::new(CacheBody::empty());
    *response.status_mut() = status;
    response
}
