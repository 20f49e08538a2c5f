//! Going for what is not to be had at once: with the fill that is running for it, or with a new one.

use std::sync::Arc;

use http::StatusCode;
use shoal_policy::cache::reuse::{Reuse, Trouble};
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::failure::Failure;
use tokio::sync::oneshot;

use crate::chunks::Cut;
use crate::clock::now_ms;
use crate::fill::{Arrival, Fill, FillHead, FillReader, Joined};
use crate::lookup::{Choice, Sought, look, may_share, may_use};
use crate::node::Cache;
use crate::object::Object;
use crate::task::{FillTask, TaskSeed, Unshared};

/// A request joins at most so many fills: each one it cannot share taught it which fields choose its variant.
const MAX_TRIES: usize = 3;

/// What came of going for a fill.
pub(crate) enum Flown {
    /// The body is on its way.
    Filling {
        head: Arc<FillHead>,
        reader: FillReader,
        /// The fill was begun for this request.
        is_creator: bool,
    },
    /// Another fill had ended just before: this is fresh.
    Stored(Arc<Object>, Cut),
    /// The origin was asked about an object, and that may be used.
    Asked(Arc<Object>, Cut, Came),
    /// This may be used, and lies in chunks: every request puts them together for itself.
    InChunks(Arc<Object>),
    /// The origin's response, for this request alone.
    Own(Unshared),
    /// What there is answers others, not this request.
    ForOthers,
    /// The response is for another request alone, or there was nobody to ask.
    Released,
    /// There is no response.
    Failed(Failure),
}

/// How the origin came to be asked, and what it has said.
pub(crate) struct Came {
    /// The status of its answer; `None` = there was none, or another node has it.
    pub(crate) answered: Option<u16>,
    /// It was asked for another request.
    pub(crate) is_collapsed: bool,
}

impl TaskSeed<'_> {
    /// Waits for the one fill of what is asked for. Where nobody has begun it, it is begun, and `start` takes on the work.
    pub(crate) async fn fly(&self, cache: &Arc<Cache>, start: impl Fn(FillTask)) -> Flown {
        let fields = &self.head.headers;
        let mut selectors = self.probe.selectors.clone();
        for _ in 0..MAX_TRIES {
            let (reader, own) = match self.board(cache, &Selecting::of(&selectors, fields)) {
                Joined::Running(reader) => (reader, None),
                Joined::Full => return Flown::Failed(Failure::Overflow),
                Joined::New(reader) => {
                    let landing = cache.flights.landing(reader.fill());
                    if let Some((object, cut)) = self.look_again(cache) {
                        reader.fill().resolve(object.clone());
                        return Flown::Stored(object, cut);
                    }
                    let (own, receiver) = oneshot::channel();
                    start(self.task(landing, Some(own)));
                    (reader, Some(receiver))
                }
            };
            let is_creator = own.is_some();
            match reader.arrival().await {
                Arrival::Head(head) if is_creator || may_share(cache, self.probe, &head) => {
                    if is_creator || head.selecting.matches(fields) {
                        return match head.chunked.clone().filter(|_| !is_creator) {
                            Some(object) => Flown::InChunks(object),
                            None => Flown::Filling { head, reader, is_creator },
                        };
                    }
                    selectors = head.selecting.selectors();
                }
                Arrival::Object(object) if !is_creator && !self.may_have(cache, &object, reader.fill()) => {
                    return Flown::ForOthers;
                }
                Arrival::Object(object) if object.selecting().matches(fields) => {
                    let came = Came { answered: reader.fill().answered(), is_collapsed: !is_creator };
                    return match object.cut(&self.head.method, fields) {
                        Some(cut) => Flown::Asked(object, cut, came),
                        None if object.chunked().is_some() && !self.probe.reads_chunks() => {
                            Flown::InChunks(object)
                        }
                        None => Flown::ForOthers,
                    };
                }
                Arrival::Object(object) => selectors = object.selecting().selectors(),
                Arrival::Head(_) | Arrival::Released => {
                    let response = own.and_then(|mut own| own.try_recv().ok());
                    return response.map_or(Flown::Released, Flown::Own);
                }
                Arrival::Failed(failure) => return Flown::Failed(failure),
            }
        }
        Flown::ForOthers
    }

    /// Begins a validation that nobody waits for, unless one is running. `start` takes on the work.
    pub(crate) fn revalidate(&self, cache: &Arc<Cache>, start: impl FnOnce(FillTask)) {
        let selecting = Selecting::of(&self.probe.selectors, &self.head.headers);
        if let Joined::New(reader) = self.board(cache, &selecting) {
            start(self.task(cache.flights.landing(reader.fill()), None));
        }
    }

    /// A place in the running fill, or in a new one that somebody has to work on.
    fn board(&self, cache: &Cache, selecting: &Selecting) -> Joined {
        let (probe, hop) = (self.probe, self.asker.hop());
        let begin = || cache.new_fill(probe.key, &probe.text, hop);
        if probe.goes_alone() {
            return cache.flights.begin_alone(begin());
        }
        cache.board(self.rule, probe.key, probe.errand(selecting, hop), begin)
    }

    /// A fill may have ended between the lookup and now.
    fn look_again(&self, cache: &Cache) -> Option<(Arc<Object>, Cut)> {
        let probe = self.probe;
        if probe.goes_alone() {
            return None;
        }
        let variants = cache.store.find(probe.key)?;
        let now_ms = now_ms();
        let sought = Sought {
            text: probe.text.as_bytes(),
            alias: probe.alias.as_ref(),
            method: &self.head.method,
            fields: &self.head.headers,
            signs: probe.signs,
            wishes: &probe.wishes,
            trust: cache.trust(self.rule, now_ms),
            now_ms,
        };
        match look(Some(&variants), &sought, &cache.purges) {
            Choice::Found(found) if found.reuse == Reuse::Fresh => Some((found.object, found.cut?)),
            Choice::Found(_) | Choice::OtherVariants(_) | Choice::Nothing => None,
        }
    }

    /// What `fill`, which was begun for another request, found to be the answer is one for this request too.
    fn may_have(&self, cache: &Cache, object: &Arc<Object>, fill: &Fill) -> bool {
        may_use(cache, self.probe, object, now_ms()) && (!fill.is_favour() || self.wants_favour(cache))
    }

    /// An error may be bridged for this request, too.
    fn wants_favour(&self, cache: &Cache) -> bool {
        let trouble = Trouble::Status(StatusCode::SERVICE_UNAVAILABLE);
        let (fields, wishes) = (&self.head.headers, &self.probe.wishes);
        let found = self.probe.found.as_ref();
        found.is_some_and(|found| cache.may_serve(self.rule, found, fields, wishes, trouble))
    }
}
