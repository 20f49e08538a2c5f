//! The bytes of a stored response: all of them, some stretches, or chunks that lie elsewhere.

use std::ops::Deref;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::span::Span;

use crate::chunks::Chunked;
use crate::disk::DiskBody;
use crate::object::{COUNTS_BYTES, allocated_bytes};

/// Bodies are stored in pieces of at most this many bytes.
const CHUNK_BYTES: usize = 256 * 1024;
/// Stretches of one body that are kept; beyond that, the shortest one goes.
const MAX_SPANS: usize = 64;
/// Pieces that a stretch may have beside full ones before they are put together.
const MAX_SMALL_PIECES: usize = 64;

/// What a piece costs beside its bytes, once it was passed on: who has it is counted.
const SHARED_BYTES: u64 = 32;

/// The bytes of a stored response.
pub(crate) enum StoredBody {
    /// All of them, in order.
    Whole(Pieces),
    /// All of them, on disk: they are read as they are passed on.
    OnDisk(Arc<DiskBody>),
    /// Some: never to be used as the whole (RFC 9111 §3.3).
    Spans(Spans),
    /// As many chunks as there are, each stored as an object of its own.
    Chunked(Box<Chunked>),
}

/// Pieces of a body, in order. Nearly all bodies are one.
#[derive(Clone)]
pub(crate) enum Pieces {
    One(Bytes),
    Several(Arc<[Bytes]>),
}

/// Stretches of a body.
pub(crate) struct Spans {
    /// Bytes of the whole body, if known.
    length: Option<u64>,
    /// In order, none touching another.
    held: Box<[StoredSpan]>,
}

/// A stretch that is there.
#[derive(Clone)]
struct StoredSpan {
    span: Span,
    pieces: Pieces,
}

/// Some bytes of a stored body: they lie in these pieces, behind the first `skip` of them.
pub(crate) struct Slice {
    pub(crate) pieces: Pieces,
    pub(crate) skip: u64,
}

impl StoredBody {
    /// A whole body as it came from a connection.
    pub(crate) fn whole(received: &[Bytes]) -> Self {
        Self::Whole(compact(received))
    }

    /// The stretch that `range` names, which is what `received` has; all of the body, if that is what it is.
    pub(crate) fn part(range: ContentRange, received: &[Bytes]) -> Self {
        let held = [StoredSpan { span: range.span, pieces: compact(received) }];
        Self::of_spans(range.length, held.into())
    }

    /// Bytes of the whole, if known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Whole(_) | Self::OnDisk(_) => Some(self.held_bytes()),
            Self::Spans(spans) => spans.length(),
            Self::Chunked(chunked) => Some(chunked.length()),
        }
    }

    /// All of it is there.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_) | Self::OnDisk(_))
    }

    /// Bytes that are there, those of chunks left out.
    pub(crate) fn held_bytes(&self) -> u64 {
        match self {
            Self::Whole(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
            Self::OnDisk(body) => body.bytes(),
            Self::Spans(spans) => spans.held.iter().map(|held| held.span.bytes()).sum(),
            Self::Chunked(_) => 0,
        }
    }

    /// What it takes up in memory, bytes.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        match self {
            Self::Whole(pieces) => pieces.allocated_bytes(),
            Self::OnDisk(body) => {
                allocated_bytes(size_of::<DiskBody>() + COUNTS_BYTES) + allocated_bytes(8 * body.pieces())
            }
            Self::Spans(spans) => {
                let pieces = spans.held.iter().map(|held| held.pieces.allocated_bytes());
                allocated_bytes(size_of_val::<[StoredSpan]>(&spans.held)) + pieces.sum::<u64>()
            }
            Self::Chunked(_) => allocated_bytes(size_of::<Chunked>()),
        }
    }

    /// Its pieces in memory: none of a body that is a part, or on disk.
    pub(crate) fn pieces(&self) -> &[Bytes] {
        match self {
            Self::Whole(pieces) => pieces,
            Self::OnDisk(_) | Self::Spans(_) | Self::Chunked(_) => &[],
        }
    }

    /// The same body with what `other` has of it beside what is here.
    pub(crate) fn joined(&self, other: &Self) -> Self {
        let (Self::Spans(own), Self::Spans(other)) = (self, other) else {
            let is_known = match (self, other) {
                (Self::Chunked(own), Self::Chunked(other)) => own.length() == other.length(),
                (Self::Chunked(_), _) => !other.is_whole(),
                (_, _) => self.is_whole(),
            };
            return if is_known { self.clone() } else { other.clone() };
        };
        let mut held: Vec<StoredSpan> = own.held.to_vec();
        for span in &other.held {
            add(&mut held, span.clone());
        }
        while held.len() > MAX_SPANS
            && let Some(shortest) = (0..held.len()).min_by_key(|at| held[*at].span.bytes())
        {
            held.remove(shortest);
        }
        Self::of_spans(own.length.or(other.length), held.into())
    }

    /// The bytes of `span`, if all of them are in memory.
    pub(crate) fn slice(&self, span: Span) -> Option<Slice> {
        match self {
            Self::Whole(pieces) => Some(Slice { pieces: pieces.clone(), skip: span.first }),
            Self::OnDisk(_) | Self::Chunked(_) => None,
            Self::Spans(spans) => {
                let held = spans.held.iter().find(|held| held.span.contains(span))?;
                Some(Slice { pieces: held.pieces.clone(), skip: span.first - held.span.first })
            }
        }
    }

    fn of_spans(length: Option<u64>, held: Box<[StoredSpan]>) -> Self {
        match &*held {
            [only] if length.is_some_and(|length| Span::all(length) == Some(only.span)) => {
                Self::Whole(only.pieces.clone())
            }
            _ => Self::Spans(Spans { length, held }),
        }
    }
}

