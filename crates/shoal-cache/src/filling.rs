//! Working on a fill: ask the owner, or the origin, and pass on what comes.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, ETAG, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use shoal_model::NodeId;
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::reuse::{Freshened, Trouble, may_serve_on_error};
use shoal_policy::cache::storage::{Exchange, Refusal, Storage, Stored, Terms, judge_storage};
use shoal_policy::cache::tags::read_tags;
use shoal_policy::cache::validation::{add_conditions, confirms, has_validator, is_strong, merged_fields};
use shoal_policy::cache::vary::{Selecting, Vary};
use shoal_policy::failure::Failure;

use crate::clock::now_ms;
use crate::fill::{FillHead, FillSource, WINDOW_BYTES};
use crate::lookup::Found;
use crate::object::{Object, UNCOPIED, compact};
use crate::peer::client::{Hop, PeerAnswer, PeerObject, PeerQuestion};
use crate::seam::OriginBody;
use crate::task::{Asker, FillTask};
use crate::worker::WorkerCache;

/// What is stored on a node that does not own it lives at most this long, milliseconds.
const ORPHAN_MS: u64 = 60_000;
/// Tags are for us, not for downstream.
static TAG_FIELDS: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("xkey"),
];

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Done,
    /// Try the next source.
    Next,
}

impl WorkerCache {
    /// Works on a fill until it has ended.
    pub(crate) async fn fill(self: Rc<Self>, mut task: FillTask) {
        let local = self.cache.settings.node;
        let owners = self.cache.placement.owners(task.fill().key);
        let step = match task.asker {
            Asker::Downstream if owners.primary != Some(local) => {
                self.fill_from_owners(&mut task, owners).await
            }
            Asker::Downstream | Asker::Peer(_) => self.peek_at_other_owner(&mut task, owners).await,
        };
        match step {
            Step::Done => {}
            Step::Next if task.is_peek => task.fill().release(),
            Step::Next => self.fill_from_origin(&mut task, owners).await,
        }
    }

    /// Asks the primary, then the second owner in its place.
    async fn fill_from_owners(&self, task: &mut FillTask, owners: Owners) -> Step {
        let local = self.cache.settings.node;
        let second = owners.secondary.filter(|second| *second != local);
        let sources = [(owners.primary, Hop::Fill), (second, Hop::FillForPrimary)];
        for (n, (owner, hop)) in sources.iter().enumerate() {
            let Some(owner) = owner else { continue };
            let hop = if task.is_peek { Hop::Peek } else { *hop };
            let spare = sources[n + 1..].iter().find_map(|(owner, _)| *owner);
            if self.fill_from_peer(task, *owner, hop, spare).await == Step::Done {
                return Step::Done;
            }
        }
        Step::Next
    }

    /// While owners are changing, what this node lacks may lie with the other one.
    async fn peek_at_other_owner(&self, task: &mut FillTask, owners: Owners) -> Step {
        let other = owners.other_than(self.cache.settings.node);
        let Some(other) = other.filter(|other| task.asker != Asker::Peer(*other)) else { return Step::Next };
        if task.found.is_some() || !self.cache.placement.is_settling(now_ms()) {
            return Step::Next;
        }
        self.fill_from_peer(task, other, Hop::Peek, None).await
    }

    async fn fill_from_peer(
        &self,
        task: &mut FillTask,
        peer: NodeId,
        hop: Hop,
        spare: Option<NodeId>,
    ) -> Step {
        match self.ask_peer(task, peer, hop).await {
            PeerAnswer::Object(object) => self.take_from_peer(task, *object, spare).await,
            PeerAnswer::Own(response) => {
                self.hand_over(task, response, true);
                Step::Done
            }
            PeerAnswer::Direct => {
                self.cache.uncacheable.insert(task.fill().key, ());
                task.fill().release();
                Step::Done
            }
            PeerAnswer::Miss => Step::Next,
            PeerAnswer::Failed(failure) => {
                self.fail_or_serve_stale(task, failure);
                Step::Done
            }
            PeerAnswer::Unreachable => {
                self.cells.peer_errors.count();
                Step::Next
            }
        }
    }

    async fn ask_peer(&self, task: &FillTask, peer: NodeId, hop: Hop) -> PeerAnswer {
        let question = PeerQuestion {
            head: &task.head,
            text: &task.fill().text,
            route: &task.route.name,
            min_seq: self.cache.purges.applied(),
            placement_id: self.cache.placement.id(),
            hop,
            patience: task.route.first_byte_timeout,
        };
        self.peers.ask(peer, &question).await
    }

