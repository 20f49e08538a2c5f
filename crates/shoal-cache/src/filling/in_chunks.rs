//! Answering out of an object in chunks: those that are here, those that somebody brings, and those that the origin has.

use std::rc::Rc;
use std::sync::Arc;

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use shoal_policy::cache::chunks::{MAX_RUN, Run, first_missing, number_of};
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::reuse::{Freshened, Reuse};
use shoal_policy::cache::sources::Hop;
use shoal_policy::cache::span::Span;
use shoal_policy::cache::status::Detail;
use shoal_policy::cache::trust::Trust;
use shoal_policy::cache::validation::strong_validator;
use shoal_policy::failure::Failure;

use super::bringing::{Claim, Delivery, Pace, Traveller};
use super::completing::head_of;
use super::object;
use super::ordering::{Delivered, NoDelivery};
use crate::body::{CacheBody, OriginBody};
use crate::chunks::{Chunked, within_chunk};
use crate::clock::now_ms;
use crate::fill::{Fill, FillHead, FillSource, WINDOW_BYTES};
use crate::lookup::{Found, Wanted};
use crate::object::Object;
use crate::portion::Portion;
use crate::stored_body::StoredBody;
use crate::task::FillTask;
use crate::worker::WorkerCache;

/// How often in a row a chunk is not brought any further before the request gives up.
const MAX_DISAPPOINTMENTS: usize = 2;

/// What came of reading chunks.
pub(super) enum Reading {
    /// The fill has ended, one way or another.
    Done,
    /// The object is not what there is any more, and nothing of it was passed on yet. What the origin said, if it was asked,
    /// and when.
    Changed(Option<(Response<OriginBody>, u64)>),
}

impl Wanted {
    /// Of what was found, if that lies in chunks and may be used. `None` = it does not, or none of its bytes are wanted.
    fn of(task: &FillTask) -> Option<Self> {
        let found = task.found.as_ref().filter(|found| found.reads_chunks())?;
        found.wanted_of_chunks(&task.head.headers)
    }

    fn range(&self) -> ContentRange {
        ContentRange { span: self.span, length: self.object.body.length() }
    }
}

impl WorkerCache {
    /// Answers out of the chunks of what was found. `None` = not all that is wanted of them is on this node.
    pub(super) async fn read_what_is_here(self: &Rc<Self>, task: &FillTask) -> Option<Reading> {
        let wanted = Wanted::of(task).filter(|wanted| self.cache.missing_chunks(wanted).is_none())?;
        if !self.begin_reading(task, &wanted) {
            return Some(Reading::Changed(None));
        }
        self.pass_what_is_here(task, wanted).await;
        Some(Reading::Done)
    }

    /// What was purged since the lookup must not come back as a part of something new: that is not read.
    fn begin_reading(&self, task: &FillTask, wanted: &Wanted) -> bool {
        task.fill().ask(self.cache.purges.applied(), now_ms());
        self.cache.purges.check(&wanted.object).is_some()
    }

    async fn pass_what_is_here(self: &Rc<Self>, task: &FillTask, wanted: Wanted) {
        let source = FillSource::Store(self.where_all_is(task, &wanted));
        let head = head_of(&wanted.object, wanted.range(), wanted.is_part, StatusCode::OK);
        let head = FillHead { is_stored: false, source, ..head };
        let pace = Pace::at(number_of(wanted.span.first));
        self.pass_chunks(task, wanted, head, pace).await;
    }

