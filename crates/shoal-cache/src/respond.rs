//! Turning objects and running fills into responses for one request.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use http::header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use shoal_policy::cache::condition::{is_not_modified, trim_not_modified};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::multipart::Multipart;
use shoal_policy::cache::range::{ByteRange, Extract, judge_range, read_ranges};
use shoal_policy::cache::span::Span;
use shoal_policy::cache::status::{CacheStatus, Detail};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::trust::Trust;

use crate::body::CacheBody;
use crate::chunks::Cut;
use crate::fill::{FillHead, FillReader, FillSource};
use crate::object::Object;

/// RFC 9211.
pub(crate) static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Fields that are added to what was stored: here, and those that tell of the way it came.
pub(crate) const ADDED: usize = 6;

/// A request, as far as the shape of its answer depends on it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) fields: &'a HeaderMap,
}

/// Where an object of this node's store comes from, as far as it may be trusted.
pub(crate) fn source(trust: Trust, object: &Object, cut: &Cut) -> Detail {
    match trust {
        Trust::Verified if object.is_from_disk() | cut.is_on_disk() => Detail::LocalDisk,
        Trust::Verified => Detail::LocalRam,
        Trust::Unverified | Trust::Doubted => Detail::PurgeUnverified,
    }
}

/// The fields of a whole answer: `Age` and our `Cache-Status` beside what was stored.
pub(crate) fn answer_fields(
    mut fields: HeaderMap,
    terms: &Terms,
    status: HeaderValue,
    now_ms: u64,
) -> HeaderMap {
    fields.insert(AGE, HeaderValue::from(terms.age_ms(now_ms) / 1000));
    fields.append(CACHE_STATUS.clone(), status);
    fields
}

/// Answers with what the request gets of an object, or with a 304.
pub(crate) fn from_object(
    object: &Object,
    cut: &Cut,
    asked: Asked<'_>,
    status: &CacheStatus<'_>,
    now_ms: u64,
) -> Response<CacheBody> {
    let mut fields = answer_fields(object.fields.to_map(ADDED), &object.terms, status.value(), now_ms);
    if is_not_modified(asked.fields, object.status, &object.fields, object.terms.date) {
        trim_not_modified(&mut fields);
        return response(StatusCode::NOT_MODIFIED, fields, CacheBody::empty());
    }
    if asked.method == Method::HEAD {
        return response(object.status, fields, CacheBody::empty());
    }
    let length = object.body.length();
    match &cut.extract {
        Extract::Whole => response(object.status, fields, cut.whole_body(object)),
        Extract::Part(span) => {
            partial(fields, ContentRange { span: *span, length }, cut.part_body(object, *span))
        }
        Extract::Parts(spans) => several(fields, spans, length, |span| cut.part_body(object, span)),
        Extract::Unsatisfiable => unsatisfiable(fields, length.unwrap_or_default()),
    }
}

/// Answers from a running fill. While its length is not known, a range is answered with the whole.
pub(crate) fn from_fill(
    head: &FillHead,
    reader: FillReader,
    is_creator: bool,
    asked: Asked<'_>,
    status: &CacheStatus<'_>,
    now_ms: u64,
) -> Response<CacheBody> {
    let stored = match &head.own_fields {
        Some(own) if is_creator => own,
        Some(_) | None => &head.fields,
    };
    let mut fields = stored.clone();
    if let FillSource::Peer { member: Some(member), .. } = &head.source {
        fields.append(CACHE_STATUS.clone(), member.clone());
    }
    let mut fields = answer_fields(fields, &head.terms, status.value(), now_ms);
    // A response that comes straight from the origin has no age of ours (RFC 9111 §5.1); what a peer gives may be stale.
    let is_from_origin = match head.source {
        FillSource::Origin => true,
        FillSource::Store(_) => false,
        FillSource::Peer { is_hit, .. } => !is_hit && head.terms.age_ms(now_ms) < 1000,
    };
    if is_creator && is_from_origin && !head.fields.contains_key(AGE) {
        fields.remove(AGE);
    }
    if is_not_modified(asked.fields, head.status, &head.fields, head.terms.date) {
        trim_not_modified(&mut fields);
        return response(StatusCode::NOT_MODIFIED, fields, CacheBody::empty());
    }
    if asked.method == Method::HEAD {
        return response(head.status, fields, CacheBody::empty());
    }
    if let Some(carried) = head.part {
        let span = wanted(asked.fields, carried);
        let skip = span.first - carried.span.first;
        let body = CacheBody::filling_part(reader, skip, span.bytes());
        return partial(fields, ContentRange { span, ..carried }, body);
    }
    let Some(length) = head.length else {
        return response(head.status, fields, CacheBody::filling(reader, None));
    };
    match judge_range(asked.fields, head.status, &head.fields, length) {
        // Several ranges may lie in any order, and the body comes in its own.
        Extract::Whole | Extract::Parts(_) => {
            response(head.status, fields, CacheBody::filling(reader, Some(length)))
        }
        Extract::Part(span) => {
            let body = CacheBody::filling_part(reader, span.first, span.bytes());
            partial(fields, ContentRange { span, length: Some(length) }, body)
        }
        Extract::Unsatisfiable => unsatisfiable(fields, length),
    }
}

