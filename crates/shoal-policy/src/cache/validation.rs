//! Asking the origin whether an object is still good (RFC 9111 §4.3).

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};

use super::fields::is_hop_by_hop;

/// Fields of downstream that the cache answers for itself and does not send with a fill.
static CONDITIONS: [HeaderName; 6] =
    [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];

/// Makes a request ask for the whole response, whatever downstream has already.
pub fn remove_conditions(request: &mut HeaderMap) {
    for name in &CONDITIONS {
        request.remove(name);
    }
}

/// The object can be asked about.
pub fn has_validator(stored: &HeaderMap) -> bool {
    stored.contains_key(ETAG) || stored.contains_key(LAST_MODIFIED)
}

/// Makes a request ask whether `stored` is still good (RFC 9111 §4.3.1).
pub fn add_conditions(request: &mut HeaderMap, stored: &HeaderMap) {
    remove_conditions(request);
    if let Some(etag) = stored.get(ETAG) {
        request.insert(IF_NONE_MATCH, etag.clone());
    }
    if let Some(changed) = stored.get(LAST_MODIFIED) {
        request.insert(IF_MODIFIED_SINCE, changed.clone());
    }
}

/// A 304 speaks of `stored` (RFC 9111 §4.3.4): its validators, if it has any, are those of the object.
pub fn confirms(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    if let Some(etag) = not_modified.get(ETAG) {
        return stored.get(ETAG).is_some_and(|known| weak_match(known, etag));
    }
    match not_modified.get(LAST_MODIFIED) {
        Some(changed) => stored.get(LAST_MODIFIED) == Some(changed),
        // The origin answered our condition, and there is only one object it can have meant.
        None => true,
    }
}

/// The object's fields after a 304: every field received replaces the stored one, those not received stay.
pub fn merged_fields(stored: &HeaderMap, not_modified: &HeaderMap) -> HeaderMap {
    let mut merged = stored.clone();
    for name in not_modified.keys() {
        if is_hop_by_hop(name) || [CONTENT_LENGTH, CONTENT_RANGE, CONTENT_ENCODING].contains(name) {
            continue;
        }
        merged.remove(name);
        for value in not_modified.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    merged
}

/// A strong entity tag: equal tags mean equal bytes.
pub fn is_strong(etag: &HeaderValue) -> bool {
    etag.as_bytes().starts_with(b"\"")
}

/// RFC 9110 §8.8.3.2.
pub(super) fn weak_match(a: &HeaderValue, b: &HeaderValue) -> bool {
    opaque(a.as_bytes()) == opaque(b.as_bytes())
}

/// A tag without the mark of weakness.
pub(super) fn opaque(etag: &[u8]) -> &[u8] {
    let etag = etag.trim_ascii();
    etag.strip_prefix(b"W/").unwrap_or(etag)
}
