//! The body of an answer, wherever it comes from.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use shoal_policy::failure::Failure;

use crate::seam::OriginBody;

/// The body of an answer, wherever it comes from.
pub struct CacheBody {
    source: Source,
}

enum Source {
    Empty,
    Origin(OriginBody),
}

impl CacheBody {
    /// No bytes.
    pub fn empty() -> Self {
        Self { source: Source::Empty }
    }

    /// What the origin sends, passed on.
    pub fn origin(body: OriginBody) -> Self {
        Self { source: Source::Origin(body) }
    }
}

impl Body for CacheBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Origin(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Origin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Origin(body) => body.size_hint(),
        }
    }
}
