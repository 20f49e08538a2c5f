//! Answering what the fast path left open: stale objects, single flight, and who goes to the origin alone.

use std::rc::Rc;
use std::sync::Arc;

use http::header::HeaderMap;
use http::{Method, Response, StatusCode};
use shoal_model::site::PurgeUnverified;
use shoal_policy::cache::condition::{is_not_modified, trim_not_modified};
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::reuse::Reuse;
use shoal_policy::cache::sources::Hop;
use shoal_policy::cache::status::{CacheStatus, Detail, Forwarded};
use shoal_policy::failure::Failure;

use crate::boarding::{Came, Flown};
use crate::body::CacheBody;
use crate::chunks::Cut;
use crate::clock::now_ms;
use crate::fill::{Arrival, FillHead, FillReader, FillSource, Joined};
use crate::lookup::{Found, Probe};
use crate::object::Object;
use crate::respond::{Asked, CACHE_STATUS, from_fill, from_object, restore_range, source};
use crate::seam::{Answer, Bypass, CacheRequest, Lookup};
use crate::task::{Asker, FillTask, TaskSeed, Unshared};
use crate::worker::{WorkerCache, ttl_seconds};

impl WorkerCache {
    /// Everything [`Self::hit`] left open: single flight, peers, validation, fill. `lookup` is what that said.
    ///
    /// What it fails with, beside the failures of [`crate::Fetch`]: [`Failure::NotCached`] (RFC 9111 §5.2.1.7),
    /// [`Failure::Unverified`] where a purge may have been missed, [`Failure::Overflow`] where too many wait for the same.
    pub async fn answer(self: &Rc<Self>, request: CacheRequest<'_>, lookup: Lookup) -> Answer {
        let mut probe = match self.look_on_disk(&request, lookup).await {
            Lookup::Fresh(response) => return Answer::Response(response),
            Lookup::Bypass(Bypass::Method) => return self.direct(Forwarded::Method, None),
            Lookup::Bypass(Bypass::Request) => return self.direct(Forwarded::Bypass, None),
            Lookup::Stale(probe) | Lookup::Miss(probe) => probe,
        };
        if self.cache.placement.owners(probe.key).primary == Some(self.cache.settings.node) {
            probe.heed_range_miss(request.rule);
        }
        match &probe.found {
            Some(found) if self.suffices(&request, found) => match found.reuse {
                Reuse::Stale { revalidate } => {
                    if revalidate {
                        self.revalidate(&request, &probe);
                    }
                    self.cells.stale.count();
                    return match &found.cut {
                        Some(cut) => Answer::Response(self.respond_stored(&request, &found.object, cut)),
                        None => self.read_for_itself(&request, &probe, &found.object).await,
                    };
                }
                Reuse::Unverified if request.rule.purge_unverified == PurgeUnverified::Fail => {
                    return Answer::Failed(Failure::Unverified);
                }
                Reuse::Fresh | Reuse::Validate | Reuse::ValidateOnRequest | Reuse::Unverified => {}
            },
            Some(_) | None => {
                let fills = request.head.method == Method::GET && !probe.is_passed_on(request.rule);
                if self.cache.is_uncacheable(&probe.text) && !probe.wishes.only_if_cached {
                    return self.direct_past(&probe);
                }
                if !fills || probe.wishes.no_store || probe.wishes.only_if_cached {
                    return self.peek(&request, &probe).await;
                }
            }
        }
        if probe.wishes.only_if_cached {
            return Answer::Failed(Failure::NotCached);
        }
        if !probe.reads_chunks() {
            self.cells.misses.count();
        }
        match &probe.found {
            Some(found) if request.head.method == Method::HEAD => {
                self.ask_with_head(&request, &probe, found).await
            }
            Some(_) | None => self.fly(&request, &probe).await,
        }
    }

    /// All that the request asks for of what was found is here, be it in chunks that are not all in memory: as long as it is
    /// fresh, those are looked at when they are read.
    fn suffices(&self, request: &CacheRequest<'_>, found: &Found) -> bool {
        found.suffices()
            || (found.reuse != Reuse::Fresh && self.cache.has_all_of(found, &request.head.headers))
    }

