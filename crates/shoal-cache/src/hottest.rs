//! The objects in memory of which there is most: hits, bytes, bytes that no origin had to send.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustc_hash::FxHashMap;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::selecting::Selecting;
use tokio::task::spawn_blocking;

use crate::clock::now_ms;
use crate::node::Cache;
use crate::object::Object;

/// Objects whose hits are counted while somebody looks on: those of which there was most before.
const MAX_WATCHED: usize = 10_000;
/// What was not used for so long is not looked at where hits of now are asked for.
const RECENT_MS: u64 = 10_000;

/// What there is to be most of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Hits while somebody looks on.
    Rate,
    /// Hits since it was stored.
    Hits,
    /// Bytes of its body.
    Size,
    /// Bytes of body that no origin had to send.
    Saved,
}

/// An object of which there is much.
pub(crate) struct Hot {
    pub(crate) text: Box<str>,
    pub(crate) selecting: Selecting,
    pub(crate) body_bytes: u64,
    pub(crate) hits: u64,
    /// While somebody looked on.
    pub(crate) window_hits: u64,
}

/// The hits that objects had when somebody began to look on.
struct Watched {
    hasher: RandomState,
    /// By key: the place among the variants, and the hits.
    hits: FxHashMap<ObjectKey, Vec<(u64, u64)>>,
}

impl Cache {
    /// The `limit` objects in memory of which there is most by `order`, after hits were counted for `window`. `None` =
    /// somebody else looks on already.
    pub(crate) async fn hottest(
        self: &Arc<Self>,
        order: Order,
        limit: usize,
        window: Duration,
    ) -> Option<Vec<Hot>> {
        let _place = self.onlookers.try_acquire().ok()?;
        let (begin, end) = (self.clone(), self.clone());
        let watched = spawn_blocking(move || begin.watch(order)).await.ok()?;
        tokio::time::sleep(window).await;
        spawn_blocking(move || end.count(&watched, order, limit)).await.ok()
    }

    fn watch(&self, order: Order) -> Watched {
        let since_ms = now_ms().saturating_sub(RECENT_MS);
        let mut watched = Watched { hasher: RandomState::new(), hits: FxHashMap::default() };
        let mut best = Best::new(MAX_WATCHED);
        self.store.each(|object| {
            if object.chunk_of().is_some() {
                return;
            }
            if order != Order::Rate || object.used_ms.load(Ordering::Relaxed) >= since_ms {
                let hits = u64::from(object.hits.load(Ordering::Relaxed));
                best.offer(measure(order, object, hits, hits), || (object.key, watched.place(object), hits));
            }
        });
        for (key, place, hits) in best.sorted() {
            watched.hits.entry(key).or_default().push((place, hits));
        }
        watched
    }

    fn count(&self, watched: &Watched, order: Order, limit: usize) -> Vec<Hot> {
        let mut best = Best::new(limit);
        self.store.each(|object| {
            let Some(before) = watched.hits_of(object) else { return };
            let hits = u64::from(object.hits.load(Ordering::Relaxed));
            // What was stored anew meanwhile may begin from 0.
            let window_hits = hits.saturating_sub(before);
            best.offer(measure(order, object, hits, window_hits), || Hot {
                text: object.text.clone(),
                selecting: object.selecting().clone(),
                body_bytes: body_bytes(object),
                hits,
                window_hits,
            });
        });
        best.sorted()
    }
}

impl Watched {
    fn place(&self, object: &Object) -> u64 {
        self.hasher.hash_one((&object.text, object.selecting()))
    }

    fn hits_of(&self, object: &Object) -> Option<u64> {
        let of_key = self.hits.get(&object.key)?;
        let place = self.place(object);
        of_key.iter().find(|(known, _)| *known == place).map(|(_, hits)| *hits)
    }
}

fn measure(order: Order, object: &Object, hits: u64, window_hits: u64) -> u64 {
    match order {
        Order::Rate => window_hits,
        Order::Hits => hits,
        Order::Size => body_bytes(object),
        Order::Saved => hits.saturating_mul(body_bytes(object)),
    }
}

/// Of the whole, as far as that is known.
fn body_bytes(object: &Object) -> u64 {
    object.body.length().unwrap_or(object.body_bytes)
}

/// The greatest of many, in room for twice as many.
struct Best<T> {
    limit: usize,
    /// What is less was not taken, or has gone.
    least: u64,
    found: Vec<(u64, T)>,
}

impl<T> Best<T> {
    const fn new(limit: usize) -> Self {
        Self { limit, least: 0, found: Vec::new() }
    }

    fn offer(&mut self, measure: u64, make: impl FnOnce() -> T) {
        if self.limit == 0 || measure < self.least {
            return;
        }
        self.found.push((measure, make()));
        if self.found.len() >= self.limit.saturating_mul(2) {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.found.len() > self.limit {
            self.found.select_nth_unstable_by_key(self.limit - 1, |(measure, _)| Reverse(*measure));
            self.found.truncate(self.limit);
            self.least = self.found[self.limit - 1].0;
        }
    }

    /// The greatest first.
    fn sorted(mut self) -> Vec<T> {
        self.shrink();
        self.found.sort_by_key(|(measure, _)| Reverse(*measure));
        self.found.into_iter().map(|(_, found)| found).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_are_found_in_any_order() {
        for limit in [0, 1, 3, 100] {
            let mut best = Best::new(limit);
            (0..1000u64).map(|n| n * 7919 % 1000).for_each(|n| best.offer(n, || n));
            assert!(best.found.len() <= 2 * limit);
            let expected: Vec<u64> = (0..1000).rev().take(limit).collect();
            assert_eq!(best.sorted(), expected);
        }
    }
}
