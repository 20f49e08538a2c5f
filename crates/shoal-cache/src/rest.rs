//! Going on from the origin with a body that cannot be read from disk to its end: by range, under the validator of what was
//! begun, or not at all.

use std::sync::Arc;

use http::StatusCode;
use http::request::Parts;
use shoal_model::view::RouteView;
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::fill_request::limit_to_shared;
use shoal_policy::cache::resume::Broken;
use shoal_policy::cache::span::Span;
use shoal_policy::cache::validation::strong_validator;
use tokio::sync::oneshot;

use crate::body::{CacheBody, OriginBody};
use crate::dispatch::Job;
use crate::node::Cache;
use crate::object::Object;
use crate::seam::{CacheRequest, UntilClose};
use crate::task::whole_request;
use crate::worker::WorkerCache;

/// What it takes to go on with the body of an object.
pub(crate) struct Rescue {
    cache: Arc<Cache>,
    object: Arc<Object>,
    route: Arc<RouteView>,
    /// Asks for the whole, as it would be sent to the origin.
    head: Parts,
}

/// The rest of a body, behind the first `skip` bytes.
pub(crate) struct Rest {
    pub(crate) body: OriginBody,
    pub(crate) skip: u64,
}

/// The rest of a body is to be fetched, by whatever worker.
pub(crate) struct RestTask {
    rescue: Arc<Rescue>,
    /// What the body is to be of that of the object, and what there is of it.
    span: Span,
    received: u64,
    /// Where the rest goes, if there is one.
    to: oneshot::Sender<Rest>,
}

impl Rescue {
    /// The rest of `span`, behind `received` bytes, when it comes.
    pub(crate) fn begin(self: Arc<Self>, span: Span, received: u64) -> oneshot::Receiver<Rest> {
        let (to, rest) = oneshot::channel();
        let cache = self.cache.clone();
        cache.dispatch.hand_on(Job::Rest(Box::new(RestTask { rescue: self, span, received, to })));
        rest
    }
}

impl WorkerCache {
    /// Sees to it that `body`, which is of `object`, goes on from the origin where the disk fails.
    pub(crate) fn guard(&self, body: &mut CacheBody, request: &CacheRequest<'_>, object: &Arc<Object>) {
        // The disk counts the bytes of a chunk from its beginning: there is no rest of that to be asked for.
        let is_guarded = body.is_on_disk() && object.chunked().is_none() && object.status == StatusCode::OK;
        if !is_guarded || strong_validator(&object.fields).is_none() {
            return;
        }
        let mut head = whole_request(request.head, request.rule);
        limit_to_shared(&mut head.headers, request.rule, &object.selecting().selectors());
        let (cache, object, route) = (self.cache.clone(), object.clone(), request.route.clone());
        body.guard(&Arc::new(Rescue { cache, object, route, head }));
    }

    /// Asks for the rest of a body. Where it is not that of the same version, there is none.
    pub(crate) async fn fetch_rest(&self, task: RestTask) {
        let RestTask { rescue, span, received, to } = task;
        let Rescue { object, route, head, .. } = &*rescue;
        let (fields, length) = (object.fields.to_map(0), Some(object.body_bytes));
        let part = (Span::all(object.body_bytes) != Some(span)).then_some(ContentRange { span, length });
        let length = Some(span.bytes());
        let broken = Broken { status: object.status, fields: &fields, part, length, received };
        let mut request = head.clone();
        if !broken.ask(&mut request.headers) {
            return;
        }
        self.cells.origin_fetches.count();
        if let Ok(response) = self.fetch.fetch(route.clone(), request, None).await
            && response.extensions().get::<UntilClose>().is_none()
            && let Some(skip) = broken.continued_by(response.status(), response.headers())
        {
            // Whoever waited for it may have gone.
            _ = to.send(Rest { body: response.into_body(), skip });
        }
    }
}
