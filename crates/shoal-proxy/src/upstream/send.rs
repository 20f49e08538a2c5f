//! One try: a request on one connection to one endpoint, up to the response head.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use shoal_model::site::Balance;
use shoal_model::view::RouteView;
use shoal_policy::failure::{Failure, Side};
use shoal_policy::forwarding::prepare_response;
use shoal_policy::health::Outcome;
use shoal_policy::retry::Progress;

use super::connect;
use super::endpoint::Attempt;
use super::response::{Lease, UpstreamBody, blame_upstream};
use crate::body::{BodyProgress, RequestBody};
use crate::deadline::Deadline;
use crate::exchange::Trace;
use crate::worker::Worker;

/// A try that failed before a response head came.
pub(super) struct FailedTry {
    pub(super) failure: Failure,
    pub(super) progress: Progress,
    /// The request, if it came back whole.
    pub(super) request: Option<Request<RequestBody>>,
}

/// Where the connection of a try comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    PoolFirst,
    Fresh,
}

/// Sends `request` to the endpoint of `attempt` and waits for the response head.
pub(super) async fn send(
    worker: &Rc<Worker>,
    route: &Arc<RouteView>,
    mut attempt: Attempt,
    request: Request<RequestBody>,
    source: Source,
    total: &mut Option<Deadline>,
    trace: &mut Trace,
) -> Result<Response<UpstreamBody>, FailedTry> {
    let (upstream, endpoint) = (attempt.upstream.clone(), attempt.endpoint.clone());
    let now_ms = worker.clock.now_ms();
    let pooled = if source == Source::PoolFirst { endpoint.idle.take(now_ms, &upstream.view) } else { None };
    let mut link = match pooled {
        Some(link) => link,
        None => {
            let began = Instant::now();
            let opened = connect::open_link(worker, &upstream, &endpoint).await;
            trace.connect += began.elapsed();
            match opened {
                Ok(link) => link,
                Err(failure) => {
                    attempt.report(Outcome::GatewayError, worker.clock.now_ms());
                    return Err(FailedTry { failure, progress: Progress::NotConnected, request: Some(request) });
                }
            }
        }
    };
    let progress = if link.served > 0 { Progress::SentOnReused } else { Progress::SentOnFresh };
    link.served += 1;
    let measured = (upstream.view.balance == Balance::P2cEwma).then(Instant::now);
    let request_body = request.body().progress();
    let sent = link.sender.try_send_request(request);
    let outcome = within(worker, route, request_body.as_deref(), total.as_ref(), sent).await;
    let by_downstream = request_body.as_ref().and_then(|body| body.failure.get());
    let now_ms = worker.clock.now_ms();
    let failed = match outcome {
        Some(Ok(response)) => {
            if let Some(began) = measured {
                let mut latency = endpoint.latency.get();
                latency.record(began.elapsed().as_micros() as f32, now_ms);
                endpoint.latency.set(latency);
            }
            return accept(response, Lease { worker: worker.clone(), link, attempt, request_body }, route, total);
        }
        Some(Err(mut error)) => match (error.take_message(), by_downstream) {
            (_, Some(failure)) => FailedTry { failure, progress: Progress::Answered, request: None },
            (Some(request), None) => {
                let failure = Failure::UpstreamReset;
                FailedTry { failure, progress: Progress::NotStarted, request: Some(request) }
            }
            (None, None) => match blame_upstream(error.error()) {
                Failure::UpstreamReset => FailedTry { failure: Failure::UpstreamReset, progress, request: None },
                failure => FailedTry { failure, progress: Progress::Answered, request: None },
            },
        },
        None => {
            FailedTry { failure: Failure::UpstreamResponseTimeout, progress: Progress::Answered, request: None }
        }
    };
    // A connection that went stale in the pool says nothing of the endpoint's health.
    if failed.failure.side() == Side::Upstream && !matches!(failed.progress, Progress::NotStarted | Progress::SentOnReused)
    {
        attempt.report(Outcome::GatewayError, now_ms);
    }
    Err(failed)
}

/// Waits for the response head; `None` = it took too long. While the request body still moves the clock starts anew.
async fn within<T>(
    worker: &Worker,
    route: &RouteView,
    request_body: Option<&BodyProgress>,
    total: Option<&Deadline>,
    sent: impl Future<Output = T>,
) -> Option<T> {
    let mut sent = pin!(sent);
    let mut first_byte: Option<Deadline> = None;
    let mut moved = 0;
    poll_fn(|cx| {
        if let Poll::Ready(output) = sent.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let deadline = first_byte.get_or_insert_with(|| worker.deadlines.arm(route.first_byte_timeout));
        while deadline.poll_passed(cx).is_ready() {
            let bytes = request_body.map_or(0, |body| body.bytes.get());
            if bytes == moved {
                return Poll::Ready(None);
            }
            moved = bytes;
            deadline.reset(route.first_byte_timeout);
        }
        match total.map(|total| total.poll_passed(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(None),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    })
    .await
}

/// Checks the response head. What is not plain HTTP ends with the connection.
fn accept(
    response: Response<Incoming>,
    mut lease: Lease,
    route: &RouteView,
    total: &mut Option<Deadline>,
) -> Result<Response<UpstreamBody>, FailedTry> {
    let now_ms = lease.worker.clock.now_ms();
    let (mut head, incoming) = response.into_parts();
    if let Err(failure) = prepare_response(&mut head, route.trailers) {
        lease.attempt.report(Outcome::GatewayError, now_ms);
        return Err(FailedTry { failure, progress: Progress::Answered, request: None });
    }
    let is_gateway_error = matches!(head.status.as_u16(), 502..=504);
    lease.attempt.report(if is_gateway_error { Outcome::GatewayError } else { Outcome::Success }, now_ms);
    Ok(Response::from_parts(head, UpstreamBody::new(incoming, lease, route.idle_timeout, total.take())))
}