    /// Answers out of the chunks of what was found, and asks the origin for those that are missing.
    pub(super) async fn read_chunks(self: &Rc<Self>, task: &mut FillTask) -> Reading {
        let Some(wanted) = Wanted::of(task) else {
            // That it is not there, or that it is there already, the fields say.
            task.found.iter().for_each(|found| task.fill().resolve(found.object.clone()));
            return Reading::Done;
        };
        if !self.begin_reading(task, &wanted) {
            return Reading::Changed(None);
        }
        let Some(missing) = self.cache.missing_chunks(&wanted) else {
            self.pass_what_is_here(task, wanted).await;
            return Reading::Done;
        };
        // A 304 may have made the tag a weak one: nothing can be added to what is here.
        if strong_validator(&wanted.object.fields).is_none() {
            return Reading::Changed(None);
        }
        let pace = Pace::at(number_of(wanted.span.first));
        let (mut wanted, mut source) = (wanted, FillSource::Origin);
        match self.claim(&wanted.object, missing.first, task.asker.hop()) {
            Some(Claim::Ours(landing, reader)) => {
                let delivered = match self.ask_for(task, &wanted.object, missing, landing.fill()).await {
                    Ok(delivered) => delivered,
                    Err(NoDelivery::Failed(failure)) => {
                        landing.fill().fail(failure);
                        self.fail_or_serve_stale(task, failure);
                        return Reading::Done;
                    }
                    Err(NoDelivery::Other(response, request_ms)) => {
                        landing.fill().fail(Failure::UpstreamReset);
                        return Reading::Changed(Some((response, request_ms)));
                    }
                };
                let delivery = match delivered {
                    Delivered::ByPeer(brought) => {
                        source = brought.source.clone();
                        brought.delivery(&wanted.object, missing, &pace)
                    }
                    Delivered::ByOrigin(brought) => {
                        let confirmed =
                            self.confirmed(task, &wanted.object, &brought.response, brought.request_ms);
                        let Some((header, _)) = confirmed else {
                            landing.fill().fail(Failure::UpstreamReset);
                            return Reading::Changed(Some((brought.response, brought.request_ms)));
                        };
                        wanted.object = self.cache.keep_chunked(header, task.fill());
                        brought.delivery(&wanted.object, missing, &pace)
                    }
                };
                pace.hand(missing.first, reader);
                self.bring(delivery, landing);
            }
            Some(Claim::Theirs(reader)) => pace.hand(missing.first, reader),
            Some(Claim::Held(_) | Claim::Full) | None => {}
        }
        let head = head_of(&wanted.object, wanted.range(), wanted.is_part, StatusCode::PARTIAL_CONTENT);
        let head = FillHead { source, ..head };
        self.pass_chunks(task, wanted, head, pace).await;
        Reading::Done
    }

    /// What comes with `head`, the whole of which has `length` bytes, is kept in chunks.
    pub(super) async fn take_in_chunks(
        self: &Rc<Self>,
        task: &mut FillTask,
        head: FillHead,
        length: u64,
        body: OriginBody,
        copied_under: u64,
    ) {
        let part = head.part;
        let fill = task.fill().clone();
        let key = head.home.as_ref().map_or(fill.key, |(key, _)| *key);
        let chunked = Chunked::begin(key, length, &self.cache.store);
        let header = object(task, &head, StoredBody::Chunked(chunked.into()), copied_under, None);
        let header = self.cache.keep_chunked(header, &fill);
        // Whoever waits for it finds it now. Every further answer has a place of its own.
        task.description = None;
        let under_way = task.under_way.take();
        let brought = part.map_or_else(|| Span::all(length), |part| Some(part.span));
        let span = match (&task.portion, part) {
            (Portion::Part { range, .. }, Some(_)) => range.within(length),
            (_, _) => brought,
        };
        let Some(span) = span else { return fill.resolve(header) };
        let wanted = Wanted { object: header.clone(), span, is_part: part.is_some() };
        let run = brought.and_then(|brought| Run::of(brought, length));
        let Some(run) = run.filter(|run| run.first == number_of(span.first)) else {
            // It begins within a chunk: that is asked for as a whole.
            drop((body, under_way));
            let (purge, reuse) = (Freshened::Untouched, Reuse::Fresh);
            task.found = Some(Found { object: header, purge, reuse, cut: None });
            if let Reading::Changed(answer) = self.read_chunks(task).await {
                self.give_up_chunks(task, answer.map(|(response, _)| response.status()));
            }
            return;
        };
        let pace = Pace::at(run.first);
        let hop = match head.source {
            FillSource::Peer { .. } => task.asker.hop(),
            FillSource::Origin | FillSource::Store(_) => Hop::Last,
        };
        match self.claim(&header, run.first, hop) {
            Some(Claim::Ours(landing, reader)) => {
                pace.hand(run.first, reader);
                let pace = pace.clone();
                self.bring(Delivery { header, run, body, pace, under_way, copied_under, hop }, landing);
            }
            Some(Claim::Held(_) | Claim::Theirs(_) | Claim::Full) | None => drop(body),
        }
        let part = part.map(|_| wanted.range());
        let head = FillHead { length: Some(span.bytes()), part, ..head };
        self.pass_chunks(task, wanted, head, pace).await;
    }

    /// The chunks of what was just found cannot be had: the origin has `answered` so, if it was asked. Whoever waits goes to
    /// it himself, for what he wants.
    fn give_up_chunks(&self, task: &mut FillTask, answered: Option<StatusCode>) {
        // It has another version by now, or sends other ranges than those it is asked for. The next one is not to learn that
        // anew.
        if answered.is_some_and(|status| status.is_success()) {
            self.leave_whole(task);
        }
        self.forget_found(task);
        task.fill().release();
    }