    async fn take_from_peer(&self, task: &FillTask, object: PeerObject, spare: Option<NodeId>) -> Step {
        let fill = task.fill();
        let meta = &object.meta;
        let (fill_seq, checked_seq) = (meta.fill_seq, meta.checked_seq);
        let subject = Subject { key: fill.key, text: &fill.text, tags: &meta.tags, fill_seq, checked_seq };
        if self.cache.purges.check_subject(&subject) != Some(Freshened::Untouched) {
            return Step::Next;
        }
        let Vary::Fields(names) = Vary::read(object.response.headers()) else { return Step::Next };
        let is_owner = self.cache.placement.owners(fill.key).includes(self.cache.settings.node);
        let fields = stored_fields(object.response.headers(), &[]);
        let head = FillHead {
            status: object.response.status(),
            length: content_length(&fields),
            fields,
            own_fields: None,
            terms: meta.terms,
            selecting: Selecting::of(&names, &task.head.headers),
            tags: meta.tags.clone(),
            fill_seq,
            checked_seq,
            is_shareable: !meta.terms.always_validate,
            is_stored: is_owner,
            source: FillSource::Peer { member: object.member.clone(), is_hit: object.is_hit },
        };
        if object.is_hit {
            self.cells.peer_hits.count();
        }
        let keep_bytes = if is_owner { task.most_bytes() } else { WINDOW_BYTES };
        let head = fill.begin(head, keep_bytes);
        if self.stream_from_peer(task, &head, object, spare).await {
            self.finish(task, &head, self.cache.placement.id());
        }
        Step::Done
    }

    /// Reads the body to its end. If the peer breaks off, another owner goes on where it stopped, provided that a strong
    /// tag says that its bytes are the same; two versions are never spliced.
    async fn stream_from_peer(
        &self,
        task: &FillTask,
        head: &FillHead,
        mut object: PeerObject,
        mut spare: Option<NodeId>,
    ) -> bool {
        let fill = task.fill();
        let mut skip = 0;
        loop {
            match object.piece().await {
                Some(Ok(piece)) => {
                    let piece = after(piece, &mut skip);
                    if !piece.is_empty() && !fill.push(piece).await {
                        return false;
                    }
                }
                None => {
                    object.finish();
                    return self.check_length(task, head);
                }
                Some(Err(_)) => {
                    self.cells.peer_errors.count();
                    skip = fill.received_bytes();
                    match self.continuation(task, head, spare.take()).await {
                        Some(next) => object = *next,
                        None => return self.continue_from_origin(task, head, skip).await,
                    }
                }
            }
        }
    }

    /// The same version of the object from another owner.
    async fn continuation(
        &self,
        task: &FillTask,
        head: &FillHead,
        next: Option<NodeId>,
    ) -> Option<Box<PeerObject>> {
        match self.ask_peer(task, next?, Hop::FillForPrimary).await {
            PeerAnswer::Object(other) if is_same_version(head, &other.response) => Some(other),
            PeerAnswer::Object(_)
            | PeerAnswer::Own(_)
            | PeerAnswer::Direct
            | PeerAnswer::Miss
            | PeerAnswer::Failed(_)
            | PeerAnswer::Unreachable => None,
        }
    }

    async fn continue_from_origin(&self, task: &FillTask, head: &FillHead, skip: u64) -> bool {
        self.cells.origin_fetches.count();
        match self.fetch.fetch(task.route.clone(), task.head.clone()).await {
            Ok(response) if is_same_version(head, &response) => {
                self.stream_from_origin(task, head, response.into_body(), skip).await
            }
            Ok(_) | Err(_) => {
                task.fill().fail(Failure::UpstreamReset);
                false
            }
        }
    }

    async fn fill_from_origin(&self, task: &mut FillTask, owners: Owners) {
        let mut validated = task.found.clone().filter(|found| has_validator(&found.object.fields));
        loop {
            let mut head = task.head.clone();
            if let Some(found) = &validated {
                add_conditions(&mut head.headers, &found.object.fields);
            }
            self.cells.origin_fetches.count();
            task.fill().ask(self.cache.purges.applied());
            let request_ms = now_ms();
            let response = match self.fetch.fetch(task.route.clone(), head).await {
                Ok(response) => response,
                Err(failure) => return self.fail_or_serve_stale(task, failure),
            };
            if response.status() == StatusCode::NOT_MODIFIED
                && let Some(found) = validated.take()
            {
                if confirms(&found.object.fields, response.headers()) {
                    return self.refresh(task, &found, response, request_ms);
                }
                // A 304 about something that is not stored: ask for the whole, without conditions.
                continue;
            }
            return self.take_from_origin(task, owners, response, request_ms).await;
        }
    }

