//! Signs of life of a runtime, for whoever watches from outside of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::thread::{Pid, gettid};

/// When a runtime ticked last, and the threads it has.
#[derive(Debug, Default)]
pub struct Pulse {
    ticked_ms: AtomicU64,
    threads: Mutex<Vec<Pid>>,
}

impl Pulse {
    /// The calling thread is one of its threads.
    pub fn enter(&self) {
        let (thread, mut threads) = (gettid(), self.lock());
        if !threads.contains(&thread) {
            threads.push(thread);
        }
    }

    /// It ticks, at this moment of any clock: another one than the last time.
    pub fn tick(&self, now_ms: u64) {
        self.ticked_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When it ticked last.
    pub fn ticked_ms(&self) -> u64 {
        self.ticked_ms.load(Ordering::Relaxed)
    }

    /// Its threads; none before it has begun, and once it has ended.
    pub fn threads(&self) -> Vec<Pid> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runtime on the calling thread ticks for as long as this is there.
pub(crate) struct Beating(Arc<Pulse>);

impl Beating {
    pub(crate) fn of(pulse: &Arc<Pulse>) -> Self {
        pulse.enter();
        Self(pulse.clone())
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_what_has_ended() {
        let pulse = Arc::new(Pulse::default());
        assert!(pulse.threads().is_empty());
        let beating = Beating::of(&pulse);
        pulse.enter();
        pulse.tick(7);
        assert_eq!((pulse.threads(), pulse.ticked_ms()), (vec![gettid()], 7));
        drop(beating);
        assert!(pulse.threads().is_empty());
    }
}
