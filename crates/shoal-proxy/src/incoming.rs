//! The body of a request as it comes in, over either version of HTTP.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use shoal_policy::failure::Failure;

/// Whoever reads the body of a request off its connection. A connection has one request after another: `request` says
/// which of them is meant.
pub(crate) trait BodySource {
    /// The next part of the body.
    fn poll_frame(&self, request: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>>;

    /// What is known of the rest; exactly nothing once all has been handed on.
    fn left(&self, request: u64) -> SizeHint;
}

/// The body of a request.
pub(crate) enum Incoming {
    Empty,
    /// Of that request on a connection of its own.
    Connection(Rc<dyn BodySource>, u64),
    /// Of a stream of HTTP/2.
    Stream(hyper::body::Incoming),
}

impl Incoming {
    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Connection(source, request) => source.left(*request).exact() == Some(0),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Connection(source, request) => source.left(*request),
            Self::Stream(stream) => stream.size_hint(),
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Connection(source, request) => source.poll_frame(*request, cx),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx).map_err(|error| blame_downstream(&error)),
        }
    }
}

fn blame_downstream(error: &hyper::Error) -> Failure {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Failure::BadRequest("chunk"),
        _ => Failure::DownstreamReset,
    }
}
