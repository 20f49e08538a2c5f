//! Forwarding a request that wants to upgrade: on a connection or a stream of its own, and never twice.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::request::Parts as RequestHead;
use http::response::Parts as ResponseHead;
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use shoal_model::view::RouteView;
use shoal_policy::failure::{Failure, Side};
use shoal_policy::health::{Outcome, Reason};
use shoal_policy::retry::{MAX_TRIES, backoff};
use tokio::time::sleep;

use super::answered::Answered;
use super::carrier::Carrier;
use super::connect;
use super::endpoint::{Attempt, Pending};
use super::introduction::Introduction;
use super::occupied::Occupied;
use super::pool::Link;
use super::response::{Lease, UpstreamBody, outcome_of, outcome_of_failure};
use super::send::{Wanted, unless_overdue};
use super::shared::Stream;
use super::sticky::{Visit, add_session_cookie};
use super::wire::Wire;
use super::{Upstream, Upstreams, hash_of};
use crate::deadline::Deadline;
use crate::trace::Trace;
use crate::worker::Worker;

/// What an endpoint says to the wish.
pub(crate) enum Switched {
    /// It switches.
    Yes(Switch),
    /// It answers like any other time.
    No(Response<UpstreamBody>),
}

/// An endpoint that switches.
pub(crate) struct Switch {
    /// Of its 101, or of the 200 of an extended CONNECT.
    pub(crate) head: ResponseHead,
    pub(crate) side: UpstreamSide,
    /// The endpoint is busy with it until this is dropped.
    pub(crate) held: Held,
}

/// What a tunnel takes up at its endpoint.
pub(crate) struct Held {
    _attempt: Attempt,
    _occupied: Option<Occupied>,
    _stream: Option<Stream>,
}

/// The endpoint's side of a tunnel.
pub(crate) enum UpstreamSide {
    /// A whole connection, and what came on it after the head of the answer.
    Own(Bytes, Wire),
    /// A stream of HTTP/2.
    Shared(OnUpgrade),
}

