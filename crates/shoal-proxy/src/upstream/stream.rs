//! A connection to an endpoint for bytes that are no requests.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use shoal_model::site::Balance;
use shoal_model::view::UpstreamView;
use shoal_policy::failure::{Failure, Side};
use shoal_policy::health::{Outcome, Reason};
use shoal_policy::retry::{MAX_TRIES, backoff};
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

use super::Upstreams;
use super::connect;
use super::endpoint::{Attempt, Pending};
use super::introduction::Introduction;
use super::occupied::Occupied;
use super::wire::Socket;
use crate::trace::Trace;
use crate::worker::Worker;

/// An open connection to an endpoint, which counts as one request in flight there until it is dropped.
pub(crate) struct OpenStream {
    pub(crate) stream: Socket,
    _attempt: Attempt,
    _occupied: Occupied,
}

/// Connects to the first endpoint of `view` that takes the connection of `caller`. Nothing was sent on before, so that
/// every failure may be tried again elsewhere.
pub(crate) async fn open_stream(
    worker: &Rc<Worker>,
    upstreams: &Upstreams,
    view: &Arc<UpstreamView>,
    caller: IpAddr,
    introduction: Option<&Introduction>,
    trace: &mut Trace,
) -> Result<OpenStream, Failure> {
    let upstream = upstreams.find(worker, view);
    upstream.budget.borrow_mut().earn();
    trace.upstream = Some(upstream.traffic.clone());
    // Whatever requests are hashed by: of a connection nothing else is known.
    let hash = match view.balance {
        Balance::ConsistentHash => xxh3_64(caller.to_canonical().to_string().as_bytes()),
        _ => 0,
    };
    let mut tried: u64 = 0;
    let mut last_failure = Failure::NoEndpoint;
    while trace.tries < MAX_TRIES {
        let now_ms = worker.clock.now_ms();
        if trace.tries > 0 {
            if !upstream.budget.borrow_mut().spend(now_ms) {
                break;
            }
            sleep(backoff(trace.tries, worker.entropy())).await;
        }
        let Some(picked) = upstream.pick(worker, hash, tried) else { break };
        let Some(mut attempt) = Attempt::begin(&upstream, picked.place, worker.clock.now_ms()) else { break };
        upstream.traffic.retries.add((trace.tries > 0).into());
        upstream.traffic.panics.add(picked.panic.into());
        trace.tries += 1;
        trace.endpoint = Some(attempt.endpoint.text.clone());
        let occupied = Occupied::take(&upstream, &attempt.endpoint, worker)?;
        let pending = Pending::begin(&upstream, worker)?;
        let began = Instant::now();
        let opened = connect::open(worker, &upstream, &attempt.endpoint, introduction).await;
        drop(pending);
        trace.connect += began.elapsed();
        let now_ms = worker.clock.now_ms();
        match opened {
            Ok(stream) => {
                attempt.endpoint.record_latency(began.elapsed(), now_ms);
                attempt.report(Outcome::Success, now_ms);
                return Ok(OpenStream { stream, _attempt: attempt, _occupied: occupied });
            }
            Err(failure) => {
                if failure.side() == Side::Upstream {
                    attempt.report(Outcome::LocalFailure, now_ms);
                }
                trace.detail = attempt.endpoint.fault.get().map(Reason::name);
                last_failure = failure;
                tried |= 1_u64.checked_shl(picked.place as u32).unwrap_or(0);
            }
        }
    }
    Err(last_failure)
}
