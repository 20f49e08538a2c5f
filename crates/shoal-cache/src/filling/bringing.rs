//! Chunks on their way in: one answer of the origin, or of a peer, brings some that follow each other, each a fill by
//! itself, so that whoever wants one of them has it as it comes.
//!
//! Nobody waits for somebody else's downstream, as long as there is memory for fills. A chunk that anybody wants comes as
//! fast as the origin sends it, and the next one when the request that all this is for has come close to it, or somebody else
//! wants it. What nobody comes to for a while is given up: it is asked for again when somebody does.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shoal_policy::cache::chunks::Run;
use shoal_policy::cache::sources::{Hop, may_wait};
use shoal_policy::failure::Failure;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::origin_answer::next_piece;
use crate::body::OriginBody;
use crate::chunks::{Copied, new_chunk};
use crate::fill::{Errand, Fill, FillReader, Joined, Landing, UnderWay};
use crate::object::Object;
use crate::portion::Portion;
use crate::worker::WorkerCache;

/// Chunks that are begun before the request comes to them.
const AHEAD: u64 = 1;
/// When the request is gone, others have so long to want the next chunk.
const GRACE: Duration = Duration::from_secs(1);

/// For so long an answer waits for somebody to want the next of its chunks.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far the request has come that chunks are brought for.
pub(super) struct Pace {
    reached: Cell<u64>,
    is_over: Cell<bool>,
    /// Every answer that waits for the request hears of it.
    news: Notify,
    /// Chunks on their way that the request comes to next, and their numbers.
    handed: RefCell<Vec<(u64, FillReader)>>,
}

/// The request's end of it: when it goes, no further chunk is begun.
pub(super) struct Traveller(pub(super) Rc<Pace>);

impl Drop for Traveller {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        self.0.handed.take();
        self.0.news.notify_waiters();
    }
}

impl Pace {
    /// Of a request that begins with chunk `number`.
    pub(super) fn at(number: u64) -> Rc<Self> {
        Rc::new(Self {
            reached: Cell::new(number),
            is_over: Cell::new(false),
            news: Notify::new(),
            handed: RefCell::default(),
        })
    }

    /// The request has come to chunk `number`.
    pub(super) fn reach(&self, number: u64) {
        self.reached.set(number);
        self.news.notify_waiters();
    }

    /// The request has chunk `number` from `reader`.
    pub(super) fn hand(&self, number: u64, reader: FillReader) {
        self.handed.borrow_mut().push((number, reader));
    }

    /// Chunk `number`, if it was handed on.
    pub(super) fn take(&self, number: u64) -> Option<FillReader> {
        let mut handed = self.handed.borrow_mut();
        let at = handed.iter().position(|(handed, _)| *handed == number)?;
        Some(handed.swap_remove(at).1)
    }

    /// Waits until the request comes close to chunk `number`; `false` = it never will.
    async fn comes_near(&self, number: u64) -> bool {
        while !self.is_over.get() && !self.is_near(number) {
            self.news.notified().await;
        }
        !self.is_over.get()
    }

    fn is_near(&self, number: u64) -> bool {
        !self.is_over.get() && number <= self.reached.get().saturating_add(AHEAD)
    }
}

/// What came of asking for a chunk.
pub(super) enum Claim {
    /// It is there.
    Held(Arc<Object>),
    /// Somebody brings it.
    Theirs(FillReader),
    /// It is ours to bring.
    Ours(Landing, FillReader),
    /// Too many wait for it.
    Full,
}

/// An answer that has the chunks of `run`, and nothing in front of them.
pub(super) struct Delivery {
    pub(super) header: Arc<Object>,
    pub(super) run: Run,
    pub(super) body: OriginBody,
    pub(super) pace: Rc<Pace>,
    /// Its place among the fills of the upstream, until it has to wait for its request; `None` = somebody else has that, or
    /// it comes from a peer.
    pub(super) under_way: Option<UnderWay>,
    /// Of the chunks, as [`Object::copied_under`] has it.
    pub(super) copied_under: u64,
    /// How far the request has come that waits for another node with it; the last one, if it waits for none.
    pub(super) hop: Hop,
}

