//! The objects one worker uses most: hits on them touch nothing that workers share, and prepare nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderMap;
use shoal_policy::cache::key::ObjectKey;

use crate::body::CacheBody;
use crate::object::{Object, Variants};

/// Places; a key has exactly one, and a newcomer takes it.
const SLOTS: usize = 512;
/// Larger bodies are not held here: they could outlive their place in the budget.
const MAX_BODY_BYTES: u64 = 64 * 1024;
/// The store hears of every so many hits, so that it knows what is in use.
const REPORT_EVERY: u32 = 64;

/// One worker's hottest objects.
pub(crate) struct HotObjects {
    slots: Box<[Option<Slot>]>,
}

struct Slot {
    key: ObjectKey,
    variants: Arc<Variants>,
    prepared: Option<Prepared>,
    uses: u32,
}

/// An answer that stays the same until `until_ms`: `Age` and `ttl` count whole seconds.
struct Prepared {
    object: Arc<Object>,
    fields: HeaderMap,
    until_ms: u64,
}

/// What the fast path knows.
pub(crate) enum Hot {
    /// The answer to a plain GET.
    Ready(http::StatusCode, HeaderMap, CacheBody),
    /// The variants, still current.
    Variants(Arc<Variants>),
    /// Ask the store.
    Unknown,
}

impl HotObjects {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| None).collect() }
    }

    /// What is known of `key`; `is_plain` = a GET without anything that changes the answer. `applied` is the log index
    /// up to which an object must have been checked.
    pub(crate) fn find(
        &mut self,
        key: ObjectKey,
        text: &[u8],
        is_plain: bool,
        applied: u64,
        now_ms: u64,
    ) -> Hot {
        let slot = &mut self.slots[place(key)];
        let Some(hot) = slot.as_mut().filter(|hot| hot.key == key) else { return Hot::Unknown };
        hot.uses += 1;
        if hot.variants.is_superseded() || hot.uses > REPORT_EVERY {
            hot.report();
            *slot = None;
            return Hot::Unknown;
        }
        if is_plain
            && let Some(prepared) = &hot.prepared
            && now_ms < prepared.until_ms
            && prepared.object.checked_seq.load(Ordering::Relaxed) >= applied
            && prepared.object.text.as_bytes() == text
        {
            let object = &prepared.object;
            return Hot::Ready(object.status, prepared.fields.clone(), CacheBody::stored(object));
        }
        Hot::Variants(hot.variants.clone())
    }

    /// Remembers what the store said.
    pub(crate) fn keep(&mut self, key: ObjectKey, variants: &Arc<Variants>) {
        if variants.objects.iter().map(|object| object.body_bytes).sum::<u64>() <= MAX_BODY_BYTES {
            let slot = Slot { key, variants: variants.clone(), prepared: None, uses: 0 };
            self.slots[place(key)] = Some(slot);
        }
    }

    /// Remembers the fields of an answer that fits every plain GET until `until_ms`.
    pub(crate) fn prepare(&mut self, object: &Arc<Object>, fields: HeaderMap, until_ms: u64) {
        let slot = self.slots[place(object.key)].as_mut().filter(|slot| slot.key == object.key);
        if let Some(slot) = slot
            && let [only] = &slot.variants.objects[..]
            && Arc::ptr_eq(only, object)
            && object.selecting.is_empty()
        {
            slot.prepared = Some(Prepared { object: object.clone(), fields, until_ms });
        }
    }
}

impl Slot {
    fn report(&self) {
        if let Some(prepared) = &self.prepared {
            prepared.object.hits.fetch_add(u64::from(self.uses), Ordering::Relaxed);
        }
    }
}

const fn place(key: ObjectKey) -> usize {
    (key.0 >> 64) as usize % SLOTS
}
