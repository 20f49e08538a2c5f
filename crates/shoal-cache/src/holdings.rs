//! What this node holds of a key, as operators are told.

use std::sync::Arc;

use shoal_policy::cache::key::ObjectKey;
use shoal_policy::cache::purge::Validity;
use tokio::task::spawn_blocking;

use crate::chunks::Chunked;
use crate::node::Cache;
use crate::object::Object;

/// Chunks that are looked for at most, for all that is stored of a URL: those of a terabyte. What is claimed of a body is no
/// reason to look for longer.
const MAX_CHUNKS: u64 = 1 << 20;

/// A stored object, wherever it is.
pub(crate) struct Holding {
    pub(crate) object: Arc<Object>,
    /// Its body is in memory.
    pub(crate) in_memory: bool,
    pub(crate) on_disk: bool,
    /// Bytes of its body that are here, in chunks as well.
    pub(crate) held_bytes: u64,
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
                held_bytes: object.body.held_bytes(),
                validity: self.purges.verdict(object),
            });
        }
        holdings.extend(on_disk.into_iter().map(|object| Holding {
            validity: self.purges.verdict(&object),
            held_bytes: object.body.held_bytes(),
            object,
            in_memory: false,
            on_disk: true,
        }));
        self.with_chunks(holdings).await
    }

    /// The same, with what lies in chunks. There may be many of them.
    async fn with_chunks(self: &Arc<Self>, mut holdings: Vec<Holding>) -> Vec<Holding> {
        if holdings.iter().all(|holding| holding.object.chunked().is_none()) {
            return holdings;
        }
        let objects: Vec<Arc<Object>> = holdings.iter().map(|holding| holding.object.clone()).collect();
        let cache = self.clone();
        let counting = spawn_blocking(move || {
            let mut left = MAX_CHUNKS;
            let held = objects.iter().filter_map(|object| object.chunked());
            held.map(|chunked| cache.held_of(chunked, &mut left)).collect::<Vec<u64>>()
        });
        let counted = counting.await.unwrap_or_default();
        let in_chunks = holdings.iter_mut().filter(|holding| holding.object.chunked().is_some());
        in_chunks.zip(counted).for_each(|(holding, held_bytes)| holding.held_bytes = held_bytes);
        holdings
    }

    fn held_of(&self, chunked: &Chunked, left: &mut u64) -> u64 {
        let mut held_bytes = 0;
        for (number, span) in (0..*left).map_while(|number| Some((number, chunked.span(number)?))) {
            *left -= 1;
            let is_on_disk = || self.disk.as_ref().is_some_and(|disk| disk.has(chunked.key(number)));
            if chunked.peek(number).is_some() || is_on_disk() {
                held_bytes += span.bytes();
            }
        }
        held_bytes
    }
}
