//! The objects one worker uses most: hits on them touch nothing that workers share, and prepare nothing.
//!
//! A place keeps its object alive when the store has let go of it. What the places of all workers keep is a part of the
//! node's memory for objects, and whoever takes a place looks whether others are still worth theirs.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, StatusCode};
use shoal_policy::cache::fields::lines_bytes;
use shoal_policy::cache::key::ObjectKey;
use shoal_policy::http1::SharedFields;

use crate::body::CacheBody;
use crate::object::Object;
use crate::residents::Resident;
use crate::variants::Variants;

/// Places; a key has exactly one, and a newcomer takes it.
const SLOTS: usize = 512;
/// What one key may hold here, fields and all variants included, bytes: a few large ones would take all the room.
const MAX_SLOT_BYTES: u64 = 64 * 1024;
/// Places that are looked at when one is taken: all of them while each is taken once in a while.
const SWEEP: usize = 8;
/// What a field takes up in a map beside its line, bytes.
const MAP_BYTES: usize = 120;
/// The store hears of every so many uses of the variants, so that it knows what is in use. Of prepared answers it hears
/// when they run out, which is within a second.
const REPORT_EVERY: u32 = 64;

/// A part of the node's memory for objects: what the places of all workers may keep together, or what is kept of objects
/// that other nodes own.
pub(crate) struct HotBudget {
    held_bytes: AtomicU64,
    most_bytes: u64,
}

/// One worker's hottest objects.
pub(crate) struct HotObjects {
    slots: Box<[Option<Slot>]>,
    budget: Arc<HotBudget>,
    /// The next place to be looked at.
    hand: usize,
}

struct Slot {
    key: ObjectKey,
    variants: Variants,
    prepared: Option<Prepared>,
    uses: u32,
    /// Of these, those that the object was told of.
    told: u32,
    share: Share,
}

/// A part of the budget, given back when it is dropped.
pub(crate) struct Share {
    budget: Arc<HotBudget>,
    bytes: u64,
}

impl HotBudget {
    pub(crate) const fn new(most_bytes: u64) -> Self {
        Self { held_bytes: AtomicU64::new(0), most_bytes }
    }

    /// `None` = that is too much.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        // A share that is too much is given back at once.
        let share = Share { budget: self.clone(), bytes };
        let held_bytes = self.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (held_bytes <= self.most_bytes).then_some(share)
    }
}