impl Pieces {
    fn allocated_bytes(&self) -> u64 {
        let list_bytes = match self {
            Self::One(_) => 0,
            Self::Several(pieces) => allocated_bytes(COUNTS_BYTES + size_of_val::<[Bytes]>(pieces)),
        };
        list_bytes + self.iter().map(|piece| allocated_bytes(piece.len()) + SHARED_BYTES).sum::<u64>()
    }
}

impl Deref for Pieces {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        match self {
            Self::One(piece) => std::slice::from_ref(piece),
            Self::Several(pieces) => pieces,
        }
    }
}

impl From<Vec<Bytes>> for Pieces {
    fn from(mut pieces: Vec<Bytes>) -> Self {
        match pieces.len() {
            1 => Self::One(pieces.remove(0)),
            _ => Self::Several(pieces.into()),
        }
    }
}

impl Clone for StoredBody {
    fn clone(&self) -> Self {
        match self {
            Self::Whole(pieces) => Self::Whole(pieces.clone()),
            Self::OnDisk(body) => Self::OnDisk(body.clone()),
            Self::Spans(spans) => Self::Spans(Spans { length: spans.length, held: spans.held.clone() }),
            Self::Chunked(chunked) => Self::Chunked(chunked.clone()),
        }
    }
}

impl Spans {
    /// Bytes of the whole body, if known.
    pub(crate) const fn length(&self) -> Option<u64> {
        self.length
    }

    /// What is there, in order, none touching another.
    pub(crate) fn held(&self) -> Vec<Span> {
        self.held.iter().map(|held| held.span).collect()
    }
}

impl Slice {
    /// Its `bytes` bytes, piece by piece.
    pub(crate) fn pieces(&self, mut bytes: u64) -> Vec<Bytes> {
        let mut skip = self.skip;
        let mut found = Vec::new();
        for piece in &*self.pieces {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= skipped as u64;
            let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).min(piece.len() - skipped);
            if wanted > 0 {
                found.push(piece.slice(skipped..skipped + wanted));
                bytes -= wanted as u64;
            }
        }
        found
    }
}

/// Puts `new` among `held`, as one stretch with those it touches.
fn add(held: &mut Vec<StoredSpan>, new: StoredSpan) {
    let from =
        held.partition_point(|known| known.span.first < new.span.first && !known.span.touches(new.span));
    let to = from + held[from..].iter().take_while(|known| known.span.touches(new.span)).count();
    let joined = held[from..to].iter().fold(new, |new, known| join(known, &new));
    held.splice(from..to, [joined]);
}

/// One stretch of two that touch.
fn join(one: &StoredSpan, other: &StoredSpan) -> StoredSpan {
    let (front, back) = if one.span.first <= other.span.first { (one, other) } else { (other, one) };
    if front.span.contains(back.span) {
        return front.clone();
    }
    let span = front.span.joined(back.span);
    let known_bytes = front.span.last + 1 - back.span.first;
    let rest = Slice { pieces: back.pieces.clone(), skip: known_bytes };
    let pieces: Vec<Bytes> =
        front.pieces.iter().cloned().chain(rest.pieces(back.span.last - front.span.last)).collect();
    let full_pieces = usize::try_from(span.bytes()).unwrap_or(usize::MAX) / CHUNK_BYTES;
    let pieces = if pieces.len() > full_pieces + MAX_SMALL_PIECES { compact(&pieces) } else { pieces.into() };
    StoredSpan { span, pieces }
}