impl WorkerCache {
    /// Chunk `number` of `header`, or a place where it comes in, for a request that has come as far as `hop`.
    pub(super) fn claim(&self, header: &Object, number: u64, hop: Hop) -> Option<Claim> {
        let chunked = header.chunked()?;
        if let Some(chunk) = chunked.find(number) {
            return Some(Claim::Held(chunk));
        }
        let key = chunked.key(number);
        let (text, selecting) = (&header.text, header.selecting());
        let errand = Errand { text, alias: None, selecting, portion: &Portion::Whole, hop };
        let begin = || self.cache.new_fill_of(header.key, key, &header.text, hop);
        let may_join = |fill: &Fill| may_wait(hop, fill.waits_for_owners());
        Some(match self.cache.flights.join(key, errand, may_join, begin) {
            Joined::Running(reader) => Claim::Theirs(reader),
            Joined::Full => Claim::Full,
            Joined::New(reader) => {
                let landing = self.cache.flights.landing(reader.fill());
                // It may have come between the two lines above.
                match chunked.find(number) {
                    Some(chunk) => Claim::Held(chunk),
                    None => Claim::Ours(landing, reader),
                }
            }
        })
    }

    /// Brings what `delivery` has, as a task of this worker: `landing` is of its first chunk.
    pub(super) fn bring(self: &Rc<Self>, delivery: Delivery, landing: Landing) {
        let worker = self.clone();
        self.running.set(self.running.get() + 1);
        tokio::task::spawn_local(async move {
            worker.unload(delivery, landing).await;
            worker.running.set(worker.running.get() - 1);
        });
    }

    async fn unload(&self, delivery: Delivery, landing: Landing) {
        let Delivery { header, run, mut body, pace, mut under_way, copied_under, hop } = delivery;
        let copied = Copied { from: None, under: copied_under };
        let (mut rest, mut next_landing) = (Bytes::new(), Some(landing));
        for number in run.first..=run.last {
            let Some(landing) = next_landing.take() else { return };
            let fill = landing.fill().clone();
            let Some(span) = header.chunked().and_then(|chunked| chunked.span(number)) else { return };
            let behind = run.after(number);
            let mut next = None;
            // Whoever has read all of this one finds the next one begun.
            let at_last = || next = behind.and_then(|behind| self.begin_chunk(&header, behind, &pace, hop));
            let received = receive(&fill, span.bytes(), &mut rest, &mut body, at_last).await;
            if let Err(failure) = received {
                return fill.fail(failure);
            }
            if let Some(pieces) = fill.pieces()
                && let Some(chunk) = new_chunk(&header, number, &pieces, copied)
            {
                self.cache.keep_chunk(&chunk);
            }
            fill.complete();
            // Its bytes are the store's now.
            drop((fill, landing));
            match next {
                Some(next) => {
                    if !pace.is_near(number + 1) {
                        drop(under_way.take());
                    }
                    if !is_due(number + 1, next.fill(), &pace).await {
                        return;
                    }
                    next_landing = Some(next);
                }
                // Read to its end, the connection may be used again.
                None if behind.is_none() && rest.is_empty() => _ = next_piece(&mut body).await,
                // Somebody else has it and goes on from there.
                None => return,
            }
        }
    }

    /// Begins chunk `number`, unless somebody else has.
    fn begin_chunk(&self, header: &Object, number: u64, pace: &Pace, hop: Hop) -> Option<Landing> {
        match self.claim(header, number, hop)? {
            Claim::Ours(landing, reader) => {
                if pace.is_near(number) {
                    pace.hand(number, reader);
                }
                Some(landing)
            }
            Claim::Held(_) | Claim::Theirs(_) | Claim::Full => None,
        }
    }
}

/// Waits until somebody wants chunk `number`, for which `fill` waits; `false` = nobody does.
async fn is_due(number: u64, fill: &Fill, pace: &Pace) -> bool {
    let is_wanted = async {
        tokio::select! {
            () = fill.is_joined() => true,
            is_near = pace.comes_near(number) => is_near || timeout(GRACE, fill.is_joined()).await.is_ok(),
        }
    };
    timeout(PATIENCE, is_wanted).await.unwrap_or(false)
}

/// Reads the next `bytes` of `rest` and `body` into `fill`; what comes with the last of them stays in `rest`. `at_last`
/// happens before anybody has them all.
async fn receive(
    fill: &Fill,
    bytes: u64,
    rest: &mut Bytes,
    body: &mut OriginBody,
    at_last: impl FnOnce(),
) -> Result<(), Failure> {
    let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut at_last = Some(at_last);
    while left > 0 {
        if rest.is_empty() {
            *rest = next_piece(body).await.unwrap_or(Err(Failure::UpstreamProtocol))?;
        }
        let piece = rest.split_to(rest.len().min(left));
        left -= piece.len();
        if left == 0
            && let Some(at_last) = at_last.take()
        {
            at_last();
        }
        // Where there is no room for it, it comes at the pace of those who read it; and nobody does.
        if !piece.is_empty() && !fill.push(piece).await {
            return Err(Failure::Overflow);
        }
    }
    Ok(())
}
