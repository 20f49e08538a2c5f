//! Large bodies in chunks of one size, each kept and fetched by itself: which of them a range lies in, and which of those
//! are to be fetched together.

use super::range::ByteRange;
use super::span::Span;

/// Bytes of a chunk, but for the last one of a body.
pub const CHUNK_BYTES: u64 = 1024 * 1024;
/// Chunks of one request to the origin at most, and those that are looked at for what is missing.
pub const MAX_RUN: u64 = 4096;

/// Chunks that follow each other, by their numbers, which begin at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first one.
    pub first: u64,
    /// The last one, which is at or behind the first.
    pub last: u64,
}

impl Run {
    /// The chunks that `span` lies in.
    pub const fn around(span: Span) -> Self {
        Self { first: number_of(span.first), last: number_of(span.last) }
    }

    /// The chunks that `span` of a body of `length` bytes consists of; `None` = it begins or ends within one.
    pub fn of(span: Span, length: u64) -> Option<Self> {
        let run = Self::around(span);
        (run.span(length) == Some(span)).then_some(run)
    }

    /// Their bytes in a body of `length` bytes; `None` = it ends before them.
    pub fn span(self, length: u64) -> Option<Span> {
        Some(Span { first: chunk(self.first, length)?.first, last: chunk(self.last, length)?.last })
    }

    /// The one behind `number`, if it is one of them.
    pub fn after(self, number: u64) -> Option<u64> {
        number.checked_add(1).filter(|next| (self.first..=self.last).contains(next))
    }
}

/// The number of the chunk that has byte `at`.
pub const fn number_of(at: u64) -> u64 {
    at / CHUNK_BYTES
}

/// The bytes of chunk `number` of a body of `length` bytes; `None` = there is no such chunk.
pub fn chunk(number: u64, length: u64) -> Option<Span> {
    let all = Span::all(length)?;
    Span::of(number.checked_mul(CHUNK_BYTES)?, CHUNK_BYTES)?.common(all)
}

/// The first chunks of `wanted` that are not there, as far as they follow each other. Only so many are looked at
/// ([`MAX_RUN`]): what lies behind shows when it is its turn.
pub fn first_missing(wanted: Run, is_there: impl Fn(u64) -> bool) -> Option<Run> {
    let seen = wanted.first..=wanted.last.min(wanted.first.saturating_add(MAX_RUN - 1));
    let first = seen.clone().find(|number| !is_there(*number))?;
    let last = (first..=*seen.end()).take_while(|number| *number == first || !is_there(*number)).last()?;
    Some(Run { first, last })
}

