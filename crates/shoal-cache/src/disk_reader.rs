//! A body on its way from the disk: piece by piece, and never further ahead than one. What of it turns out to be damaged
//! comes from the origin, if that still has the same version.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use shoal_policy::cache::span::Span;
use shoal_policy::failure::Failure;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::disk::{DiskBody, Patience};
use crate::rest::{Rescue, Rest};

/// Reads a stretch of a body from disk.
pub(crate) struct DiskReader {
    body: Arc<DiskBody>,
    /// What is read.
    span: Span,
    /// The next piece, and bytes of it that are not wanted.
    next: usize,
    skip: usize,
    /// Bytes to come.
    left: u64,
    state: State,
    rescue: Option<Arc<Rescue>>,
}

enum State {
    /// The next piece may be in memory.
    Ready,
    /// The disk is being waited for.
    Reading(JoinHandle<io::Result<Bytes>>),
    /// The origin is.
    Asking(oneshot::Receiver<Rest>),
    /// The rest comes from there.
    GoingOn(Rest),
}

impl DiskReader {
    /// All of the body.
    pub(crate) fn whole(body: &Arc<DiskBody>) -> Self {
        let mut reader = Self::part(body, Span { first: 0, last: body.bytes().saturating_sub(1) });
        reader.left = body.bytes();
        reader
    }

    /// The bytes of `span`.
    pub(crate) fn part(body: &Arc<DiskBody>, span: Span) -> Self {
        let (next, skip) = DiskBody::piece_of(span.first);
        let (body, left) = (body.clone(), span.bytes());
        Self { body, span, next, skip, left, state: State::Ready, rescue: None }
    }

    /// What cannot be read comes from there.
    pub(crate) fn guard(&mut self, rescue: &Arc<Rescue>) {
        self.rescue = Some(rescue.clone());
    }

    /// Bytes to come.
    pub(crate) const fn left(&self) -> u64 {
        self.left
    }

    /// The next piece. What is not what was written ends the body, and not like a whole one, unless it can be had elsewhere.
    pub(crate) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        while self.left > 0 {
            let read = match &mut self.state {
                State::Ready => match self.body.piece(self.next, Patience::Now) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.state = State::Reading(self.body.piece_later(self.next));
                        continue;
                    }
                    read => read,
                },
                State::Reading(reading) => {
                    ready!(Pin::new(reading).poll(context)).unwrap_or_else(|lost| Err(io::Error::other(lost)))
                }
                State::Asking(asking) => match ready!(Pin::new(asking).poll(context)) {
                    Ok(rest) => {
                        self.state = State::GoingOn(rest);
                        continue;
                    }
                    Err(_) => return Poll::Ready(Some(Err(Failure::Internal))),
                },
                State::GoingOn(rest) => return poll_rest(rest, &mut self.left, context),
            };
            self.state = State::Ready;
            if let Ok(piece) = read {
                return Poll::Ready(Some(Ok(Frame::data(self.cut(piece)))));
            }
            let Some(rescue) = self.rescue.take() else {
                return Poll::Ready(Some(Err(Failure::Internal)));
            };
            self.state = State::Asking(rescue.begin(self.span, self.span.bytes() - self.left));
        }
        Poll::Ready(None)
    }

    /// What is wanted of the next piece.
    fn cut(&mut self, mut piece: Bytes) -> Bytes {
        let mut piece = piece.split_off(self.skip.min(piece.len()));
        piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.next += 1;
        self.skip = 0;
        self.left -= piece.len() as u64;
        piece
    }
}

/// The next part of the rest, of which `left` bytes are to come: no more, and too few are not the end.
fn poll_rest(
    rest: &mut Rest,
    left: &mut u64,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
    loop {
        let mut piece = match ready!(Pin::new(&mut rest.body).poll_frame(context)) {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
            None => return Poll::Ready(Some(Err(Failure::UpstreamReset))),
        };
        let skipped = usize::try_from(rest.skip).unwrap_or(usize::MAX).min(piece.len());
        rest.skip -= skipped as u64;
        let mut piece = piece.split_off(skipped);
        piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
        if !piece.is_empty() {
            *left -= piece.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
    }
}
