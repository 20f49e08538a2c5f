//! A node that leaves: what it has goes to those that own it from now on, and whoever reads from it gets the rest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shoal_model::NodeId;
use shoal_policy::cache::reuse::Freshened;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::now_ms;
use crate::node::Cache;
use crate::object::Object;
use crate::orphans::homes;
use crate::peer::replicas::Parcel;

/// Objects on their way at once.
const AT_ONCE: usize = 8;

impl Cache {
    /// Gives what is stored here to the nodes that own it when this one is gone, what is used most first, at most so many
    /// bytes a second. It may be given up at any time.
    pub async fn hand_over(&self, bytes_per_second: u64) {
        let (began, mut given_bytes, mut given) = (Instant::now(), 0, 0_u64);
        let mut on_their_way = JoinSet::new();
        for object in self.most_used() {
            for peer in self.heirs(&object) {
                // Nobody is sent more than the budget allows by now.
                let due = Duration::from_secs_f64(given_bytes as f64 / bytes_per_second.max(1) as f64);
                tokio::time::sleep_until(began + due).await;
                if on_their_way.len() >= AT_ONCE {
                    on_their_way.join_next().await;
                }
                given_bytes += object.body_bytes;
                given += 1;
                let parcel = Parcel { object: object.clone(), terms: None, peer };
                on_their_way.spawn(self.replicas.deliver(parcel));
            }
        }
        while on_their_way.join_next().await.is_some() {}
        if given > 0 {
            tracing::info!(
                objects = given,
                bytes = given_bytes,
                "what was stored here is with its next owners"
            );
        }
    }

    /// Fresh objects that were not purged, and chunks of such objects, what has the most hits first.
    fn most_used(&self) -> Vec<Arc<Object>> {
        let now_ms = now_ms();
        let mut objects = self.store.all();
        objects.retain(|object| {
            let is_valid = |object: &Object| {
                object.terms.is_fresh(now_ms) && self.purges.check(object) == Some(Freshened::Untouched)
            };
            object.is_copyable()
                && !object.is_promoted()
                && self.store.object_of(object).is_some_and(|object| is_valid(&object))
        });
        objects.sort_by_cached_key(|object| std::cmp::Reverse(object.hits.load(Ordering::Relaxed)));
        objects
    }

    /// The owners of an object once this node is gone, but for those that have it.
    fn heirs(&self, object: &Object) -> impl Iterator<Item = NodeId> + use<> {
        let is_copied = object.copied_under.load(Ordering::Relaxed) == self.placement.id();
        let known = if is_copied {
            self.placement.owners(object.home()).other_than(self.settings.node)
        } else {
            None
        };
        homes(self.placement.heirs(object.home()), object).filter(move |heir| Some(*heir) != known)
    }

    /// Requests of peers that are being answered, up to the last byte of their answers.
    pub fn peers_under_way(&self) -> usize {
        *self.peers_under_way.borrow()
    }

    /// Ends when no peer is being answered, however long that takes.
    pub async fn peers_answered(&self) {
        // It fails only when the sender is gone, and that is a part of this cache.
        let _ = self.peers_under_way.subscribe().wait_for(|under_way| *under_way == 0).await;
    }
}
