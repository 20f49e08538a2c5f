//! The body of a response on its way to the downstream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use shoal_cache::CacheBody;
use shoal_policy::failure::Failure;
use shoal_policy::grpc;

use crate::exchange::Exchange;
use crate::request_body::Broken;
use crate::trailers::admit_trailers;
use crate::upstream::UpstreamBody;

/// What is sent downstream, wherever it comes from.
pub(crate) enum Payload {
    Empty,
    /// Complete, and small.
    Text(Bytes),
    Upstream(UpstreamBody),
    Cache(CacheBody),
}

impl Payload {
    fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_empty(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Cache(body) => body.is_end_stream(),
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Upstream(body) => body.size_hint(),
            Self::Cache(body) => body.size_hint(),
        }
    }
}

/// The body of a response; the exchange ends when it is dropped, if not before.
pub(crate) struct ResponseBody {
    /// Nothing, as long as there is no answer.
    pub(crate) payload: Payload,
    /// There is an answer.
    has_begun: bool,
    /// What is left of a frame that is more than a portion.
    rest: Bytes,
    keep_trailers: bool,
    /// Its length, if known beforehand: the codec does not ask for more than that.
    length: Option<u64>,
    /// It has broken off; said at the next turn.
    broken: Option<Failure>,
    pub(crate) exchange: Exchange,
}

impl ResponseBody {
    /// Of an answer that is still to be made.
    pub(crate) fn of(exchange: Exchange) -> Self {
        Self {
            payload: Payload::Empty,
            has_begun: false,
            rest: Bytes::new(),
            keep_trailers: false,
            length: None,
            broken: None,
            exchange,
        }
    }

    /// The answer is made: from now on its payload goes out.
    pub(crate) fn begin(&mut self, keep_trailers: bool) {
        self.has_begun = true;
        self.keep_trailers = keep_trailers;
        self.length = self.payload.size_hint().exact();
    }

    /// Nothing more is taken: the exchange ends.
    pub(crate) fn end(&mut self) {
        self.settle();
        self.payload = Payload::Empty;
        self.exchange.end();
    }

    /// Says whether the response went out to its end.
    fn settle(&mut self) {
        let is_whole = self.is_end_stream() || self.length == Some(self.exchange.response_bytes);
        self.exchange.complete |= self.has_begun && is_whole;
    }

    /// Its route lets trailers pass.
    pub(crate) fn keeps_trailers(&self) -> bool {
        self.keep_trailers
    }

    /// Its length, if it is known beforehand.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The frame with the next of `data`: no more than the downstream is given at a time.
    fn hand_on(&mut self, mut data: Bytes) -> Frame<Bytes> {
        let portion = self.exchange.connection.portion.get();
        if data.len() > portion {
            self.rest = data.split_off(portion);
        }
        self.exchange.response_bytes += data.len() as u64;
        Frame::data(data)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(Ok(this.hand_on(rest))));
        }
        if let Some(failure) = this.broken {
            return Poll::Ready(Some(Err(Broken(failure))));
        }
        loop {
            let polled = match &mut this.payload {
                Payload::Empty => Poll::Ready(None),
                Payload::Text(text) if text.is_empty() => Poll::Ready(None),
                Payload::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
                Payload::Upstream(body) => body.poll(cx),
                Payload::Cache(body) => Pin::new(body).poll_frame(cx),
            };
            match polled {
                Poll::Ready(Some(Ok(frame))) => {
                    let frame = match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(this.hand_on(data)))),
                        Err(frame) => frame,
                    };
                    if let Some(trailers) = admit_trailers(frame, this.keep_trailers, None) {
                        // Nothing comes after them, and the codec does not ask.
                        this.exchange.complete = true;
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                }
                Poll::Ready(Some(Err(failure))) => {
                    this.exchange.fail(failure);
                    if this.exchange.grpc {
                        // A call whose head is out already ends with trailers, if they come from us.
                        let mut trailers = HeaderMap::new();
                        grpc::write_status(&mut trailers, failure);
                        this.payload = Payload::Empty;
                        this.exchange.complete = true;
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    // The codec throws away what it has not sent yet: the head, and what came before.
                    this.broken = Some(failure);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    this.exchange.complete = true;
                    return Poll::Ready(None);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.payload.is_end()
    }

    /// Asked before the first frame only.
    fn size_hint(&self) -> SizeHint {
        self.payload.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.settle();
    }
}
