//! What lies in memory under keys, within a budget of bytes: what is asked for again stays, what is not makes room.
//!
//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), weighed in bytes. Newcomers stand in
//! a short line: who is asked for there moves on to the long one, who is not goes, so that a scan takes nothing with it. One
//! that would fill that line has a line of its own, with the same rules.
//! Finding writes no more than a byte, under a lock that finders share.

mod shard;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use shoal_policy::cache::key::ObjectKey;

use shard::{LineName, Shard};

/// Most locks the keys are spread over, and so many bytes of the budget have one.
const MAX_SHARDS: u64 = 64;
const SHARD_BYTES: u64 = 1 << 20;
/// What newcomers may take of the budget: this fraction. Who is heavier than half of that is heavy.
const TRIAL_SHARE: u64 = 10;
/// What heavy newcomers may take, but for the last one: this fraction.
const HEAVY_SHARE: u64 = 4;
/// What a key costs here beside what it leads to: its place, its share of the table, and of the memory of those that went.
pub(crate) const PLACE_BYTES: u64 = 48;

/// What can lie here.
pub(crate) trait Resident: Clone {
    /// What it lies under: the same as long as it does.
    fn key(&self) -> ObjectKey;
    /// What it is charged with, bytes: the same as long as it lies here.
    fn weight(&self) -> u64;
    /// It lies here no longer. Called before anybody can see that, so that whoever does not find it any more can rely on it.
    fn left(&self);
}

/// What lies in memory, each under its key.
pub(crate) struct Residents<R> {
    shards: Box<[RwLock<Shard<R>>]>,
    budget_bytes: u64,
    held: Held,
    /// The shard that makes room next.
    hand: AtomicUsize,
}

/// How much there is in all shards.
#[derive(Default)]
struct Held {
    count: AtomicU64,
    bytes: AtomicU64,
    /// Of newcomers.
    trial_bytes: AtomicU64,
    /// Of heavy ones, and how many they are.
    heavy_bytes: AtomicU64,
    heavy_count: AtomicU64,
    /// Of newcomers since the last time that a heavy one was judged.
    passed_bytes: AtomicU64,
    /// Places that nobody has: they are charged with what a key costs here.
    vacant: AtomicU64,
}

