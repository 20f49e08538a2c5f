//! Invalidations that a node has not confirmed: it is told again until it has, or is no member any more.
//!
//! A node that was cut off for a while comes back with all it had: without this it would serve what has changed meanwhile
//! until that expires. When more has changed than can be remembered, the node is told to forget everything.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::{FxHashMap, FxHashSet};
use shoal_cluster::ClusterView;
use shoal_model::NodeId;
use shoal_policy::cache::key::ObjectKey;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::seam::{Changed, PeerLink};

/// For a node's word that it has forgotten an object.
pub(crate) const INVALIDATE_TIMEOUT: Duration = Duration::from_secs(1);
/// Keys that one node may still have to be told of; beyond that, it is everything.
const MAX_PENDING: usize = 10_000;
/// Keys that are told at once.
const MAX_BATCH: usize = 1000;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// For a node to forget everything.
const EVERYTHING_TIMEOUT: Duration = Duration::from_secs(30);

/// Invalidations that nodes have not confirmed.
#[derive(Clone)]
pub(crate) struct Reminders {
    ledger: Arc<Ledger>,
    runtime: Handle,
}

/// Who has to be told of what.
struct Ledger {
    link: Arc<dyn PeerLink>,
    cluster: Arc<ArcSwap<ClusterView>>,
    /// A task tells every node in it, until nothing is owed to that node any more.
    owed: Mutex<FxHashMap<NodeId, Owed>>,
}

/// What one node has to be told of.
#[derive(Debug, PartialEq, Eq)]
enum Owed {
    Keys(FxHashSet<ObjectKey>),
    Everything,
}

/// What came of trying to tell a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Something, and there may be more.
    Something,
    /// It did not listen.
    Nothing,
    /// There is nothing more to tell.
    All,
}

impl Reminders {
    /// Nobody has to be told of anything yet. Telling runs on the runtime this is called on, and ends when the cache is
    /// dropped.
    pub(crate) fn new(link: Arc<dyn PeerLink>, cluster: Arc<ArcSwap<ClusterView>>) -> Self {
        let ledger = Ledger { link, cluster, owed: Mutex::default() };
        Self { ledger: Arc::new(ledger), runtime: Handle::current() }
    }

    /// `node` is to be told that `key` has changed.
    pub(crate) fn add(&self, node: NodeId, key: ObjectKey) {
        match self.ledger.lock().entry(node) {
            Entry::Occupied(mut owed) => owed.get_mut().add(node, key),
            Entry::Vacant(place) => {
                place.insert(Owed::Keys(FxHashSet::from_iter([key])));
                self.runtime.spawn(tell(Arc::downgrade(&self.ledger), node));
            }
        }
    }

    /// `node` has still to be told of something, or to confirm it.
    pub(crate) fn owes(&self, node: NodeId) -> bool {
        self.ledger.lock().contains_key(&node)
    }
}

/// Tells `node` until nothing is owed to it any more.
async fn tell(ledger: Weak<Ledger>, node: NodeId) {
    while let Some(ledger) = ledger.upgrade() {
        match ledger.tell(node).await {
            Told::Something => {}
            Told::Nothing => {
                drop(ledger);
                sleep(PAUSE).await;
            }
            Told::All => return,
        }
    }
}

impl Ledger {
    async fn tell(&self, node: NodeId) -> Told {
        match self.cluster.load().node(node).map(|node| node.alive) {
            Some(true) => {}
            Some(false) => return Told::Nothing,
            None => {
                self.lock().remove(&node);
                return Told::All;
            }
        }
        let Some(batch) = self.take_batch(node) else { return Told::All };
        let patience = match batch {
            Changed::Keys(_) => INVALIDATE_TIMEOUT,
            Changed::Everything => EVERYTHING_TIMEOUT,
        };
        match timeout(patience, self.link.invalidate(node, batch.clone())).await {
            Ok(Ok(())) => Told::Something,
            Ok(Err(_)) | Err(_) => {
                self.put_back(node, batch);
                Told::Nothing
            }
        }
    }

    /// Takes out what is told next: what changes again while it is told has to be told again. `None` = nothing is owed.
    fn take_batch(&self, node: NodeId) -> Option<Changed> {
        let mut ledger = self.lock();
        let batch = ledger.get_mut(&node).and_then(Owed::take_batch);
        if batch.is_none() {
            ledger.remove(&node);
        }
        batch
    }

    fn put_back(&self, node: NodeId, batch: Changed) {
        let mut ledger = self.lock();
        let owed = ledger.entry(node).or_insert_with(Owed::nothing);
        match batch {
            Changed::Keys(keys) => keys.into_iter().for_each(|key| owed.add(node, key)),
            Changed::Everything => *owed = Owed::Everything,
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<NodeId, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owed {
    fn nothing() -> Self {
        Self::Keys(FxHashSet::default())
    }

    fn add(&mut self, node: NodeId, key: ObjectKey) {
        match self {
            Self::Keys(keys) if keys.len() < MAX_PENDING || keys.contains(&key) => _ = keys.insert(key),
            Self::Keys(_) => {
                tracing::warn!(%node, "too much has changed without a node: it is to forget everything");
                *self = Self::Everything;
            }
            Self::Everything => {}
        }
    }

    fn take_batch(&mut self) -> Option<Changed> {
        match self {
            Self::Keys(keys) if keys.is_empty() => None,
            Self::Keys(keys) => {
                let batch: Vec<ObjectKey> = keys.iter().take(MAX_BATCH).copied().collect();
                batch.iter().for_each(|key| _ = keys.remove(key));
                Some(Changed::Keys(batch))
            }
            Self::Everything => {
                *self = Self::nothing();
                Some(Changed::Everything)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(keys: impl IntoIterator<Item = u128>) -> Owed {
        let mut owed = Owed::nothing();
        keys.into_iter().for_each(|key| owed.add(NodeId(1), ObjectKey(key)));
        owed
    }

    #[test]
    fn too_many_keys_are_everything() {
        let most = MAX_PENDING as u128;
        assert!(matches!(owed(0..most), Owed::Keys(_)));
        assert!(matches!(owed((0..most).chain([0])), Owed::Keys(_)), "it is in already");
        assert_eq!(owed(0..=most), Owed::Everything);
    }

    #[test]
    fn what_is_told_is_not_owed_and_what_changes_meanwhile_is() {
        let mut owed = owed(0..MAX_BATCH as u128 + 1);
        let Some(Changed::Keys(mut told)) = owed.take_batch() else { panic!() };
        assert_eq!(told.len(), MAX_BATCH);
        owed.add(NodeId(1), told[0]);
        let Some(Changed::Keys(rest)) = owed.take_batch() else { panic!() };
        assert_eq!(rest.len(), 2);
        assert!(rest.contains(&told[0]));
        told.extend(rest);
        let told: FxHashSet<ObjectKey> = told.into_iter().collect();
        assert_eq!(told.len(), MAX_BATCH + 1);
        assert_eq!(owed.take_batch(), None);

        let mut owed = Owed::Everything;
        assert_eq!(owed.take_batch(), Some(Changed::Everything));
        owed.add(NodeId(1), ObjectKey(7));
        assert_eq!(owed.take_batch(), Some(Changed::Keys(vec![ObjectKey(7)])));
    }
}
