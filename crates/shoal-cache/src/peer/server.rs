//! Answering a peer: from the store, from a running fill, or by beginning one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioTimer;
use shoal_model::NodeId;
use shoal_model::view::{CacheRuleView, RouteView};
use shoal_policy::cache::key::{ObjectKey, route_of};
use shoal_policy::cache::reuse::{Freshened, Reuse};
use shoal_policy::cache::sources::{Hop, Role, may_fill};

use super::client::MAX_PEER_FIELDS;
use super::intake::{self, Kind};
use super::reply::{bare, failed, own_answer, refuse};
use super::under_way::UnderWay;
use super::wire::{self, AnswerKind, BEHIND_WAIT};
use crate::boarding::Flown;
use crate::body::CacheBody;
use crate::chunks::Cut;
use crate::clock::now_ms;
use crate::dispatch::Job;
use crate::lookup::{Choice, Probe, Signs, Sought, look, wishes};
use crate::node::Cache;
use crate::object::Object;
use crate::seam::PeerIo;
use crate::search::Alias;
use crate::task::{Asker, FillTask, TaskSeed};

/// A peer's request for an object.
pub(super) struct PeerRequest {
    /// As it came from downstream, as far as is known here.
    pub(super) head: Parts,
    /// It is just what downstream asks for: fields alone, or several parts, will do where they answer that.
    pub(super) is_verbatim: bool,
    pub(super) peer: NodeId,
    pub(super) text: Box<str>,
    pub(super) route: Arc<RouteView>,
    pub(super) rule: CacheRuleView,
    /// In what role this node is asked.
    pub(super) role: Role,
    /// How far the request has come.
    pub(super) hop: Hop,
}

