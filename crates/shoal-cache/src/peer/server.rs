//! Answering a peer: from the store, from a running fill, or by beginning one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioTimer;
use shoal_model::NodeId;
use shoal_model::view::{CacheRuleView, RouteView};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::heat::{HOT_FOR_MS, Heat};
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::range::Extract;
use shoal_policy::cache::reuse::{Freshened, Reuse};
use shoal_policy::cache::sources::{Hop, Role, may_fill};
use shoal_policy::cache::status::{CacheStatus, Detail, Forwarded};
use shoal_policy::failure::Failure;

use super::client::MAX_PEER_FIELDS;
use super::intake::{self, Kind};
use super::under_way::UnderWay;
use super::wire::{self, AnswerKind, BEHIND_WAIT, Meta};
use crate::boarding::Flown;
use crate::body::CacheBody;
use crate::chunks::Cut;
use crate::clock::now_ms;
use crate::dispatch::Job;
use crate::fill::{FillHead, FillReader, FillSource};
use crate::lookup::{Choice, Probe, Signs, Sought, look, wishes};
use crate::node::Cache;
use crate::object::Object;
use crate::respond::source;
use crate::seam::PeerIo;
use crate::search::Alias;
use crate::stored_body::StoredBody;
use crate::task::{Asker, FillTask, TaskSeed, Unshared};

