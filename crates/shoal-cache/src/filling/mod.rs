//! Working on a fill: ask the owners, or the origin, and pass on what comes.

mod bringing;
mod completing;
mod describing;
mod from_origin;
mod from_owners;
mod from_post;
mod in_chunks;
mod ordering;
mod origin_answer;
mod question;
mod refreshing;

pub use from_post::Shown;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response};
use shoal_model::site::{NoVarySearch, Replicate};
use shoal_model::view::CacheRuleView;
use shoal_policy::cache::directives::Wishes;
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::refusal::Refusal;
use shoal_policy::cache::resume::Broken;
use shoal_policy::cache::reuse::{Reuse, Trouble, may_serve_on_error};
use shoal_policy::cache::sources::{Hop, MAX_PEEKS, Role, Situation, plan};
use shoal_policy::cache::stored_fields::StoredFields;
use shoal_policy::failure::Failure;

use in_chunks::Reading;

use crate::body::OriginBody;
use crate::clock::now_ms;
use crate::fill::FillHead;
use crate::lookup::Found;
use crate::node::Cache;
use crate::object::{Object, OnDisk, Rare};
use crate::promotion::Promotion;
use crate::search::Home;
use crate::stored_body::StoredBody;
use crate::task::{Asker, FillTask, Unshared};
use crate::worker::WorkerCache;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Done,
    /// Try the next source.
    Next,
}

impl WorkerCache {
    /// Works on a fill until it has ended: asks whom the plan says, one after the other.
    pub(crate) async fn fill(self: Rc<Self>, mut task: FillTask) {
        let owners = self.cache.placement.owners(task.fill().key);
        if let Some(Reading::Done) = self.read_what_is_here(&task).await {
            return;
        }
        let mut plan = plan(&self.situation(&task, owners));
        let reads_chunks = task.found.as_ref().is_some_and(Found::reads_chunks);
        if reads_chunks && !task.is_peek && self.keeps(&task.rule, owners) {
            // Whoever is asked for what is missing is asked chunk by chunk.
            (plan.owners, plan.shield) = (None, None);
        }
        // As it was when others could decide whether to wait for it.
        if let Some(asked) = plan.owners.filter(|_| task.fill().asks_owners())
            && self.fill_from_owners(&mut task, asked).await == Step::Done
        {
            return;
        }
        for peer in plan.peeks.into_iter().flatten() {
            if self.fill_from_peer(&mut task, peer, Role::Holder, Hop::Last).await == Step::Done {
                return;
            }
        }
        if let Some(asked) = plan.shield
            && self.fill_from_owners(&mut task, asked).await == Step::Done
        {
            return;
        }
        match plan.origin {
            true => self.fill_from_origin(&mut task, owners).await,
            false => task.fill().release(),
        }
    }

    fn situation(&self, task: &FillTask, owners: Owners) -> Situation {
        let (local, key, placement) = (self.cache.settings.node, task.fill().key, &self.cache.placement);
        let former = match owners.includes(local) {
            true => placement.former_owners(key, now_ms()),
            false => [None; MAX_PEEKS],
        };
        let shield = task.route.upstream.shield.as_deref();
        Situation {
            local,
            hop: task.asker.hop(),
            asker: task.asker.node(),
            owners,
            former,
            shield: shield.and_then(|region| placement.owners_in(region, key)),
            is_peek: task.is_peek,
            is_known: task.found.is_some(),
        }
    }

    /// This node is one of those that keep what has these owners.
    fn keeps(&self, rule: &CacheRuleView, owners: Owners) -> bool {
        let local = self.cache.settings.node;
        owners.primary == Some(local) || (rule.replicate != Replicate::Never && owners.includes(local))
    }

    /// Where what answers the request of a fill belongs.
    fn home(&self, task: &FillTask, fields: &HeaderMap) -> Home {
        match task.rule.no_vary_search {
            NoVarySearch::Honor => self.cache.search.home(&task.fill().text, &task.head.uri, fields),
            NoVarySearch::Ignore => Home::Here,
        }
    }

    /// A body that is shorter or longer than announced is broken, however politely it ended.
    fn check_length(&self, task: &FillTask, head: &FillHead) -> bool {
        let is_whole = head.length.is_none_or(|length| length == task.fill().received_bytes());
        if !is_whole {
            self.break_off(task, head, Failure::UpstreamProtocol);
        }
        is_whole
    }

    /// The body is whole: store it first, so that no request falls between the fill and the store.
    fn finish(&self, task: &mut FillTask, head: &FillHead, copied_under: u64) {
        let promotion = task.promotion.take();
        let fill = task.fill();
        match fill.pieces() {
            Some(pieces) if head.is_stored => {
                let body = match head.part {
                    Some(part) => StoredBody::part(part, &pieces),
                    None => StoredBody::whole(&pieces),
                };
                let object = object(task, head, body, copied_under, promotion);
                self.cache.keep(object.clone(), fill);
                head.orphan_of.into_iter().for_each(|terms| self.cache.orphans.add(&object, terms));
            }
            Some(_) => {}
            // It outgrew the limit without having said so: next time nobody waits for it.
            None if head.is_stored && !fill.is_crowded() => {
                self.cache.remember_uncacheable(&fill.text, Some(Refusal::TooLarge));
            }
            None => {}
        }
        fill.complete();
    }