    fn where_all_is(&self, task: &FillTask, wanted: &Wanted) -> Detail {
        if self.cache.trust(&task.rule, now_ms()) != Trust::Verified {
            return Detail::PurgeUnverified;
        }
        let Run { first, last } = Run::around(wanted.span);
        let is_in_memory = |number: u64| {
            let chunk = wanted.object.chunked().and_then(|chunked| chunked.peek(number));
            chunk.is_some_and(|chunk| chunk.disk_body().is_none())
        };
        if (first..=last).take(MAX_RUN as usize).all(is_in_memory) {
            Detail::LocalRam
        } else {
            Detail::LocalDisk
        }
    }

    /// Passes on what is wanted, chunk by chunk.
    async fn pass_chunks(self: &Rc<Self>, task: &FillTask, wanted: Wanted, head: FillHead, pace: Rc<Pace>) {
        let fill = task.fill();
        let head = FillHead { chunked: Some(wanted.object.clone()), ..head };
        fill.begin(head, WINDOW_BYTES, WINDOW_BYTES);
        let Traveller(pace) = &Traveller(pace);
        let (mut at, mut disappointments) = (wanted.span.first, 0);
        while at <= wanted.span.last {
            let number = number_of(at);
            pace.reach(number);
            let left = Span { first: at, last: wanted.span.last };
            let body = match self.chunk_body(task, &wanted.object, left, pace).await {
                Ok(body) => body,
                Err(failure) => return fill.fail(failure),
            };
            match pass(fill, body, &mut at).await {
                Ok(true) if at > left.first => disappointments = 0,
                Ok(true) => return fill.fail(Failure::Internal),
                Ok(false) => return,
                Err(failure) if disappointments >= MAX_DISAPPOINTMENTS => return fill.fail(failure),
                // Whoever brought it broke off. The rest can be asked for: it is the same version, or none.
                Err(_) if at > left.first => disappointments = 1,
                Err(_) => disappointments += 1,
            }
        }
        fill.complete();
    }

    /// What there is of `left` in the first chunk of it: from here, from whoever brings it, or from the origin.
    async fn chunk_body(
        self: &Rc<Self>,
        task: &FillTask,
        header: &Arc<Object>,
        left: Span,
        pace: &Rc<Pace>,
    ) -> Result<CacheBody, Failure> {
        let number = number_of(left.first);
        let (Some(chunked), Some(span)) = (header.chunked(), within_chunk(number, left)) else {
            return Err(Failure::Internal);
        };
        if let Some(reader) = pace.take(number) {
            return Ok(CacheBody::filling_part(reader, span.first, span.bytes()));
        }
        let mut known = chunked.find(number);
        if known.is_none() {
            self.cache.load(chunked.key(number)).await;
            known = chunked.find(number);
        }
        // It was said that everything is here. Whoever only looks for that waits for nobody who asks, or both might look at each
        // other.
        if known.is_none() && task.is_peek {
            return Err(Failure::Internal);
        }
        let claim = known.map(Claim::Held).or_else(|| self.claim(header, number, task.asker.hop()));
        match claim.ok_or(Failure::Internal)? {
            Claim::Held(chunk) => {
                self.cache.use_object(&chunk, now_ms());
                Ok(CacheBody::part(&chunk, span))
            }
            Claim::Theirs(reader) => Ok(CacheBody::filling_part(reader, span.first, span.bytes())),
            Claim::Full => Err(Failure::Overflow),
            Claim::Ours(landing, reader) => {
                let wanted = Run { first: number, last: number_of(left.last) };
                let is_there = |other| {
                    let is_coming = || self.cache.flights.is_running(chunked.key(other));
                    other != number && (self.cache.has_chunk(chunked, other) || is_coming())
                };
                let run = first_missing(wanted, is_there).ok_or(Failure::Internal)?;
                self.order(task, header, run, landing, pace).await?;
                Ok(CacheBody::filling_part(reader, span.first, span.bytes()))
            }
        }
    }
}

/// Passes on a part of a chunk, which begins `at`; `false` = nobody wants it.
async fn pass(fill: &Fill, mut body: CacheBody, at: &mut u64) -> Result<bool, Failure> {
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        *at += piece.len() as u64;
        if !fill.push(piece).await {
            return Ok(false);
        }
    }
    Ok(true)
}
