//! Some of the keys, under one lock: their places, and the lines they stand in.

use std::sync::atomic::{AtomicU8, Ordering};

use hashbrown::HashTable;
use shoal_policy::cache::key::ObjectKey;

use super::{Held, Resident};

/// Uses that count.
const MOST_USES: u8 = 3;
/// Places that are made at once.
const CHUNK: usize = 64;
/// No place.
const NOWHERE: u32 = u32::MAX;

/// Some of the keys: where each of them is, and how they stand in line.
pub(super) struct Shard<R> {
    /// Places by key.
    table: HashTable<u32>,
    chunks: Vec<Box<[Place<R>]>>,
    /// Places that were in use and are not.
    vacant: Vec<u32>,
    trial: Line,
    heavy: Line,
    main: Line,
    /// Marks of those that went from the trial line, as of late; where two would be in one place, the later one is.
    gone: Box<[u32]>,
}

/// Where one lies, and where it stands in line.
struct Place<R> {
    resident: Option<R>,
    /// Neighbours in line.
    ahead: u32,
    behind: u32,
    uses: AtomicU8,
    stands_in: LineName,
}

/// Which line it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LineName {
    Trial,
    Heavy,
    Main,
}

/// A line of places: new ones at its end.
struct Line {
    first: u32,
    last: u32,
}

impl<R: Resident> Shard<R> {
    pub(super) fn new() -> Self {
        let line = || Line { first: NOWHERE, last: NOWHERE };
        Self {
            table: HashTable::new(),
            chunks: Vec::new(),
            vacant: Vec::new(),
            trial: line(),
            heavy: line(),
            main: line(),
            gone: Box::default(),
        }
    }

