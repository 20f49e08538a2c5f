//! Stretches of a body, and what of one is still to be fetched.

/// A held stretch between two missing ones that is shorter than this is fetched again with them, bytes: one request less
/// is worth more.
const MIN_HELD_BYTES: u64 = 64 * 1024;
/// What is missing is fetched by at most so many requests; beyond that, what lies between it comes along.
pub const MAX_FETCHES: usize = 8;

/// A stretch of a body: offsets of its first and its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte, which is at or behind the first.
    pub last: u64,
}

impl Span {
    /// All of a body of `length` bytes; `None` = it is empty.
    pub const fn all(length: u64) -> Option<Self> {
        match length.checked_sub(1) {
            Some(last) => Some(Self { first: 0, last }),
            None => None,
        }
    }

    /// `bytes` from `first` on; `None` = there are none, or they end beyond every number.
    pub const fn of(first: u64, bytes: u64) -> Option<Self> {
        let Some(more) = bytes.checked_sub(1) else { return None };
        match first.checked_add(more) {
            Some(last) if last < u64::MAX => Some(Self { first, last }),
            Some(_) | None => None,
        }
    }

    /// How many bytes it has.
    pub const fn bytes(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// All of `other` lies in it.
    pub const fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// What lies in both.
    pub fn common(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// Together they are one stretch.
    pub const fn touches(self, other: Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }

    /// The one stretch that two that touch make.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// A part of what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// It is here.
    Held(Span),
    /// It has to be fetched.
    Missing(Span),
}

/// How to come by `wanted` where `held` (in order, not touching) is here: segments in order, without a hole.
pub fn plan(held: &[Span], wanted: Span) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut next = Some(wanted.first);
    for span in held.iter().filter_map(|span| span.common(wanted)) {
        let Some(first) = next else { break };
        if first < span.first {
            segments.push(Segment::Missing(Span { first, last: span.first - 1 }));
        }
        segments.push(Segment::Held(span));
        next = (span.last < wanted.last).then(|| span.last + 1);
    }
    if let Some(first) = next {
        segments.push(Segment::Missing(Span { first, last: wanted.last }));
    }
    let mut segments = merged(segments, |bytes| bytes < MIN_HELD_BYTES);
    while segments.iter().filter(|segment| matches!(segment, Segment::Missing(_))).count() > MAX_FETCHES {
        let between = segments.iter().enumerate().filter_map(|(at, segment)| match segment {
            Segment::Held(span) if 0 < at && at + 1 < segments.len() => Some(span.bytes()),
            Segment::Held(_) | Segment::Missing(_) => None,
        });
        let Some(smallest) = between.min() else { break };
        segments = merged(segments, |bytes| bytes <= smallest);
    }
    segments
}

/// Held stretches between missing ones that are `short` count as missing.
fn merged(segments: Vec<Segment>, short: impl Fn(u64) -> bool) -> Vec<Segment> {
    let mut merged: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        if let (Segment::Missing(span), [.., Segment::Missing(before), Segment::Held(held)]) =
            (segment, &merged[..])
            && short(held.bytes())
        {
            let all = before.joined(span);
            merged.truncate(merged.len() - 2);
            merged.push(Segment::Missing(all));
        } else {
            merged.push(segment);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    #[test]
    fn what_is_missing_is_fetched_and_what_is_held_is_not() {
        let check = |held: &[Span], wanted: Span, expected: &[(char, u64, u64)]| {
            let planned = plan(held, wanted);
            let got = planned.iter().map(|segment| match segment {
                Segment::Held(span) => ('h', span.first, span.last),
                Segment::Missing(span) => ('m', span.first, span.last),
            });
            assert_eq!(got.collect::<Vec<_>>(), expected, "{held:?} {wanted:?}");
        };
        check(&[], span(0, 9), &[('m', 0, 9)]);
        check(&[span(0, 4)], span(0, 9), &[('h', 0, 4), ('m', 5, 9)]);
        check(&[span(5, 9)], span(0, 9), &[('m', 0, 4), ('h', 5, 9)]);
        check(&[span(0, 99)], span(3, 7), &[('h', 3, 7)]);
        check(&[span(20, 99)], span(3, 7), &[('m', 3, 7)]);
        check(&[span(0, 4), span(8, 20)], span(2, 10), &[('h', 2, 4), ('m', 5, 7), ('h', 8, 10)]);
        // Little that lies between two fetches comes along with them.
        check(&[span(3, 5)], span(0, 9), &[('m', 0, 9)]);
        let large = MIN_HELD_BYTES;
        check(
            &[span(10, 9 + large)],
            span(0, 2 * large),
            &[('m', 0, 9), ('h', 10, 9 + large), ('m', 10 + large, 2 * large)],
        );
        check(&[span(0, u64::MAX - 1)], span(0, u64::MAX - 1), &[('h', 0, u64::MAX - 1)]);
    }

    #[test]
    fn there_is_an_end_to_the_number_of_fetches() {
        let large = MIN_HELD_BYTES;
        let held: Vec<Span> = (0..40).map(|n| span(n * 3 * large, n * 3 * large + large + n)).collect();
        let planned = plan(&held, span(0, 130 * large));
        let missing = planned.iter().filter(|segment| matches!(segment, Segment::Missing(_)));
        assert!(missing.count() <= MAX_FETCHES);
        let mut next = 0;
        for segment in planned {
            let (Segment::Held(span) | Segment::Missing(span)) = segment;
            assert_eq!(span.first, next);
            next = span.last + 1;
        }
        assert_eq!(next, 130 * large + 1);
    }

    #[test]
    fn spans_know_their_bounds() {
        assert_eq!(Span::all(0), None);
        assert_eq!(Span::all(5), Some(span(0, 4)));
        assert_eq!(Span::of(3, 0), None);
        assert_eq!(Span::of(3, 2), Some(span(3, 4)));
        assert_eq!(Span::of(u64::MAX, 2), None);
        assert!(span(0, 4).touches(span(5, 6)) && !span(0, 4).touches(span(6, 6)));
        assert_eq!(span(0, 4).common(span(4, 9)), Some(span(4, 4)));
        assert_eq!(span(0, 3).common(span(4, 9)), None);
        assert_eq!(span(0, 4).joined(span(2, 9)), span(0, 9));
    }
}
