//! The body of an answer, wherever it comes from.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use shoal_policy::cache::span::Span;
use shoal_policy::failure::Failure;

use crate::disk_reader::DiskReader;
use crate::fill::FillReader;
use crate::object::Object;
use crate::rest::Rescue;
use crate::stored_body::{Pieces, Slice, StoredBody};

/// The body of an origin's response. One that breaks off ends in an error, never like a whole one.
pub type OriginBody = UnsyncBoxBody<Bytes, Failure>;

/// The body of an answer, wherever it comes from. What cannot be had to its end ends in an error, so that nobody takes it for
/// the whole (RFC 9112 §8).
pub struct CacheBody {
    source: Source,
}

enum Source {
    Empty,
    /// A stored body in one piece, which nearly all are.
    Piece(Bytes),
    Pieces {
        pieces: Pieces,
        next: usize,
        left: u64,
        /// Bytes of the next piece that are not wanted.
        skip: usize,
    },
    Disk(DiskReader),
    /// Bodies one behind the other.
    Row {
        parts: VecDeque<CacheBody>,
        left: u64,
    },
    Fill {
        reader: FillReader,
        /// Bytes to come that are not wanted.
        skip: u64,
        /// Bytes to come that are, if known.
        left: Option<u64>,
    },
    Origin(OriginBody),
    /// What was asked for is not there: better an end that everybody sees than bytes of something else.
    Broken,
}

impl CacheBody {
    /// No bytes.
    pub const fn empty() -> Self {
        Self { source: Source::Empty }
    }

    /// The fill that it is read from, if it is.
    pub(crate) fn into_fill(self) -> Option<FillReader> {
        match self.source {
            Source::Fill { reader, .. } => Some(reader),
            Source::Empty
            | Source::Piece(_)
            | Source::Pieces { .. }
            | Source::Disk(_)
            | Source::Row { .. }
            | Source::Origin(_)
            | Source::Broken => None,
        }
    }

    /// What the origin sends, passed on.
    pub const fn origin(body: OriginBody) -> Self {
        Self { source: Source::Origin(body) }
    }

    /// All that is stored of an object that is whole.
    pub(crate) fn stored(object: &Object) -> Self {
        let source = match &object.body {
            StoredBody::Whole(pieces) => match &**pieces {
                [] => Source::Empty,
                [piece] => Source::Piece(piece.clone()),
                _ => Source::Pieces { pieces: pieces.clone(), next: 0, left: object.body_bytes, skip: 0 },
            },
            StoredBody::OnDisk(body) => Source::Disk(DiskReader::whole(body)),
            StoredBody::Spans(_) | StoredBody::Chunked(_) => Source::Broken,
        };
        Self { source }
    }

    /// The bytes of `span`, which the object holds.
    pub(crate) fn part(object: &Object, span: Span) -> Self {
        if let StoredBody::OnDisk(body) = &object.body {
            return Self { source: Source::Disk(DiskReader::part(body, span)) };
        }
        let Some(Slice { pieces, mut skip }) = object.body.slice(span) else {
            return Self { source: Source::Broken };
        };
        let mut next = 0;
        while let Some(piece) = pieces.get(next)
            && skip >= piece.len() as u64
        {
            skip -= piece.len() as u64;
            next += 1;
        }
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Self { source: Source::Pieces { pieces, next, left: span.bytes(), skip } }
    }

    /// These bytes.
    pub(crate) fn text(text: Vec<u8>) -> Self {
        Self { source: Source::Piece(text.into()) }
    }

    /// These bodies, which have `length` bytes in all, one behind the other.
    pub(crate) const fn row(parts: VecDeque<Self>, length: u64) -> Self {
        Self { source: Source::Row { parts, left: length } }
    }

    /// Some of it is read from disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        match &self.source {
            Source::Disk(_) => true,
            Source::Row { parts, .. } => parts.iter().any(Self::is_on_disk),
            Source::Empty
            | Source::Piece(_)
            | Source::Pieces { .. }
            | Source::Fill { .. }
            | Source::Origin(_)
            | Source::Broken => false,
        }
    }

    /// What cannot be read from disk comes from there.
    pub(crate) fn guard(&mut self, rescue: &Arc<Rescue>) {
        match &mut self.source {
            Source::Disk(reader) => reader.guard(rescue),
            Source::Row { parts, .. } => parts.iter_mut().for_each(|part| part.guard(rescue)),
            Source::Empty
            | Source::Piece(_)
            | Source::Pieces { .. }
            | Source::Fill { .. }
            | Source::Origin(_)
            | Source::Broken => {}
        }
    }

    pub(crate) const fn filling(reader: FillReader, length: Option<u64>) -> Self {
        Self { source: Source::Fill { reader, skip: 0, left: length } }
    }

    /// The bytes from `first` on, `length` of them, as they come.
    pub(crate) const fn filling_part(reader: FillReader, first: u64, length: u64) -> Self {
        Self { source: Source::Fill { reader, skip: first, left: Some(length) } }
    }
}

impl Body for CacheBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Piece(piece) => {
                let piece = std::mem::take(piece);
                self.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Source::Pieces { pieces, next, left, skip } => {
                let Some(piece) = pieces.get(*next).filter(|_| *left > 0) else { return Poll::Ready(None) };
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len() - *skip);
                let piece = piece.slice(*skip..*skip + wanted);
                *next += 1;
                *skip = 0;
                *left -= wanted as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Source::Broken => Poll::Ready(Some(Err(Failure::Internal))),
            Source::Disk(reader) => reader.poll_piece(context),
            Source::Row { parts, left } => poll_row(parts, left, context),
            Source::Fill { reader, skip, left } => poll_fill(reader, skip, left, context),
            Source::Origin(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Piece(_) | Source::Broken => false,
            Source::Pieces { left, .. } | Source::Row { left, .. } => *left == 0,
            Source::Disk(reader) => reader.left() == 0,
            Source::Fill { left: Some(0), .. } => true,
            Source::Fill { reader, .. } => reader.is_at_end(),
            Source::Origin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Piece(piece) => SizeHint::with_exact(piece.len() as u64),
            Source::Pieces { left, .. } | Source::Row { left, .. } => SizeHint::with_exact(*left),
            Source::Disk(reader) => SizeHint::with_exact(reader.left()),
            Source::Broken => SizeHint::default(),
            Source::Fill { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Origin(body) => body.size_hint(),
        }
    }
}

fn poll_row(
    parts: &mut VecDeque<CacheBody>,
    left: &mut u64,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
    while let Some(part) = parts.front_mut() {
        match ready!(Pin::new(part).poll_frame(context)) {
            Some(Ok(frame)) => {
                *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                return Poll::Ready(Some(Ok(frame)));
            }
            Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
            None => _ = parts.pop_front(),
        }
    }
    // Too little is not the end.
    Poll::Ready((*left > 0).then_some(Err(Failure::Internal)))
}

fn poll_fill(
    reader: &FillReader,
    skip: &mut u64,
    left: &mut Option<u64>,
    context: &Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
    loop {
        if *left == Some(0) {
            return Poll::Ready(None);
        }
        let mut chunk = match ready!(reader.poll_chunk(context)) {
            Some(Ok(chunk)) => chunk,
            Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
            None => return Poll::Ready(None),
        };
        let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(chunk.len());
        *skip -= skipped as u64;
        let mut chunk = chunk.split_off(skipped);
        if let Some(left) = left {
            chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= chunk.len() as u64;
        }
        if !chunk.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
    }
}