impl Share {
    /// Grows; `false` = that is too much.
    fn grow(&mut self, bytes: u64) -> bool {
        let Some(mut more) = self.budget.take(bytes) else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An answer that stays the same until `until_ms`: `Age` and `ttl` count whole seconds.
struct Prepared {
    object: Arc<Object>,
    fields: Rc<SharedFields>,
    until_ms: u64,
}

/// The answer to a plain GET, with fields that other answers have as well: they are good for a second at most, since `Age`
/// is among them.
pub struct Ready {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, signed.
    pub fields: Rc<SharedFields>,
    /// Its body.
    pub body: CacheBody,
}

impl HotObjects {
    pub(crate) fn new(budget: Arc<HotBudget>) -> Self {
        Self { slots: (0..SLOTS).map(|_| None).collect(), budget, hand: 0 }
    }

    /// The answer to a plain GET, if it is prepared. `applied` is the log index up to which an object must have been
    /// checked.
    pub(crate) fn ready(&mut self, key: ObjectKey, text: &[u8], applied: u64, now_ms: u64) -> Option<Ready> {
        let hot = self.current(key)?;
        let prepared = hot.prepared.as_ref()?;
        if now_ms >= prepared.until_ms {
            self.forget(key);
            return None;
        }
        let object = &prepared.object;
        let holds = object.checked_seq.load(Ordering::Relaxed) >= applied && object.text.as_bytes() == text;
        if !holds {
            return None;
        }
        hot.uses += 1;
        Some(Ready {
            status: object.status,
            fields: prepared.fields.clone(),
            body: CacheBody::stored(object),
        })
    }

    /// The variants of `key`, if they are still what the store would say.
    pub(crate) fn variants(&mut self, key: ObjectKey) -> Option<Variants> {
        let hot = self.current(key)?;
        // Whoever asks for them counts himself.
        hot.uses += 1;
        hot.told += 1;
        let variants = hot.variants.clone();
        if hot.uses > REPORT_EVERY {
            self.forget(key);
            return None;
        }
        Some(variants)
    }

    fn current(&mut self, key: ObjectKey) -> Option<&mut Slot> {
        let hot = self.slots[place(key)].as_ref().filter(|hot| hot.key == key)?;
        if hot.variants.is_superseded() {
            self.forget(key);
            return None;
        }
        self.slots[place(key)].as_mut()
    }

    /// Gives up the place of `key`: the store is asked next.
    fn forget(&mut self, key: ObjectKey) {
        if let Some(mut hot) = self.slots[place(key)].take() {
            hot.report();
        }
    }

    /// Remembers what the store said, if there is room.
    pub(crate) fn keep(&mut self, key: ObjectKey, variants: &Variants) {
        self.sweep();
        let bytes = variants.weight();
        if bytes > MAX_SLOT_BYTES {
            return;
        }
        let slot = &mut self.slots[place(key)];
        // First what it takes the place of goes.
        *slot = None;
        if let Some(share) = self.budget.take(bytes) {
            *slot = Some(Slot { key, variants: variants.clone(), prepared: None, uses: 0, told: 0, share });
        }
    }

    /// Lets go of what the store has let go of, in some of the places.
    fn sweep(&mut self) {
        for _ in 0..SWEEP {
            self.hand = (self.hand + 1) % SLOTS;
            let slot = &mut self.slots[self.hand];
            if slot.as_ref().is_some_and(|hot| hot.variants.is_superseded()) {
                *slot = None;
            }
        }
    }

    /// Remembers the fields of an answer that fits every plain GET until `until_ms`.
    pub(crate) fn prepare(&mut self, object: &Arc<Object>, fields: HeaderMap, until_ms: u64) {
        let slot = self.slots[place(object.key)].as_mut().filter(|slot| slot.key == object.key);
        if let Some(slot) = slot
            && let [only] = slot.variants.objects()
            && Arc::ptr_eq(only, object)
            && object.selecting().is_empty()
            && (slot.prepared.is_some() || slot.share.grow(prepared_bytes(&fields)))
        {
            let fields = Rc::new(SharedFields::of(fields));
            slot.report();
            slot.prepared = Some(Prepared { object: object.clone(), fields, until_ms });
        }
    }
}

impl Slot {
    fn report(&mut self) {
        if let Some(prepared) = &self.prepared {
            prepared.object.hits.fetch_add(self.uses - self.told, Ordering::Relaxed);
        }
        self.told = self.uses;
    }
}

/// What the fields of an answer take up: a map of them beside their lines.
fn prepared_bytes(fields: &HeaderMap) -> u64 {
    2 * lines_bytes(fields) as u64 + (fields.len() * MAP_BYTES) as u64
}

const fn place(key: ObjectKey) -> usize {
    (key.0 >> 64) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use bytes::Bytes;
    use http::{HeaderValue, StatusCode};
    use shoal_model::site::Replicate;
    use shoal_policy::cache::storage::Terms;
    use shoal_policy::cache::stored_fields::StoredFields;

    use super::*;
    use crate::object::{OnDisk, Rare, UNCOPIED};
    use crate::stored_body::StoredBody;

    fn variants(key: u128, field: &str, body_bytes: usize) -> Variants {
        let object = Object {
            key: ObjectKey(key),
            text: "http://a.org/ r".into(),
            rare: Rare::default(),
            status: StatusCode::OK,
            fields: StoredFields::from_iter([(http::header::ETAG, HeaderValue::from_str(field).unwrap())]),
            terms: Terms::default(),
            body: StoredBody::whole(&[Bytes::from(vec![0; body_bytes])]),
            body_bytes: 0,
            fill_seq: 0,
            checked_seq: AtomicU64::new(0),
            replicate: Replicate::Never,
            hits: AtomicU32::new(0),
            edition: AtomicU32::new(0),
            used_ms: AtomicU64::new(0),
            heat: AtomicU64::new(0),
            copied_from: None,
            copied_under: AtomicU64::new(UNCOPIED),
            disk: OnDisk::default(),
        };
        Variants::default().with(object.seal())
    }

    const fn key(place: u128) -> u128 {
        place << 64
    }

    fn held(hot: &HotObjects) -> u64 {
        hot.budget.held_bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn fields_count_as_bodies_do() {
        let mut hot = HotObjects::new(Arc::new(HotBudget::new(u64::MAX)));
        for (field, body_bytes, fits) in [
            ("", 1000, true),
            ("", MAX_SLOT_BYTES as usize, false),
            (&*"x".repeat(1000), 0, true),
            (&*"x".repeat(MAX_SLOT_BYTES as usize), 0, false),
        ] {
            hot.slots.iter_mut().for_each(|slot| *slot = None);
            hot.keep(ObjectKey(key(1)), &variants(key(1), field, body_bytes));
            assert_eq!(hot.variants(ObjectKey(key(1))).is_some(), fits, "{} {body_bytes}", field.len());
            assert_eq!(held(&hot) > 1000, fits);
        }
    }

    #[test]
    fn all_places_together_keep_within_the_budget() {
        let budget = Arc::new(HotBudget::new(100_000));
        let mut workers = [HotObjects::new(budget.clone()), HotObjects::new(budget.clone())];
        for n in 0..SLOTS as u128 {
            for hot in &mut workers {
                hot.keep(ObjectKey(key(n)), &variants(key(n), "", 5000));
                let only = hot.slots[n as usize].as_ref().map(|slot| slot.variants.objects()[0].clone());
                let fields = HeaderMap::from_iter([(http::header::AGE, HeaderValue::from_static("1"))]);
                only.iter().for_each(|object| hot.prepare(object, fields.clone(), 1));
                assert!(held(hot) <= 100_000);
            }
        }
        assert!(held(&workers[0]) > 90_000);
        drop(workers);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_the_store_has_let_go_of_does_not_stay() {
        let mut hot = HotObjects::new(Arc::new(HotBudget::new(u64::MAX)));
        let kept: Vec<_> = (0..100).map(|n| variants(key(n), "", 1000)).collect();
        for variants in &kept {
            hot.keep(variants.key(), variants);
        }
        kept.iter().for_each(|variants| variants.supersede());
        let other = variants(key(200), "", 1000);
        for _ in 0..SLOTS / SWEEP {
            hot.keep(ObjectKey(key(200)), &other);
        }
        assert_eq!(held(&hot), other.weight());
        assert!(kept.iter().all(|variants| Arc::strong_count(&variants.objects()[0]) == 1));
    }
}
