//! Bodies on their way through: counted, limited, and blamed on the side that breaks them.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use shoal_cache::CacheBody;
use shoal_policy::failure::Failure;
use shoal_policy::grpc;

use crate::deadline::{Deadline, Deadlines};
use crate::exchange::Exchange;
use crate::pace::{MinRate, Pace};
use crate::recording::RecordedBody;
use crate::upstream::UpstreamBody;

/// Fields that may never come as trailers: they would change what was routed, framed or trusted.
const NOT_TRAILERS: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "authorization",
    "cookie",
    "set-cookie",
    "forwarded",
    "trailer",
];

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

/// How far the body of a request has come: the side that sends the request looks at it.
#[derive(Default)]
pub(crate) struct BodyProgress {
    /// Its end was handed on.
    pub(crate) done: Cell<bool>,
    /// Why it broke off.
    pub(crate) failure: Cell<Option<Failure>>,
    /// Bytes handed on.
    pub(crate) bytes: Cell<u64>,
    /// The downstream has the next part, and has not sent it yet.
    pub(crate) awaited: Cell<bool>,
}

/// What the body of a request may cost.
#[derive(Clone, Copy)]
pub(crate) struct BodyLimits {
    pub(crate) max_bytes: u64,
    pub(crate) idle_timeout: Duration,
    pub(crate) min_rate: MinRate,
    pub(crate) keep_trailers: bool,
}

pub(crate) struct DownstreamBody {
    incoming: Incoming,
    progress: Rc<BodyProgress>,
    limits: BodyLimits,
    deadlines: Rc<Deadlines>,
    /// Armed at the first wait.
    deadline: Option<Deadline>,
    pace: Pace,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, limits: BodyLimits, deadlines: &Rc<Deadlines>) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let progress = Rc::default();
        Self::Stream(Box::new(DownstreamBody {
            incoming,
            progress,
            limits,
            deadlines: deadlines.clone(),
            deadline: None,
            pace: Pace::default(),
        }))
    }

    pub(crate) fn has_bytes(&self) -> bool {
        !matches!(self, Self::Empty)
    }

    /// `None` = there is no body.
    pub(crate) fn progress(&self) -> Option<Rc<BodyProgress>> {
        match self {
            Self::Empty => None,
            Self::Stream(body) => Some(body.progress.clone()),
            Self::Recorded(body) => Some(body.progress().clone()),
        }
    }
}

impl DownstreamBody {
    pub(crate) fn progress(&self) -> &Rc<BodyProgress> {
        &self.progress
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                self.pace.wait(self.deadlines.now_ms());
                let (deadlines, timeout) = (&self.deadlines, self.limits.idle_timeout);
                let deadline = self.deadline.get_or_insert_with(|| deadlines.arm(timeout));
                return deadline.poll_passed(cx).map(|()| Some(Err(Failure::DownstreamTimeout)));
            };
            if let Some(deadline) = &self.deadline {
                deadline.reset(self.limits.idle_timeout);
            }
            match frame {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(blame_downstream(&error)))),
                Some(Ok(frame)) => match self.admit(frame) {
                    Ok(None) => {}
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Err(failure) => return Poll::Ready(Some(Err(failure))),
                },
            }
        }
    }

    fn admit(&mut self, frame: Frame<Bytes>) -> Result<Option<Frame<Bytes>>, Failure> {
        if let Some(data) = frame.data_ref() {
            let bytes = self.progress.bytes.get() + data.len() as u64;
            self.progress.bytes.set(bytes);
            let is_fast = self.pace.moved(data.len() as u64, self.deadlines.now_ms(), self.limits.min_rate);
            // What has come whole has come in time.
            if !is_fast && !self.incoming.is_end_stream() {
                return Err(Failure::DownstreamTimeout);
            }
            return if bytes > self.limits.max_bytes { Err(Failure::BodyTooLarge) } else { Ok(Some(frame)) };
        }
        Ok(admit_trailers(frame, self.limits.keep_trailers))
    }
}

/// Trailers pass only where the route says so, and never with fields that mean something before the body.
fn admit_trailers(frame: Frame<Bytes>, keep: bool) -> Option<Frame<Bytes>> {
    let mut trailers: HeaderMap = frame.into_trailers().ok().filter(|_| keep)?;
    for name in NOT_TRAILERS {
        trailers.remove(name);
    }
    Some(Frame::trailers(trailers))
}

fn blame_downstream(error: &hyper::Error) -> Failure {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Failure::BadRequest("chunk"),
        _ => Failure::DownstreamReset,
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let (polled, progress, is_end) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Stream(body) => (body.poll(cx), &body.progress, body.incoming.is_end_stream()),
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
            Self::Stream(body) => body.incoming.is_end_stream(),
            Self::Recorded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.incoming.size_hint(),
            Self::Recorded(body) => body.size_hint(),
        }
    }
}

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

/// The body of a response; the exchange ends when it is dropped.
pub(crate) struct ResponseBody {
    payload: Payload,
    /// What is left of a frame that is more than a portion.
    rest: Bytes,
    keep_trailers: bool,
    /// Its length, if known beforehand: the codec does not ask for more than that.
    length: Option<u64>,
    /// It has broken off; said at the next turn.
    broken: Option<Failure>,
    exchange: Exchange,
}

impl ResponseBody {
    pub(crate) fn new(payload: Payload, keep_trailers: bool, exchange: Exchange) -> Self {
        let length = payload.size_hint().exact();
        Self { payload, rest: Bytes::new(), keep_trailers, length, broken: None, exchange }
    }
}

impl ResponseBody {
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
            this.exchange.connection.offer(true);
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
            this.exchange.connection.offer(polled.is_ready());
            match polled {
                Poll::Ready(Some(Ok(frame))) => {
                    let frame = match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(this.hand_on(data)))),
                        Err(frame) => frame,
                    };
                    if let Some(trailers) = admit_trailers(frame, this.keep_trailers) {
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
        self.exchange.complete |= self.is_end_stream() || self.length == Some(self.exchange.response_bytes);
    }
}
