//! The objects one worker uses most: hits on them touch nothing that workers share, and prepare nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, Response};
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

impl HotObjects {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| None).collect() }
    }

    /// The answer to a plain GET, if it is prepared. `applied` is the log index up to which an object must have been
    /// checked.
    pub(crate) fn ready(
        &mut self,
        key: ObjectKey,
        text: &[u8],
        applied: u64,
        now_ms: u64,
    ) -> Option<Response<CacheBody>> {
        let hot = self.current(key)?;
        let prepared = hot.prepared.as_ref()?;
        let object = &prepared.object;
        let holds = now_ms < prepared.until_ms
            && object.checked_seq.load(Ordering::Relaxed) >= applied
            && object.text.as_bytes() == text;
        if !holds {
            return None;
        }
        hot.uses += 1;
        let mut response = Response::new(CacheBody::stored(object));
        *response.status_mut() = object.status;
        *response.headers_mut() = prepared.fields.clone();
        Some(response)
    }

    /// The variants of `key`, if they are still what the store would say.
    pub(crate) fn variants(&mut self, key: ObjectKey) -> Option<Arc<Variants>> {
        let hot = self.current(key)?;
        hot.uses += 1;
        Some(hot.variants.clone())
    }

    fn current(&mut self, key: ObjectKey) -> Option<&mut Slot> {
        let slot = &mut self.slots[place(key)];
        let hot = slot.as_mut().filter(|hot| hot.key == key)?;
        if hot.variants.is_superseded() || hot.uses > REPORT_EVERY {
            hot.report();
            *slot = None;
        }
        slot.as_mut()
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