    /// What memory does not have, the disk may.
    async fn look_on_disk(self: &Rc<Self>, request: &CacheRequest<'_>, lookup: Lookup) -> Lookup {
        match lookup {
            Lookup::Miss(probe) => match self.cache.load(probe.key).await {
                Some(loaded) => self.look_up(request, Some(loaded)),
                None => Lookup::Miss(probe),
            },
            Lookup::Fresh(_) | Lookup::Stale(_) | Lookup::Bypass(_) => lookup,
        }
    }

    /// The answer must not begin a fill: what the owners have, or else nothing.
    async fn peek(self: &Rc<Self>, request: &CacheRequest<'_>, probe: &Probe) -> Answer {
        let fill = self.cache.new_fill(probe.key, &probe.text, Hop::Ingress);
        if let Joined::New(reader) = self.cache.flights.begin_alone(fill) {
            let mut task = seed(request, probe).task(self.cache.flights.landing(reader.fill()), None);
            task.is_peek = true;
            self.start(task);
            if let Arrival::Head(head) = reader.arrival().await
                && head.selecting.matches(&request.head.headers)
            {
                return self.stream(request, probe, &head, reader, true);
            }
        }
        match (probe.wishes.only_if_cached, probe.wishes.no_store) {
            (true, _) => Answer::Failed(Failure::NotCached),
            (false, true) => self.direct(Forwarded::Request, Some(Refusal::RequestNoStore)),
            (false, false) => self.direct_past(probe),
        }
    }

    /// The request goes to the origin by itself, past what is stored and what is on its way.
    fn direct_past(&self, probe: &Probe) -> Answer {
        self.direct(probe.why, self.cache.why_uncacheable(&probe.text))
    }

    /// `refusal` says why what answers it is not stored, if that is known before.
    fn direct(&self, why: Forwarded, refusal: Option<Refusal>) -> Answer {
        let status = CacheStatus {
            detail: refusal.map(Detail::NotStored),
            ..CacheStatus::forwarded(&self.cache.settings.name, why)
        };
        Answer::Direct { cache_status: status.value() }
    }

    /// Answers with what the one fill of what is asked for brings.
    async fn fly(self: &Rc<Self>, request: &CacheRequest<'_>, probe: &Probe) -> Answer {
        let start = |mut task: FillTask| {
            task.trace = request.trace.cloned();
            self.start(task);
        };
        match seed(request, probe).fly(&self.cache, start).await {
            Flown::Filling { head, reader, is_creator } => {
                self.stream(request, probe, &head, reader, is_creator)
            }
            Flown::Stored(object, cut) => Answer::Response(self.respond_stored(request, &object, &cut)),
            Flown::Asked(object, cut, came) => self.respond_asked(request, probe, &object, &cut, came),
            Flown::InChunks(object) => self.read_for_itself(request, probe, &object).await,
            Flown::Own(unshared) => Answer::Response(self.pass_on(request, probe, unshared)),
            Flown::ForOthers | Flown::Released => self.direct_past(probe),
            Flown::Failed(failure) => Answer::Failed(failure),
        }
    }

    /// Puts the answer together from the chunks of `object`, which may be used.
    async fn read_for_itself(
        self: &Rc<Self>,
        request: &CacheRequest<'_>,
        probe: &Probe,
        object: &Arc<Object>,
    ) -> Answer {
        Box::pin(self.fly(request, &probe.of_chunks(object))).await
    }

    /// Starts one validation in the background, unless one is running.
    pub(crate) fn revalidate(self: &Rc<Self>, request: &CacheRequest<'_>, probe: &Probe) {
        seed(request, probe).revalidate(&self.cache, |task| self.start(task));
    }

    /// Works on a fill as a task of this worker: downstream going away does not end it.
    pub(crate) fn start(self: &Rc<Self>, task: FillTask) {
        let worker = self.clone();
        self.running.set(self.running.get() + 1);
        tokio::task::spawn_local(async move {
            Box::pin(worker.clone().fill(task)).await;
            worker.running.set(worker.running.get() - 1);
        });
    }

