//! What is on disk, and where: a table of our own, small enough that millions of objects have room.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use shoal_policy::cache::key::ObjectKey;

use super::list::Listed;
use super::record::{Kind, Place, RecordHead, UNIT};

/// Locks the entries are spread over.
const SHARDS: usize = 64;
/// Variants of one key, on whatever routes; the oldest goes first.
const MAX_PER_KEY: usize = 64;

/// An object on disk, in 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    key: [u32; 4],
    pub place: Place,
    /// Of the record, in [`UNIT`]s.
    pub units: u32,
    /// When it is of no more use, Unix seconds as far as they fit.
    pub expires: u32,
    fill_seq: [u16; 3],
    checked_seq: [u16; 3],
    pub variant: u16,
    /// How often it was read since it was written, as far as that fits.
    pub hits: u16,
}

const _: () = assert!(size_of::<Entry>() == 48);

impl Entry {
    /// Of the record with `head` at `place`; `None` = it does not fit.
    pub fn of(head: &RecordHead, place: Place) -> Option<Self> {
        Some(Self {
            key: words(head.key),
            place,
            units: u32::try_from(head.record_bytes()? / UNIT).ok()?,
            expires: u32::try_from(head.expires).unwrap_or(u32::MAX),
            fill_seq: narrow(head.fill_seq),
            checked_seq: narrow(head.checked_seq),
            variant: head.variant,
            hits: 0,
        })
    }

    pub fn key(&self) -> ObjectKey {
        let [a, b, c, d] = self.key.map(u128::from);
        ObjectKey(a | b << 32 | c << 64 | d << 96)
    }

    pub fn fill_seq(&self) -> u64 {
        wide(self.fill_seq)
    }

    pub fn checked_seq(&self) -> u64 {
        wide(self.checked_seq)
    }

    pub fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT
    }

    /// It describes the same variant of the same key.
    fn has_place_of(&self, other: &Self) -> bool {
        self.key == other.key && self.variant == other.variant
    }

    /// It is the same record.
    fn is_at_place_of(&self, other: &Self) -> bool {
        self.key == other.key && self.place == other.place
    }
}

fn words(key: ObjectKey) -> [u32; 4] {
    [key.0 as u32, (key.0 >> 32) as u32, (key.0 >> 64) as u32, (key.0 >> 96) as u32]
}

/// Log indexes have 48 bits: a thousand entries a second for nine thousand years.
fn narrow(seq: u64) -> [u16; 3] {
    let seq = seq.min((1 << 48) - 1);
    [seq as u16, (seq >> 16) as u16, (seq >> 32) as u16]
}

fn wide(seq: [u16; 3]) -> u64 {
    let [a, b, c] = seq.map(u64::from);
    a | b << 16 | c << 32
}

/// Every object on disk.
pub(super) struct Index {
    shards: [Mutex<HashTable<Entry>>; SHARDS],
}

