//! The body of an endpoint's response, and what becomes of the connection when it ends.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts as ResponseHead;
use http::{Method, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use shoal_cache::UntilClose;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::prepare_response;
use shoal_policy::health::Outcome;
use shoal_policy::http1::{Framing, ResponseHead as ReadHead};

use super::answered::Answered;
use super::carrier::Carrier;
use super::endpoint::Attempt;
use super::http1::BodyError;
use crate::deadline::Deadline;
use crate::downstream_body::BodyProgress;
use crate::worker::Worker;

/// The connection of a response whose body is still coming.
pub(super) struct Lease {
    pub(super) worker: Rc<Worker>,
    pub(super) carrier: Carrier,
    pub(super) attempt: Attempt,
    pub(super) request_body: Option<Rc<BodyProgress>>,
}

impl Lease {
    /// Checks the head of the answer to a request of method `asked`, moves it to `head`, and makes the connection ready for
    /// its body. Answers with the body, if that is a stream by itself.
    pub(super) fn take_in(
        &mut self,
        answered: Answered,
        asked: &Method,
        keep_trailers: bool,
        head: &mut ResponseHead,
    ) -> Result<Option<Incoming>, Failure> {
        match (answered, &mut self.carrier) {
            (Answered::OnLink(_), Carrier::Own(link)) => {
                let answer = link.connection.answer().ok_or(Failure::UpstreamProtocol)?;
                let arrival = prepare_response(answer, asked, keep_trailers)?;
                link.connection.take_answer(head).ok_or(Failure::UpstreamProtocol)?;
                link.connection.expect_body(arrival);
                if arrival.framing == Framing::UntilClose {
                    head.extensions.insert(UntilClose);
                }
                Ok(None)
            }
            (Answered::OnLink(_), Carrier::Shared(_)) => Err(Failure::UpstreamProtocol),
            (Answered::Streamed(response), _) => {
                let (mut parts, stream) = response.into_parts();
                // Framed by the codec, whose errors tell a body that is cut short.
                parts.version = Version::HTTP_11;
                let mut answer = ReadHead::from(parts);
                prepare_response(&mut answer, asked, keep_trailers)?;
                *head = answer.parts;
                Ok(Some(stream))
            }
        }
    }

    /// The response has ended: the connection goes back to the pool, if nothing is left over on it.
    fn end(self) {
        // A place among others is free as soon as it is dropped.
        if let Carrier::Own(link) = self.carrier {
            let Attempt { endpoint, upstream, .. } = &self.attempt;
            endpoint.idle.put(link, self.worker.clock.now_ms(), &upstream.view);
        }
    }
}

/// The body of an endpoint's response; at first there is none. If it is dropped before its end, the connection is closed.
#[derive(Default)]
pub(crate) struct UpstreamBody {
    /// Of HTTP/2; else the body is read off the connection itself.
    stream: Option<Incoming>,
    /// `None` = the body has not begun, has ended, or is broken.
    lease: Option<Lease>,
    idle_timeout: Duration,
    /// Armed at the first wait.
    idle: Option<Deadline>,
    /// Of the whole exchange.
    total: Option<Deadline>,
}

impl UpstreamBody {
    /// The head of the response has come.
    pub(super) fn begin(
        &mut self,
        stream: Option<Incoming>,
        lease: Lease,
        idle_timeout: Duration,
        total: Option<Deadline>,
    ) {
        self.stream = stream;
        self.lease = Some(lease);
        self.idle_timeout = idle_timeout;
        self.total = total;
    }

    /// Takes back what limits the whole exchange: this answer is not the one that goes on.
    pub(super) fn take_total(&mut self) -> Option<Deadline> {
        self.total.take()
    }

    /// The next part. An error means that the body is cut short, whoever reads it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self.poll_carrier(cx) {
            Poll::Pending => self.poll_overdue(cx).map(|failure| Some(Err(self.break_off(failure)))),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(idle) = &self.idle {
                    idle.reset(self.idle_timeout);
                }
                if self.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(failure))) => {
                let by_downstream =
                    self.lease.as_ref().and_then(|lease| lease.request_body.as_ref()?.failure.get());
                Poll::Ready(Some(Err(self.break_off(by_downstream.unwrap_or(failure)))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn poll_carrier(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match (&mut self.stream, self.lease.as_mut().map(|lease| &mut lease.carrier)) {
            (Some(stream), _) => match Pin::new(&mut *stream).poll_frame(cx) {
                // The codec takes a stream that was cancelled for one that has ended.
                Poll::Ready(None) if !stream.is_end_stream() && stream.size_hint().exact() != Some(0) => {
                    Poll::Ready(Some(Err(Failure::UpstreamReset)))
                }
                polled => polled.map_err(|error| blame_upstream(&error)),
            },
            (None, Some(Carrier::Own(link))) => link.connection.poll_body(cx).map_err(|error| match error {
                BodyError::Malformed => Failure::UpstreamProtocol,
                BodyError::Closed | BodyError::RequestBroken => Failure::UpstreamReset,
            }),
            (None, Some(Carrier::Shared(_)) | None) => Poll::Ready(None),
        }
    }

    fn poll_overdue(&mut self, cx: &Context<'_>) -> Poll<Failure> {
        if let Some(lease) = &self.lease {
            let idle = self.idle.get_or_insert_with(|| lease.worker.deadlines.arm(self.idle_timeout));
            if idle.poll_passed(cx).is_ready() {
                return Poll::Ready(Failure::UpstreamResponseTimeout);
            }
        }
        if let Some(total) = &self.total
            && total.poll_passed(cx).is_ready()
        {
            return Poll::Ready(Failure::UpstreamResponseTimeout);
        }
        Poll::Pending
    }

    fn break_off(&mut self, failure: Failure) -> Failure {
        if let Some(mut lease) = self.lease.take() {
            let now_ms = lease.worker.clock.now_ms();
            if failure.side() == shoal_policy::failure::Side::Upstream {
                lease.attempt.report(outcome_of_failure(failure), now_ms);
            }
        }
        failure
    }

    fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match (&self.stream, self.lease.as_ref().map(|lease| &lease.carrier)) {
            (Some(stream), _) => stream.is_end_stream(),
            (None, Some(Carrier::Own(link))) => link.connection.is_end(),
            (None, Some(Carrier::Shared(_)) | None) => true,
        }
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match (&self.stream, self.lease.as_ref().map(|lease| &lease.carrier)) {
            (Some(stream), _) => stream.size_hint(),
            (None, Some(Carrier::Own(link))) => link.connection.size_hint(),
            (None, Some(Carrier::Shared(_)) | None) => SizeHint::with_exact(0),
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.end();
        }
    }
}

/// What a whole response head says of the endpoint.
pub(super) fn outcome_of(status: StatusCode) -> Outcome {
    match status.as_u16() {
        502..=504 => Outcome::GatewayError,
        500..=599 => Outcome::ServerError,
        _ => Outcome::Success,
    }
}

/// What a failure of its side says of the endpoint.
pub(super) fn outcome_of_failure(failure: Failure) -> Outcome {
    match failure {
        Failure::UpstreamProtocol => Outcome::GatewayError,
        _ => Outcome::LocalFailure,
    }
}

/// Which fault of the endpoint an error of the codec of HTTP/2 is.
fn blame_upstream(error: &hyper::Error) -> Failure {
    let by_codec =
        |error: &(dyn Error + 'static)| error.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_library);
    if error.source().is_some_and(by_codec) { Failure::UpstreamProtocol } else { Failure::UpstreamReset }
}
