//! The origin as the cache sees it: the same forwarding that requests past the cache get.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use shoal_cache::{Fetch, FetchFuture, FetchNotes, FetchTrace, OriginBody, relay};
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use shoal_policy::forwarding::OwnName;

use crate::hints::{Hints, pass_on_during};
use crate::metrics::{CacheUse, Sample, Traffic};
use crate::request_body::RequestBody;
use crate::trace::Trace;
use crate::upstream::{Reply, UpstreamBody, Upstreams, forward};
use crate::worker::Worker;

/// The origin, by way of one worker's upstreams.
pub(crate) struct OriginFetch {
    worker: Rc<Worker>,
    upstreams: Rc<Upstreams>,
    own: OwnName,
}

impl OriginFetch {
    pub(crate) fn new(worker: Rc<Worker>, upstreams: Rc<Upstreams>, own: OwnName) -> Self {
        Self { worker, upstreams, own }
    }
}

impl Fetch for OriginFetch {
    fn fetch(&self, route: Arc<RouteView>, mut head: Parts, asked: Option<FetchTrace>) -> FetchFuture {
        let (worker, upstreams) = (self.worker.clone(), self.upstreams.clone());
        Box::pin(async move {
            let mut trace = Trace::default();
            let started = Instant::now();
            let (mut answer, mut body) = (Response::new(()).into_parts().0, UpstreamBody::default());
            let hints = Hints::default();
            let wanted = asked.as_ref().map(|_| &hints);
            let (head_of, body_of) = (&mut answer, &mut body);
            let reply =
                Reply { head: head_of, body: body_of, trace: &mut trace, hints: wanted, is_fill: true };
            let forwarding = forward(&worker, &upstreams, &route, &mut head, None, RequestBody::Empty, reply);
            let fetched = pass_on_during(forwarding, |_| {
                if let Some(asked) = &asked {
                    hints.take().into_iter().for_each(|(status, fields)| asked.say_before(status, fields));
                }
            })
            .await;
            let status = fetched.map_or_else(Failure::status, |()| answer.status.as_u16());
            if let Some(asked) = asked {
                asked.note(notes(&trace, fetched.is_ok()));
            }
            let tally = Tally { started, upstream: trace.upstream, status, response_bytes: 0 };
            fetched.map(|()| Response::from_parts(answer, detach(body, Some(tally))))
        })
    }

    fn sign(&self, fields: &mut HeaderMap) {
        self.own.sign(fields);
        // Its place: the map does not grow when each answer gets its own.
        self.own.set_request_id(fields, HeaderValue::from_static(""));
    }
}

/// What the request that began the fill is told.
fn notes(trace: &Trace, answered: bool) -> FetchNotes {
    FetchNotes {
        endpoint: trace.endpoint.as_deref().map(Into::into),
        tries: trace.tries,
        detail: trace.detail,
        connect: trace.connect,
        first_byte: answered.then(Instant::now),
    }
}

/// A body that may leave the worker: a task of the worker reads it. If nobody takes the parts, that task ends, and the
/// connection with it. Without a `tally` somebody else counts it.
pub(crate) fn detach(mut body: UpstreamBody, mut tally: Option<Tally>) -> OriginBody {
    let (parts, relayed) = relay(body.size_hint());
    if body.is_end_stream() {
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    tokio::task::spawn_local(async move {
        loop {
            let part = tokio::select! {
                part = std::future::poll_fn(|cx| body.poll(cx)) => part,
                () = parts.closed() => return,
            };
            if let Some(Ok(frame)) = &part {
                tally.iter_mut().for_each(|tally| tally.count(frame));
            }
            if !parts.send(part).await {
                return;
            }
        }
    });
    relayed
}

/// Counts a fetch among the traffic of its upstream when it ends, however it ends: no exchange does.
pub(crate) struct Tally {
    started: Instant,
    upstream: Option<Arc<Traffic>>,
    status: u16,
    response_bytes: u64,
}

impl Tally {
    fn count(&mut self, frame: &Frame<Bytes>) {
        self.response_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some(upstream) = &self.upstream {
            upstream.record(&Sample {
                status: self.status,
                https: false,
                duration: self.started.elapsed(),
                request_bytes: 0,
                response_bytes: self.response_bytes,
                cache: CacheUse::None,
            });
        }
    }
}
