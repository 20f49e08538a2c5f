//! Forwarding a request that wants to upgrade: always on a connection of its own, and never twice.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use shoal_model::view::RouteView;
use shoal_policy::failure::{Failure, Side};
use shoal_policy::forwarding::prepare_response;
use shoal_policy::health::Outcome;
use shoal_policy::retry::{MAX_TRIES, backoff};
use tokio::time::sleep;

use super::carrier::Carrier;
use super::connect::{self, LinkKind};
use super::endpoint::{Attempt, Occupied, Pending};
use super::introduction::Introduction;
use super::pool::Link;
use super::response::{Lease, UpstreamBody, blame_upstream, outcome_of};
use super::send::{unless_overdue, within};
use super::{Upstream, hash_of};
use crate::body::RequestBody;
use crate::deadline::Deadline;
use crate::exchange::Trace;
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
    /// Its 101; hop-by-hop fields other than those of the upgrade itself are gone.
    pub(crate) response: Response<Incoming>,
    /// The endpoint is busy with it until this is dropped.
    pub(crate) attempt: Attempt,
    /// Likewise the place of its connection.
    pub(crate) occupied: Option<Occupied>,
}

/// Sends `request`, which asks for an upgrade, to the upstream of `route`.
pub(crate) async fn forward_upgrade(
    worker: &Rc<Worker>,
    route: &Arc<RouteView>,
    request: Request<RequestBody>,
    trace: &mut Trace,
) -> Result<Switched, Failure> {
    let upstream = worker.upstreams.find(worker, &route.upstream);
    upstream.budget.borrow_mut().earn();
    let total = route.total_timeout.map(|timeout| worker.deadlines.arm(timeout));
    trace.upstream = Some(upstream.traffic.clone());
    let (head, body) = request.into_parts();
    let hash = hash_of(&upstream.view, &head);
    let introduction = Introduction::of_request(&upstream.view, &head.extensions);
    let request = Request::from_parts(head, body);
    let (mut attempt, mut link) =
        connect_any(worker, &upstream, hash, total.as_ref(), introduction.as_ref(), trace).await?;
    link.begin();
    let sent = link.sender.send_request(request);
    let answered = within(worker, route, None, total.as_ref(), sent).await;
    let now_ms = worker.clock.now_ms();
    let failure = match answered {
        Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            attempt.report(Outcome::Success, now_ms);
            let occupied = link.detach();
            return Ok(Switched::Yes(Switch { response, attempt, occupied }));
        }
        Some(Ok(response)) => {
            let (mut head, incoming) = response.into_parts();
            match prepare_response(&mut head, route.trailers) {
                Ok(()) => {
                    attempt.report(outcome_of(head.status), now_ms);
                    let lease = Lease {
                        worker: worker.clone(),
                        carrier: Carrier::Own(link),
                        attempt,
                        request_body: None,
                    };
                    let body = UpstreamBody::new(incoming, lease, route.idle_timeout, total);
                    return Ok(Switched::No(Response::from_parts(head, body)));
                }
                Err(failure) => failure,
            }
        }
        Some(Err(error)) => blame_upstream(&error),
        None => Failure::UpstreamResponseTimeout,
    };
    attempt.report(Outcome::GatewayError, now_ms);
    Err(failure)
}

/// A fresh connection to the first endpoint that takes one.
async fn connect_any(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    hash: u64,
    total: Option<&Deadline>,
    introduction: Option<&Introduction>,
    trace: &mut Trace,
) -> Result<(Attempt, Link), Failure> {
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
        let Some(picked) = upstream.pick(worker, hash, tried) else { break };
        let Some(mut attempt) = Attempt::begin(upstream, picked.place, now_ms) else { break };
        upstream.traffic.retries.add((trace.tries > 0).into());
        trace.tries += 1;
        trace.endpoint = Some(attempt.endpoint.text.clone());
        let _pending = Pending::begin(upstream, worker)?;
        let began = Instant::now();
        let opening =
            connect::open_link(worker, upstream, &attempt.endpoint, LinkKind::Upgradable, introduction);
        let opened = unless_overdue(total, opening).await;
        trace.connect += began.elapsed();
        match opened.unwrap_or(Err(Failure::UpstreamConnectTimeout)) {
            Ok(link) => return Ok((attempt, link)),
            Err(failure) => {
                if failure.side() == Side::Upstream {
                    attempt.report(Outcome::GatewayError, worker.clock.now_ms());
                }
                last_failure = failure;
                tried |= 1_u64.checked_shl(picked.place as u32).unwrap_or(0);
            }
        }
    }
    Err(last_failure)
}
