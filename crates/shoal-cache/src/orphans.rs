//! Objects that were fetched here because no owner could be reached: offered to their owners once these are back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use shoal_model::NodeId;
use shoal_model::site::Replicate;
use shoal_policy::cache::placement::Owners;
use shoal_policy::cache::storage::Terms;

use crate::clock::now_ms;
use crate::node::Cache;
use crate::object::{Object, UNCOPIED};
use crate::peer::replicas::Parcel;

/// What is stored on a node that does not own it lives at most this long, milliseconds.
pub(crate) const ORPHAN_MS: u64 = 60_000;
/// Orphans that are remembered; the others are lost with their time.
const MAX_ORPHANS: usize = 1024;
/// Between two looks whether owners are back.
const PAUSE: Duration = Duration::from_secs(1);

/// The orphans of this node.
#[derive(Default)]
pub(crate) struct Orphans(Mutex<Vec<Orphan>>);

struct Orphan {
    object: Weak<Object>,
    /// As an owner may keep it.
    terms: Terms,
    /// It was offered.
    is_offered: bool,
}

impl Orphans {
    pub(crate) fn add(&self, object: &Arc<Object>, terms: Terms) {
        let mut orphans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if orphans.len() < MAX_ORPHANS {
            orphans.push(Orphan { object: Arc::downgrade(object), terms, is_offered: false });
        }
    }

    /// Lets go of those that are gone or have found a home, and says what is to be offered now.
    fn sort(&self, offer: impl Fn(&Arc<Object>, Terms) -> bool) {
        let mut orphans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = now_ms();
        orphans.retain_mut(|orphan| {
            let Some(object) = orphan.object.upgrade() else { return false };
            if !object.is_copyable() {
                return false;
            }
            let is_copied = object.copied_under.load(Ordering::Relaxed) != UNCOPIED;
            if orphan.is_offered && is_copied || !object.terms.is_fresh(now_ms) {
                return false;
            }
            orphan.is_offered = is_copied || offer(&object, orphan.terms);
            true
        });
    }
}

/// Looks after the orphans of `cache`, and after who owns what, until the cache is dropped.
pub(crate) async fn look_after(cache: Weak<Cache>) {
    while let Some(cache) = cache.upgrade() {
        cache.placement.observe(now_ms());
        cache.orphans.sort(|object, terms| cache.offer_orphan(object, terms));
        drop(cache);
        tokio::time::sleep(PAUSE).await;
    }
}

impl Cache {
    /// Offers an orphan to those of its owners that are there; `false` = there is none.
    fn offer_orphan(&self, object: &Arc<Object>, terms: Terms) -> bool {
        let others = homes(self.placement.owners(object.key), object);
        let mut is_offered = false;
        for peer in others.filter(|owner| *owner != self.settings.node) {
            let parcel = Parcel { object: object.clone(), terms: Some(terms), peer };
            is_offered |= self.replicas.offer(parcel);
        }
        if is_offered {
            object.copied_under.store(self.placement.id(), Ordering::Relaxed);
        }
        is_offered
    }
}

/// The nodes that are to have `object`, if these are its owners.
pub(crate) fn homes(owners: Owners, object: &Object) -> impl Iterator<Item = NodeId> + use<> {
    let second = owners.secondary.filter(|_| object.replicate != Replicate::Never);
    [owners.primary, second].into_iter().flatten()
}
