//! Invalidations that a node has not confirmed: it is told again until it has, or is no member any more.
//!
//! A node that was cut off for a while comes back with all it had: without this it would serve what has changed meanwhile
//! until that expires. When more has changed than can be remembered, the node is told to forget everything.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use shoal_cluster::ClusterView;
use shoal_model::NodeId;
use shoal_policy::cache::key::ObjectKey;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::seam::{Change, Changed, PeerLink};

/// For a node's word that it has forgotten an object.
pub(crate) const INVALIDATE_TIMEOUT: Duration = Duration::from_secs(1);
/// Keys that one node may still have to be told of; beyond that, it is everything.
const MAX_PENDING: usize = 10_000;
/// Bytes of URLs that go with them, likewise.
const MAX_PENDING_BYTES: usize = 2 << 20;
/// Keys that are told at once.
const MAX_BATCH: usize = 1000;
/// Bytes of URLs that are told at once, unless one alone has more.
const MAX_BATCH_BYTES: usize = 1 << 20;
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
    Some(Changes),
    Everything,
}

/// What has changed, with the URLs that travel along.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    urls: FxHashMap<ObjectKey, Option<Arc<str>>>,
    /// What the URLs take.
    url_bytes: usize,
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

    /// `node` is to be told of `change`.
    pub(crate) fn add(&self, node: NodeId, change: Change) {
        match self.ledger.lock().entry(node) {
            Entry::Occupied(mut owed) => owed.get_mut().add(node, change),
            Entry::Vacant(place) => {
                place.insert(Owed::nothing()).add(node, change);
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
            Changed::Some(_) => INVALIDATE_TIMEOUT,
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
            Changed::Some(changes) => changes.into_iter().for_each(|change| owed.add(node, change)),
            Changed::Everything => *owed = Owed::Everything,
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<NodeId, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owed {
    fn nothing() -> Self {
        Self::Some(Changes::default())
    }

    fn add(&mut self, node: NodeId, change: Change) {
        let Self::Some(changes) = self else { return };
        changes.add(change);
        if changes.urls.len() > MAX_PENDING || changes.url_bytes > MAX_PENDING_BYTES {
            tracing::warn!(%node, "too much has changed without a node: it is to forget everything");
            *self = Self::Everything;
        }
    }

    fn take_batch(&mut self) -> Option<Changed> {
        match self {
            Self::Some(changes) => changes.take_batch().map(Changed::Some),
            Self::Everything => {
                *self = Self::nothing();
                Some(Changed::Everything)
            }
        }
    }
}

impl Changes {
    fn add(&mut self, Change { key, url }: Change) {
        let known = self.urls.entry(key).or_default();
        // A URL is that of its key: there is no other one to go with it.
        if known.is_none() {
            self.url_bytes += bytes(url.as_ref());
            *known = url;
        }
    }

    /// `None` = there is nothing.
    fn take_batch(&mut self) -> Option<Vec<Change>> {
        let mut batch_bytes = 0;
        let fits = |(_, url): &(&ObjectKey, &Option<Arc<str>>)| {
            let is_first = batch_bytes == 0;
            batch_bytes += bytes(url.as_ref());
            is_first || batch_bytes <= MAX_BATCH_BYTES
        };
        let batch = self.urls.iter().take(MAX_BATCH).take_while(fits);
        let batch: Vec<Change> = batch.map(|(key, url)| Change { key: *key, url: url.clone() }).collect();
        for Change { key, url } in &batch {
            self.urls.remove(key);
            self.url_bytes -= bytes(url.as_ref());
        }
        (!batch.is_empty()).then_some(batch)
    }
}

fn bytes(url: Option<&Arc<str>>) -> usize {
    url.map_or(0, |url| url.len())
}

#[cfg(test)]
mod tests {
    use rustc_hash::FxHashSet;

    use super::*;

    fn change(key: u128) -> Change {
        Change { key: ObjectKey(key), url: None }
    }

    fn owed(keys: impl IntoIterator<Item = u128>) -> Owed {
        let mut owed = Owed::nothing();
        keys.into_iter().for_each(|key| owed.add(NodeId(1), change(key)));
        owed
    }

    fn batch(owed: &mut Owed) -> Vec<Change> {
        match owed.take_batch() {
            Some(Changed::Some(changes)) => changes,
            Some(Changed::Everything) | None => panic!("{owed:?}"),
        }
    }

    #[test]
    fn too_many_keys_are_everything() {
        let most = MAX_PENDING as u128;
        assert!(matches!(owed(0..most), Owed::Some(_)));
        assert!(matches!(owed((0..most).chain([0])), Owed::Some(_)), "it is in already");
        assert_eq!(owed(0..=most), Owed::Everything);
    }

    #[test]
    fn what_is_told_is_not_owed_and_what_changes_meanwhile_is() {
        let mut owed = owed(0..MAX_BATCH as u128 + 1);
        let mut told = batch(&mut owed);
        assert_eq!(told.len(), MAX_BATCH);
        owed.add(NodeId(1), told[0].clone());
        let rest = batch(&mut owed);
        assert_eq!(rest.len(), 2);
        assert!(rest.contains(&told[0]));
        told.extend(rest);
        let told: FxHashSet<ObjectKey> = told.into_iter().map(|change| change.key).collect();
        assert_eq!(told.len(), MAX_BATCH + 1);
        assert_eq!(owed.take_batch(), None);

        let mut owed = Owed::Everything;
        assert_eq!(owed.take_batch(), Some(Changed::Everything));
        owed.add(NodeId(1), change(7));
        assert_eq!(batch(&mut owed), [change(7)]);
    }

    #[test]
    fn urls_go_along_as_long_as_there_is_room() {
        let with_url = |key: u128, length| Change { url: Some("u".repeat(length).into()), ..change(key) };
        let mut owed = owed([1]);
        owed.add(NodeId(1), with_url(1, 10));
        owed.add(NodeId(1), change(1));
        assert_eq!(batch(&mut owed), [with_url(1, 10)], "once it is known, it stays");
        assert_eq!(owed, Owed::nothing());

        let half = MAX_BATCH_BYTES / 2 + 1;
        (0..3).for_each(|key| owed.add(NodeId(1), with_url(key, half)));
        (0..3).for_each(|_| assert_eq!(batch(&mut owed).len(), 1));
        assert_eq!(owed, Owed::nothing());
        owed.add(NodeId(1), with_url(0, MAX_PENDING_BYTES));
        assert_eq!(batch(&mut owed).len(), 1, "there is one at least");
        (0..4).for_each(|key| owed.add(NodeId(1), with_url(key, half)));
        assert_eq!(owed, Owed::Everything);
    }
}
