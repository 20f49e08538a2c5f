//! The origin as the cache sees it: the same forwarding that requests past the cache get.

use std::pin::Pin;
use std::rc::Weak;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use shoal_cache::{Fetch, FetchFuture, OriginBody};
use shoal_model::view::RouteView;
use shoal_policy::failure::Failure;
use tokio::sync::mpsc;

use crate::body::RequestBody;
use crate::exchange::Trace;
use crate::upstream::{UpstreamBody, forward};
use crate::worker::Worker;

/// Parts of a body on their way to whoever reads it.
const MAX_WAITING_FRAMES: usize = 4;

/// The origin, by way of one worker's upstreams.
pub(crate) struct OriginFetch {
    worker: Weak<Worker>,
}

impl OriginFetch {
    pub(crate) fn new(worker: Weak<Worker>) -> Self {
        Self { worker }
    }
}

impl Fetch for OriginFetch {
    fn fetch(&self, route: Arc<RouteView>, head: Parts) -> FetchFuture {
        let worker = self.worker.upgrade();
        Box::pin(async move {
            // Without a worker the node is on its way out.
            let worker = worker.ok_or(Failure::Draining)?;
            let mut trace = Trace::default();
            let response = forward(&worker, &route, head, RequestBody::Empty, &mut trace).await?;
            Ok(response.map(detach))
        })
    }
}

/// A body that may leave the worker: a task of the worker reads it. If nobody takes the parts, that task ends, and the
/// connection with it.
fn detach(mut body: UpstreamBody) -> OriginBody {
    let size = body.size_hint();
    if body.is_end_stream() {
        return Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    let (parts, received) = mpsc::channel(MAX_WAITING_FRAMES);
    tokio::task::spawn_local(async move {
        loop {
            let part = tokio::select! {
                part = std::future::poll_fn(|cx| body.poll(cx)) => part,
                () = parts.closed() => return,
            };
            let ends = !matches!(part, Some(Ok(_)));
            if parts.send(part).await.is_err() || ends {
                return;
            }
        }
    });
    Detached { received, size, ended: false }.boxed_unsync()
}

/// The other end: an explicit `None` is the end, silence is not.
struct Detached {
    received: mpsc::Receiver<Option<Result<Frame<Bytes>, Failure>>>,
    size: SizeHint,
    ended: bool,
}

impl Body for Detached {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let part =
            std::task::ready!(this.received.poll_recv(cx)).unwrap_or(Some(Err(Failure::UpstreamReset)));
        this.ended = !matches!(part, Some(Ok(_)));
        if let Some(Ok(frame)) = &part
            && let Some(data) = frame.data_ref()
            && let Some(exact) = this.size.exact()
        {
            this.size = SizeHint::with_exact(exact.saturating_sub(data.len() as u64));
        }
        Poll::Ready(part)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.size.exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}
