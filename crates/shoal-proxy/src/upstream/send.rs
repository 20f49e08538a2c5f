//! One try: a request on one connection to one endpoint, up to the response head.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::Method;
use http::request::Parts as RequestHead;
use shoal_model::site::Balance;
use shoal_model::view::RouteView;
use shoal_policy::failure::{Failure, Side};
use shoal_policy::forwarding::OwnFields;
use shoal_policy::health::{Outcome, Reason};
use shoal_policy::retry::Progress;

use super::answered::Answered;
use super::carrier::Carrier;
use super::connect;
use super::endpoint::{Attempt, Pending};
use super::http1::Interim;
use super::introduction::Introduction;
use super::reply::Reply;
use super::response::{Lease, outcome_of, outcome_of_failure};
use crate::deadline::Deadline;
use crate::downstream_body::BodyProgress;
use crate::request_body::RequestBody;
use crate::worker::Worker;

/// A try that failed before a response head came.
pub(super) struct FailedTry {
    pub(super) failure: Failure,
    pub(super) progress: Progress,
    /// The body of the request, if nobody has read from it.
    pub(super) body: Option<RequestBody>,
}

impl FailedTry {
    fn lost(failure: Failure, progress: Progress) -> Self {
        Self { failure, progress, body: None }
    }
}

/// Where the connection of a try comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    PoolFirst,
    Fresh,
}

/// What all tries of a request share.
pub(super) struct Sending<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) route: &'a Arc<RouteView>,
    /// Of the whole exchange; it goes on with the response body.
    pub(super) total: Option<Deadline>,
    pub(super) reply: Reply<'a>,
    pub(super) introduction: Option<Introduction>,
    /// Fields of this node that the head does not have.
    pub(super) own: Option<Rc<OwnFields>>,
}

impl Sending<'_> {
    /// Sends the request to the endpoint of `attempt` and waits for the response head.
    pub(super) async fn send(
        &mut self,
        mut attempt: Attempt,
        head: &RequestHead,
        body: RequestBody,
        source: Source,
    ) -> Result<(), FailedTry> {
        let worker = self.worker;
        let mut carrier = match self.borrow_carrier(&attempt, source).await {
            Ok(carrier) => carrier,
            Err(failure) => {
                if failure.side() == Side::Upstream {
                    attempt.report(Outcome::LocalFailure, worker.clock.now_ms());
                }
                self.reply.trace.detail = attempt.endpoint.fault.get().map(Reason::name);
                return Err(FailedTry { failure, progress: Progress::NotConnected, body: Some(body) });
            }
        };
        let shared_since = carrier.is_shared().then(Instant::now);
        let measured = (attempt.upstream.view.balance == Balance::P2cEwma).then(Instant::now);
        let request_body = body.progress();
        let outcome = {
            let held = self.held_back_for(request_body.as_deref());
            let wait = (!held.is_zero()).then(|| worker.deadlines.arm(held));
            let wanted = Wanted {
                worker,
                route: self.route,
                // Over HTTP/2 nothing is held back.
                held: if carrier.is_shared() { Duration::ZERO } else { held },
                request_body: request_body.as_deref(),
                total: self.total.as_ref(),
            };
            carrier.keep_names(attempt.upstream.view.answers_keep_names);
            let interim = Interim::new(wait, self.reply.hints);
            wanted.within(pin!(carrier.send(head, self.own.as_deref(), body, interim))).await
        };
        let by_downstream = request_body.as_ref().and_then(|body| body.failure.get());
        let failed = match outcome {
            Ok(Ok(answered)) => {
                if let Some(began) = measured {
                    attempt.endpoint.record_latency(began.elapsed(), worker.clock.now_ms());
                }
                let lease = Lease { worker: worker.clone(), carrier, attempt, request_body };
                return self.accept(answered, &head.method, lease);
            }
            Ok(Err(unanswered)) => match by_downstream {
                Some(failure) => FailedTry::lost(failure, Progress::Answered),
                None => FailedTry {
                    failure: unanswered.failure,
                    progress: unanswered.progress,
                    body: unanswered.body,
                },
            },
            Err(overdue) => {
                self.reply.trace.detail = Some(overdue.name());
                // A connection that is dead without anybody knowing must not keep its requests for ever.
                if shared_since.is_some_and(|since| since.elapsed() >= self.route.first_byte_timeout) {
                    carrier.retire();
                }
                FailedTry::lost(by_downstream.unwrap_or(Failure::UpstreamResponseTimeout), Progress::Answered)
            }
        };
        // A connection that went stale in the pool says nothing of the endpoint's health.
        let stale = matches!(
            failed.progress,
            Progress::NotStarted | Progress::SentOnReused | Progress::TakenOnReused
        );
        if failed.failure.side() == Side::Upstream && !stale {
            attempt.report(outcome_of_failure(failed.failure), worker.clock.now_ms());
        }
        Err(failed)
    }

    /// How long the body waits for the endpoint to ask for it, if its downstream waits, too.
    fn held_back_for(&self, body: Option<&BodyProgress>) -> Duration {
        if body.is_some_and(|body| body.expects_continue) {
            self.route.expect_timeout
        } else {
            Duration::ZERO
        }
    }

    async fn borrow_carrier(&mut self, attempt: &Attempt, source: Source) -> Result<Carrier, Failure> {
        let (upstream, endpoint) = (&attempt.upstream, &attempt.endpoint);
        let now_ms = self.worker.clock.now_ms();
        if source == Source::PoolFirst
            && let Some(link) = endpoint.idle.take(now_ms, &upstream.view)
        {
            return Ok(Carrier::Own(link));
        }
        // Those that gave a request back are no more among them.
        if upstream.view.transport.may_share()
            && let Some(stream) = endpoint.shared.take(now_ms, &upstream.view)
        {
            return Ok(Carrier::Shared(stream));
        }
        let _pending = Pending::begin(upstream, self.worker)?;
        let began = Instant::now();
        let opening = connect::open_carrier(self.worker, upstream, endpoint, self.introduction.as_ref());
        // Boxed: every request would have room for it, and is moved about with it.
        let opened = unless_overdue(self.total.as_ref(), Box::pin(opening)).await;
        self.reply.trace.connect += began.elapsed();
        opened.unwrap_or(Err(Failure::UpstreamConnectTimeout))
    }

    /// Checks the response head, and puts it where it belongs. What is not plain HTTP ends with the connection.
    fn accept(&mut self, answered: Answered, asked: &Method, mut lease: Lease) -> Result<(), FailedTry> {
        let now_ms = lease.worker.clock.now_ms();
        let Reply { head, body, .. } = &mut self.reply;
        let stream = match lease.take_in(answered, asked, self.route.trailers, head) {
            Ok(stream) => stream,
            Err(failure) => {
                lease.attempt.report(Outcome::GatewayError, now_ms);
                return Err(FailedTry::lost(failure, Progress::Answered));
            }
        };
        lease.attempt.report(outcome_of(head.status), now_ms);
        body.begin(stream, lease, self.route.idle_timeout, self.total.take());
        Ok(())
    }
}

