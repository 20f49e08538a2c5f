//! The ranges of a request, and what it gets of a representation (RFC 9110 §14, §13.1.5).

use std::fmt;

use http::StatusCode;
use http::header::{ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};

use super::fields::Fields;
use super::span::Span;
use super::validation::{is_old_enough, is_strong};

/// A request for more ranges than this gets the whole (RFC 9110 §14.2: it may be an attempt to make us work).
pub const MAX_RANGES: usize = 32;

/// One range of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteRange {
    /// These bytes.
    Between(Span),
    /// All from this offset on.
    From(u64),
    /// So many from the end.
    Last(u64),
}

/// What a request gets of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extract {
    /// All of it: no range, one that we do not read, or `If-Range` does not hold.
    Whole,
    /// These bytes.
    Part(Span),
    /// Several stretches, at least two, in the order in which they were asked for; none touches another.
    Parts(Vec<Span>),
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

/// The ranges of a request. `None` = it has none, or none that we read: it gets the whole, whatever else it says. A field
/// on several lines, one with a mistake anywhere or with more than [`MAX_RANGES`] is such.
pub fn read_ranges(request: &HeaderMap) -> Option<Vec<ByteRange>> {
    let mut lines = request.get_all(RANGE).iter();
    let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else { return None };
    let (unit, list) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Members of a list may be empty (RFC 9110 §5.6.1).
    let members = list.split(',').map(|member| member.trim_matches([' ', '\t']));
    let members = members.filter(|member| !member.is_empty()).take(MAX_RANGES + 1);
    let ranges: Option<Vec<ByteRange>> = members.map(read_range).collect();
    ranges.filter(|ranges| (1..=MAX_RANGES).contains(&ranges.len()))
}

/// Judges the `Range` of a request against a representation of `length` bytes, all of which are here.
pub fn judge_range(request: &HeaderMap, status: StatusCode, stored: &impl Fields, length: u64) -> Extract {
    if status != StatusCode::OK || !request.contains_key(RANGE) || !if_range_holds(request, stored) {
        return Extract::Whole;
    }
    let Some(ranges) = read_ranges(request) else { return Extract::Whole };
    extract_of(coalesced(ranges.into_iter().filter_map(|range| range.within(length))))
}

/// Judges the `Range` of a request against a representation of which only `held` is here (in order, not touching), and of
/// which nobody may know how long it is. `None` = that is not enough (RFC 9111 §3.3): not even to say that there is no such
/// byte.
pub fn judge_part(
    request: &HeaderMap,
    stored: &impl Fields,
    length: Option<u64>,
    held: &[Span],
) -> Option<Extract> {
    if !if_range_holds(request, stored) {
        return None;
    }
    let mut spans = Vec::new();
    for range in read_ranges(request)? {
        match (length, range) {
            (Some(length), range) => spans.extend(range.within(length)),
            (None, ByteRange::Between(span)) => spans.push(span),
            (None, ByteRange::From(_) | ByteRange::Last(_)) => return None,
        }
    }
    let spans = coalesced(spans.into_iter());
    let is_held = |wanted: &Span| held.iter().any(|held| held.contains(*wanted));
    (!spans.is_empty() && spans.iter().all(is_held)).then(|| extract_of(spans))
}

/// RFC 9110 §13.1.5: a strong tag, or exactly the date of a representation that was not changed within the second in which
/// it was sent. A request without the field has no such condition.
pub fn if_range_holds(request: &HeaderMap, stored: &impl Fields) -> bool {
    let Some(condition) = request.line(&IF_RANGE) else { return true };
    if condition.starts_with(b"\"") {
        return stored.line(&ETAG).is_some_and(|etag| is_strong(etag) && etag == condition);
    }
    !condition.starts_with(b"W/") && stored.line(&LAST_MODIFIED) == Some(condition) && is_old_enough(stored)
}

impl ByteRange {
    /// What it means for a body of `length` bytes; `None` = nothing that exists.
    pub fn within(self, length: u64) -> Option<Span> {
        let all = Span::all(length)?;
        match self {
            Self::Between(span) => span.common(all),
            Self::From(first) => (first <= all.last).then_some(Span { first, ..all }),
            Self::Last(0) => None,
            Self::Last(bytes) => Some(Span { first: length.saturating_sub(bytes), ..all }),
        }
    }
}

