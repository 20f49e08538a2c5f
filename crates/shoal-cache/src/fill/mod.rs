//! One response on its way in: an append-only buffer that any number of requests read while it grows.

mod budget;
mod flights;
mod head;
mod limits;
mod reader;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use http::StatusCode;
use rustc_hash::FxHashMap;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::range::ByteRange;
use shoal_policy::cache::trust::{Begun, Moment};
use shoal_policy::failure::Failure;
use tokio::time::{Instant, timeout};

pub(crate) use budget::FillBudget;
pub(crate) use flights::{Errand, Flights, Joined, Landing};
pub(crate) use head::{FillHead, FillSource};
pub(crate) use limits::{FillLimits, UnderWay};
pub(crate) use reader::{Arrival, FillReader};

use shared::{End, Head, LAGGARD_PATIENCE, Place, Shared};

use crate::clock::steady_ms;
use crate::object::Object;

/// Requests that wait for one fill or read from it.
pub(crate) const MAX_READERS: usize = 10_000;
/// What is buffered of a body that is not stored and has one reader, bytes: then the origin waits for it.
pub(crate) const WINDOW_BYTES: u64 = 1024 * 1024;

/// Nobody was asked yet.
const NOT_YET: u64 = 0;
/// Another node was asked.
const ELSEWHERE: u64 = u64::MAX;

/// One response on its way in.
pub(crate) struct Fill {
    pub(crate) key: ObjectKey,
    pub(crate) text: Box<str>,
    /// The log index applied when the origin was asked.
    fill_seq: AtomicU64,
    /// When the origin was asked, Unix milliseconds, or one of [`NOT_YET`] and [`ELSEWHERE`].
    asked_ms: AtomicU64,
    /// Owners on other nodes are asked first.
    asks_owners: bool,
    /// The same by the steady clock.
    asked_steady_ms: AtomicU64,
    /// An unsafe request changed the resource meanwhile: nobody new may have it, and it is not stored.
    spoilt: AtomicBool,
    /// What the origin has answered last; 0 = nothing.
    answered: AtomicU16,
    /// See [`Fill::do_favour`].
    is_favour: AtomicBool,
    budget: Arc<FillBudget>,
    shared: Mutex<Shared>,
}

impl Fill {
    pub(crate) fn new(
        key: ObjectKey,
        text: &str,
        applied: u64,
        asks_owners: bool,
        budget: &Arc<FillBudget>,
    ) -> Self {
        Self {
            key,
            text: text.into(),
            fill_seq: AtomicU64::new(applied),
            asked_ms: AtomicU64::new(NOT_YET),
            asks_owners,
            asked_steady_ms: AtomicU64::new(0),
            spoilt: AtomicBool::new(false),
            answered: AtomicU16::new(0),
            is_favour: AtomicBool::new(false),
            budget: budget.clone(),
            shared: Mutex::new(Shared {
                head: Head::Awaited,
                chunks: VecDeque::new(),
                dropped: 0,
                received_bytes: 0,
                held_bytes: 0,
                keep_bytes: WINDOW_BYTES,
                share_bytes: WINDOW_BYTES,
                has_room: true,
                patience: LAGGARD_PATIENCE,
                is_pipe: false,
                is_crowded: false,
                end: End::Open,
                readers: FxHashMap::default(),
                next_reader: 0,
                joined: 0,
                producer: None,
            }),
        }
    }

    /// The log index applied when the origin was asked.
    pub(crate) fn fill_seq(&self) -> u64 {
        self.fill_seq.load(Ordering::Acquire)
    }

    /// The origin is about to be asked, with the log applied up to `applied`.
    pub(crate) fn ask(&self, applied: u64, now_ms: u64) {
        self.fill_seq.store(applied, Ordering::Release);
        // Whoever finds one of them from before finds that it was longer ago.
        self.asked_steady_ms.store(steady_ms(), Ordering::Release);
        self.asked_ms.store(now_ms, Ordering::Release);
    }

    /// The origin has answered with this; `None` = not at all.
    pub(crate) fn note_answer(&self, status: Option<StatusCode>) {
        self.answered.store(status.map_or(0, |status| status.as_u16()), Ordering::Release);
    }