    /// A whole response: stored while it streams, or handed to the request that began the fill.
    async fn take_from_origin(
        &self,
        task: &mut FillTask,
        owners: Owners,
        mut response: Response<OriginBody>,
        request_ms: u64,
    ) {
        if let Some(found) = &task.found {
            if self.may_serve(task, found, Trouble::Status(response.status())) {
                self.cells.stale.count();
                return task.fill().resolve(found.object.clone());
            }
            if !response.status().is_server_error() {
                self.cache.store.remove(&found.object);
            }
        }
        let response_ms = now_ms();
        add_date(response.headers_mut(), response_ms);
        let length = response.body().size_hint().exact().or_else(|| content_length(response.headers()));
        let storage =
            judge_storage(&exchange(task, response.status(), response.headers(), request_ms, response_ms));
        let stored = match storage {
            Storage::Store(stored) if length.is_none_or(|length| length <= task.most_bytes()) => stored,
            Storage::Store(_) => {
                // Something that large does not take the detour over another node.
                if task.asker != Asker::Downstream {
                    task.own = None;
                }
                return self.hand_over(task, response, true);
            }
            Storage::Refuse(refusal) => return self.hand_over(task, response, is_lasting(refusal)),
        };
        let is_owner = owners.includes(self.cache.settings.node);
        let head = self.origin_head(task, stored, &response, length, is_owner);
        let head = task.fill().begin(head, task.most_bytes());
        if self.stream_from_origin(task, &head, response.into_body(), 0).await {
            self.finish(task, &head, UNCOPIED);
        }
    }

    fn origin_head(
        &self,
        task: &FillTask,
        stored: Stored,
        response: &Response<OriginBody>,
        length: Option<u64>,
        is_owner: bool,
    ) -> FillHead {
        let fill = task.fill();
        let Stored { mut terms, vary, without } = stored;
        if !is_owner {
            terms.lifetime_ms = terms.lifetime_ms.min(terms.initial_age_ms + ORPHAN_MS);
            terms.stale_while_revalidate_ms = 0;
        }
        let has_own = without.iter().any(|name| response.headers().contains_key(name));
        let without = [&without[..], &TAG_FIELDS].concat();
        let fields = stored_fields(response.headers(), &without);
        FillHead {
            status: response.status(),
            fields,
            own_fields: has_own.then(|| stored_fields(response.headers(), &TAG_FIELDS)),
            terms,
            selecting: Selecting::of(&vary, &task.head.headers),
            tags: read_tags(self.cache.settings.key_seed, &fill.text, response.headers()),
            fill_seq: fill.fill_seq(),
            checked_seq: fill.fill_seq(),
            length,
            is_shareable: terms.is_fresh(terms.response_ms),
            is_stored: true,
            source: FillSource::Origin,
        }
    }