/// As a `Range` says it.
impl fmt::Display for ByteRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between(Span { first, last }) => write!(formatter, "bytes={first}-{last}"),
            Self::From(first) => write!(formatter, "bytes={first}-"),
            Self::Last(bytes) => write!(formatter, "bytes=-{bytes}"),
        }
    }
}

fn extract_of(spans: Vec<Span>) -> Extract {
    match &spans[..] {
        [] => Extract::Unsatisfiable,
        [only] => Extract::Part(*only),
        [_, ..] => Extract::Parts(spans),
    }
}

/// Joins those that touch, each where the first of them stood.
fn coalesced(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        joined.push(span);
        // What was just put in may close the gap between two that are there.
        while let Some((into, from)) = touching(&joined) {
            let span = joined.remove(from);
            joined[into] = joined[into].joined(span);
        }
    }
    joined
}

fn touching(spans: &[Span]) -> Option<(usize, usize)> {
    let pairs = (0..spans.len()).flat_map(|into| (into + 1..spans.len()).map(move |from| (into, from)));
    pairs.into_iter().find(|(into, from)| spans[*into].touches(spans[*from]))
}

fn read_range(text: &str) -> Option<ByteRange> {
    let (first, last) = text.split_once('-')?;
    match (position(first)?, position(last)?) {
        (Position::At(first), Position::At(last)) => {
            (first <= last).then_some(ByteRange::Between(Span { first, last }))
        }
        (Position::At(first), Position::Open) => Some(ByteRange::From(first)),
        (Position::Open, Position::At(bytes)) => Some(ByteRange::Last(bytes)),
        (Position::Open, Position::Open) => None,
    }
}

/// One side of the hyphen.
enum Position {
    At(u64),
    Open,
}

