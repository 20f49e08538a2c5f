//! What this node holds of a key, as operators are told.

use std::sync::Arc;

use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::purge::Validity;
use tokio::task::spawn_blocking;

use crate::node::Cache;
use crate::object::Object;

/// A stored object, wherever it is.
pub(crate) struct Holding {
    pub(crate) object: Arc<Object>,
    /// Its body is in memory.
    pub(crate) in_memory: bool,
    pub(crate) on_disk: bool,
    /// What purges have made of it.
    pub(crate) validity: Validity,
}

impl Cache {
    /// All that is stored under `key`, what was purged as well. Nothing of it counts as a use.
    pub(crate) async fn holdings(self: &Arc<Self>, key: ObjectKey) -> Vec<Holding> {
        let cache = self.clone();
        let on_disk = spawn_blocking(move || cache.disk.as_ref().map(|disk| disk.stored(key))).await;
        let mut on_disk = on_disk.ok().flatten().unwrap_or_default();
        let in_memory = self.store.peek(key).unwrap_or_default();
        let mut holdings: Vec<Holding> = Vec::new();
        for object in in_memory.objects() {
            let twin = on_disk.iter().position(|stored| stored.is_same_as(object));
            twin.map(|place| on_disk.swap_remove(place));
            holdings.push(Holding {
                object: object.clone(),
                in_memory: object.disk_body().is_none(),
                on_disk: twin.is_some() || object.disk_body().is_some(),
                validity: self.purges.verdict(object),
            });
        }
        holdings.extend(on_disk.into_iter().map(|object| Holding {
            validity: self.purges.verdict(&object),
            object,
            in_memory: false,
            on_disk: true,
        }));
        holdings
    }
}
