//! What part of a representation a 206 carries (RFC 9110 §14.4).

use std::fmt;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};

use super::span::Span;

/// A `Content-Range` of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// What the message carries.
    pub span: Span,
    /// Bytes of the whole representation, if the sender knows.
    pub length: Option<u64>,
}

impl ContentRange {
    /// Reads the field of a 206. `None` = there is none, or several, or it contradicts itself or `Content-Length`: whatever
    /// the message carries, nobody can tell where it belongs. An answer of several parts has none either.
    pub fn read(fields: &HeaderMap) -> Option<Self> {
        let mut lines = fields.get_all(CONTENT_RANGE).iter();
        let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else { return None };
        let range = Self::parse(line)?;
        let announced = fields.get(CONTENT_LENGTH).map(|length| number(length.to_str().ok()?));
        match announced {
            None => Some(range),
            Some(length) => (length? == range.span.bytes()).then_some(range),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (unit, range) = line.trim().split_once(' ')?;
        let (span, length) = range.trim().split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let span = Span { first: number(first)?, last: number(last)? };
        let length = if length == "*" { None } else { Some(number(length)?) };
        let is_sound = unit.eq_ignore_ascii_case("bytes")
            && span.first <= span.last
            && span.last < length.unwrap_or(u64::MAX);
        is_sound.then_some(Self { span, length })
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { span, length } = self;
        write!(formatter, "bytes {}-{}/", span.first, span.last)?;
        match length {
            Some(length) => write!(formatter, "{length}"),
            None => formatter.write_str("*"),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_is_sure_of_its_place_is_read() {
        let check = |lines: &[&'static str], expected: Option<(u64, u64, Option<u64>)>| {
            let mut fields = HeaderMap::new();
            for line in lines {
                let (name, value) =
                    line.strip_prefix('=').map_or((CONTENT_RANGE, *line), |length| (CONTENT_LENGTH, length));
                fields.append(name, HeaderValue::from_static(value));
            }
            let read = ContentRange::read(&fields);
            assert_eq!(
                read.map(|read| (read.span.first, read.span.last, read.length)),
                expected,
                "{lines:?}"
            );
            if let Some(read) = read {
                assert_eq!(ContentRange::parse(&read.to_string()), Some(read));
            }
        };
        check(&["bytes 0-4/10"], Some((0, 4, Some(10))));
        check(&["BYTES 0-4/10"], Some((0, 4, Some(10))));
        check(&["bytes 3-4/*"], Some((3, 4, None)));
        check(&["bytes 0-4/10", "=5"], Some((0, 4, Some(10))));
        for lines in [
            &["bytes 0-4/10", "=6"][..],
            &["bytes 0-4/10", "=x"],
            &["bytes 0-4/10", "bytes 0-4/10"],
            &[],
            &["bytes */10"],
            &["bytes 4-3/10"],
            &["bytes 4-10/10"],
            &["bytes +1-3/10"],
            &["bytes -3/10"],
            &["bytes 1-3"],
            &["lines 1-3/10"],
            &["bytes=1-3/10"],
            &["bytes 1-99999999999999999999/*"],
            &["bytes 1-18446744073709551615/*"],
        ] {
            check(lines, None);
        }
    }
}