/// What `waited` comes to; `None` = the time of the whole exchange was over first.
pub(super) async fn unless_overdue<T>(
    total: Option<&Deadline>,
    waited: impl Future<Output = T>,
) -> Option<T> {
    let mut waited = pin!(waited);
    poll_fn(|cx| match (waited.as_mut().poll(cx), total) {
        (Poll::Ready(output), _) => Poll::Ready(Some(output)),
        (Poll::Pending, Some(total)) => total.poll_passed(cx).map(|()| None),
        (Poll::Pending, None) => Poll::Pending,
    })
    .await
}

/// A response head that is waited for, and how long.
pub(super) struct Wanted<'a> {
    pub(super) worker: &'a Worker,
    pub(super) route: &'a RouteView,
    /// How long the body is held back at most: meanwhile it is no fault of the endpoint's that nothing comes.
    pub(super) held: Duration,
    pub(super) request_body: Option<&'a BodyProgress>,
    /// For the whole exchange.
    pub(super) total: Option<&'a Deadline>,
}

impl Wanted<'_> {
    /// What `sent` comes to, unless it takes too long. While the request body still moves the clock starts anew, and while
    /// the downstream is waited for it is the body's own timeout that counts.
    pub(super) async fn within<T>(&self, mut sent: Pin<&mut impl Future<Output = T>>) -> Result<T, Overdue> {
        let Self { worker, route, held, request_body, total } = self;
        let mut first_byte: Option<Deadline> = None;
        let mut moved = 0;
        poll_fn(|cx| {
            if let Poll::Ready(output) = sent.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let limit = || worker.deadlines.arm(route.first_byte_timeout.saturating_add(*held));
            let deadline = first_byte.get_or_insert_with(limit);
            while deadline.poll_passed(cx).is_ready() {
                let bytes = request_body.map_or(0, |body| body.bytes.get());
                if bytes == moved && !request_body.is_some_and(|body| body.awaited.get()) {
                    return Poll::Ready(Err(Overdue::FirstByte));
                }
                moved = bytes;
                deadline.reset(route.first_byte_timeout);
            }
            match total.map(|total| total.poll_passed(cx)) {
                Some(Poll::Ready(())) => Poll::Ready(Err(Overdue::Total)),
                Some(Poll::Pending) | None => Poll::Pending,
            }
        })
        .await
    }
}

/// Which time of a route has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    FirstByte,
    Total,
    PerTry,
}

impl Overdue {
    /// As the site names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::Total => "total",
            Self::PerTry => "per_try_timeout",
        }
    }
}