/// What to ask for where `range` is wanted and nothing is known: whole chunks, if whatever has that range is kept in chunks,
/// as bodies are from `chunked_from` bytes on. `None` = it may be smaller.
pub fn widened(range: ByteRange, chunked_from: u64) -> Option<ByteRange> {
    let begin = |at| number_of(at) * CHUNK_BYTES;
    match range {
        ByteRange::Between(span) if span.first >= chunked_from => {
            let last = begin(span.last).checked_add(CHUNK_BYTES - 1).filter(|last| *last < u64::MAX)?;
            Some(ByteRange::Between(Span { first: begin(span.first), last }))
        }
        ByteRange::From(first) if first >= chunked_from => Some(ByteRange::From(begin(first))),
        ByteRange::Between(_) | ByteRange::From(_) | ByteRange::Last(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = CHUNK_BYTES;

    #[test]
    fn what_is_missing_is_asked_for_by_runs() {
        // A letter a chunk: `#` is there, `.` is not, and those between the brackets are wanted.
        for (row, expected) in [
            ("[.]", "0-0"),
            ("[#]", ""),
            ("[....]", "0-3"),
            ("[####]", ""),
            ("[.###]", "0-0"),
            ("[###.]", "3-3"),
            ("[#..#]", "1-2"),
            ("[.#.#..]", "0-0 2-2 4-5"),
            ("..[..]..", "2-3"),
            ("#.[#.]##", "3-3"),
            ("..[##]..", ""),
            ("##[.#.]", "2-2 4-4"),
        ] {
            let chunks: Vec<char> = row.chars().filter(|letter| !"[]".contains(*letter)).collect();
            let first = row.find('[').unwrap() as u64;
            let mut wanted = Run { first, last: row.find(']').unwrap() as u64 - 2 };
            let mut runs = Vec::new();
            while let Some(run) = first_missing(wanted, |number| chunks[number as usize] == '#') {
                runs.push(format!("{}-{}", run.first, run.last));
                if run.last == wanted.last {
                    break;
                }
                wanted.first = run.last + 1;
            }
            assert_eq!(runs.join(" "), expected, "{row}");
        }
    }

    #[test]
    fn no_request_and_no_look_goes_on_for_ever() {
        let all = Run { first: 7, last: u64::MAX };
        assert_eq!(first_missing(all, |_| false), Some(Run { first: 7, last: 6 + MAX_RUN }));
        assert_eq!(first_missing(all, |_| true), None);
        let beyond = |number| number < 7 + MAX_RUN;
        assert_eq!(first_missing(all, beyond), None, "nobody has looked as far as that");
    }

    #[test]
    fn chunks_have_one_size_but_for_the_last() {
        let check = |number, length, expected: Option<(u64, u64)>| {
            assert_eq!(
                chunk(number, length).map(|span| (span.first, span.last)),
                expected,
                "{number} {length}"
            );
        };
        check(0, 0, None);
        check(0, 5, Some((0, 4)));
        check(0, MIB, Some((0, MIB - 1)));
        check(1, MIB, None);
        check(1, MIB + 1, Some((MIB, MIB)));
        check(2, 3 * MIB, Some((2 * MIB, 3 * MIB - 1)));
        check(u64::MAX, u64::MAX, None);

        let span = |first, last| Span { first, last };
        assert_eq!(Run::around(span(MIB - 1, MIB)), Run { first: 0, last: 1 });
        let check = |first, last, expected: Option<(u64, u64)>| {
            let run = Run::of(span(first, last), 2 * MIB + 5);
            assert_eq!(run.map(|run| (run.first, run.last)), expected, "{first}-{last}");
        };
        check(0, MIB - 1, Some((0, 0)));
        check(0, 2 * MIB + 4, Some((0, 2)));
        check(MIB, 2 * MIB - 1, Some((1, 1)));
        check(2 * MIB, 2 * MIB + 4, Some((2, 2)));
        check(0, MIB, None);
        check(1, MIB - 1, None);
        check(2 * MIB, 2 * MIB + 3, None);
    }

    #[test]
    fn a_run_knows_what_comes_behind() {
        let run = Run { first: 3, last: 5 };
        for (number, expected) in
            [(1, None), (2, Some(3)), (3, Some(4)), (4, Some(5)), (5, None), (u64::MAX, None)]
        {
            assert_eq!(run.after(number), expected, "{number}");
        }
    }

    #[test]
    fn a_range_that_only_large_bodies_have_is_asked_for_in_whole_chunks() {
        let between = |first, last| ByteRange::Between(Span { first, last });
        for (range, expected) in [
            (between(8 * MIB, 8 * MIB), Some(between(8 * MIB, 9 * MIB - 1))),
            (between(9 * MIB - 1, 9 * MIB), Some(between(8 * MIB, 10 * MIB - 1))),
            (between(8 * MIB - 1, 9 * MIB), None),
            (between(8 * MIB, u64::MAX - 1), None),
            (ByteRange::From(9 * MIB + 7), Some(ByteRange::From(9 * MIB))),
            (ByteRange::From(0), None),
            (ByteRange::Last(9 * MIB), None),
        ] {
            assert_eq!(widened(range, 8 * MIB), expected, "{range:?}");
        }
    }
}
