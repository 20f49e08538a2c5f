//! Forwarding: tries, one after another, until a response head comes or nothing more may be tried.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method};
use http_body::Body;
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::OwnFields;
use shoal_policy::grpc;
use shoal_policy::health::Outcome;
use shoal_policy::retry::{Next, Progress, after_answer, after_failure, backoff, may_repeat};
use tokio::time::sleep;

use super::endpoint::Attempt;
use super::introduction::Introduction;
use super::replay::Replay;
use super::reply::Reply;
use super::send::{FailedTry, Overdue, Sending, Source, unless_overdue};
use super::sticky::{SessionCookie, Visit};
use super::{Upstream, UpstreamBody, Upstreams, hash_of};
use crate::request_body::RequestBody;
use crate::worker::Worker;

/// Sends a request, with fields of this node, to the upstream of `route`, again where that can do no harm. The reply is the
/// response as it may go on: its head checked, its hop-by-hop fields gone.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    upstreams: &Upstreams,
    route: &Arc<RouteView>,
    head: &mut Parts,
    own: Option<Rc<OwnFields>>,
    body: RequestBody,
    reply: Reply<'_>,
) -> Result<(), Failure> {
    let upstream = upstreams.find(worker, &route.upstream);
    upstream.budget.borrow_mut().earn();
    let hash = hash_of(&upstream.view, head, own.as_deref());
    let mut visit = Visit::begin(&upstream, head, own.as_deref());
    frame_body(head, &body);
    let may_repeat = may_repeat(&head.method, &route.retry);
    // HTTP/2 endpoints say when they have not looked at a request: then it may go again, whatever it asks.
    let refusable = upstream.view.transport.may_share();
    let mut replay = Replay::of(route, body, may_repeat || refusable);
    let total = total_timeout(route, head);
    reply.trace.is_hurried = total != route.total_timeout;
    let total = total.map(|timeout| worker.deadlines.arm(timeout));
    reply.trace.upstream = Some(upstream.traffic.clone());
    let introduction = Introduction::of_request(&upstream.view, &head.extensions);
    let mut sending = Sending { worker, route, total, reply, introduction, own };
    let mut tried: u64 = 0;
    let mut picked = match visit.as_mut().and_then(|visit| visit.pick(&upstream, worker)) {
        Some(picked) => picked,
        None => upstream.place(worker, hash, sending.total.as_ref()).await?,
    };
    let mut source = Source::PoolFirst;
    let mut last_failure = Failure::NoEndpoint;
    loop {
        upstream.traffic.panics.add(picked.panic.into());
        let now_ms = worker.clock.now_ms();
        let body = replay.take().ok_or(last_failure)?;
        let attempt = Attempt::begin(&upstream, picked.place, now_ms).ok_or(Failure::NoEndpoint)?;
        let trace = &mut *sending.reply.trace;
        trace.tries += 1;
        trace.detail = None;
        trace.endpoint = Some(attempt.endpoint.text.clone());
        if let Some(spans) = &mut trace.spans {
            spans.begin(worker.entropy(), &mut head.headers);
        }
        let tried_out = match route.retry.per_try_timeout {
            None => sending.send(attempt, head, body, source).await,
            Some(timeout) => try_within(timeout, &mut sending, attempt, head, body, source).await,
        };
        let Reply { head: answer, trace, is_fill, .. } = &mut sending.reply;
        if let Some(spans) = &mut trace.spans {
            let outcome = tried_out.as_ref().map(|()| answer.status.as_u16());
            spans.end(trace.endpoint.as_deref(), outcome.map_err(|failed| failed.failure));
        }
        let replayable = may_repeat && replay.is_whole();
        let tries = trace.tries;
        let next = match &tried_out {
            Ok(()) => after_answer(answer.status, replayable, tries, &route.retry),
            Err(failed) => {
                let progress = if *is_fill { failed.progress.for_fill() } else { failed.progress };
                after_failure(progress, replayable, tries, &route.retry)
            }
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
            tried_out.map_err(|failed| failed.failure)?;
            if let Some(visit) = &visit
                && let Some(cookie) = visit.cookie(&upstream, picked.place, answer.status)
            {
                answer.extensions.insert(SessionCookie(cookie));
            }
            return Ok(());
        };
        last_failure = match tried_out {
            Ok(()) => {
                sending.total = sending.reply.body.take_total();
                *sending.reply.body = UpstreamBody::default();
                Failure::UpstreamResponseTimeout
            }
            Err(failed) => {
                if let Some(body) = failed.body {
                    replay.give_back(body);
                }
                failed.failure
            }
        };
        (picked, source) = next;
        if source == Source::PoolFirst {
            let pause = sleep(backoff(tries, worker.entropy()));
            unless_overdue(sending.total.as_ref(), pause).await.ok_or(last_failure)?;
        }
        upstream.traffic.retries.add(1);
    }
}

/// Says in the head how the body is framed. What has no length comes in chunks.
fn frame_body(head: &mut Parts, body: &RequestBody) {
    let headers = &mut head.headers;
    if !body.has_bytes() {
        headers.remove(TRANSFER_ENCODING);
        // RFC 9110 §8.6: where a body is usual, its absence is said.
        if matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
            headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
        }
    } else if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        match body.size_hint().exact() {
            Some(length) => headers.insert(CONTENT_LENGTH, length.into()),
            None => headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
        };
    }
}

/// One try, within the time that a try may take.
async fn try_within(
    timeout: Duration,
    sending: &mut Sending<'_>,
    attempt: Attempt,
    head: &Parts,
    body: RequestBody,
    source: Source,
) -> Result<(), FailedTry> {
    let worker = sending.worker;
    let deadline = worker.deadlines.arm(timeout);
    let (upstream, endpoint): (Rc<Upstream>, _) = (attempt.upstream.clone(), attempt.endpoint.clone());
    let mut sent = Box::pin(sending.send(attempt, head, body, source));
    match unless_overdue(Some(&deadline), &mut sent).await {
        Some(sent) => sent,
        None => {
            // While the try still counts: if it was a trial, it has failed.
            upstream.report(&endpoint, Outcome::LocalFailure, worker.clock.now_ms());
            drop(sent);
            sending.reply.trace.detail = Some(Overdue::PerTry.name());
            Err(FailedTry {
                failure: Failure::UpstreamResponseTimeout,
                progress: Progress::TimedOut,
                body: None,
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
