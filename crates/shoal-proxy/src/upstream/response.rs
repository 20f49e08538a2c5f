//! The body of an endpoint's response, and what becomes of the connection when it ends.

use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use shoal_policy::failure::Failure;
use shoal_policy::health::Outcome;
use tokio::time::timeout;

use super::carrier::Carrier;
use super::endpoint::Attempt;
use crate::body::BodyProgress;
use crate::deadline::Deadline;
use crate::worker::Worker;

/// How long a connection may take to become ready again after its response has ended.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection of a response whose body is still coming.
pub(super) struct Lease {
    pub(super) worker: Rc<Worker>,
    pub(super) carrier: Carrier,
    pub(super) attempt: Attempt,
    pub(super) request_body: Option<Rc<BodyProgress>>,
}

impl Lease {
    /// The response has ended: the connection goes back to the pool, if nothing is left over on it.
    fn end(self) {
        let Self { worker, carrier, attempt, request_body } = self;
        // A place among others is free as soon as it is dropped.
        let Carrier::Own(mut link) = carrier else { return };
        if link.sender.is_closed() || request_body.is_some_and(|progress| !progress.done.get()) {
            return;
        }
        let (endpoint, upstream) = (attempt.endpoint.clone(), attempt.upstream.clone());
        if link.sender.is_ready() {
            endpoint.idle.put(link, worker.clock.now_ms(), &upstream.view);
            return;
        }
        tokio::task::spawn_local(async move {
            if let Ok(Ok(())) = timeout(SETTLE_TIMEOUT, link.sender.ready()).await {
                endpoint.idle.put(link, worker.clock.now_ms(), &upstream.view);
            }
        });
    }
}

/// The body of an endpoint's response. If it is dropped before its end, the connection is closed.
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    lease: Option<Lease>,
    idle_timeout: Duration,
    /// Armed at the first wait.
    idle: Option<Deadline>,
    /// Of the whole exchange.
    total: Option<Deadline>,
}

impl UpstreamBody {
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        idle_timeout: Duration,
        total: Option<Deadline>,
    ) -> Self {
        Self { incoming, lease: Some(lease), idle_timeout, idle: None, total }
    }

    /// Takes back what limits the whole exchange: this answer is not the one that goes on.
    pub(super) fn take_total(&mut self) -> Option<Deadline> {
        self.total.take()
    }

    /// The next part. An error means that the body is cut short, whoever reads it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => self.poll_overdue(cx).map(|failure| Some(Err(self.break_off(failure)))),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(idle) = &self.idle {
                    idle.reset(self.idle_timeout);
                }
                if self.incoming.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let by_downstream =
                    self.lease.as_ref().and_then(|lease| lease.request_body.as_ref()?.failure.get());
                Poll::Ready(Some(
                    Err(self.break_off(by_downstream.unwrap_or_else(|| blame_upstream(&error)))),
                ))
            }
            // The codec takes a stream that was cancelled for one that has ended.
            Poll::Ready(None) if self.is_cut_short() => {
                Poll::Ready(Some(Err(self.break_off(Failure::UpstreamReset))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_cut_short(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.carrier.is_shared())
            && !self.incoming.is_end_stream()
            && self.incoming.size_hint().exact() != Some(0)
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
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
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

/// Which fault of the endpoint an error of the codec is.
pub(super) fn blame_upstream(error: &hyper::Error) -> Failure {
    let by_codec =
        |error: &(dyn Error + 'static)| error.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_library);
    let is_malformed = error.is_parse()
        || error.source().is_some_and(by_codec)
        || error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).is_some_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData)
        });
    if is_malformed { Failure::UpstreamProtocol } else { Failure::UpstreamReset }
}
