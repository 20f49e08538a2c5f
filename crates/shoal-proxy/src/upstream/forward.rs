//! Forwarding: tries, one after another, until a response head comes or nothing more may be tried.

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response};
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use shoal_policy::retry::{Next, after_failure, backoff, is_replayable};
use tokio::time::sleep;

use super::endpoint::Attempt;
use super::send::{Sending, Source, unless_overdue};
use super::{UpstreamBody, hash_of};
use crate::body::RequestBody;
use crate::exchange::Trace;
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
    let copy = is_replayable(&head.method, body.has_bytes()).then(|| worker.upstreams.replays.of(&head));
    let total = route.total_timeout.map(|timeout| worker.deadlines.arm(timeout));
    trace.upstream = Some(upstream.traffic.clone());
    let mut sending = Sending { worker, route, total, trace };
    let mut request = Request::from_parts(head, body);
    let mut tried: u64 = 0;
    let mut last_failure = Failure::NoEndpoint;
    let mut again_at: Option<usize> = None;
    loop {
        let (place, source) = match again_at.take() {
            Some(place) => (place, Source::Fresh),
            None => match upstream.pick(worker, hash, tried) {
                Some(picked) => {
                    upstream.traffic.panics.add(picked.panic.into());
                    (picked.place, Source::PoolFirst)
                }
                None => return Err(last_failure),
            },
        };
        let now_ms = worker.clock.now_ms();
        let Some(attempt) = Attempt::begin(&upstream, place, now_ms) else { return Err(last_failure) };
        sending.trace.tries += 1;
        sending.trace.endpoint = Some(attempt.endpoint.text.clone());
        let failed = match sending.send(attempt, request, source).await {
            Ok(response) => return Ok(response),
            Err(failed) => failed,
        };
        last_failure = failed.failure;
        match after_failure(failed.progress, copy.is_some(), sending.trace.tries) {
            Next::GiveUp => return Err(last_failure),
            Next::FreshConnection => again_at = Some(place),
            Next::AnotherEndpoint => tried |= 1_u64.checked_shl(place as u32).unwrap_or(0),
        }
        if !upstream.budget.borrow_mut().spend(now_ms) {
            return Err(last_failure);
        }
        if again_at.is_none() {
            let pause = sleep(backoff(sending.trace.tries, worker.entropy()));
            unless_overdue(sending.total.as_ref(), pause).await.ok_or(last_failure)?;
        }
        upstream.traffic.retries.add(1);
        request = match (failed.request, &copy) {
            (Some(request), _) => *request,
            (None, Some(copy)) => copy.request(),
            (None, None) => return Err(last_failure),
        };
    }
}
