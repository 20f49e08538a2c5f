//! One request's place in a fill.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use shoal_policy::failure::Failure;

use super::{End, Fill, FillHead, Head};
use crate::object::Object;

/// One request's place in a fill, at its own offset; woken by notification.
pub(crate) struct FillReader {
    fill: Arc<Fill>,
    id: u64,
}

/// What became of a fill, as far as its head.
pub(crate) enum Arrival {
    /// The body can be read.
    Head(Arc<FillHead>),
    /// An object answers.
    Object(Arc<Object>),
    /// It is for one request alone.
    Released,
    /// There is nothing.
    Failed(Failure),
}

impl FillReader {
    pub(super) const fn new(fill: Arc<Fill>, id: u64) -> Self {
        Self { fill, id }
    }

    pub(crate) const fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Waits for the head.
    pub(crate) async fn arrival(&self) -> Arrival {
        std::future::poll_fn(|context| self.poll_arrival(context)).await
    }

    fn poll_arrival(&self, context: &Context<'_>) -> Poll<Arrival> {
        let mut shared = self.fill.lock();
        let arrival = match &shared.head {
            Head::Awaited => {
                if let Some(place) = shared.readers.get_mut(&self.id) {
                    place.waker = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
            Head::Arrived(head) => Arrival::Head(head.clone()),
            Head::Object(object) => Arrival::Object(object.clone()),
            Head::Released => Arrival::Released,
            Head::Failed(failure) => Arrival::Failed(*failure),
        };
        Poll::Ready(arrival)
    }

    /// The next piece of the body; a body that broke off ends in an error, never like a whole one.
    pub(crate) fn poll_chunk(&self, context: &Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let mut guard = self.fill.lock();
        let shared = &mut *guard;
        let Some(place) = shared.readers.get_mut(&self.id) else {
            // It lagged so far behind that the others went on without it.
            return Poll::Ready(Some(Err(Failure::DownstreamTimeout)));
        };
        if let Some(chunk) = place.next.checked_sub(shared.dropped).and_then(|at| shared.chunks.get(at)) {
            let chunk = chunk.clone();
            place.next += 1;
            if shared.is_pipe {
                shared.wake_producer();
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
        match shared.end {
            End::Complete => Poll::Ready(None),
            End::Failed(failure) => Poll::Ready(Some(Err(failure))),
            End::Open => {
                place.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Reads on until the fill has ended: what it brought in is stored then.
    pub(crate) async fn end(&self) -> Result<(), Failure> {
        while let Some(piece) = std::future::poll_fn(|context| self.poll_chunk(context)).await {
            piece?;
        }
        Ok(())
    }

    /// Everything was read.
    pub(crate) fn is_at_end(&self) -> bool {
        let shared = self.fill.lock();
        let next = shared.readers.get(&self.id).map_or(0, |place| place.next);
        matches!(shared.end, End::Complete) && next == shared.dropped + shared.chunks.len()
    }
}

impl Drop for FillReader {
    fn drop(&mut self) {
        let mut shared = self.fill.lock();
        shared.readers.remove(&self.id);
        shared.wake_producer();
    }
}