    /// What the origin has answered last, if it was asked and did.
    pub(crate) fn answered(&self) -> Option<u16> {
        Some(self.answered.load(Ordering::Acquire)).filter(|status| *status != 0)
    }

    /// What is stored takes the place of an error only because the request that began this wants that: others may not.
    pub(crate) fn do_favour(&self) {
        self.is_favour.store(true, Ordering::Release);
    }

    /// [`Fill::do_favour`] was called.
    pub(crate) fn is_favour(&self) -> bool {
        self.is_favour.load(Ordering::Acquire)
    }

    /// Another node is about to be asked.
    pub(crate) fn ask_elsewhere(&self) {
        self.asked_ms.store(ELSEWHERE, Ordering::Release);
    }

    /// When the origin was asked, Unix milliseconds; 0 = it was not.
    pub(crate) fn asked_ms(&self) -> u64 {
        match self.begun() {
            Begun::At(asked) => asked.wall_ms,
            Begun::NotYet | Begun::Elsewhere => 0,
        }
    }

    /// How far it has come.
    pub(crate) fn begun(&self) -> Begun {
        match self.asked_ms.load(Ordering::Acquire) {
            NOT_YET => Begun::NotYet,
            ELSEWHERE => Begun::Elsewhere,
            wall_ms => {
                let steady_ms = self.asked_steady_ms.load(Ordering::Acquire);
                Begun::At(Moment { wall_ms, steady_ms })
            }
        }
    }

    /// Owners on other nodes are asked first.
    pub(crate) const fn asks_owners(&self) -> bool {
        self.asks_owners
    }

    /// It has nothing yet, and other owners are to bring it.
    pub(crate) fn waits_for_owners(&self) -> bool {
        self.asks_owners && !matches!(self.begun(), Begun::At(_)) && matches!(self.lock().head, Head::Awaited)
    }

    pub(crate) fn spoil(&self) {
        self.spoilt.store(true, Ordering::Release);
    }