/// A peer's request for an object.
pub(super) struct PeerRequest {
    pub(super) head: Parts,
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
    /// copies of them.
    pub async fn serve_peer<IO: PeerIo>(self: Arc<Self>, io: IO, peer: NodeId) {
        let service = hyper::service::service_fn(move |request| {
            let cache = self.clone();
            async move {
                let under_way = UnderWay::new(&cache);
                let mut answer = answer_peer(&cache, peer, request).await;
                if cache.is_retired() {
                    // The next one is for the process that has taken the place of this one.
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
        let text = wire::read_text(&head.headers, &wire::URL)?.into();
        let config = cache.settings.config.load();
        let route = config.routes.by_name(wire::read_text(&head.headers, &wire::ROUTE)?)?.clone();
        let rule = route.cache.clone()?;
        let has = |name| head.headers.contains_key(name);
        let role = match (has(&wire::PEEK), has(&wire::PRIMARY_DOWN)) {
            (true, _) => Role::Holder,
            (false, true) => Role::Deputy,
            (false, false) => Role::Primary,
        };
        wire::remove_own_fields(&mut head.headers);
        Some(Self { head, peer, text, route, rule, role, hop })
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
            Flown::Filling { head, reader, is_creator } => filling(cache, probe, &head, reader, !is_creator),
            Flown::Stored(object, cut) => self.hit(cache, &object, &cut, now_ms()),
            Flown::Asked(object, cut, _) => validated(cache, probe, &object, &cut),
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

    fn hit(&self, cache: &Arc<Cache>, object: &Arc<Object>, cut: &Cut, now_ms: u64) -> Response<CacheBody> {
        // Two that count at once may lose one: an object becomes hot a request later then.
        let heat = Heat(object.heat.load(Ordering::Relaxed)).touched(now_ms);
        object.heat.store(heat.0, Ordering::Relaxed);
        cache.use_cut(object, cut, now_ms);
        let left = object.terms.time_left_ms(now_ms).div_euclid(1000);
        let detail = source(cache.trust(&self.rule, now_ms), object, cut);
        if detail == Detail::LocalDisk {
            cache.cells.disk_hits.count();
        }
        let status = CacheStatus::hit(&cache.settings.name, left, detail);
        let mut response = stored(AnswerKind::Hit, object, cut, &status, now_ms);
        if heat.is_hot() {
            response.headers_mut().insert(wire::HOT.clone(), HeaderValue::from(HOT_FOR_MS));
        }
        response
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

/// What is asked for of an object: a single part is marked as such, else it is the whole.
fn stored(
    kind: AnswerKind,
    object: &Object,
    cut: &Cut,
    status: &CacheStatus<'_>,
    now_ms: u64,
) -> Response<CacheBody> {
    let mut fields = object.fields.to_map(wire::OWN_FIELDS);
    Meta::of(object.terms, object.tags(), object.fill_seq, &object.checked_seq).write(&mut fields, now_ms);
    wire::write_selecting(object.selecting(), &mut fields);
    match (&cut.extract, &object.body) {
        (Extract::Part(span), body) => {
            let response = respond(kind, object.status, fields, status, cut.part_body(object, *span));
            as_part(response, ContentRange { span: *span, length: body.length() })
        }
        (
            Extract::Whole | Extract::Parts(_) | Extract::Unsatisfiable,
            StoredBody::Whole(_) | StoredBody::OnDisk(_),
        )
        | (Extract::Whole, StoredBody::Chunked(_)) => {
            respond(kind, object.status, fields, status, cut.whole_body(object))
        }
        // Nodes ask each other for no more than one part.
        (
            Extract::Whole | Extract::Parts(_) | Extract::Unsatisfiable,
            StoredBody::Spans(_) | StoredBody::Chunked(_),
        ) => bare(AnswerKind::Miss),
    }
}

/// Marks a response whose body is only a part.
fn as_part(mut response: Response<CacheBody>, range: ContentRange) -> Response<CacheBody> {
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let fields = response.headers_mut();
    fields.insert(CONTENT_LENGTH, HeaderValue::from(range.span.bytes()));
    wire::insert(fields, &CONTENT_RANGE, range.to_string());
    response
}

fn validated(cache: &Cache, probe: &Probe, object: &Object, cut: &Cut) -> Response<CacheBody> {
    let status = CacheStatus::forwarded(&cache.settings.name, probe.why);
    stored(AnswerKind::Filling, object, cut, &status, now_ms())
}

fn filling(
    cache: &Cache,
    probe: &Probe,
    head: &FillHead,
    reader: FillReader,
    collapsed: bool,
) -> Response<CacheBody> {
    let mut fields = head.fields.clone();
    let meta = Meta {
        terms: head.terms,
        tags: head.tags.clone(),
        fill_seq: head.fill_seq,
        checked_seq: head.checked_seq,
    };
    meta.write(&mut fields, now_ms());
    wire::write_selecting(&head.selecting, &mut fields);
    let (kind, status) = match head.source {
        FillSource::Store(detail) => {
            let left = head.terms.time_left_ms(now_ms()).div_euclid(1000);
            (AnswerKind::Hit, CacheStatus::hit(&cache.settings.name, left, detail))
        }
        FillSource::Origin | FillSource::Peer { .. } => {
            let status = CacheStatus {
                forwarded_status: Some(head.answered.as_u16()),
                stored: head.is_stored,
                collapsed,
                ..CacheStatus::forwarded(&cache.settings.name, probe.why)
            };
            (AnswerKind::Filling, status)
        }
    };
    let body = CacheBody::filling(reader, head.length);
    let mut response = respond(kind, head.status, fields, &status, body);
    // The nodes that it came through before this one.
    if let FillSource::Peer { member: Some(member), .. } = &head.source {
        let members = [member.as_bytes(), status.value().as_bytes()].join(&b", "[..]);
        if let Ok(members) = HeaderValue::from_bytes(&members) {
            response.headers_mut().insert(wire::MEMBER.clone(), members);
        }
    }
    match head.part {
        Some(part) => as_part(response, part),
        None => response,
    }
}

fn own_answer(cache: &Cache, probe: &Probe, unshared: Unshared) -> Response<CacheBody> {
    let mut response = unshared.response.map(CacheBody::origin);
    let why = if probe.found.is_some() { Forwarded::Stale } else { probe.why };
    let status = CacheStatus {
        forwarded_status: Some(response.status().as_u16()),
        detail: unshared.why.map(Detail::NotStored),
        ..CacheStatus::forwarded(&cache.settings.name, why)
    };
    if let Some(why) = unshared.why {
        wire::write_refusal(why, response.headers_mut());
    }
    response.headers_mut().insert(wire::ANSWER.clone(), AnswerKind::Own.value());
    response.headers_mut().insert(wire::MEMBER.clone(), status.value());
    response
}

fn respond(
    kind: AnswerKind,
    status: StatusCode,
    mut fields: HeaderMap,
    member: &CacheStatus<'_>,
    body: CacheBody,
) -> Response<CacheBody> {
    fields.insert(wire::ANSWER.clone(), kind.value());
    fields.insert(wire::MEMBER.clone(), member.value());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

/// An answer that is only its kind.
fn bare(kind: AnswerKind) -> Response<CacheBody> {
    let mut response = Response::new(CacheBody::empty());
    response.headers_mut().insert(wire::ANSWER.clone(), kind.value());
    response
}

fn failed(failure: Failure) -> Response<CacheBody> {
    let mut response = bare(AnswerKind::Failed);
    wire::write_failure(failure, response.headers_mut());
    response
}

/// Not a request of a peer's cache.
fn refuse(status: StatusCode) -> Response<CacheBody> {
    let mut response = Response::new(CacheBody::empty());
    *response.status_mut() = status;
    response
}
