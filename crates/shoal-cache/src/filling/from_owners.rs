//! The owners' half of a fill: objects that another node holds, or fetches for us.

use std::pin::pin;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use shoal_model::NodeId;
use shoal_policy::cache::content_range::ContentRange;
use shoal_policy::cache::fields::stored_fields;
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::reuse::Freshened;
use shoal_policy::cache::vary::{Selecting, Vary};
use shoal_policy::failure::{Failure, Side};
use tokio::time::timeout;

use super::{Step, after, content_length, is_same_version};
use crate::clock::now_ms;
use crate::fill::{FillHead, FillSource, WINDOW_BYTES};
use crate::peer::client::{Hop, PeerAnswer, PeerObject, PeerQuestion};
use crate::task::{Asker, FillTask};
use crate::worker::WorkerCache;

/// When the primary has not answered by then, the second owner is asked for what it has.
const HEDGE_AFTER: Duration = Duration::from_millis(25);

impl WorkerCache {
    /// Asks the primary, then the second owner in its place.
    pub(super) async fn fill_from_owners(&self, task: &mut FillTask, owners: Owners) -> Step {
        let local = self.cache.settings.node;
        let second = owners.secondary.filter(|second| *second != local);
        if let Some(primary) = owners.primary {
            let (source, answer) = match second {
                Some(second) if !task.is_peek => self.ask_hedged(task, primary, second).await,
                Some(_) | None => (primary, self.ask_peer(task, primary, Hop::Fill).await),
            };
            let spare = second.filter(|second| *second != source);
            if self.take_answer(task, answer, spare).await == Step::Done {
                return Step::Done;
            }
        }
        match second {
            Some(second) => self.fill_from_peer(task, second, Hop::FillForPrimary).await,
            None => Step::Next,
        }
    }

    /// Asks the primary; while it is slow, the second owner may give what it has. It does not fill: one fetch is enough.
    async fn ask_hedged(&self, task: &FillTask, primary: NodeId, second: NodeId) -> (NodeId, PeerAnswer) {
        let mut asking = pin!(self.ask_peer(task, primary, Hop::Fill));
        if let Ok(answer) = timeout(HEDGE_AFTER, &mut asking).await {
            return (primary, answer);
        }
        tokio::select! {
            answer = &mut asking => return (primary, answer),
            answer = self.ask_peer(task, second, Hop::Peek) => {
                if let PeerAnswer::Object(_) = answer {
                    return (second, answer);
                }
            }
        }
        (primary, asking.await)
    }

    /// While owners are changing, what this node lacks may lie with the other one.
    pub(super) async fn peek_at_other_owner(&self, task: &mut FillTask, owners: Owners) -> Step {
        let other = owners.other_than(self.cache.settings.node);
        let Some(other) = other.filter(|other| task.asker != Asker::Peer(*other)) else { return Step::Next };
        if task.found.is_some() || !self.cache.placement.is_settling(now_ms()) {
            return Step::Next;
        }
        self.fill_from_peer(task, other, Hop::Peek).await
    }

    async fn fill_from_peer(&self, task: &mut FillTask, peer: NodeId, hop: Hop) -> Step {
        let answer = self.ask_peer(task, peer, hop).await;
        self.take_answer(task, answer, None).await
    }

    /// `spare` goes on where the peer breaks off.
    async fn take_answer(&self, task: &mut FillTask, answer: PeerAnswer, spare: Option<NodeId>) -> Step {
        match answer {
            PeerAnswer::Object(object) => self.take_from_peer(task, *object, spare).await,
            PeerAnswer::Own(response) => {
                self.hand_over(task, response, true);
                Step::Done
            }
            PeerAnswer::Direct => {
                self.cache.remember_uncacheable(&task.fill().text);
                task.fill().release();
                Step::Done
            }
            PeerAnswer::Alone => {
                task.fill().release();
                Step::Done
            }
            PeerAnswer::Miss => Step::Next,
            // Its own trouble says nothing of the origin.
            PeerAnswer::Failed(failure) if failure.side() == Side::Node && failure != Failure::Loop => {
                Step::Next
            }
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
        let hop = if task.is_peek { Hop::Peek } else { hop };
        let question = PeerQuestion {
            head: &task.head,
            text: &task.fill().text,
            route: &task.route.name,
            min_seq: self.cache.purges.newest(),
            placement_id: self.cache.placement.id(),
            hop,
            first_byte_timeout: task.route.first_byte_timeout,
            idle_timeout: task.route.idle_timeout,
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
        let answered = object.response.status();
        let mut fields = stored_fields(object.response.headers(), &[]);
        let mut length = content_length(&fields);
        let mut part = None;
        if answered == StatusCode::PARTIAL_CONTENT {
            let Some(range) = ContentRange::read(&fields) else { return Step::Next };
            length = Some(range.span.bytes());
            part = Some(range);
            fields.remove(CONTENT_RANGE);
            fields.remove(CONTENT_LENGTH);
        }
        let head = FillHead {
            status: if part.is_some() { StatusCode::OK } else { answered },
            length,
            part,
            answered,
            fields,
            own_fields: None,
            terms: meta.terms,
            selecting: Selecting::of(&names, &task.head.headers),
            tags: meta.tags.clone(),
            fill_seq,
            checked_seq,
            is_shareable: !meta.terms.always_validate,
            // The peer keeps the parts. And it may not have heard of an invalidation that this node has.
            is_stored: is_owner && part.is_none() && !self.cache.changed_since(fill.key, object.received_ms),
            source: FillSource::Peer { member: object.member.clone(), is_hit: object.is_hit },
        };
        if object.is_hit {
            self.cells.peer_hits.count();
        }
        let keep_bytes = if is_owner { self.cache.most_bytes(&task.rule) } else { WINDOW_BYTES };
        let head = fill.begin(head, keep_bytes, self.cache.most_bytes(&task.rule));
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
            | PeerAnswer::Alone
            | PeerAnswer::Miss
            | PeerAnswer::Failed(_)
            | PeerAnswer::Unreachable => None,
        }
    }
}
