//! What is remembered of keys for a while, and of the latest ones only.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use shoal_policy::cache::key::ObjectKey;

/// What is remembered of keys for a while.
pub(crate) struct Recent<V> {
    /// For so long.
    life: Duration,
    /// Of so many keys at most; of half as many for sure.
    most: usize,
    memory: Mutex<Memory<V>>,
}

/// Two generations: when the younger one is full or old enough, the elder one goes as a whole.
struct Memory<V> {
    younger: Generation<V>,
    elder: Generation<V>,
    /// When the younger one began.
    began: Instant,
}

type Generation<V> = FxHashMap<ObjectKey, (Instant, V)>;

impl<V: Copy> Recent<V> {
    pub(crate) fn new(life: Duration, most: usize) -> Self {
        let (younger, elder) = (Generation::default(), Generation::default());
        Self { life, most, memory: Mutex::new(Memory { younger, elder, began: Instant::now() }) }
    }

    /// From now on, `value` is what is remembered of `key`.
    pub(crate) fn note(&self, key: ObjectKey, value: V) {
        let (mut memory, now) = (self.lock(), Instant::now());
        if memory.younger.len() >= self.most / 2 || now.duration_since(memory.began) >= self.life {
            memory.elder = std::mem::take(&mut memory.younger);
            memory.began = now;
        }
        memory.younger.insert(key, (now, value));
    }

    /// What is remembered of `key`.
    pub(crate) fn of(&self, key: ObjectKey) -> Option<V> {
        let memory = self.lock();
        let (noted, value) = memory.younger.get(&key).or_else(|| memory.elder.get(&key))?;
        (noted.elapsed() < self.life).then_some(*value)
    }

    fn lock(&self) -> MutexGuard<'_, Memory<V>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_no_more_than_that() {
        let recent = Recent::new(Duration::from_secs(3600), 10);
        for number in 0..100 {
            recent.note(ObjectKey(number), number);
            recent.note(ObjectKey(number), number + 1);
            let remembered = (0..100).filter(|key| recent.of(ObjectKey(*key)).is_some()).count();
            assert!(remembered <= 10);
            assert!((0..=number).rev().take(5).all(|key| recent.of(ObjectKey(key)) == Some(key + 1)));
        }
        assert_eq!(recent.of(ObjectKey(0)), None);
    }

    #[test]
    fn nothing_is_remembered_beyond_its_life() {
        let recent = Recent::new(Duration::ZERO, 10);
        recent.note(ObjectKey(1), ());
        assert_eq!(recent.of(ObjectKey(1)), None);
    }
}