/// What of a part on its way in a request asked for. The origin may have sent another one than that: then it is what it is.
fn wanted(asked: &HeaderMap, carried: ContentRange) -> Span {
    let wanted = match (read_ranges(asked).as_deref(), carried.length) {
        (Some([range]), Some(length)) => range.within(length),
        (Some([ByteRange::Between(span)]), None) => Some(*span),
        (Some(_) | None, _) => None,
    };
    wanted.and_then(|span| span.common(carried.span)).unwrap_or(carried.span)
}

/// The origin was asked for the whole; where that is also the range that was asked for, the response says so.
pub(crate) fn restore_range(response: &mut Response<CacheBody>, asked: &HeaderMap) {
    let Some(length) = response.body().size_hint().exact() else { return };
    let extract = judge_range(asked, response.status(), response.headers(), length);
    if let Extract::Part(span) = extract
        && Some(span) == Span::all(length)
    {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = ContentRange { span, length: Some(length) };
        insert_text(response.headers_mut(), CONTENT_RANGE, range.to_string());
    }
}

fn partial(mut fields: HeaderMap, range: ContentRange, body: CacheBody) -> Response<CacheBody> {
    fields.insert(CONTENT_LENGTH, HeaderValue::from(range.span.bytes()));
    insert_text(&mut fields, CONTENT_RANGE, range.to_string());
    response(StatusCode::PARTIAL_CONTENT, fields, body)
}

/// Several ranges of an object of `length` bytes, which holds them.
pub(crate) fn several(
    mut fields: HeaderMap,
    spans: &[Span],
    length: Option<u64>,
    body_of: impl Fn(Span) -> CacheBody,
) -> Response<CacheBody> {
    let multipart = Multipart::new(boundary_entropy(), fields.remove(CONTENT_TYPE));
    let (mut parts, mut bytes) = (VecDeque::new(), 0);
    for (n, span) in spans.iter().enumerate() {
        let opening = multipart.opening(ContentRange { span: *span, length }, n == 0);
        bytes += opening.len() as u64 + span.bytes();
        parts.push_back(CacheBody::text(opening));
        parts.push_back(body_of(*span));
    }
    let closing = multipart.closing();
    bytes += closing.len() as u64;
    parts.push_back(CacheBody::text(closing));
    fields.insert(CONTENT_TYPE, multipart.content_type());
    fields.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    response(StatusCode::PARTIAL_CONTENT, fields, CacheBody::row(parts, bytes))
}

/// Whoever makes the content must not know the boundary.
fn boundary_entropy() -> [u64; 2] {
    std::array::from_fn(|n| RandomState::new().hash_one(n))
}

fn unsatisfiable(mut fields: HeaderMap, length: u64) -> Response<CacheBody> {
    trim_not_modified(&mut fields);
    insert_text(&mut fields, CONTENT_RANGE, format!("bytes */{length}"));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(0));
    response(StatusCode::RANGE_NOT_SATISFIABLE, fields, CacheBody::empty())
}

fn response(status: StatusCode, fields: HeaderMap, body: CacheBody) -> Response<CacheBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

fn insert_text(fields: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.insert(name, value);
    }
}