impl Index {
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(HashTable::new())) }
    }

    /// Puts `entry` in, in the place of the one before.
    pub fn insert(&self, entry: Entry) {
        let mut shard = self.shard(entry.key());
        let hash = hash_of(&entry);
        if let Some(known) = shard.find_mut(hash, |known| known.has_place_of(&entry)) {
            *known = entry;
            return;
        }
        let siblings = || shard.iter_hash(hash).filter(|known| known.key == entry.key);
        let oldest = (siblings().count() >= MAX_PER_KEY).then(|| siblings().map(|known| known.place).min());
        if let Some(oldest) = oldest.flatten()
            && let Ok(found) = shard.find_entry(hash, |known| known.key == entry.key && known.place == oldest)
        {
            found.remove();
        }
        shard.insert_unique(hash, entry, hash_of);
    }

    /// What there is of `key`, newest record first.
    pub fn find(&self, key: ObjectKey) -> Vec<Entry> {
        let words = words(key);
        let shard = self.shard(key);
        let of_key = shard.iter_hash(key_hash(key)).filter(|entry| entry.key == words);
        let mut found: Vec<Entry> = of_key.copied().collect();
        found.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.place));
        found
    }

    /// There is something of `key` that is of use after `now`, Unix seconds.
    pub fn has(&self, key: ObjectKey, now: u64) -> bool {
        let words = words(key);
        let is_of_use = |entry: &Entry| entry.key == words && u64::from(entry.expires) > now;
        self.shard(key).iter_hash(key_hash(key)).any(is_of_use)
    }

    /// `entry` is still what there is.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.shard(entry.key()).find(hash_of(entry), |known| known.is_at_place_of(entry)).is_some()
    }

    /// `entry` was read.
    pub fn used(&self, entry: &Entry) {
        let mut shard = self.shard(entry.key());
        if let Some(known) = shard.find_mut(hash_of(entry), |known| known.is_at_place_of(entry)) {
            known.hits = known.hits.saturating_add(1);
        }
    }

    /// Takes `entry` out, if nothing has come in its place.
    pub fn remove(&self, entry: &Entry) -> bool {
        let mut shard = self.shard(entry.key());
        let found = shard.find_entry(hash_of(entry), |known| known.is_at_place_of(entry));
        found.map(|found| found.remove()).is_ok()
    }

    /// Takes out all of `key`, or one variant of it; says how many that were.
    pub fn forget(&self, key: ObjectKey, variant: Option<u16>) -> usize {
        let is_meant = |entry: &Entry| variant.is_none_or(|variant| variant == entry.variant);
        self.find(key).iter().filter(|entry| is_meant(entry) && self.remove(entry)).count()
    }

    /// Takes out everything; says how much that was.
    pub fn clear(&self) -> usize {
        self.shards.iter().map(|shard| std::mem::take(&mut *lock(shard)).len()).sum()
    }

    /// Takes out what is in `segment`, and answers it.
    pub fn take_segment(&self, segment: u32) -> Vec<Entry> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|entry| {
                let stays = entry.place.segment != segment;
                if !stays {
                    taken.push(*entry);
                }
                stays
            });
        }
        taken
    }

    /// What is in `segment`, in the order of its records.
    pub fn of_segment(&self, segment: u32) -> Vec<Entry> {
        let mut found: Vec<Entry> = Vec::new();
        for shard in &self.shards {
            found.extend(lock(shard).iter().filter(|entry| entry.place.segment == segment).copied());
        }
        found.sort_unstable_by_key(|entry| entry.place);
        found
    }

    /// Parts that are looked at one by one.
    pub const fn shards(&self) -> usize {
        SHARDS
    }

    /// What was neither filled nor checked at `seq` or later, in one part.
    pub fn older_than(&self, shard: usize, seq: u64) -> Vec<Entry> {
        let is_older = |entry: &&Entry| entry.fill_seq().max(entry.checked_seq()) < seq;
        lock(&self.shards[shard]).iter().filter(is_older).copied().collect()
    }

    /// `entry` is known to be valid up to `seq`.
    pub fn set_checked(&self, entry: &Entry, seq: u64) {
        let mut shard = self.shard(entry.key());
        if let Some(known) = shard.find_mut(hash_of(entry), |known| known.is_at_place_of(entry)) {
            known.checked_seq = narrow(seq.max(known.checked_seq()));
        }
    }

    /// Notes in `record` how far its object was checked. False = it is of one that is found there no longer.
    pub fn raise(&self, record: &mut Listed) -> bool {
        let Some(written) = Entry::of(&record.head, record.place) else { return false };
        let shard = self.shard(record.head.key);
        let known = shard.find(hash_of(&written), |known| known.is_at_place_of(&written));
        if let Some(known) = known {
            record.head.checked_seq = record.head.checked_seq.max(known.checked_seq());
        }
        known.is_some()
    }

    /// The same; what is found there no longer is gone, and so is what it took the place of.
    pub fn refresh(&self, record: &mut Listed) {
        if record.head.kind == Kind::Object && !self.raise(record) {
            record.head.kind = Kind::VariantGone;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, key: ObjectKey) -> MutexGuard<'_, HashTable<Entry>> {
        lock(&self.shards[key.0 as usize % SHARDS])
    }
}

