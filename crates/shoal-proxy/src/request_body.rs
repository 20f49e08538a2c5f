//! The body of a request on its way to an endpoint.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use shoal_policy::failure::Failure;

use crate::deadline::Deadlines;
use crate::downstream_body::{BodyLimits, BodyProgress, DownstreamBody};
use crate::incoming::Incoming;
use crate::recording::{RecordedBody, Recording};

/// A message that cannot be brought to its end.
#[derive(Debug, thiserror::Error)]
#[error("the message broke off: {}", .0.reason())]
pub(crate) struct Broken(pub(crate) Failure);

/// The body of a request, read from the downstream as the endpoint takes it.
pub(crate) enum RequestBody {
    Empty,
    Stream(Box<DownstreamBody>),
    /// It is kept while it is sent.
    Recorded(RecordedBody),
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, limits: BodyLimits, deadlines: &Rc<Deadlines>) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Stream(Box::new(DownstreamBody::new(incoming, limits, deadlines)))
    }

    pub(crate) fn has_bytes(&self) -> bool {
        !matches!(self, Self::Empty)
    }

    /// The downstream sends it when it is told to go on.
    pub(crate) fn expects_continue(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Stream(body) => body.progress().expects_continue,
            Self::Recorded(body) => body.progress().expects_continue,
        }
    }

    /// `None` = there is no body.
    pub(crate) fn progress(&self) -> Option<Rc<BodyProgress>> {
        match self {
            Self::Empty => None,
            Self::Stream(body) => Some(body.progress().clone()),
            Self::Recorded(body) => Some(body.progress().clone()),
        }
    }

    /// Records it up to `max_bytes`; `Err` gives it back: there is nothing to keep, or it is longer for sure. One that is only
    /// sent when it is asked for is recorded in any case: until then it may be promised to anybody.
    pub(crate) fn record(self, max_bytes: usize) -> Result<Rc<Recording>, Self> {
        match self {
            Self::Stream(source)
                if source.size_hint().lower() <= max_bytes as u64 || source.progress().expects_continue =>
            {
                Ok(Rc::new(Recording::of(*source, max_bytes)))
            }
            body => Err(body),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let (polled, progress, is_end) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Stream(body) => (body.poll(cx), body.progress(), body.is_end_stream()),
            Self::Recorded(body) if body.is_given_up() => return Poll::Pending,
            Self::Recorded(body) => (body.poll(cx), body.progress(), body.is_end_stream()),
        };
        progress.awaited.set(polled.is_pending());
        match &polled {
            Poll::Ready(None) => progress.done.set(true),
            Poll::Ready(Some(Err(failure))) => progress.failure.set(Some(*failure)),
            Poll::Ready(Some(Ok(_))) if is_end => progress.done.set(true),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled.map_err(Broken)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
            Self::Recorded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
            Self::Recorded(body) => body.size_hint(),
        }
    }
}
