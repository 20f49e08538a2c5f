//! Asking the origin whether an object is still good (RFC 9111 §4.3).

use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};

use super::condition::{lists, names_only};
use super::date::{RECENT, read_date};
use super::fields::{Fields, stored_fields};
use super::span::Span;

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
pub fn has_validator(stored: &impl Fields) -> bool {
    stored.has(&ETAG) || stored.has(&LAST_MODIFIED)
}

/// Makes a request ask whether `stored` is still good (RFC 9111 §4.3.1).
pub fn add_conditions(request: &mut HeaderMap, stored: &impl Fields) {
    remove_conditions(request);
    for (name, condition) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
        if let Some(value) = stored.line(&name).and_then(|line| HeaderValue::from_bytes(line).ok()) {
            request.insert(condition, value);
        }
    }
}

/// Makes a request ask for the bytes of `span` if the representation is still the one that `validator` (see
/// [`strong_validator`]) names, and else for all of it (RFC 9111 §3.4). `is_rest`: nothing comes behind them.
pub fn add_range(request: &mut HeaderMap, validator: &HeaderValue, span: Span, is_rest: bool) {
    remove_conditions(request);
    let Span { first, last } = span;
    let range = if is_rest { format!("bytes={first}-") } else { format!("bytes={first}-{last}") };
    // Digits fit into every field.
    if let Ok(range) = HeaderValue::try_from(range) {
        request.insert(RANGE, range);
        request.insert(IF_RANGE, validator.clone());
    }
}

/// What says for sure that two responses have the same bytes: a strong tag; without any tag, a date of change that is old
/// enough (RFC 9110 §8.8.1).
pub fn strong_validator(fields: &impl Fields) -> Option<HeaderValue> {
    HeaderValue::from_bytes(strong_line(fields)?).ok()
}

fn strong_line(fields: &impl Fields) -> Option<&[u8]> {
    match fields.line(&ETAG) {
        Some(etag) => is_strong(etag).then_some(etag),
        None => fields.line(&LAST_MODIFIED).filter(|_| is_old_enough(fields)),
    }
}

/// Both have the same strong validator: what they carry are bytes of one representation.
pub fn is_same_version(one: &impl Fields, other: &impl Fields) -> bool {
    let same_kind = one.has(&ETAG) == other.has(&ETAG);
    same_kind && strong_line(one).is_some_and(|validator| strong_line(other) == Some(validator))
}

