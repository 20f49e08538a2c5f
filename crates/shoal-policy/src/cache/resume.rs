//! Going on with a body that broke off, from another source: never with other bytes than it began with.

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};

use super::content_range::ContentRange;
use super::span::Span;
use super::validation::{add_range, continues, is_same_version, strong_validator};

/// A body that broke off.
#[derive(Clone, Copy, Debug)]
pub struct Broken<'a> {
    /// Of its response; 200 for a part as well.
    pub status: StatusCode,
    /// Of its response.
    pub fields: &'a HeaderMap,
    /// It was this part of a representation; `None` = all of it.
    pub part: Option<ContentRange>,
    /// Bytes that it was to have, if that was said.
    pub length: Option<u64>,
    /// Bytes that are there.
    pub received: u64,
}

impl Broken<'_> {
    /// Makes a request ask for the rest (RFC 9110 §13.1.5); `false` = nothing says which bytes those would be.
    pub fn ask(&self, request: &mut HeaderMap) -> bool {
        let Some(validator) = strong_validator(self.fields).filter(|_| self.status == StatusCode::OK) else {
            return false;
        };
        let last = self.last().unwrap_or(u64::MAX);
        let span = Span { first: self.first(), last };
        // With nothing there yet, the whole is asked for: an empty range is no range.
        if span.first > 0 && span.first <= span.last {
            let is_rest = self.part.is_none_or(|part| part.length == Some(last + 1));
            add_range(request, &validator, span, is_rest);
        }
        true
    }

    /// How many bytes of the other answer's body come before the rest; `None` = it is something else.
    pub fn continued_by(&self, status: StatusCode, fields: &HeaderMap) -> Option<u64> {
        match status {
            StatusCode::PARTIAL_CONTENT => {
                let validated = self.status == StatusCode::OK && strong_validator(self.fields).is_some();
                let range =
                    ContentRange::read(fields).filter(|_| validated && continues(self.fields, fields))?;
                let length = self.part.map_or(self.length, |part| part.length);
                let is_same = length.is_none() || range.length.is_none() || length == range.length;
                let last = self.last().or_else(|| range.length?.checked_sub(1));
                let is_rest =
                    range.span.first == self.first() && last.is_none_or(|last| last == range.span.last);
                (is_same && is_rest).then_some(0)
            }
            status if status == self.status && self.part.is_none() => {
                let length = fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
                let is_same = self.length.is_none() || length.is_none() || length == self.length;
                (is_same && is_same_version(self.fields, fields)).then_some(self.received)
            }
            _ => None,
        }
    }

    /// Where the rest begins in the representation.
    fn first(&self) -> u64 {
        self.part.map_or(0, |part| part.span.first).saturating_add(self.received)
    }

    /// Where it ends, if that is known.
    fn last(&self) -> Option<u64> {
        self.part.map_or_else(|| self.length?.checked_sub(1), |part| Some(part.span.last))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{IF_RANGE, RANGE};

    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn whole(fields: &HeaderMap, received: u64) -> Broken<'_> {
        Broken { status: StatusCode::OK, fields, part: None, length: Some(10), received }
    }

    #[test]
    fn only_a_strong_validator_says_which_bytes_are_missing() {
        let check = |stored: &HeaderMap, broken: &Broken<'_>, expected: Option<&str>| {
            let mut request = HeaderMap::new();
            assert_eq!(broken.ask(&mut request), expected.is_some(), "{stored:?}");
            assert_eq!(
                request.get(RANGE).map_or("", |range| range.to_str().unwrap()),
                expected.unwrap_or("")
            );
            assert_eq!(request.contains_key(IF_RANGE), !request.is_empty());
        };
        let strong = fields(&[("etag", "\"a\"")]);
        check(&strong, &whole(&strong, 4), Some("bytes=4-"));
        check(&strong, &whole(&strong, 0), Some(""));
        check(&strong, &Broken { length: None, ..whole(&strong, 4) }, Some("bytes=4-"));
        check(&strong, &Broken { status: StatusCode::NOT_FOUND, ..whole(&strong, 4) }, None);
        let part = |length| Some(ContentRange { span: Span { first: 20, last: 29 }, length });
        check(&strong, &Broken { part: part(Some(99)), ..whole(&strong, 4) }, Some("bytes=24-29"));
        check(&strong, &Broken { part: part(Some(30)), ..whole(&strong, 4) }, Some("bytes=24-"));
        check(&strong, &Broken { part: part(None), ..whole(&strong, 0) }, Some("bytes=20-29"));
        let weak = fields(&[("etag", "W/\"a\"")]);
        check(&weak, &whole(&weak, 4), None);
        check(&HeaderMap::new(), &whole(&HeaderMap::new(), 4), None);
    }

    #[test]
    fn two_versions_are_never_joined() {
        let stored = fields(&[("etag", "\"a\"")]);
        let broken = whole(&stored, 4);
        let check = |broken: &Broken<'_>, status: u16, lines: &[(&'static str, &'static str)], expected| {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(broken.continued_by(status, &fields(lines)), expected, "{status} {lines:?}");
        };
        let tag = ("etag", "\"a\"");
        check(&broken, 206, &[tag, ("content-range", "bytes 4-9/10")], Some(0));
        check(&broken, 206, &[tag, ("content-range", "bytes 4-9/*")], Some(0));
        check(&broken, 200, &[tag, ("content-length", "10")], Some(4));
        check(&broken, 200, &[tag], Some(4));
        check(&broken, 206, &[tag, ("content-range", "bytes 3-9/10")], None);
        check(&broken, 206, &[tag, ("content-range", "bytes 4-8/10")], None);
        check(&broken, 206, &[tag, ("content-range", "bytes 4-8/*")], None);
        check(&broken, 206, &[tag, ("content-range", "bytes 4-10/11")], None);
        check(&broken, 206, &[tag, ("content-range", "bytes */10")], None);
        check(&broken, 206, &[tag], None);
        check(&broken, 206, &[("etag", "\"b\""), ("content-range", "bytes 4-9/10")], None);
        check(&broken, 206, &[("content-range", "bytes 4-9/10")], None);
        check(&broken, 200, &[tag, ("content-length", "11")], None);
        check(&broken, 200, &[("etag", "\"b\""), ("content-length", "10")], None);
        check(&broken, 404, &[tag], None);

        let endless = Broken { length: None, ..broken };
        check(&endless, 206, &[tag, ("content-range", "bytes 4-9/10")], Some(0));
        check(&endless, 206, &[tag, ("content-range", "bytes 4-8/10")], None);
        check(&endless, 200, &[tag, ("content-length", "10")], Some(4));
        let weak = fields(&[("etag", "W/\"a\"")]);
        check(&whole(&weak, 4), 206, &[("etag", "W/\"a\""), ("content-range", "bytes 4-9/10")], None);
        check(&whole(&weak, 4), 200, &[("etag", "W/\"a\"")], None);

        let part = Some(ContentRange { span: Span { first: 20, last: 29 }, length: Some(99) });
        let part = Broken { part, ..broken };
        check(&part, 206, &[tag, ("content-range", "bytes 24-29/99")], Some(0));
        check(&part, 206, &[tag, ("content-range", "bytes 20-29/99")], None);
        check(&part, 206, &[tag, ("content-range", "bytes 24-98/99")], None);
        check(&part, 200, &[tag, ("content-length", "99")], None);
    }
}