    fn place(&self, at: u32) -> &Place<R> {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn place_mut(&mut self, at: u32) -> &mut Place<R> {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    /// What is `at` a place: it is in use.
    pub(super) fn use_at(&self, at: u32) -> Option<R> {
        let place = self.place(at);
        let uses = place.uses.load(Ordering::Relaxed);
        if uses < MOST_USES {
            place.uses.store(uses + 1, Ordering::Relaxed);
        }
        place.resident.clone()
    }

    /// What is `at` a place. That is no use of it.
    pub(super) fn peek_at(&self, at: u32) -> Option<R> {
        self.place(at).resident.clone()
    }

    /// All that is there.
    pub(super) fn all(&self) -> Vec<R> {
        self.chunks.iter().flatten().filter_map(|place| place.resident.clone()).collect()
    }

    /// Places there are, whoever has them.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    fn key_at(&self, at: u32) -> Option<ObjectKey> {
        self.place(at).resident.as_ref().map(Resident::key)
    }

    /// The place of `key`.
    pub(super) fn find(&self, key: ObjectKey) -> Option<u32> {
        self.table.find(hash_of(key), |at| self.key_at(*at) == Some(key)).copied()
    }

    /// Puts `resident` in; answers what it takes the place of.
    pub(super) fn put(&mut self, resident: R, is_heavy: bool, held: &Held) -> Option<R> {
        let (key, weight) = (resident.key(), resident.weight());
        if let Some(at) = self.find(key) {
            let place = self.place_mut(at);
            let before = place.resident.replace(resident);
            *place.uses.get_mut() = (*place.uses.get_mut() + 1).min(MOST_USES);
            let line = place.stands_in;
            held.add(line, weight);
            held.sub(line, before.as_ref().map_or(0, Resident::weight));
            return before;
        }
        let line = match self.was_here(key) {
            true => LineName::Main,
            false if is_heavy => LineName::Heavy,
            false => LineName::Trial,
        };
        match line {
            LineName::Trial => _ = held.passed_bytes.fetch_add(weight, Ordering::Relaxed),
            LineName::Heavy => {
                held.heavy_count.fetch_add(1, Ordering::Relaxed);
                held.passed_bytes.store(0, Ordering::Relaxed);
            }
            LineName::Main => {}
        }
        self.find_place(resident, line, held);
        held.add(line, weight);
        held.count.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Gives `resident` a place at the end of a line, where it can be found.
    fn find_place(&mut self, resident: R, line: LineName, held: &Held) -> u32 {
        let hash = hash_of(resident.key());
        let at = self.settle(resident, held);
        self.join(at, line);
        let Self { table, chunks, .. } = self;
        let hash_at = |at: &u32| {
            let place = &chunks[*at as usize / CHUNK][*at as usize % CHUNK];
            place.resident.as_ref().map_or(0, |resident| hash_of(resident.key()))
        };
        table.insert_unique(hash, at, hash_at);
        at
    }

    /// Gives `resident` a place, in no line yet.
    fn settle(&mut self, resident: R, held: &Held) -> u32 {
        if self.vacant.is_empty() {
            let first = self.chunks.len() * CHUNK;
            let vacant = || Place {
                resident: None,
                ahead: NOWHERE,
                behind: NOWHERE,
                uses: AtomicU8::new(0),
                stands_in: LineName::Trial,
            };
            self.chunks.push((0..CHUNK).map(|_| vacant()).collect());
            // A shard has never as many bytes as would make this too much.
            self.vacant.extend((first..first + CHUNK).rev().filter_map(|at| u32::try_from(at).ok()));
            held.vacant.fetch_add(CHUNK as u64, Ordering::Relaxed);
        }
        let at = self.vacant.pop().unwrap_or(NOWHERE);
        held.vacant.fetch_sub(1, Ordering::Relaxed);
        let place = self.place_mut(at);
        place.resident = Some(resident);
        *place.uses.get_mut() = 0;
        at
    }

    /// Takes what is `at` a place out of everything.
    pub(super) fn take(&mut self, at: u32, held: &Held) -> Option<R> {
        let key = self.key_at(at)?;
        if let Ok(entry) = self.table.find_entry(hash_of(key), |known| *known == at) {
            entry.remove();
        }
        self.leave(at);
        self.vacant.push(at);
        held.vacant.fetch_add(1, Ordering::Relaxed);
        let place = self.place_mut(at);
        let (line, taken) = (place.stands_in, place.resident.take()?);
        taken.left();
        held.sub(line, taken.weight());
        held.count.fetch_sub(1, Ordering::Relaxed);
        if line == LineName::Heavy {
            held.heavy_count.fetch_sub(1, Ordering::Relaxed);
        }
        if self.vacant.len() > CHUNK.max(self.table.len()) {
            self.move_together(held);
        }
        Some(taken)
    }

    /// Gives back the memory of vacant places: everybody gets another one, and stands in line as before.
    fn move_together(&mut self, held: &Held) {
        let mut smaller = Self { gone: std::mem::take(&mut self.gone), ..Self::new() };
        smaller.table.reserve(self.table.len(), |_| 0);
        for line in [LineName::Trial, LineName::Heavy, LineName::Main] {
            let mut at = self.line(line).first;
            while at != NOWHERE {
                let place = self.place_mut(at);
                let (uses, behind) = (*place.uses.get_mut(), place.behind);
                if let Some(resident) = place.resident.take() {
                    let place = smaller.find_place(resident, line, held);
                    *smaller.place_mut(place).uses.get_mut() = uses;
                }
                at = behind;
            }
        }
        held.vacant.fetch_sub(self.vacant.len() as u64, Ordering::Relaxed);
        *self = smaller;
    }

    /// Lets go of the first of a line that was not asked for since it stands there; the others move on. A heavy one that is
    /// the `newest` stays where it is.
    pub(super) fn evict(&mut self, line: LineName, newest: ObjectKey, held: &Held) -> Option<R> {
        let mut at = self.line(line).first;
        while at != NOWHERE {
            let is_spared = line == LineName::Heavy && self.key_at(at) == Some(newest);
            let place = self.place_mut(at);
            let (behind, uses) = (place.behind, place.uses.get_mut());
            if is_spared {
                at = behind;
                continue;
            }
            if *uses == 0 {
                break;
            }
            *uses = if line == LineName::Main { *uses - 1 } else { 0 };
            let weight = place.resident.as_ref().map_or(0, Resident::weight);
            held.of_line(line).inspect(|sum| _ = sum.fetch_sub(weight, Ordering::Relaxed));
            if line == LineName::Heavy {
                held.heavy_count.fetch_sub(1, Ordering::Relaxed);
            }
            self.leave(at);
            self.join(at, LineName::Main);
            at = if line == LineName::Main { self.main.first } else { behind };
        }
        if at == NOWHERE {
            return None;
        }
        let evicted = self.take(at, held)?;
        if line != LineName::Main {
            self.remember(evicted.key());
        }
        Some(evicted)
    }

    /// It went from the trial line not long ago.
    fn was_here(&mut self, key: ObjectKey) -> bool {
        let mark = mark_of(key);
        self.gone_at(key).is_some_and(|place| std::mem::take(place) == mark)
    }

    /// Keeps in mind that `key` went: of as many as are here.
    fn remember(&mut self, key: ObjectKey) {
        let wanted = self.table.len().next_power_of_two();
        if self.gone.len() < wanted {
            self.gone = vec![0; wanted].into();
        }
        if let Some(place) = self.gone_at(key) {
            *place = mark_of(key);
        }
    }

    fn gone_at(&mut self, key: ObjectKey) -> Option<&mut u32> {
        let at = (key.0 >> 72) as usize % self.gone.len().max(1);
        self.gone.get_mut(at)
    }

    fn line(&mut self, line: LineName) -> &mut Line {
        match line {
            LineName::Trial => &mut self.trial,
            LineName::Heavy => &mut self.heavy,
            LineName::Main => &mut self.main,
        }
    }

    /// Stands at the end of a line.
    fn join(&mut self, at: u32, line: LineName) {
        let ahead = std::mem::replace(&mut self.line(line).last, at);
        match ahead {
            NOWHERE => self.line(line).first = at,
            ahead => self.place_mut(ahead).behind = at,
        }
        let place = self.place_mut(at);
        (place.ahead, place.behind, place.stands_in) = (ahead, NOWHERE, line);
    }

    /// Steps out of its line.
    fn leave(&mut self, at: u32) {
        let Place { ahead, behind, stands_in, .. } = *self.place(at);
        match ahead {
            NOWHERE => self.line(stands_in).first = behind,
            ahead => self.place_mut(ahead).behind = behind,
        }
        match behind {
            NOWHERE => self.line(stands_in).last = ahead,
            behind => self.place_mut(behind).ahead = ahead,
        }
    }
}

/// Keys are hashes.
const fn hash_of(key: ObjectKey) -> u64 {
    key.0 as u64
}

/// Never 0, which marks nobody.
const fn mark_of(key: ObjectKey) -> u32 {
    (key.0 >> 96) as u32 | 1
}
