//! The body of a request as it comes in, over either version of HTTP.

use std::mem::replace;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Frame, SizeHint};
use shoal_policy::failure::Failure;
use tokio::sync::oneshot;

use crate::awaited_continue::AwaitedContinue;
use crate::tunnel::StreamHalf;

/// Whoever reads the body of a request off its connection. A connection has one request after another: `request` says
/// which of them is meant.
pub(crate) trait BodySource {
    /// The next part of the body; an error if it is that of a request which is over.
    fn poll_frame(&self, request: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>>;

    /// What is known of the rest; exactly nothing once all has been handed on, and nothing at all of a request that is over.
    fn left(&self, request: u64) -> SizeHint;

    /// Of how many chunks it has been made so far.
    fn chunks(&self) -> u64;
}

/// The body of a request.
pub(crate) enum Incoming {
    Empty,
    /// Of that request on a connection of its own.
    Connection(OfConnection),
    /// Of a stream of HTTP/2.
    Stream(StreamBody),
    /// No body, but a stream that may become a tunnel: then it comes here.
    Tunnel(oneshot::Receiver<StreamHalf>),
}

impl Incoming {
    /// Takes what may become a tunnel, if it is a stream.
    pub(crate) fn take_tunnel(&mut self) -> Option<oneshot::Receiver<StreamHalf>> {
        match replace(self, Self::Empty) {
            Self::Tunnel(stream) => Some(stream),
            body => {
                *self = body;
                None
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Tunnel(_) => true,
            Self::Connection(body) => body.is_end(),
            Self::Stream(body) => body.stream.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Tunnel(_) => SizeHint::with_exact(0),
            Self::Connection(body) => body.left(),
            Self::Stream(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }

    /// Of how many chunks it has been made so far; those that came together are one part of it.
    pub(crate) fn chunks(&self) -> u64 {
        match self {
            Self::Connection(body) => body.source.upgrade().map_or(0, |source| source.chunks()),
            Self::Empty | Self::Tunnel(_) | Self::Stream(_) => 0,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self {
            Self::Empty | Self::Tunnel(_) => Poll::Ready(None),
            Self::Connection(body) => body.poll(cx),
            Self::Stream(body) => body.poll(cx),
        }
    }
}

/// The body of a request on a connection of its own. It does not keep the connection: whoever sends it on may outlive that,
/// and the request.
pub(crate) struct OfConnection {
    source: Weak<dyn BodySource>,
    request: u64,
    has_ended: bool,
}

impl OfConnection {
    pub(crate) fn new(source: Weak<dyn BodySource>, request: u64) -> Self {
        Self { source, request, has_ended: false }
    }

    fn is_end(&self) -> bool {
        self.has_ended || self.left().exact() == Some(0)
    }

    fn left(&self) -> SizeHint {
        match self.source.upgrade() {
            _ if self.has_ended => SizeHint::with_exact(0),
            Some(source) => source.left(self.request),
            None => SizeHint::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let Some(source) = self.source.upgrade() else {
            return Poll::Ready(Some(Err(Failure::DownstreamReset)));
        };
        let polled = source.poll_frame(self.request, cx);
        self.has_ended = match &polled {
            Poll::Ready(Some(Ok(_))) => source.left(self.request).exact() == Some(0),
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        polled
    }
}

/// The body of a request on a stream of HTTP/2.
pub(crate) struct StreamBody {
    stream: RecvStream,
    /// Bytes that are still to come, if the head says so. The codec holds the downstream to it.
    left: Option<u64>,
    has_data_ended: bool,
    /// The downstream waits to be told to send it.
    awaited_continue: Option<Rc<AwaitedContinue>>,
}

impl StreamBody {
    /// Behind a head with these fields. `awaited_continue` is told when somebody wants what is behind it.
    pub(crate) fn new(
        stream: RecvStream,
        fields: &HeaderMap,
        awaited_continue: Option<Rc<AwaitedContinue>>,
    ) -> Self {
        let length = fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { stream, left: length, has_data_ended: false, awaited_continue }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if !self.has_data_ended {
            let Poll::Ready(polled) = self.stream.poll_data(cx) else {
                if let Some(awaited_continue) = self.awaited_continue.take() {
                    awaited_continue.ask();
                }
                return Poll::Pending;
            };
            match polled {
                Some(Ok(data)) => {
                    // A stream that is gone has no window to open.
                    _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(Failure::DownstreamReset))),
                None => self.has_data_ended = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            // Also if it was reset without an error: only its end is the end of a request.
            Err(_) => Some(Err(Failure::DownstreamReset)),
        })
    }
}
