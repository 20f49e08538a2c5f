//! One response on its way in: an append-only buffer that any number of requests read while it grows.

mod budget;
mod flights;
mod reader;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use rustc_hash::FxHashMap;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::purge::Subject;
use shoal_policy::cache::storage::Terms;
use shoal_policy::cache::vary::Selecting;
use shoal_policy::failure::Failure;
use tokio::time::{Instant, timeout};

pub(crate) use budget::FillBudget;
pub(crate) use flights::{Flights, Joined};
pub(crate) use reader::{Arrival, FillReader};

use crate::object::Object;

/// Requests that wait for one fill or read from it.
pub(crate) const MAX_READERS: usize = 10_000;
/// What is buffered of a body that is not stored and has one reader, bytes: then the origin waits for it.
pub(crate) const WINDOW_BYTES: u64 = 1024 * 1024;
/// How long, in all, a fill lets readers that have everything wait for those that lag as far behind as they may. Then it
/// goes on without the latter.
const LAGGARD_PATIENCE: Duration = Duration::from_secs(5);

/// One response on its way in.
pub(crate) struct Fill {
    pub(crate) key: ObjectKey,
    pub(crate) text: Box<str>,
    /// The log index applied when the origin was asked.
    fill_seq: AtomicU64,
    /// An unsafe request changed the resource meanwhile: nobody new may have it, and it is not stored.
    spoilt: AtomicBool,
    budget: Arc<FillBudget>,
    shared: Mutex<Shared>,
}

/// The head of a response that several requests may share.
pub(crate) struct FillHead {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    /// For the request that began the fill: the fields that are not for others too.
    pub(crate) own_fields: Option<HeaderMap>,
    pub(crate) terms: Terms,
    pub(crate) selecting: Selecting,
    pub(crate) tags: Box<[u64]>,
    pub(crate) fill_seq: u64,
    pub(crate) checked_seq: u64,
    /// Body bytes, if known.
    pub(crate) length: Option<u64>,
    /// Requests that joined may have it, too.
    pub(crate) is_shareable: bool,
    pub(crate) is_stored: bool,
    pub(crate) source: FillSource,
}

/// Where a fill comes from.
#[derive(Clone, Debug)]
pub(crate) enum FillSource {
    Origin,
    Peer {
        /// The peer's own `Cache-Status` member.
        member: Option<HeaderValue>,
        /// It had the object.
        is_hit: bool,
    },
}

struct Shared {
    head: Head,
    /// What of the body is still held, in order.
    chunks: VecDeque<Bytes>,
    /// Chunks that were let go, all of them before `chunks`.
    dropped: usize,
    received_bytes: u64,
    held_bytes: u64,
    /// Bytes that may be held; beyond them the fill turns into a pipe.
    keep_bytes: u64,
    /// Bytes that may be held while there are several readers, for those that lag.
    share_bytes: u64,
    /// All fills together hold no more than they may.
    has_room: bool,
    /// What is left of [`LAGGARD_PATIENCE`].
    patience: Duration,
    is_pipe: bool,
    /// It is a pipe because other fills hold so much.
    is_crowded: bool,
    end: End,
    readers: FxHashMap<u64, Place>,
    next_reader: u64,
    joined: u64,
    producer: Option<Waker>,
}

enum Head {
    Awaited,
    Arrived(Arc<FillHead>),
    /// The answer is an object of the store, validated or stale but good enough.
    Object(Arc<Object>),
    Released,
    Failed(Failure),
}

enum End {
    Open,
    Complete,
    Failed(Failure),
}

struct Place {
    next: usize,
    waker: Option<Waker>,
}

