//! Downstream's conditions, answered from a stored object (RFC 9111 §4.3.2, RFC 9110 §13).

use http::StatusCode;
use http::header::{
    CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};

use super::date::{parse_date, read_date};
use super::fields::Fields;
use super::validation::opaque;

/// Downstream has it already: a 304 will do. `date` is the object's `Date`, Unix seconds.
pub fn is_not_modified(request: &HeaderMap, status: StatusCode, stored: &impl Fields, date: u64) -> bool {
    if !status.is_success() {
        return false;
    }
    if request.contains_key(IF_NONE_MATCH) {
        // RFC 9110 §13.2.2: If-Modified-Since is ignored beside it.
        return request.get_all(IF_NONE_MATCH).iter().any(|line| lists(line.as_bytes(), stored));
    }
    let mut lines = request.get_all(IF_MODIFIED_SINCE).iter();
    // RFC 9110 §13.1.3: more than one member, or something else than a date, is ignored.
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Some(since) = line.to_str().ok().and_then(|text| parse_date(text, date)) else { return false };
    read_date(stored, &LAST_MODIFIED, date).unwrap_or(date) <= since
}

/// Takes off what a 304 does not say again (RFC 9110 §15.4.5).
pub fn trim_not_modified(fields: &mut HeaderMap) {
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE] {
        fields.remove(name);
    }
}

/// A line of `If-None-Match` has the tag of what is stored, in the weak comparison.
pub(super) fn lists(line: &[u8], stored: &impl Fields) -> bool {
    if line.trim_ascii() == b"*" {
        return true;
    }
    let Some(etag) = stored.line(&ETAG) else { return false };
    entity_tags(line).any(|tag| tag == opaque(etag))
}

/// A line of `If-None-Match` names `etag` and nothing else, in the weak comparison.
pub(super) fn names_only(line: &[u8], etag: &[u8]) -> bool {
    entity_tags(line).all(|tag| tag == opaque(etag))
}

/// The tags of a list, marks of weakness taken off. A comma inside the quotes does not end a tag.
fn entity_tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        let mut quoted = false;
        let end = rest[start..].iter().position(|byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        });
        let end = end.map_or(rest.len(), |end| start + end);
        let tag = opaque(&rest[start..end]);
        rest = &rest[end..];
        Some(tag)
    })
}
