//! Forwarding a request that wants to upgrade: always on a connection of its own, and never twice.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::prepare_response;
use shoal_policy::health::Outcome;
use tokio::time::timeout;

use super::connect;
use super::endpoint::Attempt;
use super::pool::Link;
use super::response::{Lease, UpstreamBody, blame_upstream, outcome_of};
use super::{Upstream, hash_of};
use crate::body::RequestBody;
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
}

/// Sends `request`, which asks for an upgrade, to the upstream of `route`.
pub(crate) async fn forward_upgrade(
    worker: &Rc<Worker>,
    route: &Arc<RouteView>,
    request: Request<RequestBody>,
    trace: &mut Trace,
) -> Result<Switched, Failure> {
    let upstream = worker.upstreams.find(worker, &route.upstream);
    trace.upstream = Some(upstream.traffic.clone());
    let (head, body) = request.into_parts();
    let hash = hash_of(&upstream.view, &head);
    let request = Request::from_parts(head, body);
    let (mut attempt, mut link) = connect_any(worker, &upstream, hash, trace).await?;
    let answered = timeout(route.first_byte_timeout, link.sender.send_request(request)).await;
    let now_ms = worker.clock.now_ms();
    let failure = match answered {
        Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            attempt.report(Outcome::Success, now_ms);
            link.detach();
            return Ok(Switched::Yes(Switch { response, attempt }));
        }
        Ok(Ok(response)) => {
            let (mut head, incoming) = response.into_parts();
            match prepare_response(&mut head, route.trailers) {
                Ok(()) => {
                    attempt.report(outcome_of(head.status), now_ms);
                    let lease = Lease { worker: worker.clone(), link, attempt, request_body: None };
                    let body = UpstreamBody::new(incoming, lease, route.idle_timeout, None);
                    return Ok(Switched::No(Response::from_parts(head, body)));
                }
                Err(failure) => failure,
            }
        }
        Ok(Err(error)) => blame_upstream(&error),
        Err(_) => Failure::UpstreamResponseTimeout,
    };
    attempt.report(Outcome::GatewayError, now_ms);
    Err(failure)
}

/// A fresh connection to the first endpoint that takes one.
async fn connect_any(
    worker: &Rc<Worker>,
    upstream: &Rc<Upstream>,
    hash: u64,
    trace: &mut Trace,
) -> Result<(Attempt, Link), Failure> {
    let mut tried: u64 = 0;
    let mut last_failure = Failure::NoEndpoint;
    while trace.tries < shoal_policy::retry::MAX_TRIES {
        let now_ms = worker.clock.now_ms();
        let Some(picked) = upstream.pick(worker, hash, tried) else { break };
        let Some(mut attempt) = Attempt::begin(upstream, picked.place, now_ms) else { break };
        trace.tries += 1;
        trace.endpoint = Some(attempt.endpoint.text.clone());
        let began = Instant::now();
        let opened = connect::open(worker, upstream, &attempt.endpoint).await;
        trace.connect += began.elapsed();
        match opened {
            Ok(stream) => {
                let shaken = connect::codec().handshake::<_, RequestBody>(TokioIo::new(stream)).await;
                let (sender, connection) = shaken.map_err(|_| Failure::UpstreamConnectFailed)?;
                let task = tokio::task::spawn_local(async move {
                    let _ = connection.with_upgrades().await;
                });
                return Ok((attempt, Link::new(sender, task.abort_handle(), now_ms)));
            }
            Err(failure) => {
                attempt.report(Outcome::GatewayError, worker.clock.now_ms());
                last_failure = failure;
                tried |= 1_u64.checked_shl(picked.place as u32).unwrap_or(0);
            }
        }
    }
    Err(last_failure)
}
