//! One byte range of a complete stored object (RFC 9110 §14).

use http::StatusCode;
use http::header::{ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};

use super::validation::is_strong;

/// What a request gets of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extract {
    /// All of it: no range, one that we do not read (several ranges may be ignored), or `If-Range` does not hold.
    Whole,
    /// These bytes, the last one included.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte.
        last: u64,
    },
    /// None of the bytes it asks for exist: 416.
    Unsatisfiable,
}

/// The `Range` of a request, if it has one, leaves nothing out: the whole answers it, as it comes.
pub fn asks_for_everything(request: &HeaderMap) -> bool {
    let mut lines = request.get_all(RANGE).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(line), None) => line.as_bytes().eq_ignore_ascii_case(b"bytes=0-"),
        (Some(_), Some(_)) => false,
    }
}

/// Judges the `Range` of a request against an object of `length` bytes.
pub fn judge_range(request: &HeaderMap, status: StatusCode, stored: &HeaderMap, length: u64) -> Extract {
    if status != StatusCode::OK || !request.contains_key(RANGE) || !if_range_holds(request, stored) {
        return Extract::Whole;
    }
    let mut lines = request.get_all(RANGE).iter();
    match (lines.next().and_then(|line| line.to_str().ok()), lines.next()) {
        (Some(line), None) => parse_range(line, length),
        _ => Extract::Whole,
    }
}

fn parse_range(line: &str, length: u64) -> Extract {
    let Some((unit, spec)) = line.split_once('=') else { return Extract::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Extract::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Extract::Whole };
    match (position(first), position(last)) {
        (Position::At(first), Position::At(last)) if first > last => Extract::Whole,
        (Position::At(first), Position::At(_) | Position::Open) if first >= length => Extract::Unsatisfiable,
        (Position::At(first), Position::At(last)) => Extract::Part { first, last: last.min(length - 1) },
        (Position::At(first), Position::Open) => Extract::Part { first, last: length - 1 },
        (Position::Open, Position::At(suffix)) if suffix == 0 || length == 0 => Extract::Unsatisfiable,
        (Position::Open, Position::At(suffix)) => {
            Extract::Part { first: length.saturating_sub(suffix), last: length - 1 }
        }
        (Position::Open, Position::Open) | (Position::Bad, _) | (_, Position::Bad) => Extract::Whole,
    }
}

/// One side of the hyphen.
enum Position {
    At(u64),
    Open,
    Bad,
}

/// More digits than fit are beyond every object.
fn position(text: &str) -> Position {
    if text.is_empty() {
        Position::Open
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Position::At(text.parse().unwrap_or(u64::MAX))
    } else {
        Position::Bad
    }
}

/// RFC 9110 §13.1.5: a strong tag, or exactly the date of the object.
fn if_range_holds(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(condition) = request.get(IF_RANGE) else { return true };
    if condition.as_bytes().starts_with(b"\"") {
        return stored.get(ETAG).is_some_and(|etag| is_strong(etag) && etag == condition);
    }
    !condition.as_bytes().starts_with(b"W/") && stored.get(LAST_MODIFIED) == Some(condition)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, length: u64, expected: Extract) {
        assert_eq!(parse_range(range, length), expected, "{range:?} of {length}");
    }

    #[test]
    fn only_a_range_without_an_end_from_the_first_byte_on_is_everything() {
        for (lines, expected) in [
            (&[][..], true),
            (&["bytes=0-"][..], true),
            (&["Bytes=0-"][..], true),
            (&["bytes=0-0"][..], false),
            (&["bytes=0-,5-6"][..], false),
            (&["bytes=1-"][..], false),
            (&["bytes=-1"][..], false),
            (&["bytes=0-", "bytes=0-"][..], false),
        ] {
            let fields = lines.iter().map(|line| (RANGE, http::HeaderValue::from_static(line)));
            let mut map = HeaderMap::new();
            fields.for_each(|(name, value)| _ = map.append(name, value));
            assert_eq!(asks_for_everything(&map), expected, "{lines:?}");
        }
    }

    #[test]
    fn single_ranges_are_cut_and_everything_else_is_whole() {
        let part = |first, last| Extract::Part { first, last };
        for (range, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-5", part(2, 5)),
            ("BYTES=2-500", part(2, 9)),
            ("bytes=2-", part(2, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-300", part(0, 9)),
            ("bytes=2-99999999999999999999999", part(2, 9)),
            ("bytes=10-", Extract::Unsatisfiable),
            ("bytes=99999999999999999999999-", Extract::Unsatisfiable),
            ("bytes=-0", Extract::Unsatisfiable),
            ("bytes=5-2", Extract::Whole),
            ("bytes=0-1,3-4", Extract::Whole),
            ("bytes=a-b", Extract::Whole),
            ("bytes=1-b", Extract::Whole),
            ("bytes=", Extract::Whole),
            ("bytes=-", Extract::Whole),
            ("lines=1-2", Extract::Whole),
        ] {
            check(range, 10, expected);
        }
        check("bytes=-5", 0, Extract::Unsatisfiable);
        check("bytes=0-", 0, Extract::Unsatisfiable);
    }
}