impl Cache {
    /// Serves one authenticated connection of `peer` that negotiated HTTP/1.1, until it ends: requests for objects, and
    /// copies of them. It is told to end with the first answer after `for_so_long`.
    pub async fn serve_peer<IO: PeerIo>(self: Arc<Self>, io: IO, peer: NodeId, for_so_long: Duration) {
        let ends_at = Instant::now().checked_add(for_so_long);
        let service = hyper::service::service_fn(move |request| {
            let cache = self.clone();
            async move {
                let under_way = UnderWay::new(&cache);
                let mut answer = answer_peer(&cache, peer, request).await;
                let is_old = ends_at.is_some_and(|ends_at| Instant::now() >= ends_at);
                if cache.is_retired() || is_old {
                    // The next one is for the process that has taken the place of this one, or who it is from is asked again.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(answer.map(|body| under_way.body(body)))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_headers(MAX_PEER_FIELDS)
            .serve_connection(hyper_util::rt::TokioIo::new(io), service);
        if let Err(error) = connection.await {
            tracing::debug!(%peer, %error, "a connection of a peer broke");
        }
    }
}

/// Answers one request of `peer`.
async fn answer_peer(cache: &Arc<Cache>, peer: NodeId, request: Request<Incoming>) -> Response<CacheBody> {
    if request.method() == Method::PUT
        && let Some(kind) = Kind::of_path(request.uri().path())
    {
        return intake::receive(cache, peer, kind, request).await.unwrap_or_else(refuse);
    }
    let head = request.into_parts().0;
    let Some(hop) = wire::read_number(&head.headers, &wire::HOP) else {
        return refuse(StatusCode::BAD_REQUEST);
    };
    let min_seq = wire::read_number(&head.headers, &wire::MIN_SEQ).unwrap_or(0);
    if !cache.purges.reached(min_seq, BEHIND_WAIT).await {
        return bare(AnswerKind::Behind);
    }
    match PeerRequest::read(cache, peer, Hop::read(hop), head) {
        Some(request) => request.answer(cache).await,
        None => bare(AnswerKind::Miss),
    }
}

impl PeerRequest {
    /// `None` = the route is not known here (yet), or is not cached.
    fn read(cache: &Cache, peer: NodeId, hop: Hop, mut head: Parts) -> Option<Self> {
        let text: Box<str> = wire::read_text(&head.headers, &wire::URL)?.into();
        let config = cache.settings.config.load();
        let route = config.routes.by_name(wire::read_text(&head.headers, &wire::ROUTE)?)?.clone();
        let rule = route.cache.clone()?;
        let has = |name| head.headers.contains_key(name);
        // One of the two tries a revision that says otherwise how this is answered: what is here for that one may be had, and
        // nothing is fetched on its behalf.
        let is_tried = route_of(&text) != &*route.key_name;
        let role = match (has(&wire::PEEK) || is_tried, has(&wire::PRIMARY_DOWN)) {
            (true, _) => Role::Holder,
            (false, true) => Role::Deputy,
            (false, false) => Role::Primary,
        };
        let conditions = wire::read_conditions(&head.headers);
        let is_verbatim = conditions.is_some();
        wire::remove_own_fields(&mut head.headers);
        conditions.into_iter().for_each(|conditions| conditions.restore(&mut head));
        Some(Self { head, is_verbatim, peer, text, route, rule, role, hop })
    }

    pub(super) async fn answer(&self, cache: &Arc<Cache>) -> Response<CacheBody> {
        let key = ObjectKey::of_text(cache.settings.key_seed, &self.text);
        let fields = &self.head.headers;
        let signs = Signs::read(fields);
        let wishes = wishes(&self.rule, signs, fields);
        let now_ms = now_ms();
        let variants = cache.store.find(key);
        let text = self.text.as_bytes();
        let trust = cache.trust(&self.rule, now_ms);
        let method = &self.head.method;
        let alias = Alias::of(cache, &self.text, &self.head.uri);
        let alias = alias.as_ref();
        let sought = Sought { text, alias, method, fields, signs, wishes: &wishes, trust, now_ms };
        let mut choice = look(variants.as_ref(), &sought, &cache.purges);
        if !matches!(choice, Choice::Found(_))
            && let Some(loaded) = cache.load(key).await
        {
            choice = look(Some(&loaded), &sought, &cache.purges);
        }
        let mut probe = Probe::new(key, &sought, choice);
        probe.heed_range_miss(&self.rule);
        let may_fill = may_fill(self.role, cache.placement.owners(key), cache.settings.node);
        if let Some(found) = &probe.found
            && found.purge == Freshened::Untouched
        {
            match (found.reuse, &found.cut) {
                (Reuse::Fresh, Some(cut)) => return self.hit(cache, &found.object, cut, now_ms),
                (Reuse::Stale { revalidate }, cut) if cache.has_all_of(found, fields) => {
                    if revalidate && may_fill {
                        self.seed(&probe).revalidate(cache, |task| self.start(cache, task));
                    }
                    return match cut {
                        Some(cut) => self.hit(cache, &found.object, cut, now_ms),
                        None => self.read_for_itself(cache, &probe, &found.object).await,
                    };
                }
                // Here it is no hit yet, whatever the route says of hits: the origin decides.
                (Reuse::Validate | Reuse::ValidateOnRequest | Reuse::Unverified, _) => {}
                // It is not all here, or not all in memory.
                (Reuse::Fresh | Reuse::Stale { .. }, _) => {}
            }
        }
        if !may_fill && !self.holds_chunks(cache, &probe) {
            return bare(AnswerKind::Miss);
        }
        if probe.found.is_none() && cache.is_uncacheable(&self.text) {
            return unshared(cache, &self.text);
        }
        self.fly(cache, &probe).await
    }

    /// All that is asked for lies here, in chunks, and some of it on disk or in too many.
    fn holds_chunks(&self, cache: &Cache, probe: &Probe) -> bool {
        let found = probe.found.as_ref().filter(|found| found.reads_chunks());
        found.is_some_and(|found| cache.has_all_of(found, &self.head.headers))
    }

    async fn fly(&self, cache: &Arc<Cache>, probe: &Probe) -> Response<CacheBody> {
        match self.seed(probe).fly(cache, |task| self.start(cache, task)).await {
            // What only the first request may see does not travel: the ingress asks the origin for itself.
            Flown::Filling { head, is_creator: true, .. } if head.own_fields.is_some() => {
                bare(AnswerKind::Alone)
            }
            Flown::Filling { head, reader, is_creator } => {
                self.filling(cache, probe, &head, reader, !is_creator)
            }
            Flown::Stored(object, cut) => self.hit(cache, &object, &cut, now_ms()),
            Flown::Asked(object, cut, _) => self.validated(cache, probe, &object, &cut),
            Flown::InChunks(object) if self.told_length(&object).is_some() => {
                self.validated(cache, probe, &object, &Cut::whole())
            }
            Flown::InChunks(object) => self.read_for_itself(cache, probe, &object).await,
            Flown::Own(unshared) => own_answer(cache, probe, unshared),
            Flown::ForOthers => bare(AnswerKind::Alone),
            Flown::Released => unshared(cache, &probe.text),
            Flown::Failed(failure) => failed(failure),
        }
    }

    /// Has a worker work on a fill.
    fn start(&self, cache: &Cache, mut task: FillTask) {
        task.is_peek = self.role == Role::Holder;
        cache.dispatch.hand_on(Job::Fill(Box::new(task)));
    }

    /// Puts the answer together from the chunks of `object`, which may be used.
    async fn read_for_itself(
        &self,
        cache: &Arc<Cache>,
        probe: &Probe,
        object: &Arc<Object>,
    ) -> Response<CacheBody> {
        Box::pin(self.fly(cache, &probe.of_chunks(object))).await
    }

    const fn seed<'a>(&'a self, probe: &'a Probe) -> TaskSeed<'a> {
        TaskSeed {
            head: &self.head,
            route: &self.route,
            rule: &self.rule,
            probe,
            asker: Asker::Peer(self.peer, self.hop),
        }
    }
}

/// The peer has to ask for itself. It is told whether coming back soon is in vain, too.
fn unshared(cache: &Cache, text: &str) -> Response<CacheBody> {
    if !cache.is_uncacheable(text) {
        return bare(AnswerKind::Alone);
    }
    let mut response = bare(AnswerKind::Direct);
    if let Some(why) = cache.why_uncacheable(text) {
        wire::write_refusal(why, response.headers_mut());
    }
    response
}
