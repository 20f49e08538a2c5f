//! The owners' half of a fill: objects that another node holds, or fetches for us.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::request::Parts;
use shoal_model::NodeId;
use shoal_model::site::Replicate;
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::reuse::Freshened;
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::cache::sources::{Asked, Hop, Role};
use shoal_policy::failure::{Failure, Side};
use tokio::time::timeout;

use super::{Step, after, broken, content_length, object};
use crate::chunks::{Chunked, is_kept_in_chunks};
use crate::clock::now_ms;
use crate::conditions::Conditions;
use crate::fill::{Fill, FillHead, FillSource, WINDOW_BYTES};
use crate::object::{UNCOPIED, likely_weight};
use crate::peer::client::{PeerAnswer, PeerObject, PeerQuestion};
use crate::peer::wire::Meta;
use crate::portion::Portion;
use crate::search::Home;
use crate::stored_body::StoredBody;
use crate::task::FillTask;
use crate::worker::WorkerCache;

/// What failed at a peer is the origin, or the way to it: the trouble of the peer itself says nothing of that.
pub(super) fn is_of_origin(failure: Failure) -> bool {
    failure.side() != Side::Node || failure == Failure::Loop
}

impl WorkerCache {
    /// Asks the primary, then the second owner in its place.
    pub(super) async fn fill_from_owners(self: &Rc<Self>, task: &mut FillTask, asked: Asked) -> Step {
        let Asked { primary, second, hop } = asked;
        let (source, answer) = match second {
            Some(second) if !task.is_peek => self.ask_either(task, primary, second, hop).await,
            Some(_) | None => (primary, self.ask_peer(task, primary, Role::Primary, hop).await),
        };
        let spare = second.filter(|second| *second != source);
        if self.take_answer(task, source, answer, spare).await == Step::Done {
            return Step::Done;
        }
        match second {
            Some(second) => self.fill_from_peer(task, second, Role::Deputy, hop).await,
            None => Step::Next,
        }
    }

    /// Asks the primary; while that has too much to do, or takes longer than it mostly does, the second owner may give
    /// what it has. It does not fill: one fetch is enough.
    async fn ask_either(
        &self,
        task: &FillTask,
        primary: NodeId,
        second: NodeId,
        hop: Hop,
    ) -> (NodeId, PeerAnswer) {
        let has_object = |answer: &PeerAnswer| matches!(answer, PeerAnswer::Object(_));
        if self.peers.is_above_bound(primary) {
            let answer = self.ask_peer(task, second, Role::Holder, hop).await;
            if has_object(&answer) {
                return (second, answer);
            }
        }
        let mut asking = pin!(self.ask_peer(task, primary, Role::Primary, hop));
        if let Ok(answer) = timeout(self.peers.patience(primary), &mut asking).await {
            return (primary, answer);
        }
        tokio::select! {
            answer = &mut asking => return (primary, answer),
            answer = self.ask_peer(task, second, Role::Holder, hop) => {
                if has_object(&answer) {
                    return (second, answer);
                }
            }
        }
        (primary, asking.await)
    }

    /// Asks one peer, and takes what it has.
    pub(super) async fn fill_from_peer(
        self: &Rc<Self>,
        task: &mut FillTask,
        peer: NodeId,
        role: Role,
        hop: Hop,
    ) -> Step {
        let answer = self.ask_peer(task, peer, role, hop).await;
        self.take_answer(task, peer, answer, None).await
    }

