//! The objects that share a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shoal_policy::cache::key::ObjectKey;

use crate::object::{Object, allocated_bytes};
use crate::residents::{PLACE_BYTES, Resident};

/// Variants of one URL on one route that are kept; the one unused for longest goes first.
pub(crate) const MAX_VARIANTS: usize = 32;

/// The objects of one key, as they are at one time. Whoever keeps them can tell when there is a newer state of things.
/// Nearly all keys have one object, and need nothing beside it.
#[derive(Clone, Default)]
pub(crate) enum Variants {
    #[default]
    Nothing,
    One {
        object: Arc<Object>,
        /// What [`Object::edition`] says as long as this is so.
        edition: u32,
    },
    Several(Arc<Several>),
}

/// More than one.
pub(crate) struct Several {
    objects: Box<[Arc<Object>]>,
    is_superseded: AtomicBool,
}

impl Variants {
    fn of(mut objects: Vec<Arc<Object>>) -> Self {
        match objects.len() {
            0 => Self::Nothing,
            1 => Self::one(objects.remove(0)),
            _ => Self::Several(Arc::new(Several {
                objects: objects.into(),
                is_superseded: AtomicBool::new(false),
            })),
        }
    }

    fn one(object: Arc<Object>) -> Self {
        let edition = object.edition.load(Ordering::Acquire);
        Self::One { object, edition }
    }

    /// All of them.
    pub(crate) fn objects(&self) -> &[Arc<Object>] {
        match self {
            Self::Nothing => &[],
            Self::One { object, .. } => std::slice::from_ref(object),
            Self::Several(several) => &several.objects,
        }
    }

    /// The same with `object` in it, in the place of the one with the same selecting fields.
    pub(crate) fn with(&self, object: Arc<Object>) -> Self {
        let is_other = |known: &&Arc<Object>| !known.has_place_of(&object);
        let mut objects: Vec<Arc<Object>> = self.objects().iter().filter(is_other).cloned().collect();
        let rivals = || objects.iter().filter(|known| known.text == object.text);
        if rivals().count() >= MAX_VARIANTS {
            let oldest = rivals().min_by_key(|known| known.used_ms.load(Ordering::Relaxed)).cloned();
            objects.retain(|known| oldest.as_ref().is_none_or(|oldest| !Arc::ptr_eq(known, oldest)));
        }
        objects.push(object);
        Self::of(objects)
    }

    /// The same without `object`.
    pub(crate) fn without(&self, object: &Object) -> Self {
        let others = self.objects().iter().filter(|known| !known.is_same_as(object));
        Self::of(others.cloned().collect())
    }

    /// This is no longer what the store holds.
    pub(crate) fn is_superseded(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::One { object, edition } => object.edition.load(Ordering::Acquire) != *edition,
            Self::Several(several) => several.is_superseded.load(Ordering::Acquire),
        }
    }

    /// From now on it is not.
    pub(crate) fn supersede(&self) {
        match self {
            Self::Nothing => {}
            Self::One { object, .. } => _ = object.edition.fetch_add(1, Ordering::Release),
            Self::Several(several) => several.is_superseded.store(true, Ordering::Release),
        }
    }

    /// The newest state of things, though its one object may have been a part of an older one.
    pub(crate) fn renewed(self) -> Self {
        match self {
            Self::One { object, .. } => Self::one(object),
            Self::Nothing | Self::Several(_) => self,
        }
    }
}

impl Resident for Variants {
    fn key(&self) -> ObjectKey {
        self.objects().first().map_or(ObjectKey(0), |object| object.key)
    }

    fn weight(&self) -> u64 {
        let list_bytes = match self {
            Self::Nothing | Self::One { .. } => 0,
            Self::Several(several) => {
                allocated_bytes(size_of::<Several>() + 16)
                    + allocated_bytes(size_of_val::<[Arc<Object>]>(&several.objects))
            }
        };
        PLACE_BYTES + list_bytes + self.objects().iter().map(|object| object.weight()).sum::<u64>()
    }

    /// Who has them at hand learns that they may not be what is stored any more.
    fn left(&self) {
        self.supersede();
    }
}
