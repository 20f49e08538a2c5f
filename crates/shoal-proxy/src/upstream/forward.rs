//! Forwarding: tries, one after another, until a response head comes or nothing more may be tried.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, Response};
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use shoal_policy::grpc;
use shoal_policy::health::Outcome;
use shoal_policy::retry::{Next, Progress, after_answer, after_failure, backoff, may_repeat};
use tokio::time::sleep;

use super::endpoint::Attempt;
use super::introduction::Introduction;
use super::replay::Copy;
use super::send::{FailedTry, Sending, Source, unless_overdue};
use super::sticky::{SessionCookie, Visit};
use super::{Upstream, UpstreamBody, hash_of};
use crate::body::RequestBody;
use crate::exchange::Trace;
use crate::recording::Recording;
use crate::worker::Worker;

/// Sends a request to the upstream of `route`, again where that can do no harm, and answers with the response as it may
/// go on: its head checked, its hop-by-hop fields gone.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    route: &Arc<RouteView>,
    head: Parts,
    body: RequestBody,
    trace: &mut Trace,
) -> Result<Response<UpstreamBody>, Failure> {
    let upstream = worker.upstreams.find(worker, &route.upstream);
    upstream.budget.borrow_mut().earn();
    let hash = hash_of(&upstream.view, &head);
    let mut visit = Visit::begin(&upstream, &head);
    let may_repeat = may_repeat(&head.method, &route.retry);
    // HTTP/2 endpoints say when they have not looked at a request: then it may go again, whatever it asks.
    let refusable = upstream.view.transport.may_share();
    let (copy, body) = match may_repeat || refusable {
        true => copy(worker, route, &head, body),
        false => (None, body),
    };
    let total = total_timeout(route, &head).map(|timeout| worker.deadlines.arm(timeout));
    trace.upstream = Some(upstream.traffic.clone());
    let introduction = Introduction::of_request(&upstream.view, &head.extensions);
    let mut sending = Sending { worker, route, total, trace, introduction };
    let mut request = Request::from_parts(head, body);
    let mut tried: u64 = 0;
    let mut picked = match visit.as_mut().and_then(|visit| visit.pick(&upstream, worker)) {
        Some(picked) => picked,
        None => upstream.place(worker, hash, sending.total.as_ref()).await?,
    };
    let mut source = Source::PoolFirst;
    loop {
        upstream.traffic.panics.add(picked.panic.into());
        let now_ms = worker.clock.now_ms();
        let attempt = Attempt::begin(&upstream, picked.place, now_ms).ok_or(Failure::NoEndpoint)?;
        sending.trace.tries += 1;
        sending.trace.endpoint = Some(attempt.endpoint.text.clone());
        if let Some(spans) = &mut sending.trace.spans {
            spans.begin(worker.entropy(), request.headers_mut());
        }
        let tried_out = try_once(&mut sending, attempt, request, source).await;
        if let Some(spans) = &mut sending.trace.spans {
            let outcome = tried_out.as_ref().map(|response| response.status().as_u16());
            spans.end(sending.trace.endpoint.as_deref(), outcome.map_err(|failed| failed.failure));
        }
        let replayable = may_repeat && copy.as_ref().is_some_and(Copy::is_whole);
        let tries = sending.trace.tries;
        let next = match &tried_out {
            Ok(response) => after_answer(response.status(), replayable, tries, &route.retry),
            Err(failed) => after_failure(failed.progress, replayable, tries, &route.retry),
        };
        let next = match next {
            Next::GiveUp => None,
            Next::FreshConnection => Some((picked, Source::Fresh)),
            Next::AnotherEndpoint => {
                tried |= 1_u64.checked_shl(picked.place as u32).unwrap_or(0);
                upstream.pick(worker, hash, tried).map(|other| (other, Source::PoolFirst))
            }
        };
        let next = next.filter(|_| upstream.budget.borrow_mut().spend(now_ms));
        let Some(next) = next else {
            let mut response = tried_out.map_err(|failed| failed.failure)?;
            if let Some(visit) = &visit
                && let Some(cookie) = visit.cookie(&upstream, picked.place, response.status())
            {
                response.extensions_mut().insert(SessionCookie(cookie));
            }
            return Ok(response);
        };
        let (failure, given_back) = match tried_out {
            Ok(mut response) => {
                sending.total = response.body_mut().take_total();
                (Failure::UpstreamResponseTimeout, None)
            }
            Err(failed) => (failed.failure, failed.request),
        };
        (picked, source) = next;
        if source == Source::PoolFirst {
            let pause = sleep(backoff(tries, worker.entropy()));
            unless_overdue(sending.total.as_ref(), pause).await.ok_or(failure)?;
        }
        upstream.traffic.retries.add(1);
        request = match (given_back, &copy) {
            (Some(request), _) => *request,
            (None, Some(copy)) if copy.is_whole() => copy.request(),
            (None, _) => return Err(failure),
        };
    }
}

/// Keeps what may be sent twice; answers with the body as it is to be sent.
fn copy<'a>(
    worker: &'a Worker,
    route: &RouteView,
    head: &Parts,
    body: RequestBody,
) -> (Option<Copy<'a>>, RequestBody) {
    if !body.has_bytes() {
        return (Some(worker.upstreams.replays.of(head, None)), body);
    }
    if route.retry.max_replay_bytes == 0 {
        return (None, body);
    }
    match Recording::of(body, route.retry.max_replay_bytes) {
        Ok(recording) => {
            let body = recording.read();
            (Some(worker.upstreams.replays.of(head, Some(recording))), body)
        }
        Err(body) => (None, body),
    }
}

/// One try, within the time that a try may take.
async fn try_once(
    sending: &mut Sending<'_>,
    attempt: Attempt,
    request: Request<RequestBody>,
    source: Source,
) -> Result<Response<UpstreamBody>, FailedTry> {
    let worker = sending.worker;
    let Some(timeout) = sending.route.retry.per_try_timeout else {
        return sending.send(attempt, request, source).await;
    };
    let deadline = worker.deadlines.arm(timeout);
    let (upstream, endpoint): (Rc<Upstream>, _) = (attempt.upstream.clone(), attempt.endpoint.clone());
    let mut sent = Box::pin(sending.send(attempt, request, source));
    match unless_overdue(Some(&deadline), &mut sent).await {
        Some(sent) => sent,
        None => {
            // While the try still counts: if it was a trial, it has failed.
            upstream.report(&endpoint, Outcome::LocalFailure, worker.clock.now_ms());
            Err(FailedTry {
                failure: Failure::UpstreamResponseTimeout,
                progress: Progress::TimedOut,
                request: None,
            })
        }
    }
}

/// How long the whole exchange may take. A gRPC caller says how long it waits, and nobody waits longer.
fn total_timeout(route: &RouteView, head: &Parts) -> Option<Duration> {
    if !route.upstream.transport.may_share() || !head.headers.get(CONTENT_TYPE).is_some_and(grpc::is_grpc) {
        return route.total_timeout;
    }
    route.total_timeout.into_iter().chain(grpc::timeout(&head.headers)).min()
}
