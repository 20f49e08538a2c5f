//! An owner that is told to have an object: fetched like a peer's request for it, and read to its end.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use shoal_policy::cache::key::{ObjectKey, route_of};
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::sources::{Hop, Role};
use shoal_proto::cache::{RequestField, WarmOutcome, WarmRequest, WarmResponse};

use super::server::PeerRequest;
use super::under_way::UnderWay;
use super::wire::{self, AnswerKind, BEHIND_WAIT};
use crate::clock::now_ms;
use crate::node::Cache;
use crate::object::Object;

impl Cache {
    /// Sees to it that what `request` asks for is stored here, and says what came of it.
    pub(crate) async fn warm(self: &Arc<Self>, request: WarmRequest) -> WarmResponse {
        if !self.purges.reached(request.min_seq, BEHIND_WAIT).await {
            return failed("the owner has not applied the log that far");
        }
        let Some(request) = read(self, request) else {
            return failed("the owner does not know the route, or does not cache it");
        };
        // A node that leaves waits for that, too.
        let _under_way = UnderWay::new(self);
        let answer = request.answer(self).await;
        let status = answer.status().as_u16();
        let why = wire::read_refusal(answer.headers());
        match AnswerKind::read(answer.headers()) {
            Some(AnswerKind::Hit) => self.stored(&request, WarmOutcome::Fresh, status),
            Some(AnswerKind::Filling) => {
                if let Some(fill) = answer.into_body().into_fill()
                    && let Err(failure) = fill.end().await
                {
                    return failed(failure.reason());
                }
                self.stored(&request, WarmOutcome::Stored, status)
            }
            Some(AnswerKind::Own) => uncacheable(status, why),
            Some(AnswerKind::Direct | AnswerKind::Alone) => uncacheable(0, why),
            Some(AnswerKind::Failed) => failed(wire::read_failure(answer.headers()).reason()),
            Some(AnswerKind::Miss) => failed("the node that was asked does not own it"),
            Some(AnswerKind::Behind) | None => failed("the owner gave no answer"),
        }
    }

    /// What is there of it now: the body may have been too long to stay.
    fn stored(&self, request: &PeerRequest, outcome: WarmOutcome, status: u16) -> WarmResponse {
        let key = ObjectKey::of_text(self.settings.key_seed, &request.text);
        let variants = self.store.peek(key).unwrap_or_default();
        let fits = |object: &&Arc<Object>| {
            object.text == request.text && object.selecting().matches(&request.head.headers)
        };
        let Some(object) = variants.objects().iter().rev().find(fits) else {
            return uncacheable(status, self.why_uncacheable(&request.text));
        };
        WarmResponse {
            outcome: outcome.into(),
            status: object.status.as_u16().into(),
            body_bytes: object.body.length().unwrap_or(object.body_bytes),
            ttl_seconds: object.terms.time_left_ms(now_ms()).div_euclid(1000),
            detail: String::new(),
        }
    }
}

/// `None` = it is none that this node could answer.
fn read(cache: &Cache, request: WarmRequest) -> Option<PeerRequest> {
    let config = cache.settings.config.load();
    let route = config.routes.by_name(&request.route)?.clone();
    let rule = route.cache.clone()?;
    if route_of(&request.text) != &*route.key_name {
        return None;
    }
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    head.uri = request.target.parse().ok()?;
    head.headers = fields(request.fields)?;
    wire::remove_own_fields(&mut head.headers);
    let role = if request.primary_down { Role::Deputy } else { Role::Primary };
    let (peer, hop, is_verbatim) = (cache.settings.node, Hop::Owner, false);
    Some(PeerRequest { head, is_verbatim, peer, text: request.text.into(), route, rule, role, hop })
}

fn fields(written: Vec<RequestField>) -> Option<HeaderMap> {
    let mut fields = HeaderMap::try_with_capacity(written.len()).ok()?;
    for RequestField { name, value } in written {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        fields.try_append(name, HeaderValue::from_maybe_shared(bytes::Bytes::from(value)).ok()?).ok()?;
    }
    Some(fields)
}

fn uncacheable(status: u16, why: Option<Refusal>) -> WarmResponse {
    WarmResponse {
        outcome: WarmOutcome::Uncacheable.into(),
        status: status.into(),
        detail: why.map_or("", Refusal::word).to_owned(),
        ..WarmResponse::default()
    }
}

fn failed(why: &str) -> WarmResponse {
    WarmResponse { outcome: WarmOutcome::Failed.into(), detail: why.to_owned(), ..WarmResponse::default() }
}