/// A 206 that came upon [`add_range`] is of the representation that was asked about. A tag it has to repeat; a date it may
/// leave out (RFC 9110 §15.3.7).
pub fn continues(stored: &impl Fields, partial: &HeaderMap) -> bool {
    match (stored.line(&ETAG), partial.line(&ETAG)) {
        (Some(known), Some(etag)) => is_strong(known) && known == etag,
        (None, None) => {
            partial.line(&LAST_MODIFIED).is_none_or(|changed| stored.line(&LAST_MODIFIED) == Some(changed))
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// The date of change is a strong validator: it was a second old at least when the response was made (RFC 9110 §8.8.2.2).
pub(super) fn is_old_enough(stored: &impl Fields) -> bool {
    match (read_date(stored, &LAST_MODIFIED, RECENT), read_date(stored, &DATE, RECENT)) {
        (Some(changed), Some(date)) => changed < date,
        (Some(_) | None, _) => false,
    }
}

/// The lines of downstream's `If-None-Match`, as far as they name anything.
pub fn asked_tags(request: &HeaderMap) -> Vec<HeaderValue> {
    let lines = request.get_all(IF_NONE_MATCH).iter();
    lines.filter(|line| line.as_bytes().trim_ascii() != b"*").cloned().collect()
}

/// Makes a request that asks about a stored tag ask about downstream's, too: what downstream has may be newer than what is
/// stored (RFC 9111 §4.3.1). A line that names what is asked about already is left out: there are origins that compare the
/// field with their tag as it is.
pub fn add_tags(request: &mut HeaderMap, tags: &[HeaderValue]) {
    let Some(stored) = request.get(IF_NONE_MATCH).cloned() else { return };
    for line in tags.iter().filter(|line| !names_only(line.as_bytes(), stored.as_bytes())) {
        request.append(IF_NONE_MATCH, line.clone());
    }
}

/// A 304 speaks of what downstream has.
pub fn confirms_tags(tags: &[HeaderValue], not_modified: &HeaderMap) -> bool {
    tags.iter().any(|line| lists(line.as_bytes(), not_modified))
}

/// A 304 speaks of `stored`, which the origin was asked about (RFC 9111 §4.3.4): its validators, if it has any, are those
/// of the object. Tags are compared as the condition that they answer is (RFC 9110 §13.1.2): origins that compress as
/// they send weaken the tag of a 200 and not that of a 304.
pub fn confirms(stored: &impl Fields, not_modified: &HeaderMap) -> bool {
    // An object without a tag was not asked about by one: its date is what the answer has to repeat.
    if let (Some(known), Some(etag)) = (stored.line(&ETAG), not_modified.line(&ETAG)) {
        return opaque(known) == opaque(etag);
    }
    match not_modified.line(&LAST_MODIFIED) {
        Some(changed) => stored.line(&LAST_MODIFIED) == Some(changed),
        // The origin answered our condition, and there is only one object it can have meant.
        None => !not_modified.has(&ETAG) || stored.has(&ETAG),
    }
}

/// A 304 about another object speaks of `stored`, too: it names one version by a strong tag, and this is that version
/// (RFC 9111 §4.3.4).
pub fn confirms_as_well(stored: &impl Fields, not_modified: &HeaderMap) -> bool {
    let tag = not_modified.line(&ETAG).filter(|tag| is_strong(tag));
    tag.is_some_and(|tag| stored.line(&ETAG) == Some(tag))
}

/// A 200 to HEAD speaks of `stored`, whose body has `length` bytes (RFC 9111 §4.3.5): what it says of validators and length
/// is what is stored.
pub fn head_confirms(stored: &impl Fields, length: u64, head: &HeaderMap) -> bool {
    let same = |name: &HeaderName| head.line(name).is_none_or(|value| stored.line(name) == Some(value));
    let announced =
        head.get(CONTENT_LENGTH).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    same(&ETAG) && same(&LAST_MODIFIED) && announced.is_none_or(|announced| announced == Some(length))
}

/// The object's fields, `merged`, after a 304, a 200 to HEAD, or a 206 that is a part of it: every field received replaces
/// the stored one, those not received stay. But `Age` is that of the response just received: no word of it means that it
/// comes from the origin (RFC 9111 §4.2.3).
pub fn merged_fields(mut merged: HeaderMap, received: &HeaderMap) -> HeaderMap {
    merged.remove(AGE);
    let received = stored_fields(received, &[CONTENT_LENGTH, CONTENT_RANGE, CONTENT_ENCODING]);
    for name in received.keys() {
        merged.remove(name);
        for value in received.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    merged
}

/// A strong entity tag: equal tags mean equal bytes.
pub(super) fn is_strong(etag: &[u8]) -> bool {
    etag.starts_with(b"\"")
}

/// A tag without the mark of weakness: what the weak comparison looks at (RFC 9110 §8.8.3.2).
pub(super) fn opaque(etag: &[u8]) -> &[u8] {
    let etag = etag.trim_ascii();
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SATURDAY: &str = "Sat, 05 Nov 1994 08:49:37 GMT";
    const SUNDAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn fields(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_a_strong_validator_makes_two_parts_one() {
        let check =
            |one: &[(HeaderName, &'static str)], other: &[(HeaderName, &'static str)], same, goes_on| {
                let (one, other) = (fields(one), fields(other));
                assert_eq!(is_same_version(&one, &other), same, "{one:?} {other:?}");
                assert_eq!(continues(&one, &other), goes_on, "{one:?} {other:?}");
            };
        check(&[(ETAG, "\"1\"")], &[(ETAG, "\"1\"")], true, true);
        check(&[(ETAG, "\"1\"")], &[(ETAG, "\"2\"")], false, false);
        check(&[(ETAG, "W/\"1\"")], &[(ETAG, "W/\"1\"")], false, false);
        check(&[(ETAG, "\"1\"")], &[], false, false);
        check(&[], &[], false, true);
        let old = [(LAST_MODIFIED, SATURDAY), (DATE, SUNDAY)];
        check(&old, &old, true, true);
        check(&old, &[(DATE, SUNDAY)], false, true);
        check(&old, &[(LAST_MODIFIED, SUNDAY), (DATE, SUNDAY)], false, false);
        check(&[(LAST_MODIFIED, SUNDAY), (DATE, SUNDAY)], &old, false, false);
        let young = [(LAST_MODIFIED, SUNDAY), (DATE, SUNDAY)];
        check(&young, &young, false, true);
        let tagged = [(ETAG, "\"1\""), (LAST_MODIFIED, SATURDAY), (DATE, SUNDAY)];
        check(&old, &tagged, false, false);
        check(&tagged, &old, false, false);
    }

    #[test]
    fn what_is_missing_is_asked_for_under_the_validator() {
        let check = |span, is_rest, expected: &str| {
            let mut request = fields(&[(IF_NONE_MATCH, "\"0\""), (RANGE, "bytes=7-8")]);
            add_range(&mut request, &HeaderValue::from_static("\"1\""), span, is_rest);
            assert_eq!(request[RANGE], expected);
            assert_eq!(request[IF_RANGE], "\"1\"");
            assert_eq!(request.len(), 2);
        };
        check(Span { first: 3, last: 9 }, false, "bytes=3-9");
        check(Span { first: 3, last: 9 }, true, "bytes=3-");
    }
}
