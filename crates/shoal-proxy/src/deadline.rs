//! Coarse timeouts: setting one is a store, and one tick of the worker looks at all of them.
//!
//! Nearly every timeout of a proxy is cancelled before it fires. A timer of the runtime is registered and taken out
//! again each time; a slot here costs neither.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shoal_model::units::millis_u64;

use crate::clock::{Clock, TICK};

/// The timeouts of one worker.
pub(crate) struct Deadlines {
    clock: Arc<Clock>,
    slots: RefCell<Slots>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    /// `u64::MAX` = not armed.
    at_ms: u64,
    waker: Option<Waker>,
}

impl Deadlines {
    pub(crate) fn new(clock: Arc<Clock>) -> Rc<Self> {
        Rc::new(Self { clock, slots: RefCell::default() })
    }

    /// Milliseconds of the worker's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// A deadline `timeout` from now, never early and at most two ticks late.
    pub(crate) fn arm(self: &Rc<Self>, timeout: Duration) -> Deadline {
        let slot = Slot { at_ms: self.after(timeout), waker: None };
        let mut slots = self.slots.borrow_mut();
        let key = match slots.free.pop() {
            Some(key) => {
                slots.all[key] = slot;
                key
            }
            None => {
                slots.all.push(slot);
                slots.all.len() - 1
            }
        };
        Deadline { table: self.clone(), key }
    }

    /// Wakes everybody whose time is up.
    pub(crate) fn fire(&self, now_ms: u64) {
        let mut slots = self.slots.borrow_mut();
        let due: Vec<Waker> = slots
            .all
            .iter_mut()
            .filter(|slot| slot.at_ms <= now_ms)
            .filter_map(|slot| slot.waker.take())
            .collect();
        drop(slots);
        due.into_iter().for_each(Waker::wake);
    }

    fn after(&self, timeout: Duration) -> u64 {
        let timeout_ms = millis_u64(timeout + TICK);
        self.clock.now_ms().saturating_add(timeout_ms)
    }
}

/// One timeout; gone when dropped.
pub(crate) struct Deadline {
    table: Rc<Deadlines>,
    key: usize,
}

impl Deadline {
    /// Starts it anew.
    pub(crate) fn reset(&self, timeout: Duration) {
        let at_ms = self.table.after(timeout);
        self.table.slots.borrow_mut().all[self.key].at_ms = at_ms;
    }

    /// Ready when its time is up.
    pub(crate) fn poll_passed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut slots = self.table.slots.borrow_mut();
        let slot = &mut slots.all[self.key];
        if slot.at_ms <= self.table.clock.now_ms() {
            return Poll::Ready(());
        }
        if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.table.slots.borrow_mut();
        slots.all[self.key] = Slot { at_ms: u64::MAX, waker: None };
        slots.free.push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_when_the_time_is_up_and_not_before() {
        let clock = Arc::new(Clock::new());
        let deadlines = Deadlines::new(clock.clone());
        let long = deadlines.arm(Duration::from_secs(3600));
        let short = deadlines.arm(Duration::ZERO);
        let cx = Context::from_waker(Waker::noop());
        assert!(short.poll_passed(&cx).is_pending(), "a tick is added, since the clock may be behind");
        while clock.tick() < TICK.as_millis() as u64 + 1 {
            std::thread::yield_now();
        }
        assert!(short.poll_passed(&cx).is_ready());
        assert!(long.poll_passed(&cx).is_pending());
        short.reset(Duration::from_secs(3600));
        assert!(short.poll_passed(&cx).is_pending());
        drop(short);
        assert_eq!(deadlines.arm(Duration::ZERO).key, 1, "slots are used again");
    }
}