impl Fill {
    pub(crate) fn new(key: ObjectKey, text: &str, applied: u64, budget: &Arc<FillBudget>) -> Self {
        Self {
            key,
            text: text.into(),
            fill_seq: AtomicU64::new(applied),
            spoilt: AtomicBool::new(false),
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
    pub(crate) fn ask(&self, applied: u64) {
        self.fill_seq.store(applied, Ordering::Release);
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

impl Shared {
    fn wake_readers(&mut self) {
        for place in self.readers.values_mut() {
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
        }
    }

    /// Lets go of what every reader has, and says how many bytes that were.
    fn trim(&mut self) -> u64 {
        let held_before = self.held_bytes;
        let slowest = self.readers.values().map(|place| place.next).min().unwrap_or(usize::MAX);
        while self.dropped < slowest
            && let Some(chunk) = self.chunks.pop_front()
        {
            self.held_bytes -= chunk.len() as u64;
            self.dropped += 1;
        }
        held_before - self.held_bytes
    }

    /// How far readers of a pipe may lag behind each other.
    fn lag_bytes(&self) -> u64 {
        if self.readers.len() > 1 && self.has_room { self.share_bytes } else { WINDOW_BYTES }
    }

    /// Some reader has all that has come.
    fn is_anyone_waiting(&self) -> bool {
        let end = self.dropped + self.chunks.len();
        self.readers.values().any(|place| place.next == end)
    }

    /// Goes on without the readers that keep others waiting, the slowest first, and says how many bytes that set free.
    /// Where everybody is slow, nobody is in anybody's way.
    fn leave_laggards(&mut self) -> u64 {
        let held_before = self.held_bytes;
        self.patience = LAGGARD_PATIENCE;
        while self.is_anyone_waiting() && self.held_bytes > self.lag_bytes() {
            let Some(slowest) = self.readers.values().map(|place| place.next).min() else { break };
            self.readers.retain(|_, place| {
                let stays = place.next > slowest;
                if let Some(waker) = place.waker.take_if(|_| !stays) {
                    waker.wake();
                }
                stays
            });
            self.trim();
        }
        held_before - self.held_bytes
    }

    fn wake_producer(&mut self) {
        if let Some(waker) = self.producer.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn begun() -> (Arc<Fill>, FillReader) {
        begun_within(&Arc::new(FillBudget::new(u64::MAX)))
    }

    fn begun_within(budget: &Arc<FillBudget>) -> (Arc<Fill>, FillReader) {
        let fill = Arc::new(Fill::new(ObjectKey(1), "http://a.org/", 0, budget));
        let reader = fill.reader().unwrap();
        (fill, reader)
    }

    const PIECE_BYTES: u64 = WINDOW_BYTES / 2;

    /// `None` = it waits.
    fn push(fill: &Fill) -> Option<bool> {
        let piece = Bytes::from(vec![0; PIECE_BYTES as usize]);
        match pin!(fill.push(piece)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(goes_on) => Some(goes_on),
            Poll::Pending => None,
        }
    }

    fn read(reader: &FillReader, pieces: usize) {
        for _ in 0..pieces {
            assert!(reader.poll_chunk(&Context::from_waker(Waker::noop())).is_ready());
        }
    }

    fn head() -> FillHead {
        FillHead {
            status: StatusCode::OK,
            fields: HeaderMap::new(),
            own_fields: None,
            terms: Terms::default(),
            selecting: Selecting::of(&[], &HeaderMap::new()),
            tags: Box::default(),
            fill_seq: 0,
            checked_seq: 0,
            length: None,
            is_shareable: true,
            is_stored: false,
            source: FillSource::Origin,
        }
    }

    #[tokio::test]
    async fn what_is_not_stored_is_held_for_readers_that_lag() {
        let (fill, fast) = begun();
        let slow = fill.reader().unwrap();
        fill.begin(head(), WINDOW_BYTES, 4 * WINDOW_BYTES);
        for _ in 0..8 {
            assert_eq!(push(&fill), Some(true));
            read(&fast, 1);
        }
        assert!(fill.is_joinable(), "nobody has to hurry yet");
        assert_eq!(push(&fill), None, "that is too far");
        read(&slow, 1);
        assert_eq!(push(&fill), None);
        read(&slow, 1);
        assert_eq!(push(&fill), None);
        read(&slow, 9);
        drop(fast);
        assert_eq!(
            [push(&fill), push(&fill), push(&fill)],
            [Some(true), Some(true), None],
            "one reader, one window"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_left_behind_and_the_others_go_on() {
        let (fill, stuck) = begun();
        let fast = fill.reader().unwrap();
        let (pushed, began) = (10, Instant::now());
        let pushing = async {
            for _ in 0..pushed {
                assert!(fill.push(Bytes::from(vec![0; PIECE_BYTES as usize])).await);
            }
            fill.complete();
        };
        let reading = async {
            let mut pieces = 0;
            while let Some(piece) = std::future::poll_fn(|context| fast.poll_chunk(context)).await {
                pieces += piece.map(|_| 1).unwrap();
            }
            pieces
        };
        let ((), read) = tokio::join!(pushing, reading);
        assert_eq!((read, began.elapsed()), (pushed, LAGGARD_PATIENCE));
        let context = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Err(failure))) = stuck.poll_chunk(&context) else { panic!("it is not told") };
        assert_eq!(failure, Failure::DownstreamTimeout);
    }

    #[tokio::test(start_paused = true)]
    async fn readers_that_are_all_slow_are_waited_for() {
        let (fill, slow) = begun();
        let _slow_too = fill.reader().unwrap();
        assert_eq!([push(&fill), push(&fill)], [Some(true), Some(true)]);
        let waiting = timeout(LAGGARD_PATIENCE * 10, fill.push(Bytes::from(vec![0; PIECE_BYTES as usize])));
        assert!(waiting.await.is_err());
        read(&slow, 3);
    }

    #[tokio::test]
    async fn a_pipe_waits_for_its_slowest_reader_and_ends_without_readers() {
        let (fill, slow) = begun();
        let fast = fill.reader().unwrap();
        assert_eq!([push(&fill), push(&fill)], [Some(true), Some(true)]);
        assert!(fill.pieces().is_some() && fill.is_joinable());
        assert_eq!(push(&fill), None, "the window is full");
        assert!(fill.pieces().is_none() && !fill.is_joinable(), "it will not be stored");
        read(&fast, 3);
        assert_eq!(push(&fill), None, "the slow one has read nothing");
        read(&fast, 1);
        drop(slow);
        assert_eq!(push(&fill), Some(true));
        drop(fast);
        assert_eq!(push(&fill), Some(false));
    }

    #[tokio::test]
    async fn fills_share_a_budget() {
        let budget = Arc::new(FillBudget::new(WINDOW_BYTES));
        let (first, _waits) = begun_within(&budget);
        let (second, reader) = begun_within(&budget);
        assert_eq!([push(&first), push(&second)], [Some(true), Some(true)]);
        assert!(!second.is_crowded() && second.is_joinable());
        assert_eq!(push(&second), Some(true));
        assert!(second.is_crowded() && !second.is_joinable(), "the first one holds so much");
        assert_eq!(push(&second), None, "it goes on at the pace of its reader");
        drop((second, reader));
        assert_eq!(push(&first), Some(true));
        assert!(!first.is_crowded(), "what is gone holds nothing");
    }

    #[test]
    fn a_fill_that_nobody_works_on_ends_in_an_error() {
        let (fill, reader) = begun();
        let context = Context::from_waker(Waker::noop());
        assert!(reader.poll_chunk(&context).is_pending());
        fill.abandon();
        let Poll::Ready(Some(Err(failure))) = reader.poll_chunk(&context) else {
            panic!("it hangs, or ends well")
        };
        assert_eq!(failure, Failure::Internal);
    }
}