/// More digits than fit are beyond every object.
fn position(text: &str) -> Option<Position> {
    if text.is_empty() {
        Some(Position::Open)
    } else {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Position::At(text.parse().unwrap_or(u64::MAX - 1)))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::DATE;

    use super::*;

    const fn part(first: u64, last: u64) -> Extract {
        Extract::Part(Span { first, last })
    }

    fn parts(spans: &[(u64, u64)]) -> Extract {
        Extract::Parts(spans.iter().map(|&(first, last)| Span { first, last }).collect())
    }

    fn asking(line: &str) -> HeaderMap {
        HeaderMap::from_iter([(RANGE, HeaderValue::from_str(line).unwrap())])
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
            let fields = lines.iter().map(|line| (RANGE, HeaderValue::from_static(line)));
            let mut map = HeaderMap::new();
            fields.for_each(|(name, value)| _ = map.append(name, value));
            assert_eq!(asks_for_everything(&map), expected, "{lines:?}");
        }
    }

    #[test]
    fn ranges_are_cut_joined_and_answered_in_the_order_asked() {
        let check = |range: &str, length: u64, expected: Extract| {
            let got = judge_range(&asking(range), StatusCode::OK, &HeaderMap::new(), length);
            assert_eq!(got, expected, "{range:?} of {length}");
        };
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
            ("bytes=a-b", Extract::Whole),
            ("bytes=1-b", Extract::Whole),
            ("bytes=+1-2", Extract::Whole),
            ("bytes=", Extract::Whole),
            ("bytes=-", Extract::Whole),
            ("lines=1-2", Extract::Whole),
            ("bytes=0-1,3-4", parts(&[(0, 1), (3, 4)])),
            ("bytes=7-8, 0-1 ,\t3-3", parts(&[(7, 8), (0, 1), (3, 3)])),
            ("bytes=, 0-1,,", part(0, 1)),
            ("bytes=-1,0-0", parts(&[(9, 9), (0, 0)])),
            ("bytes=0-1,2-3", part(0, 3)),
            ("bytes=8-9,0-4,3-6", parts(&[(8, 9), (0, 6)])),
            ("bytes=0-1,8-9,2-7", part(0, 9)),
            ("bytes=0-1,20-30", part(0, 1)),
            ("bytes=20-30,-0", Extract::Unsatisfiable),
            ("bytes=0-1,5-4", Extract::Whole),
            ("bytes=0-1,x", Extract::Whole),
        ] {
            check(range, 10, expected);
        }
        check("bytes=-5", 0, Extract::Unsatisfiable);
        check("bytes=0-", 0, Extract::Unsatisfiable);
        let many = |count: usize| {
            let ranges: Vec<String> = (0..count).map(|n| format!("{}-{}", n * 3, n * 3)).collect();
            format!("bytes={}", ranges.join(","))
        };
        let spans: Vec<(u64, u64)> = (0..MAX_RANGES as u64).map(|n| (n * 3, n * 3)).collect();
        check(&many(MAX_RANGES), 1000, parts(&spans));
        check(&many(MAX_RANGES + 1), 1000, Extract::Whole);
    }

    #[test]
    fn a_part_answers_what_lies_in_it() {
        let check = |range: &str, length: Option<u64>, expected: Option<Extract>| {
            let held = [Span { first: 2, last: 5 }, Span { first: 8, last: 9 }];
            let got = judge_part(&asking(range), &HeaderMap::new(), length, &held);
            assert_eq!(got, expected, "{range:?} of {length:?}");
        };
        for length in [Some(10), None] {
            check("bytes=2-5", length, Some(part(2, 5)));
            check("bytes=3-3", length, Some(part(3, 3)));
            check("bytes=8-9,2-3", length, Some(parts(&[(8, 9), (2, 3)])));
            check("bytes=2-3,4-5", length, Some(part(2, 5)));
            check("bytes=1-3", length, None);
            check("bytes=2-3,6-6", length, None);
            check("bytes=4-8", length, None);
            check("lines=2-5", length, None);
        }
        check("bytes=8-", Some(10), Some(part(8, 9)));
        check("bytes=-2", Some(10), Some(part(8, 9)));
        check("bytes=8-99", Some(10), Some(part(8, 9)));
        check("bytes=8-", None, None);
        check("bytes=-2", None, None);
        check("bytes=8-99", None, None);
        check("bytes=7-", Some(10), None);
        check("bytes=10-", Some(10), None);
        assert_eq!(judge_part(&HeaderMap::new(), &HeaderMap::new(), Some(10), &[]), None);
    }

    #[test]
    fn what_is_written_of_a_range_is_read() {
        for text in ["bytes=0-0", "bytes=3-7", "bytes=5-", "bytes=-9"] {
            let ranges = read_ranges(&asking(text)).unwrap();
            assert_eq!(ranges[0].to_string(), text);
        }
    }

    #[test]
    fn if_range_compares_strongly() {
        const MONDAY: &str = "Mon, 07 Nov 1994 08:49:37 GMT";
        const SUNDAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let check = |condition: &'static str, stored: &[(http::HeaderName, &'static str)], expected: bool| {
            let request = HeaderMap::from_iter([(IF_RANGE, HeaderValue::from_static(condition))]);
            let stored = stored.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            assert_eq!(if_range_holds(&request, &HeaderMap::from_iter(stored)), expected, "{condition}");
        };
        check("\"1\"", &[(ETAG, "\"1\"")], true);
        check("\"1\"", &[(ETAG, "\"2\"")], false);
        check("\"1\"", &[(ETAG, "W/\"1\"")], false);
        check("W/\"1\"", &[(ETAG, "W/\"1\"")], false);
        check("W/\"1\"", &[(ETAG, "\"1\"")], false);
        check("\"1\"", &[], false);
        check(SUNDAY, &[(LAST_MODIFIED, SUNDAY), (DATE, MONDAY)], true);
        check(SUNDAY, &[(LAST_MODIFIED, SUNDAY), (DATE, SUNDAY)], false);
        check(SUNDAY, &[(LAST_MODIFIED, SUNDAY)], false);
        check(MONDAY, &[(LAST_MODIFIED, SUNDAY), (DATE, MONDAY)], false);
        check(MONDAY, &[(ETAG, "\"1\"")], false);
    }
}