    fn stream(
        &self,
        request: &CacheRequest<'_>,
        probe: &Probe,
        head: &FillHead,
        reader: FillReader,
        is_creator: bool,
    ) -> Answer {
        let now_ms = now_ms();
        let name = &self.cache.settings.name;
        let hit = match head.source {
            FillSource::Peer { is_hit: true, .. } => Some(Detail::Peer),
            FillSource::Store(detail) => Some(detail),
            FillSource::Peer { is_hit: false, .. } | FillSource::Origin => None,
        };
        if probe.reads_chunks() && !probe.is_counted {
            self.count_reading(head);
        }
        let mut status = match hit {
            Some(detail) => CacheStatus::hit(name, head.terms.time_left_ms(now_ms).div_euclid(1000), detail),
            None => CacheStatus::forwarded(name, probe.why),
        };
        if hit.is_none() {
            status.forwarded_status = Some(head.answered.as_u16());
            status.stored = head.is_stored;
        }
        if let FillSource::Peer { .. } = head.source {
            status.detail = Some(Detail::Peer);
        }
        if !is_creator {
            self.cells.coalesced.count();
            status.collapsed = true;
        }
        Answer::Response(from_fill(head, reader, is_creator, asked(request), &status, now_ms))
    }

    /// Answers with what the request gets of an object.
    pub(crate) fn respond_with(
        &self,
        request: &CacheRequest<'_>,
        object: &Arc<Object>,
        cut: &Cut,
        status: &CacheStatus<'_>,
        now_ms: u64,
    ) -> Response<CacheBody> {
        let mut response = from_object(object, cut, asked(request), status, now_ms);
        self.guard(response.body_mut(), request, object);
        response
    }

    /// What is put together from chunks is a hit if all of them were here.
    fn count_reading(&self, head: &FillHead) {
        match head.source {
            FillSource::Store(detail) => {
                self.cells.hits.count();
                if detail == Detail::LocalDisk {
                    self.cells.disk_hits.count();
                }
            }
            FillSource::Origin | FillSource::Peer { .. } => self.cells.misses.count(),
        }
    }

    pub(crate) fn respond_stored(
        &self,
        request: &CacheRequest<'_>,
        object: &Arc<Object>,
        cut: &Cut,
    ) -> Response<CacheBody> {
        let now_ms = now_ms();
        let detail = source(self.cache.trust(request.rule, now_ms), object, cut);
        let status = CacheStatus::hit(&self.cache.settings.name, ttl_seconds(object, now_ms), detail);
        self.respond_with(request, object, cut, &status, now_ms)
    }

    /// The origin was asked about the object, and it may be used.
    pub(crate) fn respond_asked(
        &self,
        request: &CacheRequest<'_>,
        probe: &Probe,
        object: &Arc<Object>,
        cut: &Cut,
        came: Came,
    ) -> Answer {
        let now_ms = now_ms();
        let mut status = CacheStatus::forwarded(&self.cache.settings.name, probe.why);
        status.ttl = Some(ttl_seconds(object, now_ms));
        status.collapsed = came.is_collapsed;
        // What came of a 304 that another node was given is another object than before, even within a millisecond.
        let is_new = || probe.found.as_ref().is_some_and(|found| !Arc::ptr_eq(&found.object, object));
        status.forwarded_status = came.answered.or_else(|| is_new().then_some(304));
        Answer::Response(self.respond_with(request, object, cut, &status, now_ms))
    }

    /// The origin's response, for this request alone.
    pub(crate) fn pass_on(
        &self,
        request: &CacheRequest<'_>,
        probe: &Probe,
        unshared: Unshared,
    ) -> Response<CacheBody> {
        let Unshared { response, why } = unshared;
        let mut status = CacheStatus::forwarded(&self.cache.settings.name, probe.why);
        status.forwarded_status = Some(response.status().as_u16());
        status.detail = why.map(Detail::NotStored);
        let value = status.value();
        let mut response = response.map(CacheBody::origin);
        response.headers_mut().append(CACHE_STATUS.clone(), value);
        let fields: &HeaderMap = response.headers();
        // The origin was asked without conditions; a response without dates is never "not modified" by date.
        if is_not_modified(&request.head.headers, response.status(), fields, u64::MAX) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            trim_not_modified(response.headers_mut());
            *response.body_mut() = CacheBody::empty();
        } else if request.head.method == Method::HEAD {
            *response.body_mut() = CacheBody::empty();
        } else {
            restore_range(&mut response, &request.head.headers);
        }
        response
    }
}

const fn asked<'a>(request: &CacheRequest<'a>) -> Asked<'a> {
    Asked { method: &request.head.method, fields: &request.head.headers }
}

const fn seed<'a>(request: &CacheRequest<'a>, probe: &'a Probe) -> TaskSeed<'a> {
    TaskSeed { head: request.head, route: request.route, rule: request.rule, probe, asker: Asker::Downstream }
}