    pub(crate) fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Acquire)
    }

    /// Other requests wait for it or read from it, or have done so.
    pub(crate) fn was_joined(&self) -> bool {
        self.lock().joined > 1
    }

    /// What purges look at; tags only once the head is there.
    pub(crate) fn judge<T>(&self, judge: impl FnOnce(&Subject<'_>) -> T) -> T {
        let head = match &self.lock().head {
            Head::Arrived(head) => Some(head.clone()),
            Head::Awaited | Head::Object(_) | Head::Released | Head::Failed(_) => None,
        };
        let (tags, fill_seq, checked_seq) = match &head {
            Some(head) => (&head.tags[..], head.fill_seq, head.checked_seq),
            None => (&[][..], self.fill_seq(), self.fill_seq()),
        };
        judge(&Subject { key: self.key, text: &self.text, tags, fill_seq, checked_seq })
    }

    /// The head is there; up to `keep_bytes` of body are held for everyone who comes, and up to `share_bytes` as long as
    /// there are several readers: none of them is to be slowed down by another.
    pub(crate) fn begin(&self, head: FillHead, keep_bytes: u64, share_bytes: u64) -> Arc<FillHead> {
        let head = Arc::new(head);
        self.settle(Head::Arrived(head.clone()), |shared| {
            shared.keep_bytes = keep_bytes;
            shared.share_bytes = share_bytes.max(keep_bytes);
        });
        head
    }

    /// Every waiting request is answered from `object`.
    pub(crate) fn resolve(&self, object: Arc<Object>) {
        self.settle(Head::Object(object), |_| {});
    }

    /// The response is for one request alone: every other one goes its own way, all at once.
    pub(crate) fn release(&self) {
        self.settle(Head::Released, |_| {});
    }

    /// There is no response, or its body broke off.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut shared = self.lock();
        if matches!(shared.head, Head::Awaited) {
            shared.head = Head::Failed(failure);
        }
        shared.end = End::Failed(failure);
        shared.wake_readers();
    }

    fn settle(&self, head: Head, change: impl FnOnce(&mut Shared)) {
        let mut shared = self.lock();
        shared.head = head;
        change(&mut shared);
        shared.wake_readers();
    }

    /// Appends a piece of the body. Once more has come than may be held, nothing is stored any more, and this waits for
    /// the slowest reader, as long as the others have the patience. `false` = nobody reads it, and it is not to be stored
    /// either: stop.
    pub(crate) async fn push(&self, piece: Bytes) -> bool {
        if !self.append(piece) {
            return true;
        }
        loop {
            let (began, patience) = (Instant::now(), self.lock().patience);
            if let Ok(goes_on) = timeout(patience, self.room()).await {
                let mut shared = self.lock();
                if shared.is_anyone_waiting() {
                    shared.patience = shared.patience.saturating_sub(began.elapsed());
                }
                return goes_on;
            }
            let mut shared = self.lock();
            self.budget.give_back(shared.leave_laggards());
        }
    }

    /// Waits until more may be held; `false` = nobody reads it.
    async fn room(&self) -> bool {
        std::future::poll_fn(|context| {
            let mut shared = self.lock();
            self.budget.give_back(shared.trim());
            if shared.readers.is_empty() {
                return Poll::Ready(false);
            }
            if shared.held_bytes <= shared.lag_bytes() {
                return Poll::Ready(true);
            }
            shared.producer = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Says whether the fill is a pipe.
    fn append(&self, piece: Bytes) -> bool {
        let mut shared = self.lock();
        let bytes = piece.len() as u64;
        shared.received_bytes += bytes;
        shared.held_bytes += bytes;
        shared.chunks.push_back(piece);
        shared.has_room = self.budget.take(bytes);
        let is_crowded = !shared.has_room && !shared.is_pipe;
        let most_bytes = if shared.readers.len() > 1 { shared.share_bytes } else { shared.keep_bytes };
        shared.is_crowded |= is_crowded;
        shared.is_pipe |= is_crowded || shared.received_bytes > most_bytes;
        shared.wake_readers();
        shared.is_pipe
    }

    /// Nobody works on it any more: if it has not ended, it ends now.
    pub(crate) fn abandon(&self) {
        let shared = self.lock();
        let is_over =
            !matches!(shared.end, End::Open) || matches!(shared.head, Head::Object(_) | Head::Released);
        drop(shared);
        if !is_over {
            self.fail(Failure::Internal);
        }
    }

    /// It is not stored because other fills held so much: the next one may be.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().is_crowded
    }

    /// Waits until somebody joins whoever began it.
    pub(crate) async fn is_joined(&self) {
        std::future::poll_fn(|context| {
            let mut shared = self.lock();
            if shared.joined > 1 {
                return Poll::Ready(());
            }
            shared.producer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The pieces of the body so far, if all of them are still held.
    pub(crate) fn pieces(&self) -> Option<Vec<Bytes>> {
        let shared = self.lock();
        (!shared.is_pipe).then(|| shared.chunks.iter().cloned().collect())
    }

    /// The body is whole.
    pub(crate) fn complete(&self) {
        let mut shared = self.lock();
        shared.end = End::Complete;
        shared.wake_readers();
    }

    /// Bytes of body that have come.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.lock().received_bytes
    }

    /// The whole is on its way, and `range` of it is here or comes before long.
    pub(crate) fn is_about_to_bring(&self, range: ByteRange) -> bool {
        let shared = self.lock();
        let Head::Arrived(head) = &shared.head else { return false };
        let wanted = head.length.and_then(|length| range.within(length));
        head.part.is_none()
            && head.status == StatusCode::OK
            && wanted.is_some_and(|span| span.first <= shared.received_bytes.saturating_add(WINDOW_BYTES))
    }

    /// A late request can still have everything from the first byte.
    fn is_joinable(&self) -> bool {
        let shared = self.lock();
        !self.is_spoilt()
            && !shared.is_pipe
            && !matches!(shared.end, End::Failed(_))
            && !matches!(shared.head, Head::Failed(_) | Head::Released)
    }

    /// A new reader at the first byte; `None` = there are too many.
    pub(crate) fn reader(self: &Arc<Self>) -> Option<FillReader> {
        let mut shared = self.lock();
        if shared.readers.len() >= MAX_READERS {
            return None;
        }
        let id = shared.next_reader;
        shared.next_reader += 1;
        shared.joined += 1;
        shared.readers.insert(id, Place { next: 0, waker: None });
        shared.wake_producer();
        Some(FillReader::new(self.clone(), id))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let held_bytes = self.lock().held_bytes;
        self.budget.give_back(held_bytes);
    }
}
