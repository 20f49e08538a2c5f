//! A body that leaves the worker it comes from: a task there reads it, and whoever has the other end gets its parts.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use shoal_policy::failure::Failure;
use tokio::sync::mpsc;

use crate::body::OriginBody;

/// Parts on their way to whoever reads them.
const MAX_WAITING_PARTS: usize = 4;

/// A part of a body; `None` is its end, which has to be said: silence is not an end.
type Part = Option<Result<Frame<Bytes>, Failure>>;

/// Where the reading task puts the parts.
pub struct RelaySender(mpsc::Sender<Part>);

/// The other end.
struct Relayed {
    received: mpsc::Receiver<Part>,
    size: SizeHint,
    ended: bool,
}

/// Both ends of a relay for a body of this size. Four parts wait in it at most. If the sender is dropped without having said
/// the end, the body ends in [`Failure::UpstreamReset`].
pub fn relay(size: SizeHint) -> (RelaySender, OriginBody) {
    let (sender, received) = mpsc::channel(MAX_WAITING_PARTS);
    (RelaySender(sender), Relayed { received, size, ended: false }.boxed_unsync())
}

impl RelaySender {
    /// Passes a part on, at the pace of the reader; `false` = it was the last one, or nobody reads any more.
    pub async fn send(&self, part: Option<Result<Frame<Bytes>, Failure>>) -> bool {
        let goes_on = matches!(part, Some(Ok(_)));
        self.0.send(part).await.is_ok() && goes_on
    }

    /// Ends when nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Part> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let part = ready!(this.received.poll_recv(context)).unwrap_or(Some(Err(Failure::UpstreamReset)));
        this.ended = !matches!(part, Some(Ok(_)));
        if let Some(Ok(frame)) = &part
            && let Some(data) = frame.data_ref()
            && let Some(exact) = this.size.exact()
        {
            this.size = SizeHint::with_exact(exact.saturating_sub(data.len() as u64));
        }
        Poll::Ready(part)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.size.exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}