fn lock(shard: &Mutex<HashTable<Entry>>) -> MutexGuard<'_, HashTable<Entry>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keys are hashes already; the bits that choose the shard are not used again.
fn key_hash(key: ObjectKey) -> u64 {
    (key.0 >> 64) as u64
}

fn hash_of(entry: &Entry) -> u64 {
    key_hash(entry.key())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u128, variant: u16, segment: u32, offset: u32) -> Entry {
        let head = RecordHead {
            kind: Kind::Object,
            variant,
            key: ObjectKey(key),
            fill_seq: 1 << 47,
            checked_seq: u64::MAX,
            expires: u64::MAX,
            body_bytes: 100,
            meta_bytes: 10,
        };
        Entry::of(&head, Place { segment, offset }).unwrap()
    }

    #[test]
    fn an_entry_says_what_its_record_says() {
        let entry = entry(u128::MAX - 9, 5, 1, 2);
        assert_eq!(entry.key(), ObjectKey(u128::MAX - 9));
        assert_eq!((entry.fill_seq(), entry.checked_seq()), (1 << 47, (1 << 48) - 1));
        assert_eq!((entry.bytes(), entry.expires, entry.place.byte()), (192, u32::MAX, 128));
    }

    #[test]
    fn a_record_takes_the_place_of_the_one_before_and_variants_are_bounded() {
        let index = Index::new();
        index.insert(entry(1, 0, 1, 1));
        index.insert(entry(1, 0, 2, 1));
        assert_eq!(index.find(ObjectKey(1)), [entry(1, 0, 2, 1)]);
        assert!(!index.remove(&entry(1, 0, 1, 1)), "it is not there any more");
        for variant in 1..=MAX_PER_KEY as u16 {
            index.insert(entry(1, variant, 3, u32::from(variant)));
        }
        let found = index.find(ObjectKey(1));
        assert_eq!((found.len(), index.len()), (MAX_PER_KEY, MAX_PER_KEY));
        assert_eq!(found[0].variant, MAX_PER_KEY as u16, "newest first");
        assert!(!index.holds(&entry(1, 0, 2, 1)), "the oldest went");
        assert_eq!(index.forget(ObjectKey(1), Some(7)), 1);
        assert_eq!(index.forget(ObjectKey(1), None), MAX_PER_KEY - 1);
    }

    #[test]
    fn what_is_of_no_more_use_is_not_there() {
        let index = Index::new();
        index.insert(Entry { expires: 100, ..entry(1, 0, 1, 1) });
        assert!(index.has(ObjectKey(1), 99) && !index.has(ObjectKey(1), 100));
        index.insert(Entry { expires: 200, ..entry(1, 1, 1, 2) });
        assert!(index.has(ObjectKey(1), 100) && !index.has(ObjectKey(2), 0));
    }

    #[test]
    fn segments_go_as_a_whole() {
        let index = Index::new();
        (0..100).for_each(|n| index.insert(entry(n << 64, 0, n as u32 % 2, n as u32)));
        assert_eq!(index.of_segment(0).len(), 50);
        let taken = index.take_segment(0);
        assert!(taken.len() == 50 && taken.iter().all(|entry| entry.place.segment == 0));
        assert_eq!((index.len(), index.clear(), index.len()), (50, 50, 0));
    }

    #[test]
    fn a_million_objects_have_room() {
        let index = Index::new();
        for n in 0..1_000_000u128 {
            // Keys are hashes.
            let key = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            index.insert(entry(key, 0, 0, n as u32));
        }
        let bytes: usize = index.shards.iter().map(|shard| lock(shard).allocation_size()).sum();
        assert!(bytes / 1_000_000 <= 110, "{} bytes each", bytes / 1_000_000);
    }
}