/// The endpoint has agreed, in the way of its version of HTTP.
fn has_switched(carrier: &Carrier, status: StatusCode) -> bool {
    let agreed = if carrier.is_shared() { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
    status == agreed
}

/// Sends `request`, which asks for an upgrade, to the upstream of `route`.
pub(crate) async fn forward_upgrade(
    worker: &Rc<Worker>,
    upstreams: &Upstreams,
    route: &Arc<RouteView>,
    head: &mut RequestHead,
    trace: &mut Trace,
) -> Result<Switched, Failure> {
    head.headers.remove(TRANSFER_ENCODING);
    let upstream = upstreams.find(worker, &route.upstream);
    upstream.budget.borrow_mut().earn();
    let total = route.total_timeout.map(|timeout| worker.deadlines.arm(timeout));
    trace.upstream = Some(upstream.traffic.clone());
    let hash = hash_of(&upstream.view, head, None);
    let mut visit = Visit::begin(&upstream, head, None);
    let introduction = Introduction::of_request(&upstream.view, &head.extensions);
    let (mut attempt, mut carrier) =
        connect_any(worker, &upstream, hash, &mut visit, total.as_ref(), introduction.as_ref(), trace)
            .await?;
    let place = attempt.place;
    let cookie = |status| visit.as_ref()?.cookie(&upstream, place, status);
    carrier.keep_names(upstream.view.answers_keep_names);
    let answered = {
        let wanted =
            Wanted { worker, route, held: Duration::ZERO, request_body: None, total: total.as_ref() };
        wanted.within(pin!(carrier.send_upgrade(head))).await
    };
    let now_ms = worker.clock.now_ms();
    let (mut reply, ()) = Response::new(()).into_parts();
    let failure = match answered {
        Ok(Ok(answered)) if has_switched(&carrier, answered.status()) => {
            let (mut head, side, occupied, stream) = switch(carrier, answered, reply)?;
            attempt.report(Outcome::Success, now_ms);
            if let Some(cookie) = cookie(head.status) {
                add_session_cookie(&mut head.headers, cookie);
            }
            let held = Held { _attempt: attempt, _occupied: occupied, _stream: stream };
            return Ok(Switched::Yes(Switch { head, side, held }));
        }
        Ok(Ok(answered)) => {
            let mut lease = Lease { worker: worker.clone(), carrier, attempt, request_body: None };
            match lease.take_in(answered, &head.method, route.trailers, &mut reply) {
                Ok(stream) => {
                    lease.attempt.report(outcome_of(reply.status), now_ms);
                    if let Some(cookie) = cookie(reply.status) {
                        add_session_cookie(&mut reply.headers, cookie);
                    }
                    let mut body = UpstreamBody::default();
                    body.begin(stream, lease, route.idle_timeout, total);
                    return Ok(Switched::No(Response::from_parts(reply, body)));
                }
                Err(failure) => {
                    lease.attempt.report(outcome_of_failure(failure), now_ms);
                    return Err(failure);
                }
            }
        }
        Ok(Err(unanswered)) => unanswered.failure,
        Err(overdue) => {
            trace.detail = Some(overdue.name());
            Failure::UpstreamResponseTimeout
        }
    };
    attempt.report(outcome_of_failure(failure), now_ms);
    Err(failure)
}

/// Takes a carrier whose endpoint has switched apart.
fn switch(
    carrier: Carrier,
    answered: Answered,
    mut head: ResponseHead,
) -> Result<(ResponseHead, UpstreamSide, Option<Occupied>, Option<Stream>), Failure> {
    match (carrier, answered) {
        (Carrier::Own(link), _) => {
            let Link { mut connection, occupied, .. } = *link;
            connection.take_answer(&mut head).ok_or(Failure::UpstreamProtocol)?;
            let (arrived, wire) = connection.into_tunnel().ok_or(Failure::UpstreamProtocol)?;
            Ok((head, UpstreamSide::Own(arrived, wire), Some(occupied), None))
        }
        (Carrier::Shared(place), Answered::Streamed(response)) => {
            (head, _) = response.into_parts();
            let tunnel = head.extensions.remove::<OnUpgrade>().ok_or(Failure::UpstreamProtocol)?;
            Ok((head, UpstreamSide::Shared(tunnel), None, Some(place)))
        }
        (Carrier::Shared(_), Answered::OnLink(_)) => Err(Failure::UpstreamProtocol),
    }
}

/// A way to the first endpoint that has one for tunnels.
async fn connect_any(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    hash: u64,
    visit: &mut Option<Visit>,
    total: Option<&Deadline>,
    introduction: Option<&Introduction>,
    trace: &mut Trace,
) -> Result<(Attempt, Carrier), Failure> {
    let mut tried: u64 = 0;
    let mut last_failure = Failure::NoEndpoint;
    while trace.tries < MAX_TRIES {
        if trace.tries > 0 {
            if !upstream.budget.borrow_mut().spend(worker.clock.now_ms()) {
                break;
            }
            let pause = sleep(backoff(trace.tries, worker.entropy()));
            unless_overdue(total, pause).await.ok_or(last_failure)?;
        }
        let now_ms = worker.clock.now_ms();
        let session = visit.as_mut().filter(|_| tried == 0).and_then(|visit| visit.pick(upstream, worker));
        let Some(picked) = session.or_else(|| upstream.pick(worker, hash, tried)) else { break };
        let Some(mut attempt) = Attempt::begin(upstream, picked.place, now_ms) else { break };
        upstream.traffic.retries.add((trace.tries > 0).into());
        trace.tries += 1;
        trace.endpoint = Some(attempt.endpoint.text.clone());
        let _pending = Pending::begin(upstream, worker)?;
        let began = Instant::now();
        let opening = async {
            let carrier = connect::open_tunnel(worker, upstream, &attempt.endpoint, introduction).await?;
            let agrees = carrier.may_become_tunnel(upstream.view.connect_timeout).await;
            Ok(agrees.then_some(carrier))
        };
        let opened = unless_overdue(total, opening).await;
        trace.connect += began.elapsed();
        match opened.unwrap_or(Err(Failure::UpstreamConnectTimeout)) {
            Ok(Some(carrier)) => return Ok((attempt, carrier)),
            Ok(None) => {
                // For all else it may be as good as any.
                tracing::debug!(endpoint = %attempt.endpoint.text, "its HTTP/2 knows no extended CONNECT");
                last_failure = Failure::UpstreamProtocol;
                tried |= 1_u64.checked_shl(picked.place as u32).unwrap_or(0);
            }
            Err(failure) => {
                if failure.side() == Side::Upstream {
                    attempt.report(Outcome::LocalFailure, worker.clock.now_ms());
                }
                trace.detail = attempt.endpoint.fault.get().map(Reason::name);
                last_failure = failure;
                tried |= 1_u64.checked_shl(picked.place as u32).unwrap_or(0);
            }
        }
    }
    Err(last_failure)
}