    /// The response is not stored.
    fn refuse(&self, task: &mut FillTask, response: Response<OriginBody>, refusal: Refusal) {
        self.hand_over(task, Unshared { response, why: Some(refusal) }, refusal.is_lasting());
    }

    /// The response is for the request that began the fill alone; everybody else goes on his own, all at once.
    fn hand_over(&self, task: &mut FillTask, unshared: Unshared, is_lasting: bool) {
        // An error says nothing about the next response.
        let is_lasting = is_lasting && unshared.response.status().as_u16() < 400;
        let fill = task.fill().clone();
        let across_nodes = task.asker != Asker::Downstream
            || self.cache.placement.owners(fill.key).primary != Some(self.cache.settings.node);
        // A lone request lost nothing by waiting; a crowd, or one that took a detour, would lose it again.
        if is_lasting && (fill.was_joined() || across_nodes) {
            self.cache.remember_uncacheable(&fill.text, unshared.why);
        }
        if let Some(own) = task.own.take() {
            // It may have gone away meanwhile.
            let _ = own.send(unshared);
        }
        fill.release();
    }

    fn fail_or_serve_stale(&self, task: &FillTask, failure: Failure) {
        let Some(found) = &task.found else { return task.fill().fail(failure) };
        let fields = &task.head.headers;
        let bridges = self.cache.bridges(&task.rule, found, fields, &task.wishes, Trouble::Failure(failure));
        let allows_hits = self.cache.trust(&task.rule, now_ms()).allows_hits();
        if bridges && allows_hits {
            self.bridge(task, found, Trouble::Failure(failure));
        } else if failure.is_disconnect()
            && (bridges || (found.reuse == Reuse::Unverified && self.cache.has_all_of(found, fields)))
        {
            // Only that it may have been purged is in the way.
            task.fill().fail(Failure::Unverified);
        } else {
            task.fill().fail(failure);
        }
    }

    /// Answers with the object in the place of `trouble`.
    fn bridge(&self, task: &FillTask, found: &Found, trouble: Trouble) {
        self.cells.stale.count();
        if !self.cache.bridges(&task.rule, found, &task.head.headers, &Wishes::default(), trouble) {
            task.fill().do_favour();
        }
        task.fill().resolve(found.object.clone());
    }
}

impl Cache {
    /// The object may be served in the place of an answer to a request with these `fields`.
    pub(crate) fn may_serve(
        &self,
        rule: &CacheRuleView,
        found: &Found,
        fields: &HeaderMap,
        wishes: &Wishes,
        trouble: Trouble,
    ) -> bool {
        self.trust(rule, now_ms()).allows_hits() && self.bridges(rule, found, fields, wishes, trouble)
    }

    /// The object may be served in the place of an answer, as far as purges are known.
    fn bridges(
        &self,
        rule: &CacheRuleView,
        found: &Found,
        fields: &HeaderMap,
        wishes: &Wishes,
        trouble: Trouble,
    ) -> bool {
        let (terms, most) = (&found.object.terms, rule.max_stale_on_disconnect);
        // It may have been purged while the origin was asked.
        let purge = self.purges.check(&found.object);
        purge.is_some_and(|purge| may_serve_on_error(terms, purge, wishes, trouble, most, now_ms()))
            && self.has_all_of(found, fields)
    }
}

fn object(
    task: &FillTask,
    head: &FillHead,
    body: StoredBody,
    copied_under: u64,
    promotion: Option<Promotion>,
) -> Arc<Object> {
    let fill = task.fill();
    let (key, text) = head.home.clone().unwrap_or_else(|| (fill.key, fill.text.clone()));
    Object {
        key,
        text,
        terms: promotion.as_ref().map_or(head.terms, |promotion| promotion.limit(head.terms)),
        rare: Rare::of(head.selecting.clone(), &head.tags, promotion.map(|promotion| promotion.share)),
        status: head.status,
        fields: StoredFields::of(&head.fields),
        body,
        body_bytes: 0,
        fill_seq: head.fill_seq,
        checked_seq: AtomicU64::new(head.checked_seq),
        replicate: task.rule.replicate,
        hits: AtomicU32::new(0),
        edition: AtomicU32::new(0),
        used_ms: AtomicU64::new(head.terms.response_ms),
        heat: AtomicU64::new(0),
        copied_from: None,
        copied_under: AtomicU64::new(copied_under),
        disk: OnDisk::default(),
    }
    .seal()
}

fn content_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What of `piece` lies behind the next `skip` bytes.
fn after(mut piece: Bytes, skip: &mut u64) -> Bytes {
    let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(piece.len());
    *skip -= skipped as u64;
    piece.split_off(skipped)
}

/// A body that broke off here.
fn broken<'a>(task: &FillTask, head: &'a FillHead) -> Broken<'a> {
    let received = task.fill().received_bytes();
    Broken { status: head.status, fields: &head.fields, part: head.part, length: head.length, received }
}
