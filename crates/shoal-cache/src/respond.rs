//! Turning objects and running fills into responses for one request.

use http::header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use shoal_policy::cache::condition::{is_not_modified, trim_not_modified};
use shoal_policy::cache::range::{Extract, judge_range};
use shoal_policy::cache::status::{CacheStatus, Detail};
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::trust::Trust;

use crate::body::CacheBody;
use crate::fill::{FillHead, FillReader, FillSource};
use crate::object::Object;

/// RFC 9211.
pub(crate) static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// A request, as far as the shape of its answer depends on it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) fields: &'a HeaderMap,
}

/// Where an object of this node's store comes from, as far as it may be trusted.
pub(crate) const fn source(trust: Trust) -> Detail {
    match trust {
        Trust::Verified => Detail::LocalRam,
        Trust::Unverified | Trust::Doubted => Detail::PurgeUnverified,
    }
}

/// The fields of a whole answer: `Age` and our `Cache-Status` beside what was stored.
pub(crate) fn answer_fields(
    stored: &HeaderMap,
    terms: &Terms,
    status: HeaderValue,
    now_ms: u64,
) -> HeaderMap {
    let mut fields = stored.clone();
    fields.insert(AGE, HeaderValue::from(terms.age_ms(now_ms) / 1000));
    fields.append(CACHE_STATUS.clone(), status);
    fields
}

/// Answers from an object: whole, in part, or with a 304.
pub(crate) fn from_object(
    object: &Object,
    asked: Asked<'_>,
    status: &CacheStatus<'_>,
    now_ms: u64,
) -> Response<CacheBody> {
    let mut fields = answer_fields(&object.fields, &object.terms, status.value(), now_ms);
    if is_not_modified(asked.fields, object.status, &object.fields, object.terms.date) {
        trim_not_modified(&mut fields);
        return response(StatusCode::NOT_MODIFIED, fields, CacheBody::empty());
    }
    if asked.method == Method::HEAD {
        return response(object.status, fields, CacheBody::empty());
    }
    let length = object.body_bytes;
    match judge_range(asked.fields, object.status, &object.fields, length) {
        Extract::Whole => response(object.status, fields, CacheBody::stored(object)),
        Extract::Part { first, last } => {
            partial(fields, first, last, length, CacheBody::part(object, first, last - first + 1))
        }
        Extract::Unsatisfiable => unsatisfiable(fields, length),
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
    let detail = match &head.source {
        FillSource::Peer { member, is_hit } => {
            if let Some(member) = member {
                fields.append(CACHE_STATUS.clone(), member.clone());
            }
            (*is_hit).then_some(Detail::Peer)
        }
        FillSource::Origin => None,
    };
    let mut fields = answer_fields(&fields, &head.terms, status.value(), now_ms);
    // A response that comes straight from the origin has no age of ours.
    if is_creator && detail.is_none() && !head.fields.contains_key(AGE) && head.terms.age_ms(now_ms) < 1000 {
        fields.remove(AGE);
    }
    if is_not_modified(asked.fields, head.status, &head.fields, head.terms.date) {
        trim_not_modified(&mut fields);
        return response(StatusCode::NOT_MODIFIED, fields, CacheBody::empty());
    }
    if asked.method == Method::HEAD {
        return response(head.status, fields, CacheBody::empty());
    }
    let Some(length) = head.length else {
        return response(head.status, fields, CacheBody::filling(reader, None));
    };
    match judge_range(asked.fields, head.status, &head.fields, length) {
        Extract::Whole => response(head.status, fields, CacheBody::filling(reader, Some(length))),
        Extract::Part { first, last } => {
            partial(fields, first, last, length, CacheBody::filling_part(reader, first, last - first + 1))
        }
        Extract::Unsatisfiable => unsatisfiable(fields, length),
    }
}

/// The origin was asked for the whole; where that is also the range that was asked for, the response says so.
pub(crate) fn restore_range(response: &mut Response<CacheBody>, asked: &HeaderMap) {
    let Some(length) = response.body().size_hint().exact() else { return };
    let extract = judge_range(asked, response.status(), response.headers(), length);
    if let Extract::Part { first: 0, last } = extract
        && last + 1 == length
    {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        insert_text(response.headers_mut(), CONTENT_RANGE, format!("bytes 0-{last}/{length}"));
    }
}

fn partial(
    mut fields: HeaderMap,
    first: u64,
    last: u64,
    length: u64,
    body: CacheBody,
) -> Response<CacheBody> {
    fields.insert(CONTENT_LENGTH, HeaderValue::from(last - first + 1));
    insert_text(&mut fields, CONTENT_RANGE, format!("bytes {first}-{last}/{length}"));
    response(StatusCode::PARTIAL_CONTENT, fields, body)
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