impl<R: Resident> Residents<R> {
    /// Nothing yet, and never more than so many bytes when nobody is just putting something in.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let shards = (budget_bytes / SHARD_BYTES).clamp(1, MAX_SHARDS).next_power_of_two();
        let shards = (0..shards).map(|_| RwLock::new(Shard::new())).collect();
        Self { shards, budget_bytes, held: Held::default(), hand: AtomicUsize::new(0) }
    }

    /// Bytes of what it holds at most.
    pub(crate) const fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// What lies under `key`: it is in use.
    pub(crate) fn find(&self, key: ObjectKey) -> Option<R> {
        let shard = self.read(key);
        shard.use_at(shard.find(key)?)
    }

    /// What lies under `key`. That is no use of it.
    pub(crate) fn peek(&self, key: ObjectKey) -> Option<R> {
        let shard = self.read(key);
        shard.peek_at(shard.find(key)?)
    }

    /// Something lies under `key`. Asking is no use of it.
    pub(crate) fn has(&self, key: ObjectKey) -> bool {
        self.read(key).find(key).is_some()
    }

    /// Puts `resident` in, in the place of what lay under its key, and tells who had to go to make room.
    pub(crate) fn insert(&self, resident: R, mut on_eviction: impl FnMut(R)) {
        if resident.weight() > self.budget_bytes {
            self.remove(resident.key());
            resident.left();
            return on_eviction(resident);
        }
        let is_heavy = resident.weight() > self.budget_bytes / TRIAL_SHARE / 2;
        let key = resident.key();
        // Dropped outside of the lock.
        let _before = self.write(self.shard_of(key)).put(resident, is_heavy, &self.held);
        while self.held.charged_bytes() > self.budget_bytes
            && let Some(evicted) = self.evict(key)
        {
            on_eviction(evicted);
        }
    }

    /// Takes out what lies under `key`.
    pub(crate) fn remove(&self, key: ObjectKey) -> Option<R> {
        let mut shard = self.write(self.shard_of(key));
        let at = shard.find(key)?;
        shard.take(at, &self.held)
    }

    /// Looks at all that lies here now, and keeps nobody from using it.
    pub(crate) fn each(&self, mut look: impl FnMut(&R)) {
        for shard in &self.shards {
            let there = shard.read().unwrap_or_else(PoisonError::into_inner).all();
            there.iter().for_each(&mut look);
        }
    }

    /// How many keys there are.
    pub(crate) fn count(&self) -> u64 {
        self.held.count.load(Ordering::Relaxed)
    }

    /// What they are charged with.
    pub(crate) fn bytes(&self) -> u64 {
        self.held.bytes.load(Ordering::Relaxed)
    }

    /// Lets go of the next one in line; of a newcomer, while they have more than their share. A heavy one goes when there
    /// are too many of them, or when as many bytes have passed it as pass others; but not the `newest`.
    fn evict(&self, newest: ObjectKey) -> Option<R> {
        let held = &self.held;
        let trial_share = self.budget_bytes / TRIAL_SHARE;
        let is_crowded = held.trial_bytes.load(Ordering::Relaxed) > trial_share;
        let is_passed = held.passed_bytes.load(Ordering::Relaxed) > trial_share;
        let too_many = held.heavy_count.load(Ordering::Relaxed) > 1
            && held.heavy_bytes.load(Ordering::Relaxed) > self.budget_bytes / HEAVY_SHARE;
        if is_passed {
            held.passed_bytes.store(0, Ordering::Relaxed);
        }
        let light =
            if is_crowded { [LineName::Trial, LineName::Main] } else { [LineName::Main, LineName::Trial] };
        let first = (is_passed || too_many).then_some(LineName::Heavy);
        first.into_iter().chain(light).chain([LineName::Heavy]).find_map(|line| {
            if line == LineName::Heavy && held.heavy_count.load(Ordering::Relaxed) == 0 {
                return None;
            }
            (0..self.shards.len()).find_map(|_| {
                let at = self.hand.fetch_add(1, Ordering::Relaxed) % self.shards.len();
                self.write(at).evict(line, newest, held)
            })
        })
    }

    fn shard_of(&self, key: ObjectKey) -> usize {
        (key.0 >> 64) as usize % self.shards.len()
    }

    fn read(&self, key: ObjectKey) -> RwLockReadGuard<'_, Shard<R>> {
        self.shards[self.shard_of(key)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, at: usize) -> RwLockWriteGuard<'_, Shard<R>> {
        self.shards[at].write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn add(&self, line: LineName, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.of_line(line).inspect(|sum| _ = sum.fetch_add(bytes, Ordering::Relaxed));
    }

    fn sub(&self, line: LineName, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.of_line(line).inspect(|sum| _ = sum.fetch_sub(bytes, Ordering::Relaxed));
    }

    const fn of_line(&self, line: LineName) -> Option<&AtomicU64> {
        match line {
            LineName::Trial => Some(&self.trial_bytes),
            LineName::Heavy => Some(&self.heavy_bytes),
            LineName::Main => None,
        }
    }

    /// What lies here, and the places that nobody has.
    fn charged_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) + self.vacant.load(Ordering::Relaxed) * PLACE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key and weight.
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Piece(u128, u64);

    impl Resident for Piece {
        fn key(&self) -> ObjectKey {
            key(self.0)
        }

        fn weight(&self) -> u64 {
            self.1
        }

        fn left(&self) {}
    }

    /// Keys are hashes: this one of a number.
    fn key(number: u128) -> ObjectKey {
        ObjectKey((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn put(residents: &Residents<Piece>, piece: Piece) -> Vec<Piece> {
        let mut evicted = Vec::new();
        residents.insert(piece, |piece| evicted.push(piece));
        evicted
    }

    fn all(residents: &Residents<Piece>) -> Vec<Piece> {
        let mut all = Vec::new();
        residents.each(|piece| all.push(*piece));
        all
    }

    #[test]
    fn what_lies_there_is_found_until_it_is_taken_out() {
        let residents = Residents::new(1 << 30);
        for number in 0..10_000 {
            assert_eq!(put(&residents, Piece(number, 10)), []);
        }
        assert_eq!((residents.count(), residents.bytes()), (10_000, 100_000));
        assert_eq!(put(&residents, Piece(7, 30)), []);
        assert_eq!((residents.count(), residents.bytes()), (10_000, 100_020));
        assert_eq!(residents.find(key(7)), Some(Piece(7, 30)));
        assert_eq!(residents.remove(key(7)), Some(Piece(7, 30)));
        assert_eq!(residents.remove(key(7)), None);
        assert!(!residents.has(key(7)) && residents.peek(key(7)).is_none());
        assert_eq!(all(&residents).len(), 9999);
        for number in (0..10_000).filter(|number| *number != 7) {
            assert_eq!(residents.remove(key(number)), Some(Piece(number, 10)));
        }
        assert_eq!((residents.count(), residents.bytes()), (0, 0));
        assert_eq!(residents.held.trial_bytes.load(Ordering::Relaxed), 0);
    }

    /// Places there are, and those that nobody has.
    fn places(residents: &Residents<Piece>) -> (usize, u64) {
        let places = |shard: &RwLock<Shard<Piece>>| shard.read().unwrap().places();
        (residents.shards.iter().map(places).sum(), residents.held.vacant.load(Ordering::Relaxed))
    }

    #[test]
    fn vacant_places_are_used_again_given_back_and_charged() {
        let residents = Residents::new(1 << 20);
        (0..1000).for_each(|number| _ = put(&residents, Piece(number, 100)));
        assert_eq!(places(&residents), (1024, 24));
        (0..400).for_each(|number| _ = residents.remove(key(number)));
        assert_eq!(places(&residents), (1024, 424));
        assert_eq!(residents.held.charged_bytes(), 600 * 100 + 424 * PLACE_BYTES);
        (0..400).for_each(|number| _ = put(&residents, Piece(number, 100)));
        assert_eq!(places(&residents), (1024, 24));
        (0..900).for_each(|number| _ = residents.remove(key(number)));
        let (all, vacant) = places(&residents);
        assert!(all < 300 && vacant == all as u64 - 100, "{vacant} of {all}");
        assert!((900..1000).all(|number| residents.peek(key(number)) == Some(Piece(number, 100))));
        // Small ones make room for large ones, and so do their places.
        (0..20_000).for_each(|number| _ = put(&residents, Piece(number, 50)));
        (50_000..50_100).for_each(|number| _ = put(&residents, Piece(number, 20_000)));
        let (all, vacant) = places(&residents);
        assert!(
            all as u64 * 48 < (1 << 20) / 4 && residents.held.charged_bytes() <= 1 << 20,
            "{vacant} of {all}"
        );
    }

    #[test]
    fn who_moves_keeps_his_place_in_line_and_his_uses() {
        let residents = Residents::new(1_000_000);
        (0..900).for_each(|number| _ = put(&residents, Piece(number, 1000)));
        (0..50).for_each(|number| _ = residents.find(key(number)));
        (100..900).for_each(|number| _ = residents.remove(key(number)));
        assert!(places(&residents).0 < 400, "they have moved together");
        (1000..3000).for_each(|number| _ = put(&residents, Piece(number, 1000)));
        assert!((0..50).all(|number| residents.has(key(number))), "they were asked for");
        assert!((50..100).all(|number| !residents.has(key(number))), "they were not");
    }

    #[test]
    fn a_scan_of_heavy_ones_takes_with_it_no_more_than_their_share() {
        // By weight: what the scan takes of 900 that were in use, in thousandths of the budget.
        for (weight, most_lost) in
            [(51_000, 250), (100_000, 250), (240_000, 250), (400_000, 400), (500_000, 500)]
        {
            let residents = Residents::new(1_000_000);
            for number in 0..900 {
                put(&residents, Piece(number, 1000));
                _ = residents.find(key(number));
            }
            for number in 10_000..10_200 {
                put(&residents, Piece(number, weight));
                assert!(residents.has(key(number)), "the last one of {weight} is there");
            }
            let lost = (0..900).filter(|number| !residents.has(key(*number))).count();
            assert!(lost <= most_lost, "{lost} went for those of {weight}");
        }
    }

    #[test]
    fn there_is_never_more_than_the_budget_and_nothing_is_lost_but_what_is_told() {
        for budget in [50_000, 3 << 20] {
            let residents = Residents::new(budget);
            let mut gone = 0;
            for number in 0..20_000_u128 {
                let weight = 100 + (number as u64 * 7919) % 900;
                gone += put(&residents, Piece(number % 7000, weight)).len();
                _ = residents.find(key(number * 31 % 7000));
                assert!(residents.bytes() <= budget);
            }
            let all = all(&residents);
            assert_eq!(all.len() as u64, residents.count());
            assert_eq!(all.iter().map(|piece| piece.1).sum::<u64>(), residents.bytes());
            assert!(gone > 0 && residents.bytes() > budget / 2);
        }
    }

    #[test]
    fn what_is_asked_for_again_stays_while_others_pass_through() {
        let residents = Residents::new(100_000);
        for number in 0..50 {
            put(&residents, Piece(number, 1000));
            _ = residents.find(key(number));
        }
        for number in 100..10_000 {
            put(&residents, Piece(number, 1000));
        }
        assert!((0..50).all(|number| residents.has(key(number))));
    }

    #[test]
    fn what_comes_back_soon_was_let_go_too_early() {
        let residents = Residents::new(100_000);
        // The long line is full of what was in use once.
        for number in 0..90 {
            put(&residents, Piece(number, 1000));
            _ = residents.find(key(number));
        }
        for number in 100..140 {
            put(&residents, Piece(number, 1000));
        }
        let back = (100..140).find(|number| !residents.has(key(*number))).unwrap();
        put(&residents, Piece(back, 1000));
        for number in 1000..1040 {
            put(&residents, Piece(number, 1000));
        }
        assert!(residents.has(key(back)), "it stands in the long line now");
    }

    #[test]
    fn the_heavy_ones_do_not_go_at_once_nor_does_anything_outgrow_the_budget() {
        let residents = Residents::new(1_000_000);
        for number in 0..1000 {
            put(&residents, Piece(number, 900));
        }
        put(&residents, Piece(5000, 400_000));
        assert!(residents.has(key(5000)));
        for number in 2000..2100 {
            put(&residents, Piece(number, 900));
        }
        assert!(residents.has(key(5000)), "it stands as long as others do");
        let goes_by = |number: u128| {
            put(&residents, Piece(number, 900));
            !residents.has(key(5000))
        };
        assert!((2100..2200).any(goes_by), "nobody has asked for it");
        put(&residents, Piece(5000, 400_000));
        for number in 3000..3400 {
            put(&residents, Piece(number, 900));
        }
        assert!(residents.has(key(5000)), "it came back soon");
        assert_eq!(put(&residents, Piece(5000, 1_000_001)), [Piece(5000, 1_000_001)]);
        assert!(!residents.has(key(5000)) && residents.count() > 500, "for what does not fit nobody goes");
    }
}
