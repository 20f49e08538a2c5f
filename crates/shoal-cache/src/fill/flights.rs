//! The fills that are running on this node: one per object, however many ask.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::selecting::Selecting;
use shoal_policy::cache::sources::Hop;

use super::{Fill, FillReader};
use crate::portion::Portion;
use crate::search::Alias;

/// Locks the running fills are spread over.
const SHARDS: usize = 64;

/// The running fills.
pub(crate) struct Flights {
    shards: [Mutex<FxHashMap<ObjectKey, Vec<Flight>>>; SHARDS],
    hasher: RandomState,
}

/// What a fill is for, beside its key.
#[derive(Clone, Copy)]
pub(crate) struct Errand<'a> {
    /// The text of the key.
    pub(crate) text: &'a str,
    /// What was asked for, where that is not the URL of the key. It may come with what was asked for by another equal URL.
    pub(crate) alias: Option<&'a Alias>,
    pub(crate) selecting: &'a Selecting,
    pub(crate) portion: &'a Portion,
    /// How far the request has come.
    pub(crate) hop: Hop,
}

impl Errand<'_> {
    /// Nobody outside can find another errand with the same place.
    fn place(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((self.text, self.selecting, self.portion))
    }
}

/// A fill, and what it is for.
struct Flight {
    /// Of its errand; `None` = nobody may join it (any more).
    place: Option<u64>,
    fill: Arc<Fill>,
}

/// What came of asking for a place in a fill.
pub(crate) enum Joined {
    /// Somebody else began it.
    Running(FillReader),
    /// It is ours to begin.
    New(FillReader),
    /// Too many wait for it.
    Full,
}

/// Takes a fill out of the running ones, whatever happens.
pub(crate) struct Landing {
    flights: Arc<Flights>,
    fill: Arc<Fill>,
}

impl Landing {
    pub(crate) fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.land(&self.fill);
        self.fill.abandon();
    }
}

impl Flights {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }

    /// A place in the running fill for `errand`, if `may_join` it; else in the new one that `begin` makes.
    pub(crate) fn join(
        &self,
        key: ObjectKey,
        errand: Errand<'_>,
        may_join: impl FnOnce(&Fill) -> bool,
        begin: impl FnOnce() -> Fill,
    ) -> Joined {
        let place = Some(errand.place(&self.hasher));
        let mut shard = self.shard(key);
        let flights = shard.entry(key).or_default();
        if let Some(flight) = flights.iter_mut().find(|flight| flight.place == place) {
            if flight.fill.is_joinable() && may_join(&flight.fill) {
                return flight.fill.reader().map_or(Joined::Full, Joined::Running);
            }
            // It still brings something in: whoever spoils the key has to reach it.
            flight.place = None;
        }
        let fill = Arc::new(begin());
        let Some(reader) = fill.reader() else { return Joined::Full };
        flights.push(Flight { place, fill });
        Joined::New(reader)
    }

    /// A place in the running fill for `errand`, if there is one and `may_join` it.
    pub(crate) fn join_running(
        &self,
        key: ObjectKey,
        errand: Errand<'_>,
        may_join: impl FnOnce(&Fill) -> bool,
    ) -> Option<FillReader> {
        let place = Some(errand.place(&self.hasher));
        let shard = self.shard(key);
        let flight = shard.get(&key)?.iter().find(|flight| flight.place == place)?;
        (flight.fill.is_joinable() && may_join(&flight.fill)).then(|| flight.fill.reader()).flatten()
    }

    /// A place in a fill that is for one request alone.
    pub(crate) fn begin_alone(&self, fill: Fill) -> Joined {
        let fill = Arc::new(fill);
        let Some(reader) = fill.reader() else { return Joined::Full };
        self.shard(fill.key).entry(fill.key).or_default().push(Flight { place: None, fill });
        Joined::New(reader)
    }

    /// For whoever works on `fill`.
    pub(crate) fn landing(self: &Arc<Self>, fill: &Arc<Fill>) -> Landing {
        Landing { flights: self.clone(), fill: fill.clone() }
    }

    /// A fill has ended, one way or another.
    fn land(&self, fill: &Arc<Fill>) {
        let mut shard = self.shard(fill.key);
        if let Some(flights) = shard.get_mut(&fill.key) {
            flights.retain(|flight| !Arc::ptr_eq(&flight.fill, fill));
            if flights.is_empty() {
                shard.remove(&fill.key);
            }
        }
    }

    /// The resource changed: what is being filled may be of before.
    pub(crate) fn spoil(&self, key: ObjectKey) {
        for flight in self.shard(key).remove(&key).unwrap_or_default() {
            flight.fill.spoil();
        }
    }

    /// Everything changed.
    pub(crate) fn spoil_all(&self) {
        for shard in &self.shards {
            let flights = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            flights.into_values().flatten().for_each(|flight| flight.fill.spoil());
        }
    }

    /// Something is being filled under `key`.
    pub(crate) fn is_running(&self, key: ObjectKey) -> bool {
        self.shard(key).contains_key(&key)
    }

    fn shard(&self, key: ObjectKey) -> MutexGuard<'_, FxHashMap<ObjectKey, Vec<Flight>>> {
        self.shards[key.0 as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