    /// Reads the body to its end, without its first `skip` bytes.
    async fn stream_from_origin(
        &self,
        task: &FillTask,
        head: &FillHead,
        mut body: OriginBody,
        mut skip: u64,
    ) -> bool {
        let fill = task.fill();
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(piece)) => {
                    let piece = after(piece, &mut skip);
                    if !piece.is_empty() && !fill.push(piece).await {
                        return false;
                    }
                }
                // Trailers are dropped: they must not become fields of the object.
                Ok(Err(_)) => {}
                Err(failure) => {
                    fill.fail(failure);
                    return false;
                }
            }
        }
        self.check_length(task, head)
    }

    /// A body that is shorter or longer than announced is broken, however politely it ended.
    fn check_length(&self, task: &FillTask, head: &FillHead) -> bool {
        let is_whole = head.length.is_none_or(|length| length == task.fill().received_bytes());
        if !is_whole {
            task.fill().fail(Failure::UpstreamProtocol);
        }
        is_whole
    }

    /// The body is whole: store it first, so that no request falls between the fill and the store.
    fn finish(&self, task: &FillTask, head: &FillHead, copied_under: u64) {
        let fill = task.fill();
        match fill.pieces() {
            Some(pieces) if head.is_stored => {
                self.cache.keep(object(task, head, &pieces, copied_under), fill)
            }
            Some(_) => {}
            // It outgrew the limit without having said so: next time nobody waits for it.
            None if head.is_stored => self.cache.uncacheable.insert(fill.key, ()),
            None => {}
        }
        fill.complete();
    }

    /// A 304: the object lives on under the terms of now.
    fn refresh(&self, task: &FillTask, found: &Found, response: Response<OriginBody>, request_ms: u64) {
        let response_ms = now_ms();
        let object = &found.object;
        let fill = task.fill();
        let mut not_modified = response.into_parts().0.headers;
        add_date(&mut not_modified, response_ms);
        let fields = merged_fields(&object.fields, &not_modified);
        let storage = judge_storage(&exchange(task, object.status, &fields, request_ms, response_ms));
        let named = read_tags(self.cache.settings.key_seed, &fill.text, &fields);
        let tags = if named.is_empty() { object.tags.clone() } else { named };
        let fields = stored_fields(&fields, &TAG_FIELDS);
        match storage {
            Storage::Store(Stored { terms, .. }) => {
                let refreshed = object.refreshed(fields, terms, tags, fill.fill_seq());
                self.cache.keep(refreshed.clone(), fill);
                fill.resolve(refreshed);
            }
            // It is good for this one request, and for no other.
            Storage::Refuse(_) => {
                self.cache.store.remove(object);
                let terms = Terms { response_ms, initial_age_ms: 0, always_validate: true, ..object.terms };
                fill.resolve(object.refreshed(fields, terms, tags, fill.fill_seq()));
            }
        }
    }

    /// The response is for the request that began the fill alone; everybody else goes on his own, all at once.
    fn hand_over(&self, task: &mut FillTask, response: Response<OriginBody>, is_lasting: bool) {
        // An error says nothing about the next response.
        let is_lasting = is_lasting && response.status().as_u16() < 400;
        let fill = task.fill().clone();
        let across_nodes = task.asker != Asker::Downstream
            || self.cache.placement.owners(fill.key).primary != Some(self.cache.settings.node);
        // A lone request lost nothing by waiting; a crowd, or one that took a detour, would lose it again.
        if is_lasting && (fill.was_joined() || across_nodes) {
            self.cache.uncacheable.insert(fill.key, ());
        }
        if let Some(own) = task.own.take() {
            // It may have gone away meanwhile.
            let _ = own.send(response);
        }
        fill.release();
    }

    fn fail_or_serve_stale(&self, task: &FillTask, failure: Failure) {
        match &task.found {
            Some(found) if self.may_serve(task, found, Trouble::Failure(failure)) => {
                self.cells.stale.count();
                task.fill().resolve(found.object.clone());
            }
            Some(_) | None => task.fill().fail(failure),
        }
    }

    fn may_serve(&self, task: &FillTask, found: &Found, trouble: Trouble) -> bool {
        let most = task.rule.max_stale_on_disconnect;
        // It may have been purged while the origin was asked.
        self.cache
            .purges
            .check(&found.object)
            .is_some_and(|purge| may_serve_on_error(&found.object.terms, purge, trouble, most, now_ms()))
    }
}

fn exchange<'a>(
    task: &'a FillTask,
    status: StatusCode,
    response: &'a HeaderMap,
    request_ms: u64,
    response_ms: u64,
) -> Exchange<'a> {
    Exchange {
        method: &task.head.method,
        request: &task.head.headers,
        wishes: Wishes { no_store: task.wishes.no_store, ..Wishes::default() },
        status,
        response,
        request_ms,
        response_ms,
        set_cookie: task.rule.set_cookie,
    }
}

/// The next response will be no more cacheable than this one.
const fn is_lasting(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Status
        | Refusal::NoStore
        | Refusal::Private
        | Refusal::Vary
        | Refusal::SetCookie
        | Refusal::NoLifetime => true,
        // These are about the request.
        Refusal::Method | Refusal::RequestNoStore | Refusal::Authorization => false,
    }
}

fn object(task: &FillTask, head: &FillHead, pieces: &[Bytes], copied_under: u64) -> Arc<Object> {
    let fill = task.fill();
    Object {
        key: fill.key,
        text: fill.text.clone(),
        selecting: head.selecting.clone(),
        status: head.status,
        fields: head.fields.clone(),
        terms: head.terms,
        tags: head.tags.clone(),
        body: compact(pieces),
        body_bytes: 0,
        fill_seq: head.fill_seq,
        checked_seq: AtomicU64::new(head.checked_seq),
        replicate: task.rule.replicate,
        hits: AtomicU64::new(0),
        used_ms: AtomicU64::new(head.terms.response_ms),
        copied_under: AtomicU64::new(copied_under),
    }
    .seal()
}

/// What of `piece` lies behind the next `skip` bytes.
fn after(mut piece: Bytes, skip: &mut u64) -> Bytes {
    let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(piece.len());
    *skip -= skipped as u64;
    piece.split_off(skipped)
}

fn is_same_version<B>(head: &FillHead, other: &Response<B>) -> bool {
    let (Some(etag), Some(found)) = (head.fields.get(ETAG), other.headers().get(ETAG)) else { return false };
    is_strong(etag)
        && etag == found
        && head.status == other.status()
        && head.length == content_length(other.headers())
}

fn content_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `Date` is added where the origin sent none (RFC 9110 §6.6.1).
fn add_date(fields: &mut HeaderMap, now_ms: u64) {
    if !fields.contains_key(DATE) {
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now_ms);
        if let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now)) {
            fields.insert(DATE, date);
        }
    }
}