/// Pieces as they came from a connection, in as few exactly sized ones as may be: a received piece keeps the whole
/// read buffer it is a part of alive.
fn compact(received: &[Bytes]) -> Pieces {
    let mut left: usize = received.iter().map(Bytes::len).sum();
    let mut chunks = Vec::with_capacity(left.div_ceil(CHUNK_BYTES));
    let mut current = BytesMut::with_capacity(left.min(CHUNK_BYTES));
    for piece in received {
        let mut piece = &piece[..];
        while !piece.is_empty() {
            let (now, later) = piece.split_at(piece.len().min(CHUNK_BYTES - current.len()));
            current.extend_from_slice(now);
            left -= now.len();
            piece = later;
            if current.len() == CHUNK_BYTES {
                let next = BytesMut::with_capacity(left.min(CHUNK_BYTES));
                chunks.push(std::mem::replace(&mut current, next).freeze());
            }
        }
    }
    if !current.is_empty() {
        chunks.push(current.freeze());
    }
    chunks.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"0123456789abcdefghij";

    fn part(first: u64, last: u64, length: Option<u64>) -> StoredBody {
        let bytes = Bytes::copy_from_slice(&TEXT[first as usize..=last as usize]);
        StoredBody::part(ContentRange { span: Span { first, last }, length }, &[bytes])
    }

    fn held(body: &StoredBody) -> Vec<(u64, u64)> {
        match body {
            StoredBody::Whole(_) | StoredBody::OnDisk(_) | StoredBody::Chunked(_) => vec![(0, u64::MAX)],
            StoredBody::Spans(spans) => spans.held().iter().map(|span| (span.first, span.last)).collect(),
        }
    }

    fn read(body: &StoredBody, first: u64, last: u64) -> Option<Vec<u8>> {
        let span = Span { first, last };
        Some(body.slice(span)?.pieces(span.bytes()).concat())
    }

    #[test]
    fn stretches_that_touch_become_one_and_in_the_end_the_whole() {
        let check = |parts: &[(u64, u64)], expected: &[(u64, u64)]| {
            let mut parts = parts.iter().map(|&(first, last)| part(first, last, Some(20)));
            let first = parts.next().unwrap();
            let body = parts.fold(first, |body, part| body.joined(&part));
            assert_eq!(held(&body), expected);
            for &(first, last) in expected {
                let last = last.min(19);
                assert_eq!(read(&body, first, last).unwrap(), &TEXT[first as usize..=last as usize]);
            }
        };
        check(&[(2, 5)], &[(2, 5)]);
        check(&[(2, 5), (9, 9)], &[(2, 5), (9, 9)]);
        check(&[(9, 9), (2, 5)], &[(2, 5), (9, 9)]);
        check(&[(2, 5), (6, 8)], &[(2, 8)]);
        check(&[(2, 5), (0, 1)], &[(0, 5)]);
        check(&[(2, 5), (4, 8)], &[(2, 8)]);
        check(&[(4, 8), (2, 5)], &[(2, 8)]);
        check(&[(2, 8), (3, 4)], &[(2, 8)]);
        check(&[(3, 4), (2, 8)], &[(2, 8)]);
        check(&[(0, 1), (4, 5), (8, 9), (12, 13), (3, 9)], &[(0, 1), (3, 9), (12, 13)]);
        check(&[(0, 1), (4, 5), (8, 9), (2, 7)], &[(0, 9)]);
        check(&[(10, 19), (0, 4), (5, 9)], &[(0, u64::MAX)]);
        check(&[(0, 19)], &[(0, u64::MAX)]);
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        let body = part(2, 5, None).joined(&part(8, 9, None));
        assert!(!body.is_whole());
        assert_eq!(body.held_bytes(), 6);
        assert_eq!(read(&body, 3, 4).unwrap(), b"34");
        assert_eq!(read(&body, 8, 9).unwrap(), b"89");
        for (first, last) in [(0, 3), (5, 6), (5, 8), (10, 10)] {
            assert_eq!(read(&body, first, last), None);
        }
        assert!(part(0, 19, None).slice(Span { first: 0, last: 19 }).is_some());
        assert!(!part(0, 19, None).is_whole(), "nobody knows how long it is");
        assert!(part(0, 9, None).joined(&part(10, 19, Some(20))).is_whole(), "now somebody does");
    }

    #[test]
    fn a_stretch_keeps_few_pieces_and_a_body_few_stretches() {
        let letter = |at: u64| {
            let range = ContentRange { span: Span { first: at, last: at }, length: Some(1 << 20) };
            StoredBody::part(range, &[Bytes::from_static(b"x")])
        };
        let line = (1..1000).fold(letter(0), |body, at| body.joined(&letter(at)));
        let all = line.slice(Span { first: 0, last: 999 }).unwrap();
        assert!(all.pieces.len() <= MAX_SMALL_PIECES + 1);
        assert_eq!(all.pieces(1000).concat().len(), 1000);
        let dots = (1..1000).fold(letter(0), |body, at| body.joined(&letter(at * 2)));
        assert_eq!(held(&dots).len(), MAX_SPANS);
    }

    #[test]
    fn large_bodies_lie_in_pieces_of_one_size() {
        let received = vec![Bytes::from(vec![7; CHUNK_BYTES / 2 + 1]); 4];
        let StoredBody::Whole(pieces) = StoredBody::whole(&received) else { panic!() };
        let sizes: Vec<usize> = pieces.iter().map(Bytes::len).collect();
        assert_eq!(sizes, [CHUNK_BYTES, CHUNK_BYTES, 4]);
    }
}