    /// `spare` goes on where the peer breaks off.
    async fn take_answer(
        self: &Rc<Self>,
        task: &mut FillTask,
        source: NodeId,
        answer: PeerAnswer,
        spare: Option<NodeId>,
    ) -> Step {
        match answer {
            PeerAnswer::Object(object) => self.take_from_peer(task, source, *object, spare).await,
            PeerAnswer::Own(unshared) => {
                let is_lasting = unshared.why.is_none_or(Refusal::is_lasting);
                self.hand_over(task, unshared, is_lasting);
                Step::Done
            }
            PeerAnswer::Direct(why) => {
                self.cache.remember_uncacheable(&task.fill().text, why);
                task.fill().release();
                Step::Done
            }
            PeerAnswer::Alone => {
                task.fill().release();
                Step::Done
            }
            PeerAnswer::Miss => Step::Next,
            PeerAnswer::Failed(failure) if !is_of_origin(failure) => Step::Next,
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

    /// Asks one peer for what the fill is for, or only for the fields of that where they are enough.
    async fn ask_peer(&self, task: &FillTask, peer: NodeId, role: Role, hop: Hop) -> PeerAnswer {
        task.fill().ask_elsewhere();
        let conditions = Some(&task.conditions).filter(|conditions| !conditions.is_plain());
        self.put(peer, &PeerQuestion { conditions, ..self.question(task, &task.head, role, hop) }).await
    }

    /// Asks one peer for the bytes that `head` asks for.
    pub(super) async fn ask_peer_for(
        &self,
        task: &FillTask,
        head: &Parts,
        peer: NodeId,
        role: Role,
        hop: Hop,
    ) -> PeerAnswer {
        self.put(peer, &self.question(task, head, role, hop)).await
    }

    fn question<'a>(&self, task: &'a FillTask, head: &'a Parts, role: Role, hop: Hop) -> PeerQuestion<'a> {
        PeerQuestion {
            head,
            conditions: None,
            text: &task.fill().text,
            route: &task.route.name,
            min_seq: self.cache.purges.newest(),
            placement_id: self.cache.placement.id(),
            role: if task.is_peek { Role::Holder } else { role },
            hop,
            first_byte_timeout: task.route.first_byte_timeout,
            idle_timeout: task.route.idle_timeout,
        }
    }

    async fn put(&self, peer: NodeId, question: &PeerQuestion<'_>) -> PeerAnswer {
        let asked = Instant::now();
        let answer = self.peers.ask(peer, question).await;
        self.cells.peer_times.note(asked.elapsed());
        answer
    }

    async fn take_from_peer(
        self: &Rc<Self>,
        task: &mut FillTask,
        source: NodeId,
        object: PeerObject,
        spare: Option<NodeId>,
    ) -> Step {
        let fill = task.fill().clone();
        let meta = &object.meta;
        if !self.is_untouched(&fill, meta) {
            return Step::Next;
        }
        let is_home = match self.home(task, object.response.headers()) {
            Home::Here => true,
            Home::Elsewhere(..) => false,
            Home::Nowhere => return Step::Next,
        };
        let owners = self.cache.placement.owners(fill.key);
        let may_copy = task.rule.replicate != Replicate::Never;
        let is_primary = owners.primary == Some(self.cache.settings.node);
        let is_owner = self.keeps(&task.rule, owners);
        let answered = object.response.status();
        let mut fields = stored_fields(object.response.headers(), &[]);
        let mut length = content_length(&fields);
        let mut part = None;
        // Several parts are put together by the peer, for this request alone.
        let is_several = answered == StatusCode::PARTIAL_CONTENT
            && task.portion == Portion::Several
            && !fields.contains_key(CONTENT_RANGE);
        if answered == StatusCode::PARTIAL_CONTENT && !is_several {
            let Some(range) = ContentRange::read(&fields) else { return Step::Next };
            length = Some(range.span.bytes());
            part = Some(range);
            fields.remove(CONTENT_RANGE);
            fields.remove(CONTENT_LENGTH);
        }
        let status = if part.is_some() { StatusCode::OK } else { answered };
        let chunked_length = part
            .map_or(length, |part| part.length)
            .filter(|length| is_kept_in_chunks(&task.rule, status, &fields, *length));
        let is_whole = part.is_none() && !object.is_told && !is_several;
        if !is_owner && may_copy && object.is_hit && is_whole && chunked_length.is_none() {
            let bytes = likely_weight(length.unwrap_or(0), &fields);
            task.promotion = self.cache.promotions.consider(fill.key, bytes, object.hot_ms, now_ms());
        }
        let is_kept = is_owner || task.promotion.is_some();
        let head = FillHead {
            status,
            length,
            part,
            answered,
            fields,
            own_fields: None,
            terms: meta.terms,
            home: None,
            orphan_of: None,
            selecting: Selecting::of(&object.selecting.selectors(), &task.head.headers),
            tags: meta.tags.clone(),
            fill_seq: meta.fill_seq,
            checked_seq: meta.checked_seq,
            is_shareable: !meta.terms.always_validate && !is_several,
            // The peer keeps the parts, unless this node is the one that is to have them: of what lies in chunks it takes
            // those. And the peer may not have heard of an invalidation that this node has.
            is_stored: is_kept
                && is_home
                && (is_whole || (chunked_length.is_some() && (object.is_told || is_primary)))
                && !self.cache.changed_since(fill.key, object.received_ms),
            source: FillSource::Peer { member: object.member.clone(), is_hit: object.is_hit },
            chunked: None,
        };
        if object.is_hit {
            self.cells.peer_hits.count();
        }
        // What a former owner or another region has given is not where its second copy belongs.
        let copied_under = if owners.includes(source) { self.cache.placement.id() } else { UNCOPIED };
        if object.is_told {
            object.finish();
            return self.take_fields(task, head, copied_under);
        }
        if let Some(length) = chunked_length
            && head.is_stored
        {
            self.take_in_chunks(task, head, length, object.into_body(), copied_under).await;
            return Step::Done;
        }
        // What lies in chunks is kept by whom it comes from: when its reader is gone, no more of it is fetched.
        let most_bytes = self.cache.most_bytes(&task.rule);
        let is_held = is_kept && chunked_length.is_none() && !is_several;
        let keep_bytes = if is_held { most_bytes } else { WINDOW_BYTES };
        let head = fill.begin(head, keep_bytes, most_bytes);
        if self.stream_from_peer(task, &head, object, spare).await {
            self.finish(task, &head, if is_owner { copied_under } else { UNCOPIED });
        }
        Step::Done
    }

    /// Takes the fields of what lies in chunks: they are all that the request asks for. Whoever waits for bytes asks for them
    /// by himself.
    fn take_fields(&self, task: &FillTask, head: FillHead, copied_under: u64) -> Step {
        let (fill, Conditions { method, fields }) = (task.fill(), &task.conditions);
        let Some(length) = head.length else { return Step::Next };
        let chunked = Chunked::begin(fill.key, length, &self.cache.store);
        let header = object(task, &head, StoredBody::Chunked(chunked.into()), copied_under, None);
        if header.told_length(method, fields).is_none() {
            return Step::Next;
        }
        let chunked = if head.is_stored { self.cache.keep_chunked(header, fill) } else { header };
        fill.begin(FillHead { chunked: Some(chunked), ..head }, WINDOW_BYTES, WINDOW_BYTES);
        fill.complete();
        Step::Done
    }

    /// The object that a peer describes so was not purged.
    pub(super) fn is_untouched(&self, fill: &Fill, meta: &Meta) -> bool {
        let Meta { tags, fill_seq, checked_seq, .. } = meta;
        let (fill_seq, checked_seq) = (*fill_seq, *checked_seq);
        let subject = Subject { key: fill.key, text: &fill.text, tags, fill_seq, checked_seq };
        self.cache.purges.check_subject(&subject) == Some(Freshened::Untouched)
    }

    /// Reads the body to its end. If the peer breaks off, another owner goes on where it stopped, else the origin, provided
    /// that a strong tag says that the bytes are the same; two versions are never spliced.
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
                    if head.length == Some(fill.received_bytes()) {
                        return true;
                    }
                    match self.continuation(task, head, spare.take()).await {
                        Some((next, before)) => (object, skip) = (*next, before),
                        None => return self.continue_from_origin(task, head).await,
                    }
                }
            }
        }
    }

    /// The rest of the same version, from another owner that has it, and how many bytes come before it. Nobody fills for
    /// that: the origin can be asked for the rest alone. But of what lies in chunks the other owner may have some.
    async fn continuation(
        &self,
        task: &FillTask,
        head: &FillHead,
        next: Option<NodeId>,
    ) -> Option<(Box<PeerObject>, u64)> {
        let next = next?;
        let broken = broken(task, head);
        let mut request = task.head.clone();
        if !broken.ask(&mut request.headers) {
            return None;
        }
        let length = head.part.map_or(head.length, |part| part.length);
        let is_in_chunks =
            length.is_some_and(|length| is_kept_in_chunks(&task.rule, head.status, &head.fields, length));
        let role = if is_in_chunks { Role::Deputy } else { Role::Holder };
        task.fill().ask_elsewhere();
        match self.ask_peer_for(task, &request, next, role, Hop::Last).await {
            PeerAnswer::Object(other) => {
                let before = broken.continued_by(other.response.status(), other.response.headers())?;
                Some((other, before))
            }
            PeerAnswer::Own(_)
            | PeerAnswer::Direct(_)
            | PeerAnswer::Alone
            | PeerAnswer::Miss
            | PeerAnswer::Failed(_)
            | PeerAnswer::Unreachable => None,
        }
    }
}
